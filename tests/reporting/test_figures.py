"""Figures do not depend on the user's Matplotlib, on the letters in names, or on the number of classes."""

import os
import pathlib
import subprocess
import sys

import matplotlib
import numpy as np
import pytest
from etils import epath
from PIL import Image

from lcgen.reporting import compare_runs, figures, report
from tests.reporting import test_page

ROOT = pathlib.Path(figures.__file__).parents[2]
FORMULAS = ("$a_b_c$", "$\\x$", "$5", "a^{b$", "$$", "|")  # Matplotlib takes three of them for broken formulas


def grid(path, rows, columns, row_names=(), column_names=()):
  figures.draw_grid(
    epath.Path(path), np.zeros((rows * columns, 4, 4, 1), np.uint8), columns, "grid", row_names, column_names
  )
  return np.asarray(Image.open(path))


def test_dollars_in_names_are_no_formulas(tmp_path):
  grid(tmp_path / "a.png", 6, 6, FORMULAS, FORMULAS)


def test_the_users_style_does_not_matter_and_is_kept(tmp_path):
  plain = grid(tmp_path / "a.png", 2, 2, ("cat", "dog"))
  with matplotlib.rc_context({"text.usetex": True, "figure.facecolor": "red"}):  # there is no LaTeX here
    np.testing.assert_array_equal(grid(tmp_path / "b.png", 2, 2, ("cat", "dog")), plain)
    assert matplotlib.rcParams["text.usetex"]


@pytest.mark.parametrize(
  "draw", [figures.draw_all, figures.draw_samples, figures.draw_learning_curve, figures.draw_grid, compare_runs.draw]
)
def test_every_figure_has_the_own_style(draw):
  assert hasattr(draw, "__wrapped__"), "decorate it by figures.drawing()"


@pytest.mark.parametrize(("backend", "kept"), [("no_such_backend", False), ("svg", True)])
def test_a_backend_of_a_notebook_that_is_not_installed_here(tmp_path, backend, kept):
  program = (
    "import os, sys; from etils import epath; from lcgen.reporting import report;"
    "report.build(epath.Path(sys.argv[1]), quiet=True);"
    "import matplotlib; print(os.environ['MPLBACKEND'], matplotlib.get_backend(auto_select=False))"
  )
  workdir = test_page.write(tmp_path / "run", test_page.everything())
  environment = {**os.environ, "MPLBACKEND": backend}
  done = subprocess.run(
    [sys.executable, "-c", program, workdir], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
  )
  assert done.returncode == 0, done.stderr
  told, used = done.stdout.splitlines()[-1].split()
  assert (told, used == backend) == (backend, kept)
  assert (workdir / "figures" / "gains.png").read_bytes().startswith(b"\x89PNG")


def test_a_grid_of_any_size_can_be_drawn(tmp_path):
  image = grid(tmp_path / "a.png", 1200, 1, tuple(map(str, range(1200))))  # 79,200 pixels at the usual size
  assert 2000 < len(image) < 5000


def test_of_many_classes_the_figures_show_those_that_were_drawn(tmp_path, monkeypatch):
  found = test_page.everything()
  found.data["class_names"] = [f"class {label}" for label in range(90)]
  workdir = epath.Path(test_page.write(tmp_path / "run", found))
  arrays = dict(np.load(workdir / "samples.npz"))
  np.savez(workdir / "samples.npz", **arrays, shown_classes=np.array([0, 44, 89]))
  named = {}
  monkeypatch.setattr(figures, "draw_grid", lambda path, *given: named.update({path.name: given[3:]}))
  report.build(workdir, quiet=True)
  shown = ["class 0", "class 44", "class 89"]
  assert named["actor_samples.png"] == (shown,)
  assert named["edits.png"] == ((), ("image", "reconstr.", *shown))
