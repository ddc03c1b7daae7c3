"""The classifiers of several arms: trained together in one program, kept one by one."""

import dataclasses
import re
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from etils import epath

from lcgen.evaluation.classifier_scores import Scorer
from lcgen.runtime import errors
from lcgen.training import checkpoint, loop
from lcgen.training import train_state as states
from lcgen.training.context import Phases
from lcgen.training.trainer import Trainer

_GROUP = "group"  # in an arm's record: the phase that trained it, which is forgotten once all its arms are kept


class Comparison:
  """Classifiers of one workdir, by their arms.

  Args:
    phases: of the workdir's config.
    trainer: of the workdir.
    folder: in `checkpoints`, where they are kept.
    pool: as `loop.Phase` has it.

  Attributes:
    timing: of each arm that was asked for, its share of the time of all arms that were trained with it.
  """

  def __init__(self, phases: Phases, trainer: Trainer, folder: str = "classifier", pool: np.ndarray | None = None):
    self._phases, self._trainer, self._folder, self._pool = phases, trainer, folder, pool
    self.timing: dict[str, loop.Timing] = {}

  def train(self, arms: Sequence[str], frozen: states.Frozen, scorer: Scorer) -> dict[str, Any]:
    """The variables of each arm's classifier, `[S, ...]`; those that are not trained yet are trained together.

    Args:
      arms: as `augment.parse` takes them.
      frozen: what policies look at.
      scorer: of the same phases, for the accuracies on validation images.
    """
    missing = sorted({arm for arm in arms if not self.is_kept(arm)})
    if missing:
      name = f"{self._folder}-{zlib.crc32(','.join(missing).encode()):08x}"
      phase = self._phases.classifiers(name, missing, frozen, self._pool)
      accuracy = scorer.validation_accuracy(self._phases.networks.classifier)
      validate = lambda state: {f"{arm}/validation_accuracy": accuracy(own) for arm, own in state.items()}
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
    """The same for arms that have been trained.

    Raises:
      InputError: names one that has not.
    """
    for arm in arms:
      if not self.is_kept(arm):
        raise errors.InputError(f"arm {arm} is not trained in {self._place(arm)}; run --stage=classifier first")
    phase = self._phases.classifiers(self._folder, arms, None)
    abstract = loop.abstract_state(phase, self._trainer.mesh)
    variables = {}
    for arm in arms:
      with checkpoint.Checkpoints(self._place(arm)) as kept:
        variables[arm] = kept.restore(abstract[arm].variables)
        record = kept.record
        record.pop(_GROUP, None)
        self.timing[arm] = loop.Timing(**record)
    return variables

  def is_kept(self, arm: str) -> bool:
    """Whether the arm has been trained, and all that were trained with it are kept too."""
    with checkpoint.Checkpoints(self._place(arm)) as kept:
      return kept.latest is not None and not self._trainer.is_begun(kept.record.get(_GROUP, ""))

  def _place(self, arm: str) -> epath.Path:
    return self._trainer.workdir / "checkpoints" / self._folder / re.sub(r"[^\w.+]+", "-", arm)
