"""Trains the phases of one workdir, or restores the trained ones."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
from etils import epath

from lcgen.data import sources
from lcgen.runtime import errors, files, parallel
from lcgen.runtime.interruption import Interruption
from lcgen.training import checkpoint, loop
from lcgen.training.context import Context


class Trainer:
  """Trains and restores the phases of one workdir; puts the training images on the devices when they are needed.

  Args:
    context: of the run.
    workdir: its checkpoints are in `checkpoints/<phase>`, its metrics in `metrics.jsonl`.
    read: reads the training images.
    interruption: ends a phase early, if it is given and requested.

  Attributes:
    mesh: of all devices.
    timing: of each phase that was trained or restored, by its name.
    workdir: as given.
  """

  def __init__(
    self,
    context: Context,
    workdir: epath.Path,
    read: Callable[[], sources.Split],
    interruption: Interruption | None = None,
  ):
    self.mesh = context.mesh
    self.timing: dict[str, loop.Timing] = {}
    self.workdir = workdir
    self._context, self._read, self._interruption = context, read, interruption or Interruption()
    self._metrics = files.MetricsFile(workdir / "metrics.jsonl")

  @functools.cached_property
  def stored(self) -> sources.Split:
    """The training images and labels in host memory.

    Raises:
      InputError: if their number is not the one that the run was made for.
    """
    split, known = self._read(), self._context.facts.train
    if len(split) != known:
      raise errors.InputError(
        f"{self.workdir}: made for {known} training images, and now there are {len(split)}; give it the data it had"
      )
    return split

  @functools.cached_property
  def images(self) -> dict[str, jax.Array]:
    """The training images on the devices, for phases that read no labels."""
    return {"image": parallel.put_rows(self.stored.images, self._context.data_sharding)}

  @functools.cached_property
  def rows(self) -> dict[str, jax.Array]:
    """The training images and their labels on the devices."""
    return self.images | {"label": parallel.put_rows(self.stored.labels, self._context.data_sharding)}

  def train(self, phase: loop.Phase, data: Mapping[str, jax.Array], validate: loop.Validate | None = None) -> Any:
    """Trains a phase from its last checkpoint to its end, and returns its state."""
    settings = self._context.train
    restores = settings.restores if settings.on_nonfinite == "restore" else 0
    pace = loop.Pace(settings.chunk_steps, settings.checkpoint_steps, restores)
    session = loop.Session(self.directory(phase.name), self._metrics, pace, self._interruption)
    state, self.timing[phase.name] = loop.train(
      phase, data, validate, seeds=self._context.seeds, mesh=self.mesh, session=session
    )
    return state

  def keep(self, name: str, make: Callable[[], Any], shapes: Any, record: Mapping[str, Any]) -> Any:
    """Restores the arrays that are kept under a name, or computes and keeps them.

    Args:
      name: of their folder among the checkpoints.
      make: computes them, `[S, ...]`.
      shapes: of the result, as `jax.ShapeDtypeStruct`.
      record: kept beside them.
    """
    with checkpoint.Checkpoints(self.directory(name)) as saved:
      if saved.latest is not None:
        return saved.restore(checkpoint.abstract(shapes, parallel.per_seed(self.mesh)))
      made = make()
      saved.save(0, made, record)
      return made

  def forget(self, phase: loop.Phase) -> None:
    """Deletes a phase's checkpoints, once their content is kept elsewhere."""
    if jax.process_index() == 0:
      self.directory(phase.name).rmtree(missing_ok=True)
    parallel.barrier()

  def is_begun(self, name: str) -> bool:
    """Tells whether a phase of this name has checkpoints."""
    return bool(name) and self.directory(name).exists()

  def is_finished(self, phase: loop.Phase) -> bool:
    """Tells whether a phase is trained to its end."""
    with checkpoint.Checkpoints(self.directory(phase.name)) as checkpoints:
      return checkpoints.latest is not None and checkpoints.latest >= phase.steps

  def finished(self, phase: loop.Phase) -> Any:
    """Restores the state of a phase that is trained to its end.

    Raises:
      InputError: if it is not.
    """
    state, self.timing[phase.name] = loop.finished(phase, self.mesh, self.directory(phase.name))
    return state

  def directory(self, name: str) -> epath.Path:
    """Gives the folder of a phase's checkpoints."""
    return self.workdir / "checkpoints" / name
