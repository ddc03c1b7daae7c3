"""Trains the classifiers of several arms in one program, and saves each arm by itself."""

import dataclasses
import re
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from etils import epath

from lcgen.classifiers import arm_phase
from lcgen.classifiers.policies import Tools
from lcgen.classifiers.settings import ClassifierSettings
from lcgen.generator.frozen import Frozen
from lcgen.runtime import errors
from lcgen.training import checkpoint, loop
from lcgen.training.context import Context
from lcgen.training.train_state import TrainState
from lcgen.training.trainer import Trainer

# Key of the record that names the joint training phase. Its checkpoints are deleted once every arm is saved.
_GROUP = "group"

Accuracy = Callable[[TrainState], jax.Array]  # state -> [S]


class ArmTraining:
  """The classifiers of one workdir, by arm.

  Args:
    context: context of the run.
    trainer: trainer of the workdir.
    settings: settings of the classifiers.
    tools: tools that arms are built with; None if arms are only restored.
    folder: folder of the arms inside `checkpoints`.
    pool: rows to train on, as in `loop.Phase`.

  Attributes:
    timing: of each arm that was asked for, its share of the time of all arms that were trained with it.
    phases: name of the phase that trained each of these arms, as metrics records have it.
  """

  def __init__(
    self,
    context: Context,
    trainer: Trainer,
    settings: ClassifierSettings,
    tools: Tools | None,
    folder: str = arm_phase.NAME,
    pool: np.ndarray | None = None,
  ):
    self._context, self._trainer, self._settings, self._tools = context, trainer, settings, tools
    self._folder, self._pool = folder, pool
    self.timing: dict[str, loop.Timing] = {}
    self.phases: dict[str, str] = {}

  def train(self, arms: Sequence[str], frozen: Frozen, accuracy: Accuracy) -> dict[str, Any]:
    """Trains the missing arms together, and returns the variables of all these arms, `[S, ...]`.

    Args:
      arms: texts for `arms.parse`.
      frozen: constants of the policies.
      accuracy: computes the accuracy of one classifier on validation images.
    """
    missing = sorted({arm for arm in arms if not self.is_kept(arm)})
    if missing:
      name = f"{self._folder}-{zlib.crc32(','.join(missing).encode()):08x}"
      phase = arm_phase.phase(
        self._context, self._settings, self._tools, frozen, arms=missing, name=name, pool=self._pool
      )
      validate = lambda state: {arm: {"validation_accuracy": accuracy(own)} for arm, own in state.items()}
      state = self._trainer.train(phase, self._trainer.rows, validate)
      timing = self._trainer.timing.pop(name)
      share = dataclasses.replace(
        timing, compile_s=timing.compile_s / len(missing), train_s=timing.train_s / len(missing)
      )
      for arm in missing:
        with checkpoint.Checkpoints(self._place(arm)) as kept:
          kept.save(timing.steps, state[arm].variables, dataclasses.asdict(share) | {_GROUP: name})
      self._trainer.forget(phase)
    return self.load(arms)

  def load(self, arms: Sequence[str]) -> dict[str, Any]:
    """Restores the variables of trained arms, `[S, ...]`.

    Raises:
      InputError: if an arm is not trained; names it.
    """
    for arm in arms:
      if not self.is_kept(arm):
        raise errors.InputError(f"arm {arm} is not trained in {self._place(arm)}; run --stage=classifier first")
    shapes = abstract(self._context, self._settings, arms)
    variables = {}
    for arm in arms:
      with checkpoint.Checkpoints(self._place(arm)) as kept:
        variables[arm] = kept.restore(shapes[arm])
        record = kept.record
        self.phases[arm] = record.pop(_GROUP, "")
        self.timing[arm] = loop.Timing(**record)
    return variables

  def is_kept(self, arm: str) -> bool:
    """Tells whether the arm is saved, and with it every arm that was trained together with it."""
    with checkpoint.Checkpoints(self._place(arm)) as kept:
      return kept.latest is not None and not self._trainer.is_begun(kept.record.get(_GROUP, ""))

  def _place(self, arm: str) -> epath.Path:
    return self._trainer.directory(self._folder) / re.sub(r"[^\w.+]+", "-", arm)


def abstract(context: Context, settings: ClassifierSettings, arms: Sequence[str]) -> dict[str, Any]:
  """Gives the shapes and shardings of each arm's variables, `[S, ...]`."""
  states = loop.abstract_state(arm_phase.phase(context, settings, None, None, arms=arms), context.mesh)
  return {arm: states[arm].variables for arm in arms}
