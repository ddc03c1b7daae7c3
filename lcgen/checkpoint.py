"""Saved states; the only file that imports Orbax."""

from collections.abc import Callable
from typing import Any

import jax
from etils import epath
from orbax.checkpoint import v1 as ocp


class Checkpoints:
  """The checkpoints of one phase, `<directory>/<step>/`, each written whole or not at all.

  Saving goes on in the background; the newest two are kept, and what a killed run left half-written is removed.
  """

  def __init__(self, directory: epath.PathLike):
    policies = ocp.training.preservation_policies
    self._checkpointer = ocp.training.Checkpointer(
      epath.Path(directory).absolute(), preservation_policy=policies.LatestN(2), cleanup_tmp_directories=True
    )

  @property
  def latest(self) -> int | None:
    """Step of the newest finished checkpoint."""
    newest = self._checkpointer.latest
    return None if newest is None else newest.step

  def save(self, step: int, state: Any, record: dict[str, Any]) -> None:
    """Saves a pytree of arrays, and a JSON-able record beside it."""
    self._checkpointer.save_async(step, state, force=True, custom_metadata=record)

  def restore(self, abstract: Any) -> tuple[Any, dict[str, Any]]:
    """The newest state, in the structure, shapes and shardings of `abstract`, and its record."""
    state = self._checkpointer.load(self.latest, abstract)
    return state, self._checkpointer.metadata(self.latest).custom_metadata

  def close(self) -> None:
    """Waits until the last save is on disk."""
    self._checkpointer.close()

  def __enter__(self) -> "Checkpoints":
    return self

  def __exit__(self, *_) -> None:
    self.close()


def cached(directory: epath.PathLike, find: Callable[[], Any], sharding: jax.sharding.Sharding) -> Any:
  """What `find` returned when it was first called for this directory: a pytree of arrays, stored there."""
  with Checkpoints(directory) as checkpoints:
    if checkpoints.latest is not None:
      return checkpoints.restore(abstract(jax.eval_shape(find), sharding))[0]
    found = find()
    checkpoints.save(0, found, {})
  return found


def abstract(state: Any, sharding: jax.sharding.Sharding) -> Any:
  """Shapes, types and the sharding of a state, for `Checkpoints.restore`."""
  return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), state)
