"""A checkpoint is what was written, or it is not used."""

import logging
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

from lcgen.cli import stages
from lcgen.runtime import errors
from lcgen.training import checkpoint
from tests.support.damage import flips, truncations
from tests.support.helpers import config_of, tree_bytes

STEPS = (1, 2)
SHARDING = jax.sharding.SingleDeviceSharding(jax.devices()[0])


def state(step):
  random = np.random.default_rng(step)
  draw = lambda *shape: jnp.asarray(random.normal(size=shape), jnp.float32)
  return {"layer": {"kernel": draw(3, 40, 20), "bias": draw(3, 20)}, "count": jnp.full(3, step, jnp.int32)}


@pytest.fixture
def saved(tmp_path):
  """A folder with two checkpoints."""
  with checkpoint.Checkpoints(tmp_path / "saved") as checkpoints:
    for step in STEPS:
      checkpoints.save(step, state(step), {"seconds": 0.1 * step})
  return tmp_path / "saved"


def loaded(folder):
  """Step, state and record of the newest whole checkpoint."""
  with checkpoint.Checkpoints(folder) as checkpoints:
    if checkpoints.latest is None:
      return None
    abstract = checkpoint.abstract(state(1), SHARDING)
    return checkpoints.latest, tree_bytes(checkpoints.restore(abstract)), checkpoints.record


def as_written(step):
  return step, tree_bytes(state(step)), {"seconds": 0.1 * step}


def files(folder):
  return sorted(path for path in folder.rglob("*") if path.is_file())


def test_what_was_saved_is_loaded(saved):
  assert loaded(saved) == as_written(2)


def test_no_damage_is_loaded(saved, tmp_path):
  """Every file cut at 20 places, 200 flipped bits and every file deleted: the checkpoint before is used."""
  random, newest = np.random.default_rng(0), saved / "2"
  originals = {path: path.read_bytes() for path in files(newest)}
  whole = {path: content for path, content in originals.items() if content}
  each = -(-200 // len(whole))
  for path, content in originals.items():
    for damaged in (
      None,
      *(truncations(content) if content else ()),
      *(flips(content, random, each) if content else ()),
    ):
      path.unlink() if damaged is None else path.write_bytes(damaged)
      with checkpoint.Checkpoints(saved) as checkpoints:
        assert checkpoints.latest == 1, path
      path.write_bytes(content)
  assert loaded(saved) == as_written(2)
  shutil.rmtree(newest / "state")
  assert loaded(saved) == as_written(1)


def test_damage_is_named_and_written_over(saved, caplog):
  path = max(files(saved / "2"), key=lambda path: path.stat().st_size)
  path.write_bytes(path.read_bytes()[:-1])
  with caplog.at_level(logging.WARNING), checkpoint.Checkpoints(saved) as checkpoints:
    assert checkpoints.latest == 1
    assert f"{saved / '2'} is passed over: {path.relative_to(saved / '2')} is damaged" in caplog.text
    checkpoints.save(2, state(2), {"seconds": 0.2})
  assert loaded(saved) == as_written(2)


def test_nothing_is_used_where_all_is_damaged(saved):
  for step in STEPS:
    (saved / str(step) / "seal.json").write_text("")
  assert loaded(saved) is None


def test_what_was_not_finished_is_passed_over(saved):
  (saved / "2" / "seal.json").unlink()
  assert loaded(saved) == as_written(1)


def test_old_checkpoints_are_removed(saved):
  with checkpoint.Checkpoints(saved) as checkpoints:
    for step in range(3, 7):
      checkpoints.save(step, state(step), {})
  assert sorted(path.name for path in saved.iterdir()) == ["4", "5", "6"]


@pytest.mark.parametrize(
  ("change", "words"),
  [
    ({"count": jnp.zeros(4, jnp.int32)}, r"count is int32\[3\] and should be int32\[4\]"),
    ({"more": jnp.zeros(4)}, r"more is not there and should be float32\[4\]"),
  ],
)
def test_another_structure_is_named(saved, change, words):
  abstract = checkpoint.abstract(state(1) | change, SHARDING)
  with checkpoint.Checkpoints(saved) as checkpoints, pytest.raises(errors.InputError, match=words):
    checkpoints.restore(abstract)


def test_reading_writes_nothing(saved):
  before = {path: path.stat().st_mtime_ns for path in saved.rglob("*")}
  loaded(saved)
  assert before == {path: path.stat().st_mtime_ns for path in saved.rglob("*")}


@pytest.mark.parametrize(
  "name", ["a b", "a=b,c", "a#b?c*d", "100%20", "é", "a:b", "{a}", "'a\"", "~a", "$a;b&c|d", "a]"]
)
def test_folders_of_any_name(tmp_path, name):
  with checkpoint.Checkpoints(tmp_path / name / "saved") as checkpoints:
    checkpoints.save(1, state(1), {"seconds": 0.1})
  assert loaded(tmp_path / name / "saved") == as_written(1)


@pytest.mark.parametrize("name", ["lr=[1, 2]", "a\\b"])
def test_folders_whose_checkpoints_could_not_be_read_again_are_refused(tmp_path, name):
  with pytest.raises(errors.InputError, match=r"checkpoints cannot be read again from a folder with . in its path"):
    checkpoint.Checkpoints(tmp_path / name / "saved")
  settings = config_of("smoke", seeds=1)
  with pytest.raises(errors.InputError, match=r"checkpoints cannot be read again from a folder with . in its path"):
    stages.run(settings, epath.Path(tmp_path / name), "vae")
  assert list(tmp_path.iterdir()) == []
