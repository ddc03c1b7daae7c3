"""Refuses in a sentence what the environment tells JAX, where lcgen cannot work with it."""

import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT

REFUSED = {
  "JAX_ENABLE_X64=1": "JAX_ENABLE_X64: 64-bit types are on",
  "JAX_DISABLE_JIT=1": "JAX_DISABLE_JIT: compilation is off",
  "JAX_PLATFORMS=cuda": "JAX_PLATFORMS=cuda: JAX cannot start",
  "JAX_PLATFORMS=nosuch": "JAX_PLATFORMS=nosuch: JAX cannot start",
}
# The doors through which a user comes: the command, of which any stage will do, and Python.
DOORS = {
  "command": ["run.py", "--config=configs/mnist5k.py:smoke", "--stage=vae"],
  "python": ["-c", "import lcgen, sys\ntry: lcgen.load(sys.argv[1])\nexcept ValueError as error: sys.exit(f'{error}')"],
}


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("setting", REFUSED)
def test_what_cannot_work_is_refused_at_once(tmp_path, setting, door):
  name, _, value = setting.partition("=")
  workdir = tmp_path / "run"
  arguments = [*DOORS[door], f"--workdir={workdir}" if door == "command" else str(workdir)]
  environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", name: value}
  done = subprocess.run(
    [sys.executable, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
  )
  assert done.returncode == (2 if door == "command" else 1)
  assert REFUSED[setting] in done.stderr.splitlines()[-1]
  assert "Traceback" not in done.stderr
  assert not any(tmp_path.iterdir())
