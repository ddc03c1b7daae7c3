import fcntl
import json
import os
import pathlib
import shutil
import subprocess
import sys

import jax
import pytest

ROOT = pathlib.Path(__file__).parent.parent

# One worker trains the smoke run that many files look at, while the others begin with files that do without.
_FIRST = ("end_to_end/test_run.py", "runtime/test_parallel.py", "end_to_end/test_extending.py")
_FIRST += ("end_to_end/test_resume.py", "cli/test_use_run.py", "api/test_run.py", "studies/test_audit.py")
_FIRST += ("studies/test_benchmark.py", "classifiers/test_arm_training.py", "evaluation/test_classifier_scores.py")


def pytest_collection_modifyitems(items):
  """Starts with what takes longest, so that no worker is left with it at the end."""
  place = {name: number for number, name in enumerate(_FIRST)}
  items.sort(key=lambda item: place.get(f"{item.path.parent.name}/{item.path.name}", len(_FIRST)))


@pytest.fixture(scope="module", autouse=True)
def _unoptimized(request):
  """LLVM's optimisations take most of the fast tests' time: modules go without, but those that say OPTIMIZED."""
  fast = "not slow" in request.config.getoption("markexpr")
  jax.config.update("jax_disable_most_optimizations", fast and not getattr(request.module, "OPTIMIZED", False))


@pytest.fixture(autouse=True)
def _strict_ranks():
  """Arrays of different rank must not be broadcast by accident."""
  with jax.numpy_rank_promotion("raise"):
    yield


@pytest.fixture(scope="session")
def common(tmp_path_factory, worker_id):
  """A folder that all workers of the suite share."""
  own = tmp_path_factory.getbasetemp()
  return own if worker_id == "master" else own.parent


@pytest.fixture(scope="session")
def compilations(common):
  """Environment of the test suite's processes, which share what they compile, without most of LLVM's optimisations."""
  return {
    "JAX_COMPILATION_CACHE_DIR": str(common / "compilations"),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
  }


@pytest.fixture(scope="session", autouse=True)
def _compiled_once(compilations):
  """The suite's own processes share it too."""
  jax.config.update("jax_compilation_cache_dir", compilations["JAX_COMPILATION_CACHE_DIR"])
  jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


@pytest.fixture(scope="session")
def start(compilations):
  """Starts `run.py` as a process: `start(*arguments, **environment) -> Popen`."""

  def _start(*arguments, **environment):
    return subprocess.Popen(
      [sys.executable, "run.py", *map(str, arguments)],
      cwd=ROOT,
      env=os.environ | compilations | environment,
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    )

  return _start


@pytest.fixture(scope="session")
def run(start):
  """Runs `run.py` to its end: `run(*arguments, timeout=s, **environment) -> (exit code, stdout, stderr)`."""

  def _run(*arguments, timeout=300, **environment):
    process = start(*arguments, **environment)
    stdout, stderr = process.communicate(timeout=timeout)
    return process.returncode, stdout, stderr

  return _run


@pytest.fixture(scope="session")
def smoke(run, common):
  """The workdir of a finished smoke run, to look at and not to change: the suite's workers share it."""
  workdir = common / "smoke"
  with open(common / "smoke.lock", "w") as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    if not (workdir / "stdout.txt").exists():
      code, stdout, stderr = run("--config=configs/mnist5k.py:smoke", f"--workdir={workdir}")
      assert code == 0, stderr
      (workdir / "stdout.txt").write_text(stdout)
  return workdir


@pytest.fixture
def run_aside(smoke, run, tmp_path):
  """Runs a stage that adds `<stage>.json` to a run's workdir: `run_aside(stage, *flags) -> (workdir, stdout)`.

  It leaves the run's own results alone, and, if it is run `twice`, trains nothing again and finds the same.
  """

  def _run_aside(stage, *flags, twice=False):
    workdir = shutil.copytree(smoke, tmp_path / "run")
    own = ("results.json", "config.json", "table.md", "table.csv")
    kept = {name: (workdir / name).read_bytes() for name in own}
    arguments = "--config=configs/mnist5k.py:smoke", f"--workdir={workdir}", f"--stage={stage}", *flags
    code, first, stderr = run(*arguments, timeout=600)
    assert code == 0, stderr
    if twice:
      found = (workdir / f"{stage}.json").read_bytes()
      (workdir / f"{stage}.json").unlink()
      code, _, stderr = run(*arguments)
      assert code == 0, stderr
      assert "steps/s" not in stderr
      assert (workdir / f"{stage}.json").read_bytes() == found
    assert kept == {name: (workdir / name).read_bytes() for name in own}
    return workdir, first

  return _run_aside


@pytest.fixture
def read_results():
  """Reads `results.json` of a workdir, without the times."""

  def _read(workdir):
    results = json.loads((workdir / "results.json").read_text())
    del results["timing"]
    for scores in results["samples"].values():
      scores.pop("ms_per_sample", None)  # rows of real images have none
    return results

  return _read
