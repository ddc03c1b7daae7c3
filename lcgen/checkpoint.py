"""Saved states; the only file that imports Orbax."""

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

  @property
  def record(self) -> dict[str, Any]:
    """What was saved beside the newest state."""
    return self._checkpointer.metadata(self.latest).custom_metadata

  def restore(self, abstract: Any) -> Any:
    """The newest state, in the structure, shapes and shardings of `abstract`."""
    return self._checkpointer.load(self.latest, abstract)

  def close(self) -> None:
    """Waits until the last save is on disk."""
    self._checkpointer.close()

  def __enter__(self) -> "Checkpoints":
    return self

  def __exit__(self, *_) -> None:
    self.close()


def abstract(state: Any, sharding: jax.sharding.Sharding) -> Any:
  """Shapes, types and the sharding of a state, for `Checkpoints.restore`."""
  return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), state)
