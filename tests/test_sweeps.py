"""Points of sweeps: which there are, what they change, and how the command line and they get on."""

import copy
import json
import os
import shutil
import subprocess
import sys

import pytest

from lcgen import config
from lcgen.reporting import compare_runs
from lcgen.runtime import errors
from tests.conftest import ROOT
from tests.support.helpers import load_config

SWEEP = """
from configs import common
def get_config(variant=""):
  return common.select(common.base(), variant, {"smoke": common.smoke})
def sweep():
  yield {"vae.epochs": 3, "seed": 7}
  yield {"vae.latents": 3}
  yield {"vae.epochs": "three"}
  yield {"vae": 3}
  yield 3
"""
SHIPPED = {"mnist5k": 9, "forkme": 6}


@pytest.fixture
def path(tmp_path):
  (tmp_path / "mine.py").write_text(SWEEP)
  return str(tmp_path / "mine.py")


@pytest.mark.parametrize(("name", "count"), SHIPPED.items())
def test_every_point_of_every_shipped_sweep_passes_and_is_another(name, count):
  file, values = f"{ROOT}/configs/{name}.py", load_config(name)
  points = [config.parse(config.sweep_point(values, file, index, ())) for index in range(count)]
  assert len(set(points)) == count
  with pytest.raises(errors.InputError, match=f"--sweep_index={count}: .*{name}.py has {count} points"):
    config.sweep_point(values, file, count, ())


def test_no_other_shipped_config_has_a_sweep():
  files = {file.stem for file in (ROOT / "configs").glob("*.py") if "def sweep" in file.read_text()}
  assert files == set(SHIPPED)


def test_a_point_changes_what_it_names_and_nothing_else(path):
  values = load_config("mnist5k")
  before = copy.deepcopy(values)
  point = config.sweep_point(values, path, 0, ())
  assert values == before
  old, new = config.flat(before), config.flat(point)
  assert {key: value for key, value in new.items() if value != old[key]} == {"vae.epochs": 3, "seed": 7}
  assert config.sweep_point(values, path, None, ()) == before


def test_the_command_line_wins(path):
  values = load_config("mnist5k", vae__epochs=5)
  point = config.sweep_point(values, path, 0, {"vae.epochs": 5, "seeds": 1})
  assert (point["vae"]["epochs"], point["seed"]) == (5, 7)


@pytest.mark.parametrize(
  ("index", "words"),
  [
    (-1, "has 5 points"),
    (5, "has 5 points"),
    (1, r"config\.vae\.latents, which the config does not have; the nearest is vae\.latent_dim"),
    (2, r"config\.vae\.epochs='three'"),
    (3, r"config\.vae, which the config does not have"),
    (4, "has 3 there, not a dict"),
  ],
)
def test_points_that_cannot_be_run_are_refused(path, index, words):
  with pytest.raises(errors.InputError, match=words):
    config.parse(config.sweep_point(load_config("mnist5k"), path, index, ()))


@pytest.mark.parametrize(
  ("arguments", "words"),
  [
    (("--config=configs/mnist.py", "--sweep_index=0"), "configs/mnist.py has no sweep()"),
    (("--sweep_index=9",), "has 9 points, counted from 0"),
    (("--sweep_index=",), "sweep_index"),
  ],
)
def test_the_command_refuses_what_there_is_not(run, arguments, words):
  code, stdout, stderr = run(*arguments, "--stage=inspect")
  assert (code, stdout) == (2, "")
  assert words in stderr
  assert len(stderr.splitlines()) == 1


def test_points_are_run_beside_each_other_and_compared(smoke, compilations, tmp_path):
  """The first is the smoke run itself, the second its networks on fewer test sets."""
  sweep = """
from configs.mnist5k import get_config
sweep = lambda: [{"seed": 0}, {"evaluate.sets": "test", "seeds": 9}]
"""
  (tmp_path / "mine.py").write_text(sweep)
  for index in range(2):
    workdir = shutil.copytree(smoke, tmp_path / "runs" / f"mine-smoke-{index}")
    arguments = ("--config=mine.py:smoke", f"--sweep_index={index}", "--config.seeds=2")
    done = subprocess.run(
      [sys.executable, ROOT / "run.py", *arguments],
      cwd=tmp_path,
      env=os.environ | compilations,
      capture_output=True,
      text=True,
      check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "steps/s" not in done.stderr
    written = json.loads((workdir / "config.json").read_text())
    assert (written["seeds"], len(written["evaluate"]["sets"])) == (2, (3, 1)[index])
  compare_runs.main([*map(str, sorted((tmp_path / "runs").glob("mine-*"))), f"--out={tmp_path / 'compared'}"])
  text = (tmp_path / "compared" / "comparison.md").read_text()
  assert "evaluate.sets" in text
  assert "mine-smoke-1" in text
