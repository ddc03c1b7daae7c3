"""The recipes of `docs/extending.md`, as they are printed, in a folder outside the checkout."""

import json
import os
import re
import shlex
import shutil

import pytest

from tests.conftest import ROOT

_PAGE = (ROOT / "docs" / "extending.md").read_text()
_SMOKE = "--config=configs/mnist5k.py:smoke"


def recipe(title):
  """The file of a recipe, its name, and its commands without `python run.py`."""
  part = re.search(rf"^## {title}\n(.*?)(?=^## )", _PAGE, re.MULTILINE | re.DOTALL)[1]
  name = re.search(r"^`(\w+\.py)`:$", part, re.MULTILINE)[1]
  code = re.search(r"^```python\n(.*?)^```", part, re.MULTILINE | re.DOTALL)[1]
  commands = re.search(r"^```sh\n(.*?)^```", part, re.MULTILINE | re.DOTALL)[1].splitlines()
  return name, code, [shlex.split(line.removeprefix("python run.py ")) for line in commands]


@pytest.fixture
def run_recipe(run, tmp_path):
  """Runs the commands of a recipe one after another: `run_recipe(title, workdir) -> (results, text of the report)`."""

  def _run(title, workdir):
    name, code, commands = recipe(title)
    (tmp_path / name).write_text(code)
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    for command in commands:
      own = [] if "--stage=sample" in command else [_SMOKE]
      code, stdout, stderr = run(*own, f"--workdir={workdir}", *command, PYTHONPATH=path, timeout=600)
      assert code == 0, stderr + stdout
    results = json.loads((workdir / "results.json").read_text())
    return results, (workdir / "report.html").read_text()

  return _run


@pytest.fixture
def trained(smoke, tmp_path):
  """A copy of the smoke run, of which a recipe needs to train nothing again."""
  return shutil.copytree(smoke, tmp_path / "run")


def test_a_generator(run_recipe, tmp_path):
  results, report = run_recipe("A generator", tmp_path / "run")
  assert results["about"]["generator"] == "random_code"
  assert "vae" not in results["timing"]
  assert set(results["samples"]) >= {"prior", "actor", "refine"}
  assert "random_code" in report
  assert not (tmp_path / "run" / "checkpoints" / "vae").exists()


def test_a_sampler(run_recipe, trained):
  results, report = run_recipe("A sampler", trained)
  assert len(results["samples"]["nudge"]["conditional_accuracy"]) == 2
  assert "nudge" in report
  assert (trained / "figures" / "nudge_samples.png").exists()
  assert (trained / "sample" / "labels-nudge.npz").exists()
  assert json.loads((trained / "config.json").read_text())["sample"]["nudge"]["steps"] == 3


def test_an_arm(run_recipe, trained):
  results, report = run_recipe("An arm", trained)
  assert results["roles"]["fade:factor=0.5"] == "control"
  assert len(results["arms"]["fade:factor=0.5"]["test"]["accuracy"]) == 2
  assert "fade:factor=0.5" in report


def test_a_metric(run_recipe, trained):
  results, report = run_recipe("A metric", trained)
  assert len(results["samples"]["actor"]["mean_shift"]) == 2
  confidence = results["arms"]["none"]["test"]["confidence"]
  assert all(0.1 <= value <= 1 for value in confidence)
  assert "mean shift" in report
  assert "confidence, %" in report


def test_a_corruption(run_recipe, trained):
  results, report = run_recipe("A corruption", trained)
  names = [f"custom/my_corruption.vignette_{severity}" for severity in range(1, 6)]
  assert [name for name in results["test_sets"] if name.startswith("custom/")] == names
  summary = results["robustness"]["none"]["custom"]
  assert set(summary["by_severity"]) == {"1", "2", "3", "4", "5"}
  assert "my_corruption.vignette" in report


def test_a_data_source(run_recipe, tmp_path):
  results, report = run_recipe("A data source", tmp_path / "run")
  assert results["data"]["name"] == "squares"
  assert results["data"]["class_names"] == ["top left", "top right", "bottom left", "bottom right"]
  assert "squares" in report


def test_the_page_has_a_recipe_for_every_registry():
  titles = re.findall(r"^## (An? .+)$", _PAGE, re.MULTILINE)
  assert titles == ["A generator", "A sampler", "An arm", "A metric", "A corruption", "A data source"]
