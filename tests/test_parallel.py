"""One device against four: the same numbers, but for the order of sums in float32."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lcgen import parallel

FOUR = {"XLA_FLAGS": "--xla_force_host_platform_device_count=4"}
SMOKE = ["--config=configs/mnist5k.py:smoke", "--config.evaluate.sets=test,contrast"]


def curves(workdir):
  records = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
  return {
    (record["phase"], record["step"], name): values
    for record in records
    for name, values in record.items()
    if isinstance(values, list)
  }


@pytest.mark.parametrize("seeds", [2, 1])  # meshes of 2 x 2 and 1 x 4
def test_one_device_and_four_agree(run, tmp_path, seeds):
  for name, environment in (("one", {}), ("four", FOUR)):
    code, _, stderr = run(*SMOKE, f"--config.seeds={seeds}", f"--workdir={tmp_path / name}", **environment)
    assert code == 0, stderr
  one, four = curves(tmp_path / "one"), curves(tmp_path / "four")
  assert one.keys() == four.keys()
  for key, values in one.items():
    tolerance = 0.06 if "accuracy" in key[2] else 2e-3  # one of 40 validation images is 0.025
    np.testing.assert_allclose(four[key], values, rtol=tolerance, atol=tolerance, err_msg=str(key))


def test_mesh_spreads_repetitions_first():
  mesh = parallel.make_mesh(3)
  assert mesh.axis_names == ("seed", "data")
  assert mesh.size == jax.device_count()


def test_over_seeds_maps_what_has_a_seed_axis():
  mesh = parallel.make_mesh(3)
  function = lambda tree, shared, key: {"sum": tree["a"] @ shared + jax.random.uniform(key)}
  tree, shared, keys = (
    {"a": jnp.arange(6.0).reshape(3, 2)},
    jnp.array([1.0, 10.0]),
    jax.random.split(jax.random.key(0), 3),
  )
  result = jax.jit(parallel.over_seeds(function, mesh, (0, None, 0)))(tree, shared, keys)
  expected = [function({"a": tree["a"][i]}, shared, keys[i])["sum"] for i in range(3)]
  np.testing.assert_allclose(result["sum"], expected, rtol=1e-6)
