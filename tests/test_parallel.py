"""One device against several: the same numbers, but for the order of sums in float32."""

import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lcgen import parallel
from tests.conftest import ROOT

SMOKE = [
  "--config=configs/mnist5k.py:smoke",
  "--config.evaluate.sets=test",
]


@pytest.fixture
def four_devices(compilations):
  return {"XLA_FLAGS": f"{compilations['XLA_FLAGS']} --xla_force_host_platform_device_count=4"}


@pytest.mark.parametrize(
  ("seeds", "mesh"),
  [(2, {"seed": 2, "data": 2}), pytest.param(1, {"seed": 1, "data": 4}, marks=pytest.mark.slow)],
)
def test_every_phase_trains_the_same_on_one_device_and_four(tmp_path, compilations, four_devices, seeds, mesh):
  command = [sys.executable, "-m", "tests.compare_devices", str(tmp_path), str(seeds)]
  environment = os.environ | compilations | four_devices
  done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
  assert done.returncode == 0, done.stderr
  found = json.loads(done.stdout.splitlines()[-1])
  assert found["devices"] == 4
  assert found["mesh"] == mesh
  assert len(found["difference"]) == 5
  assert max(found["difference"].values()) < 1e-5, found


def test_the_command_runs_on_four_devices_and_goes_on_with_one(run, four_devices, tmp_path):
  code, _, stderr = run(*SMOKE, "--stage=vae", f"--workdir={tmp_path}", **four_devices)
  assert code == 0, stderr
  code, stdout, stderr = run(*SMOKE, f"--workdir={tmp_path}")
  assert code == 0, stderr
  assert "| test | " in stdout


def test_mesh_spreads_repetitions_first():
  mesh = parallel.make_mesh(3)
  assert mesh.axis_names == ("seed", "data")
  assert mesh.size == jax.device_count()


@pytest.mark.parametrize("vectorize", [True, False])
def test_over_seeds_maps_what_has_a_seed_axis(vectorize):
  mesh = parallel.make_mesh(3)
  function = lambda tree, shared, key: {"sum": tree["a"] @ shared + jax.random.uniform(key)}
  tree, shared, keys = (
    {"a": jnp.arange(6.0).reshape(3, 2)},
    jnp.array([1.0, 10.0]),
    jax.random.split(jax.random.key(0), 3),
  )
  result = jax.jit(parallel.over_seeds(function, mesh, (0, None, 0), vectorize))(tree, shared, keys)
  expected = [function({"a": tree["a"][i]}, shared, keys[i])["sum"] for i in range(3)]
  np.testing.assert_allclose(result["sum"], expected, rtol=1e-6)
