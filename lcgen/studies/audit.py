"""The audit: the share of the method's gain that controls explain, and the effect of the paper's own conditions.

It returns numbers; `lcgen.reporting.study_tables` makes the tables.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

from lcgen.classifiers import arm_phase, arm_training
from lcgen.classifiers.arms import NONE, controls
from lcgen.classifiers.settings import ClassifierSettings
from lcgen.data import ranges, test_sets
from lcgen.studies.settings import AuditSettings
from lcgen.studies.study import Study

METHOD = "latent_constraints"
TWICE = {  # sets normalised once -> the same images normalised twice
  "test": "diagnostic/normalised_twice",
  "dirty_mnist": "dirty_mnist_twice",
  "dirty_mnist_like": "dirty_mnist_like_twice",
}


@dataclasses.dataclass(frozen=True)
class Condition:
  """Conditions under which classifiers are trained; the fields are those of `AuditSettings`."""

  limit: float
  calibrate: bool
  share: float
  activate_logits: bool
  learning_rate: float
  schedule: str

  @property
  def arms(self) -> dict[str, str]:
    """The arms that are compared under these conditions, by their short names."""
    share = f":share={self.share:g}"
    return {
      NONE: NONE,
      METHOD: f"{METHOD}{share}:limit={self.limit:g}:calibrate={self.calibrate}",
      "clip": f"clip{share}",
      "duplicate": f"duplicate{share}",
    }

  @property
  def classifier(self) -> dict[str, Any]:
    """The fields of `ClassifierSettings` that these conditions set."""
    return {name: getattr(self, name) for name in ("activate_logits", "learning_rate", "schedule")}


NAMES = tuple(field.name for field in dataclasses.fields(Condition))


@dataclasses.dataclass(frozen=True)
class Audit:
  """The audit of a run whose generator, actor and energy are trained.

  Attributes:
    study: the run.
    settings: settings of the audit.
    wanted: the test sets.
  """

  study: Study
  settings: AuditSettings
  wanted: Sequence[test_sets.TestSet]

  def run(self) -> dict[str, Any]:
    """Trains and scores all classifiers of the audit.

    Returns:
      `explained`: scores of every arm, as `Scorer.test` gives them. `shares`: for each share that is replaced, the
      arms by their short names. `switched`: for each set of conditions, its values `condition`, the name of the one
      `changed`, and the scores of each arm. `changed` is "" for the paper's own conditions, "all" for none of them.
      `sets`: the test sets of that comparison. `output_limit`, `model_limit`: ends of the decoder's range and of model
      space.
    """
    return self._explained() | self._switched()

  def _explained(self) -> dict[str, Any]:
    """Trains and scores the method and every control, for each share."""
    classifier, by_share = self.study.sections.classifier, []
    for share in self.settings.shares:
      suffix = "" if share == classifier.share else f":share={share:g}"
      names = {NONE: NONE} | {name: name + suffix for name in (METHOD, *controls())}
      by_share.append({"share": share, "arms": names})
    arms = dict.fromkeys(arm for one in by_share for arm in one["arms"].values())
    return {"explained": self._score(classifier, "classifier", list(arms), self.wanted), "shares": by_share}

  def _switched(self) -> dict[str, Any]:
    """Trains and scores arms under the paper's conditions, with each of them changed alone, and with all changed."""
    generator, classifier = self.study.context.generator, self.study.sections.classifier
    limit = generator.output_limit
    theirs = Condition(**{name: getattr(self.settings, name) for name in NAMES})
    own = (getattr(classifier, name) for name in ("share", "activate_logits", "learning_rate", "schedule"))
    ours = Condition(ranges.MODEL_LIMIT, generator.calibrate, *own)
    conditions = {"": theirs}
    for name in NAMES:
      if getattr(theirs, name) == getattr(ours, name) or (name == "limit" and limit < ours.limit):
        continue
      conditions[name] = dataclasses.replace(theirs, **{name: getattr(ours, name)})
    conditions["all"] = dataclasses.replace(ours, limit=min(limit, ours.limit))

    needed: dict[tuple[Any, ...], dict[str, None]] = {}
    for one in conditions.values():
      needed.setdefault(tuple(one.classifier.items()), {}).update(dict.fromkeys(one.arms.values()))
    known = {settings: self._under(dict(settings), list(arms)) for settings, arms in needed.items()}
    scored = [
      {"changed": changed, "condition": dataclasses.asdict(one)}
      | {arm: known[tuple(one.classifier.items())]["arms"][text] for arm, text in one.arms.items()}
      for changed, one in conditions.items()
    ]
    sets = [one for pair in self._pairs() for one in pair]
    return {"switched": scored, "sets": sets, "output_limit": limit, "model_limit": ranges.MODEL_LIMIT}

  def _pairs(self) -> list[tuple[str, str]]:
    """Names the pairs of wanted test sets that are normalised once and twice."""
    names = {one.name for one in self.wanted}
    names |= {one.family for one in self.wanted if {half.name for half in test_sets.expand([one.family])} <= names}
    return [(once, twice) for once, twice in TWICE.items() if {once, twice} <= names]

  def _under(self, given: dict[str, Any], arms: list[str]) -> dict[str, Any]:
    """Trains and scores arms with these fields of the classifier's settings, on the sets of `_pairs`."""
    usual, folder = self.study.sections.classifier, "classifier"
    settings = dataclasses.replace(usual, **given)
    if settings != usual:
      folder = "audit/" + "-".join(f"{name}-{value}" for name, value in given.items())
    families = {name.partition("/")[0] for pair in self._pairs() for name in pair}
    wanted = [one for one in self.wanted if one.family in families]
    return self._score(settings, folder, arms, wanted)

  def _score(
    self, settings: ClassifierSettings, folder: str, arms: list[str], wanted: Sequence[test_sets.TestSet]
  ) -> dict[str, Any]:
    context, scorer = self.study.context, self.study.scorer()
    model, tools = arm_phase.network(context, settings), self.study.tools(settings.share)
    training = arm_training.ArmTraining(context, self.study.trainer, settings, tools, folder)
    classifiers = training.train(arms, self.study.frozen, scorer.validation_accuracy(model))
    return scorer.test(model, classifiers, wanted)
