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
  """Writes the files of recipes and runs their commands: `run_recipe(titles, workdir) -> (results, report's text)`.

  The commands of several recipes are joined into one, as one run can have many plug-ins.
  """

  def _run(titles, workdir):
    recipes = [recipe(title) for title in titles]
    for name, code, _ in recipes:
      (tmp_path / name).write_text(code)
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    for command in joined([commands for *_, commands in recipes]):
      own = [] if "--stage=sample" in command else [_SMOKE]
      code, stdout, stderr = run(*own, f"--workdir={workdir}", *command, PYTHONPATH=path, timeout=900)
      assert code == 0, stderr + stdout
    results = json.loads((workdir / "results.json").read_text())
    return results, (workdir / "report.html").read_text()

  return _run


def joined(recipes):
  """The first commands of all recipes as one, then every further command; plug-ins are put together."""
  plugins = [flag.partition("=")[2] for first, *_ in recipes for flag in first if "plugins=" in flag]
  flags = [flag for first, *_ in recipes for flag in first if "plugins=" not in flag]
  together = [f"--config.plugins={','.join(plugins)}"] if plugins else []
  return [[*together, *flags], *(command for _, *further in recipes for command in further)]


@pytest.fixture
def trained(smoke, tmp_path):
  """A copy of the smoke run, of which most recipes need to train nothing again."""
  return shutil.copytree(smoke, tmp_path / "run")


def check_generator(results, report, workdir):
  assert results["about"]["generator"] == "random_code"
  assert "vae" not in results["timing"]
  assert set(results["samples"]) >= {"prior", "actor", "refine"}
  assert "random_code" in report
  assert not (workdir / "checkpoints" / "vae").exists()


def check_sampler(results, report, workdir):
  assert len(results["samples"]["nudge"]["conditional_accuracy"]) == 2
  assert "nudge" in report
  assert (workdir / "figures" / "nudge_samples.png").exists()
  assert (workdir / "sample" / "labels-nudge.npz").exists()
  assert json.loads((workdir / "config.json").read_text())["sample"]["nudge"]["steps"] == 3


def check_arm(results, report, workdir):
  assert results["roles"]["fade:factor=0.5"] == "control"
  assert len(results["arms"]["fade:factor=0.5"]["test"]["accuracy"]) == 2
  assert "fade:factor=0.5" in report


def check_metric(results, report, workdir):
  assert len(results["samples"]["actor"]["mean_shift"]) == 2
  confidence = results["arms"]["none"]["test"]["confidence"]
  assert all(0.1 <= value <= 1 for value in confidence)
  assert "mean shift" in report
  assert "confidence, %" in report


def check_corruption(results, report, workdir):
  names = [f"custom/my_corruption.vignette_{severity}" for severity in range(1, 6)]
  assert [name for name in results["test_sets"] if name.startswith("custom/")] == names
  summary = results["robustness"]["none"]["custom"]
  assert set(summary["by_severity"]) == {"1", "2", "3", "4", "5"}
  assert "my_corruption.vignette" in report


def check_source(results, report, workdir):
  assert results["data"]["name"] == "squares"
  assert results["data"]["class_names"] == ["top left", "top right", "bottom left", "bottom right"]
  assert "squares" in report


CHECKS = {
  "A generator": check_generator,
  "A sampler": check_sampler,
  "An arm": check_arm,
  "A metric": check_metric,
  "A corruption": check_corruption,
  "A data source": check_source,
}


def test_all_recipes_together(run_recipe, tmp_path):
  results, report = run_recipe(list(CHECKS), tmp_path / "run")
  for check in CHECKS.values():
    check(results, report, tmp_path / "run")


@pytest.mark.slow
@pytest.mark.parametrize("title", CHECKS)
def test_a_recipe_alone(run_recipe, trained, tmp_path, title):
  workdir = tmp_path / "new" if title in ("A generator", "A data source") else trained
  CHECKS[title](*run_recipe([title], workdir), workdir)


def test_the_page_has_a_recipe_for_every_registry():
  assert re.findall(r"^## (An? .+)$", _PAGE, re.MULTILINE) == list(CHECKS)
