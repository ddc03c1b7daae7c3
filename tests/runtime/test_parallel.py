"""One device against several, one process against two: the same numbers, but for the order of sums in float32."""

import json
import os
import re
import socket
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from lcgen.runtime import errors, interruption, parallel
from tests.conftest import ROOT

SMOKE = [
  "--config=configs/mnist5k.py:smoke",
  "--config.evaluate.sets=test",
]
# Every phase's final state, to 1: what sums in another order differ by.
NEAR = 1e-5


def devices(count):
  return {"XLA_FLAGS": f"--xla_force_host_platform_device_count={count}"}


@pytest.fixture(scope="module")
def trained(tmp_path_factory, compilations):
  """Trains as `compare_devices` does: `trained(layouts, processes, count of devices of all) -> folder`."""
  environment = os.environ | compilations

  def _trained(layouts, processes=1, count=8):
    folder = tmp_path_factory.mktemp("layouts")
    command = [sys.executable, "-m", "benchmarks.compare_devices", str(folder), *layouts]
    address = f"localhost:{free_port()}"
    joined = [[f"--processes={address},{processes},{index}"] if processes > 1 else [] for index in range(processes)]
    started = [
      subprocess.Popen(command + flags, cwd=ROOT, env=environment | devices(count // processes), stderr=subprocess.PIPE)
      for flags in joined
    ]
    for process in started:
      _, stderr = process.communicate(timeout=600)
      assert process.returncode == 0, stderr.decode()
    return folder

  return _trained


@pytest.fixture(scope="module")
def one_device(trained):
  return trained(["1-0-replicated"])


def free_port():
  with socket.socket() as one:
    one.bind(("localhost", 0))
    return one.getsockname()[1]


def difference(first, second):
  """The largest between two saved states, relative where values are large."""
  with np.load(first) as a, np.load(second) as b:
    assert sorted(a) == sorted(b)
    assert len({name.partition("/")[0] for name in a}) == 5
    pairs = [(np.float64(a[name]), np.float64(b[name])) for name in a]
  return max(np.max(np.abs(x - y) / (1 + np.abs(x)), initial=0.0) for x, y in pairs)


def test_two_processes_with_two_devices_each_train_every_phase_as_one_device_does(one_device, trained):
  folder = trained(["4-2-sharded"], processes=2, count=4)
  assert difference(one_device / "1-0-replicated.npz", folder / "4-2-sharded.npz") < NEAR


@pytest.mark.slow
def test_any_number_of_devices_any_mesh_and_any_placement(one_device, trained):
  shapes = ["1-0", "2-1", "2-2", "4-1", "4-2", "4-4", "8-1", "8-2", "8-4"]
  wanted = [f"{shape}-{placement}" for shape in shapes for placement in ("replicated", "sharded")]
  folder = trained(wanted)
  found = {layout: difference(one_device / "1-0-replicated.npz", folder / f"{layout}.npz") for layout in wanted}
  assert max(found.values()) < NEAR, found
  # Seeds on devices of their own are bit-equal to those that share one.
  assert difference(folder / "2-2-replicated.npz", folder / "4-4-replicated.npz") == 0


def test_the_command_runs_on_four_devices_and_goes_on_with_one(run, tmp_path):
  code, _, stderr = run(*SMOKE, "--stage=vae", f"--workdir={tmp_path}", **devices(4))
  assert code == 0, stderr
  code, _, stderr = run(*SMOKE, "--stage=actor_critic", f"--workdir={tmp_path}")
  assert code == 0, stderr
  assert "process 0 of 1, 1 of 1 devices" in stderr
  phases = [json.loads(line)["phase"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
  assert list(dict.fromkeys(phases)) == ["vae", "actor_critic", "energy"]


class Pair:
  """Two processes of the real command with two devices each, in one workdir."""

  def __init__(self, start, *flags):
    joined = (f"--coordinator=localhost:{free_port()}", "--num_processes=2", "--initialization_timeout=60")
    environment = devices(2)
    self.each = [start(*SMOKE, *joined, f"--process_id={index}", *flags, **environment) for index in range(2)]

  def ends(self, timeout):
    """`(exit code, stderr)` of both."""
    found = [process.communicate(timeout=timeout)[1] for process in self.each]
    return list(zip((process.returncode for process in self.each), found, strict=True))


def test_a_process_that_is_lost_ends_the_others_and_the_pair_goes_on(start, tmp_path):
  flags = ("--stage=vae", "--config.vae.epochs=20", "--config.train.checkpoint_steps=20", f"--workdir={tmp_path}")
  pair, metrics = Pair(start, *flags), tmp_path / "metrics.jsonl"
  while not any(tmp_path.glob("checkpoints/vae/*/seal.json")):
    assert pair.each[0].poll() is None, pair.each[0].communicate()[1]
    time.sleep(0.05)
  pair.each[1].kill()
  (code, stderr), _ = pair.ends(timeout=120)
  assert code == interruption.EXIT_CODE
  assert "run.py: process 0 has lost another one (" in stderr.splitlines()[-1]
  saved = max(int(path.parent.name) for path in tmp_path.glob("checkpoints/vae/*/seal.json"))
  before = [line for line in metrics.read_text().splitlines() if json.loads(line)["step"] <= saved]
  assert saved < 240

  pair = Pair(start, *flags)
  (code, stderr), (other, _) = pair.ends(timeout=300)
  assert code == other == 0, stderr
  assert "process 0 of 2, 2 of 4 devices (cpu), mesh 2 seed x 2 data" in stderr
  lines = metrics.read_text().splitlines()
  assert lines[: len(before)] == before
  assert [json.loads(line)["step"] for line in lines] == list(range(4, 241, 4))


@pytest.fixture
def folder(tmp_path):
  """Two classes of four images."""
  for number in range(8):
    place = tmp_path / "images" / "ab"[number // 4] / f"{number}.png"
    place.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((8, 8), 10 * number, np.uint8)).save(place)
  return tmp_path / "images"


def test_each_process_reads_its_part_of_the_data(folder, compilations):
  address = f"localhost:{free_port()}"
  started = [
    subprocess.Popen(
      [sys.executable, "-m", "tests.support.read_in_parts", str(folder), address, "3", str(index)],
      cwd=ROOT, env=os.environ | compilations, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )
    for index in range(3)
  ]  # fmt: skip
  told = [process.communicate(timeout=120) for process in started]
  found = [json.loads(stdout.splitlines()[-1]) if stdout else stderr for stdout, stderr in told]
  assert [one.pop("decoded") for one in found] == [2, 3, 3]
  assert found == [{"values": [10 * number for number in range(8)], "wide": [2**40 + row for row in range(50)]}] * 3


def test_what_one_process_cannot_read_ends_all(start, folder, tmp_path):
  (folder / "b" / "7.png").write_bytes((folder / "b" / "7.png").read_bytes()[:-30])
  flags = ("--config.data.source=folder", f"--config.data.path={folder}", f"--workdir={tmp_path / 'run'}")
  (first, said), (second, named) = Pair(start, *flags).ends(timeout=120)
  assert first == second == 2
  assert "another process cannot read its part of the data" in said.splitlines()[-1]
  assert f"{folder}/b/7.png: broken" in named.splitlines()[-1]
  assert not (tmp_path / "run").exists()


def test_a_process_that_waits_in_vain_says_for_whom(run, tmp_path):
  address = f"localhost:{free_port()}"
  joined = (f"--coordinator={address}", "--num_processes=2", "--process_id=1", "--initialization_timeout=2")
  code, _, stderr = run(*SMOKE, *joined, f"--workdir={tmp_path}")
  assert code == 2
  assert re.search(rf"run.py: --multihost: process 1 of 2, on \S+, has waited 2 s for the others at {address};", stderr)
  assert not any(tmp_path.iterdir())


def test_a_mesh_that_cannot_be_is_refused():
  with pytest.raises(errors.InputError, match=r"config.train.seed_axis=2: must divide the 3 seeds"):
    parallel.make_mesh(3, seed_axis=2)


def test_rows_are_filled_up_to_equal_parts():
  sharding = parallel.over_rows(parallel.make_mesh(1))
  rows = parallel.put_rows(np.arange(5), sharding)
  assert parallel.parts(sharding) == jax.device_count()
  np.testing.assert_array_equal(rows[:5], np.arange(5))
  assert len(rows) == -(-5 // jax.device_count()) * jax.device_count()


def test_the_mesh_spreads_seeds_first():
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
