"""Trains phases in one workdir, or loads what has been trained there."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
from etils import epath

from lcgen.data import sources
from lcgen.reporting import report
from lcgen.runtime import errors, parallel
from lcgen.runtime.interruption import Interruption
from lcgen.training import checkpoint, loop
from lcgen.training.context import Phases


class Trainer:
  """The phases' states of one workdir, with the training images on the devices once they are needed.

  Args:
    phases: of the workdir's config.
    workdir: checkpoints go to `checkpoints/<phase>`, metrics to `metrics.jsonl`.
    read: reads the training images.
    interruption: ends a phase early, where it is given and requested.

  Attributes:
    mesh: all devices.
    timing: of each phase that was asked for.
  """

  def __init__(
    self,
    phases: Phases,
    workdir: epath.Path,
    read: Callable[[], sources.Split],
    interruption: Interruption | None = None,
  ):
    self.mesh = phases.mesh
    self.timing: dict[str, loop.Timing] = {}
    self.workdir = workdir
    self._phases, self._read, self._interruption = phases, read, interruption
    self._metrics = report.MetricsFile(workdir / "metrics.jsonl")

  @functools.cached_property
  def images(self) -> dict[str, jax.Array]:
    """The training images alone, for what is learnt without labels.

    Raises:
      InputError: where there are not as many as the phases are made for.
    """
    images, known = self._read().images, self._phases.facts.train
    if len(images) != known:
      raise errors.InputError(
        f"{self.workdir}: made for {known} training images, and now there are {len(images)}; give it the data it had"
      )
    return {"image": parallel.put_rows(images, self._phases.data_sharding)}

  @functools.cached_property
  def rows(self) -> dict[str, jax.Array]:
    """The training images with their labels."""
    return self.images | {"label": parallel.put_rows(self._read().labels, self._phases.data_sharding)}

  def train(
    self,
    phase: loop.Phase,
    data: Mapping[str, jax.Array],
    validate: loop.Validate | None = None,
  ) -> Any:
    """The phase's final state, trained from where it was left."""
    section = self._phases.config["train"]
    restores = section["restores"] if section["on_nonfinite"] == "restore" else 0
    pace = loop.Pace(section["chunk_steps"], section["checkpoint_steps"], restores)
    state, self.timing[phase.name] = loop.train(
      phase,
      data,
      validate,
      seeds=self._phases.seeds,
      mesh=self.mesh,
      pace=pace,
      directory=self._directory(phase.name),
      metrics=self._metrics,
      interruption=self._interruption,
    )
    return state

  def forget(self, phase: loop.Phase) -> None:
    """Removes the phase's checkpoints, once what is wanted of them is kept elsewhere."""
    if jax.process_index() == 0:
      self._directory(phase.name).rmtree(missing_ok=True)
    parallel.barrier()

  def is_begun(self, name: str) -> bool:
    """Whether a phase of this name has checkpoints."""
    return bool(name) and self._directory(name).exists()

  def is_finished(self, phase: loop.Phase) -> bool:
    """Whether the phase has been trained to its end."""
    with checkpoint.Checkpoints(self._directory(phase.name)) as checkpoints:
      return checkpoints.latest is not None and checkpoints.latest >= phase.steps

  def finished(self, phase: loop.Phase) -> Any:
    """The state of a phase that has been trained to its end.

    Raises:
      InputError: where it has not.
    """
    state, self.timing[phase.name] = loop.finished(phase, self.mesh, self._directory(phase.name))
    return state

  def _directory(self, name: str) -> epath.Path:
    return self.workdir / "checkpoints" / name
