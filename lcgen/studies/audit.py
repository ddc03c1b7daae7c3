"""What explains the gain of the augmentation, and what becomes of the paper's result without its own conditions."""

import copy
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from lcgen.classifiers import arm_training, policies
from lcgen.data import ranges, sources, test_sets
from lcgen.evaluation.classifier_scores import Scorer
from lcgen.reporting import statistics, tables
from lcgen.training import train_state as states
from lcgen.training.context import Phases
from lcgen.training.trainer import Trainer

METHOD = "latent_constraints"
TWICE = {  # the same images normalised once and twice
  "test": "diagnostic/normalised_twice",
  "dirty_mnist": "dirty_mnist_twice",
  "dirty_mnist_like": "dirty_mnist_like_twice",
}
_SWITCHES = {  # of the paper's conditions, in words
  "limit": "decoder range [-{0:g}, {0:g}]",
  "calibrate": "pixel values fitted to the data's: {0}",
  "share": "share replaced: {0:g}",
  "activate_logits": "LeakyReLU on the logits: {0}",
  "learning_rate": "classifier's learning rate {0:g}",
  "schedule": "classifier's schedule {0}",
}


@dataclasses.dataclass(frozen=True)
class Condition:
  """What the classifiers are trained under."""

  limit: float
  calibrate: bool
  share: float
  activate_logits: bool
  learning_rate: float
  schedule: str

  @property
  def arms(self) -> dict[str, str]:
    """The arms that are compared under it, by what they stand for."""
    share = f":share={self.share:g}"
    return {
      policies.NONE: policies.NONE,
      METHOD: f"{METHOD}{share}:limit={self.limit:g}:calibrate={self.calibrate}",
      "clip": f"clip{share}",
      "duplicate": f"duplicate{share}",
    }

  @property
  def classifier(self) -> dict[str, Any]:
    """The fields of the config's section that it sets."""
    return {name: getattr(self, name) for name in ("activate_logits", "learning_rate", "schedule")}


class Audit:
  """The audit of one workdir, whose VAE, actor and critic are trained.

  Args:
    phases: of the workdir's config.
    trainer: of the workdir.
    data: the data set.
    frozen: what classifiers are trained with.
    wanted: the test sets.
  """

  def __init__(
    self,
    phases: Phases,
    trainer: Trainer,
    data: sources.Dataset,
    frozen: states.Frozen,
    wanted: Sequence[test_sets.TestSet],
  ):
    self._phases, self._trainer, self._data, self._frozen, self._wanted = phases, trainer, data, frozen, wanted

  def run(self) -> dict[str, Any]:
    """What `audit.json` holds: `tables`, and the accuracies they were made from."""
    explained, first = self._explained()
    switched, second = self._switched()
    return {"tables": [table._asdict() for table in (*explained, switched)], "explained": first, "switched": second}

  def _explained(self) -> tuple[list[tables.Table], dict[str, Any]]:
    """For each share: the gain of the method and of every control, and how much of the former the latter explains."""
    usual, by_share = self._phases.config["classifier"]["share"], {}
    for share in self._phases.config["audit"]["shares"]:
      suffix = "" if share == usual else f":share={share:g}"
      by_share[share] = {policies.NONE: policies.NONE} | {name: name + suffix for name in (METHOD, *policies.CONTROLS)}
    arms = dict.fromkeys(arm for names in by_share.values() for arm in names.values())
    results = self._score(self._phases, "classifier", list(arms), self._wanted)
    found = [table for share, names in by_share.items() for table in explained_tables(results, names, share)]
    return found, results

  def _switched(self) -> tuple[tables.Table, list[dict[str, Any]]]:
    """The paper's comparison under its own conditions, with each of them changed alone, and with all changed."""
    theirs = Condition(**{key: value for key, value in self._phases.config["audit"].items() if key != "shares"})
    section, limit = self._phases.config["classifier"], self._phases.networks.vae.output_limit
    ours = Condition(
      ranges.MODEL_LIMIT,
      self._phases.config["vae"]["calibrate"],
      section["share"],
      *(section[name] for name in ("activate_logits", "learning_rate", "schedule")),
    )
    conditions = {"the paper's conditions": theirs}
    for name, words in _SWITCHES.items():
      if getattr(theirs, name) == getattr(ours, name) or (name == "limit" and limit < ours.limit):
        continue
      conditions[f"but {words.format(getattr(ours, name))}"] = dataclasses.replace(
        theirs, **{name: getattr(ours, name)}
      )
    conditions["all of these changed"] = dataclasses.replace(ours, limit=min(limit, ours.limit))

    needed: dict[tuple[Any, ...], dict[str, None]] = {}
    for one in conditions.values():
      needed.setdefault(tuple(one.classifier.items()), {}).update(dict.fromkeys(one.arms.values()))
    known = {settings: self._under(dict(settings), list(arms)) for settings, arms in needed.items()}
    scored = [
      {"condition": name} | {arm: known[tuple(one.classifier.items())]["arms"][text] for arm, text in one.arms.items()}
      for name, one in conditions.items()
    ]
    sets = [one for pair in self._pairs() for one in pair]
    note = f"The paper's conditions: {'; '.join(w.format(getattr(theirs, n)) for n, w in _SWITCHES.items())}. "
    if limit < ranges.MODEL_LIMIT:
      note += f"This VAE's decoder ends at ±{limit:g}: the full range takes a VAE of its own. "
    return switched_table(scored, sets, note, len(self._phases.seeds)), scored

  def _pairs(self) -> list[tuple[str, str]]:
    """Test sets, normalised once and twice."""
    names = {one.name for one in self._wanted}
    names |= {one.family for one in self._wanted if {half.name for half in test_sets.expand([one.family])} <= names}
    return [(once, twice) for once, twice in TWICE.items() if {once, twice} <= names]

  def _under(self, settings: Mapping[str, Any], arms: list[str]) -> dict[str, Any]:
    """Scores of arms whose classifiers have these fields of their section."""
    config = copy.deepcopy(self._phases.config)
    folder = "classifier"
    if any(config["classifier"][name] != value for name, value in settings.items()):
      config["classifier"] |= settings
      folder = "audit/" + "-".join(f"{name}-{value}" for name, value in settings.items())
    families = {name.partition("/")[0] for pair in self._pairs() for name in pair}
    wanted = [one for one in self._wanted if one.family in families]
    return self._score(Phases(config, self._phases.facts), folder, arms, wanted)

  def _score(self, phases: Phases, folder: str, arms: list[str], wanted: Sequence[test_sets.TestSet]) -> dict[str, Any]:
    scorer = Scorer(phases, self._trainer.mesh, self._data)
    classifiers = arm_training.Comparison(phases, self._trainer, folder).train(arms, self._frozen, scorer)
    return scorer.test(phases.networks.classifier, classifiers, wanted)


def explained_tables(results: Mapping[str, Any], names: Mapping[str, str], share: float) -> list[tables.Table]:
  """The gains of the method and of the controls, and the shares of the method's gain that controls explain.

  Args:
    results: of `Scorer.test`.
    names: the arms by what they stand for.
    share: of each batch that was replaced.
  """
  scores, others = tables.headlines(results), {name: arm for name, arm in names.items() if name != policies.NONE}
  seeds = len(scores[0].values[policies.NONE])
  caption = f"Gain over `{policies.NONE}` in points of accuracy, {share:g} of each batch replaced, n = {seeds} seeds."
  gains = tables.gains_of(others, scores, caption)
  gained = lambda score: statistics.paired(score.values[names[METHOD]], score.values[policies.NONE])
  explicable = [score for score in scores if statistics.verdict(gained(score)) == "gain"]
  if not explicable:
    return [gains]
  shared = [
    [name, *(_share_words(score.values, names[name], names[METHOD]) for score in explicable)]
    for name in others
    if name != METHOD
  ]
  shares = tables.Table(
    f"How much of the gain of `{METHOD}` each control explains, in %, {share:g} of each batch replaced, "
    f"n = {seeds} seeds.",
    ["control", *(score.name for score in explicable)],
    shared,
    "Ratios of the two gains with Fieller's 95 % interval, on the test sets where the method's gain is shown: on the "
    "others there is none to explain. 100 % and more: the control alone does as much.",
  )
  return [gains, shares]


def _share_words(values: Mapping[str, Sequence[float]], control: str, method: str) -> str:
  found = statistics.share_of_gain(values[control], values[method], values[policies.NONE])
  if found.ratio is None:
    return "–"
  low, high = (f"{100 * end:.0f}" for end in found.interval)
  return f"{100 * found.ratio:.0f} [{low}, {high}]"


def switched_table(scored: Sequence[Mapping[str, Any]], sets: Sequence[str], note: str, seeds: int) -> tables.Table:
  """A row a condition: for each test set the accuracy without augmentation, and what method and controls add to it."""
  others = [METHOD, "clip", "duplicate"]
  differences = {
    (row["condition"], name, arm): statistics.paired(row[arm][name]["accuracy"], row[policies.NONE][name]["accuracy"])
    for row in scored
    for name in sets
    for arm in others
  }
  cells = tables.marked(differences)
  header = ["condition"]
  for name in sets:
    header += [f"{name}: {policies.NONE}, %", *(f"{name}: {arm}" for arm in others)]
  rows = []
  for row in scored:
    line = [row["condition"]]
    for name in sets:
      line += [tables.percent(row[policies.NONE][name]["accuracy"])]
      line += [cells[row["condition"], name, arm] for arm in others]
    rows.append(line)
  return tables.Table(
    f"The paper's comparison under its own conditions, and with one of them changed at a time, n = {seeds} seeds.",
    header,
    rows,
    note + tables.MARKS,
  )
