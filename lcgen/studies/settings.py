"""The config sections of the studies."""

import dataclasses
from typing import Any

from lcgen.classifiers.arms import some_arms
from lcgen.classifiers.settings import ClassifierSettings
from lcgen.constraints.settings import ConstraintSettings, EditSettings
from lcgen.evaluation.settings import EvaluateSettings, some_sets
from lcgen.runtime.fields import at_least, counts, field, positive, share, shares, some_of, switch
from lcgen.training import settings as training

PHASES = ("vae", "actor_critic", "energy", "classifier", "comparison", "judge", "sampling", "evaluation")


@dataclasses.dataclass(frozen=True)
class AuditSettings:
  """The audit: controls against samples, and the paper's own conditions, as its code has them."""

  shares: tuple[float, ...] = field(
    (0.125, 0.5), shares, "Shares of each batch to replace, by controls and by samples."
  )
  limit: float = field(1.0, positive, "Paper's conditions: decoded values are clipped to [-limit, limit].")
  calibrate: bool = field(False, switch, "Paper's conditions: whether decoded pixel values are fitted to the data's.")
  share: float = field(0.2, share, "Paper's conditions: share of each batch that is replaced.")
  activate_logits: bool = field(True, switch, "Paper's conditions: leaky ReLU on the logits.")
  learning_rate: float = field(0.005, positive, "Paper's conditions: Adam's learning rate for the classifier.")
  schedule: str = training.schedule("constant")


@dataclasses.dataclass(frozen=True)
class LearningCurveSettings:
  """The learning curve: arms trained on fewer labels."""

  shares: tuple[float, ...] = field((0.01, 0.03, 0.1, 0.3, 1.0), shares, "Shares of the labels to train on.")
  arms: tuple[str, ...] = field(
    ("none", "latent_constraints", "latent_constraints:share=0.5", "duplicate:share=0.5", "clip", "shift_rotate"),
    some_arms,
    "Arms to train at each share; none is always among them.",
  )
  sets: tuple[str, ...] = field(("test", "diagnostic/noise"), some_sets, "Test sets to score on.")


@dataclasses.dataclass(frozen=True)
class BenchmarkSettings:
  """The benchmark: times of phases, by the number of seeds."""

  # The one arm of "classifier" trains on samples; "evaluation" scores the sets of generated_cifar10_c.
  phases: tuple[str, ...] = field(
    PHASES, some_of(PHASES, joined=True), "Phases to time; classifier is one arm, comparison all arms together."
  )
  chunks: int = field(10, at_least(1), "Chunks of steps that are timed.")
  curve: tuple[int, ...] = field((1, 2, 4, 8, 16), counts, "Numbers of seeds that are trained at once.")
  seconds: float = field(20.0, positive, "A curve ends with the first point that takes longer than these seconds.")


@dataclasses.dataclass(frozen=True)
class Sections:
  """Settings of phases 2 and 3 and of the evaluation.

  Attributes:
    constraint: settings of game, energy and rules.
    classifier: settings of the arms.
    evaluate: settings of the evaluation and its judge.
    sample: the config's section `sample`, with the settings of each sampler under its name.
    edit: settings of edits.
  """

  constraint: ConstraintSettings
  classifier: ClassifierSettings
  evaluate: EvaluateSettings
  sample: Any
  edit: EditSettings
