"""Refusals of the machine end a run with a sentence; the same command goes on once they are over."""

import os
import subprocess
import sys

import jax
import numpy as np
import pytest

from lcgen.runtime import exit_codes
from tests.conftest import ROOT

SMOKE = ["--config=configs/mnist5k.py:smoke", "--config.evaluate.sets=test"]


@pytest.fixture
def limited(compilations):
  """Runs `run.py` under a limit of the shell: `limited("-f 100", ...) -> (exit code, stderr)`."""

  def _limited(limit, *arguments):
    command = ["bash", "-c", f'ulimit {limit}; exec "$@"', "bash", sys.executable, "run.py", *map(str, arguments)]
    done = subprocess.run(
      command, cwd=ROOT, env=os.environ | compilations, capture_output=True, text=True, timeout=300, check=False
    )
    return done.returncode, done.stderr

  return _limited


def sentence(stderr):
  """The one line beside the log."""
  (line,) = [line for line in stderr.splitlines() if line.startswith("run.py: ")]
  return line


def test_no_space_for_a_checkpoint(limited, run, tmp_path):
  code, stderr = limited("-f 100", *SMOKE, "--stage=vae", f"--workdir={tmp_path / 'run'}")  # no file above 100 KiB
  assert code == 1
  assert "could not be written" in sentence(stderr)
  assert "the same command goes on from there" in sentence(stderr)
  assert "Traceback" not in stderr
  code, _, stderr = run(*SMOKE, "--stage=vae", f"--workdir={tmp_path / 'run'}")
  assert code == 0, stderr


def test_too_few_file_handles(limited, tmp_path):
  code, stderr = limited("-n 24", *SMOKE, "--stage=vae", f"--workdir={tmp_path / 'run'}")
  assert code in (1, 2)
  assert "Too many open files" in sentence(stderr)


def test_too_little_memory_for_the_data(limited, tmp_path):
  count, path = 2_000_000, tmp_path / "large.npz"
  np.savez_compressed(
    path, images=np.full((count, 28, 28, 1), 128, np.uint8), labels=np.arange(count, dtype=np.int32) % 10
  )
  flags = (*SMOKE, "--config.data.source=npz", f"--config.data.path={path}", "--config.data.train_limit=0")
  code, stderr = limited("-v 3000000", *flags, f"--workdir={tmp_path / 'run'}")  # KiB, of which JAX takes one half
  assert code == 1
  assert "memory is too small: " in sentence(stderr)
  assert "Traceback" not in stderr


def test_too_little_memory_on_a_device():
  code, words = exit_codes.of(
    jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.\nand more")
  )
  assert (code, words.partition(";")[0]) == (
    1,
    "memory is too small: RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.",
  )
  assert exit_codes.of(jax.errors.JaxRuntimeError("INTERNAL: unforeseen")) is None


def test_a_folder_that_cannot_be_written(run):
  code, _, stderr = run(*SMOKE, "--stage=vae", "--workdir=/sys/lcgen")
  assert code == 1
  assert "/sys/lcgen" in sentence(stderr)
