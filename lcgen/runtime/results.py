"""The results of a run as they pass from the evaluation to the reports: typed, strict JSON, with a schema version.

Reports read nothing else, so that they need no other wing.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from etils import epath

from lcgen.runtime import errors, files, old_results

SCHEMA = 1  # raised if older files can no longer be read as they are; files without one are older still
BASELINE, METHOD, CONTROL, AUGMENTATION = "baseline", "method", "control", "augmentation"  # roles of arms
PRIOR, REAL, RECONSTRUCTED = "prior", "real", "reconstructed"  # rows of samples that are no sampler's

_REASONS = {  # why scores can be undefined that are no metrics
  "conditional_accuracy": "there is no image to be like, or samples are not finite",
  "conditional_accuracy_by_class": "no image of this class is left, or samples are not finite",
  "accepted": "there is no image to be like",
  "success": "edits are not finite",
  "moved": "latents are not finite",
  "relative": "the accuracy on clean images is 0",
}

Scores = dict[str, list[float]]  # score -> one value a seed
Made = TypeVar("Made")


@dataclasses.dataclass(frozen=True)
class TestSetFacts:
  """Facts of one test set.

  Attributes:
    family: of test sets.
    part: a corruption, or a half of Dirty-MNIST; "" for a whole set.
    severity: 1 to 5; 0 if there is one severity only.
    origin: "own", "generated" or "published".
    images: their number.
    ceiling: the best accuracy that drawn labels allow; None for certain labels.
    label_entropy: the best NLL that drawn labels allow, nats; None for certain labels.
  """

  __test__ = False  # not a class of tests, whatever pytest thinks

  family: str
  part: str
  severity: int
  origin: str
  images: int
  ceiling: float | None = None
  label_entropy: float | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class ArmScores:
  """Scores of classifiers, as a run has them, a study, and each point of a learning curve.

  Attributes:
    seeds: of the run.
    arms: scores by arm and test set.
    roles: of each arm, one of the four above.
    test_sets: facts by name.
    robustness: summaries by arm and family.
    metrics: title, scale, digits, `of` ("features" or "logits"), `shown` and `undefined` (why its value can be no
      number) of each metric, by its name.
  """

  seeds: list[int]
  arms: dict[str, dict[str, Scores]]
  roles: dict[str, str]
  test_sets: dict[str, TestSetFacts]
  robustness: dict[str, dict[str, Any]]
  metrics: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)

  def of_role(self, role: str) -> list[str]:
    """Lists the arms of a role, in their order."""
    return [arm for arm in self.arms if self.roles[arm] == role]

  @property
  def baseline(self) -> str | None:
    """The arm that others are compared with; None if there is none."""
    return next(iter(self.of_role(BASELINE)), None)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Results(ArmScores):
  """Everything that `results.json` holds.

  Attributes:
    data: facts of the data set: name, shape, class_names, train, validation, test.
    about: device, versions, digests of the data, value ranges.
    samples: scores by sampler; `REAL` and `RECONSTRUCTED` are scores of real images, which older results lack.
    edits: scores of edits.
    judge: scores of the judge by test set.
    timing: compile_s, train_s, steps, restarts, ms_per_step by phase.
    phases: name of the phase that trained each arm, as metrics records have it; {} if unknown.
    schema: version of this structure.
  """

  data: dict[str, Any] = dataclasses.field(default_factory=dict)
  about: dict[str, Any] = dataclasses.field(default_factory=dict)
  samples: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
  edits: dict[str, Any] = dataclasses.field(default_factory=dict)
  judge: dict[str, Scores] = dataclasses.field(default_factory=dict)
  timing: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
  phases: dict[str, str] = dataclasses.field(default_factory=dict)
  schema: int = SCHEMA


@dataclasses.dataclass(frozen=True, kw_only=True)
class RuleResults:
  """Everything that `rules/NAME/results.json` holds.

  Attributes:
    name: of the rule, or "realism".
    bound: "above", "below" or "between", as rules have it; "" for realism.
    value: of the bound; None for realism.
    seeds: of the run.
    samples: scores by sampler.
    metrics: as in `ArmScores`.
    schema: version of this structure.
  """

  name: str
  bound: str
  value: float | None
  seeds: list[int]
  samples: dict[str, dict[str, Any]]
  metrics: dict[str, dict[str, Any]]
  schema: int = SCHEMA


def write(path: epath.Path, results: Results | RuleResults) -> None:
  """Writes results as strict JSON; scores that are undefined become null, with the reason under `undefined`."""
  files.write_json(path, dataclasses.asdict(results), _reasons(results.metrics))


def _reasons(metrics: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
  """Says of each score why it can be undefined, by its name; metrics of older results do not say it."""
  return _REASONS | {name: metric["undefined"] for name, metric in metrics.items() if "undefined" in metric}


def read(path: epath.Path) -> Results:
  """Reads `results.json` of this version or of an older one; null becomes nan.

  Raises:
    InputError: the file is missing, broken or newer than this version.
  """
  return _read(path, old_results.results, lambda found: _made(Results, _with_facts(found)))


def read_rule(path: epath.Path) -> RuleResults:
  """Reads the results of a rule; raises as `read`."""
  return _read(path, old_results.rule, lambda found: _made(RuleResults, found))


def read_study(path: epath.Path) -> dict[str, Any]:
  """Reads what a study found, as the study's `run` returned it; raises as `read`.

  Files of this version also hold `schema`, `seeds` and `roles`; older ones hold finished `tables`.
  """
  return _read(path, old_results.study, dict)


def write_study(path: epath.Path, found: Mapping[str, Any], roles: Mapping[str, str] | None = None) -> None:
  """Writes what a study found as strict JSON, with the schema.

  Args:
    path: of the file.
    found: as the study's `run` returned it, with the `seeds` of the run.
    roles: of every arm in it.
  """
  files.write_json(path, {"schema": SCHEMA, **found, "roles": dict(roles or {})}, _REASONS)


def arm_scores(found: Mapping[str, Any], study: Mapping[str, Any]) -> ArmScores:
  """Types the scores that a study holds.

  Args:
    found: `arms`, `test_sets` and `robustness`, as `Scorer.test` returns them.
    study: the file that they come from, with `seeds` and `roles`.
  """
  roles = {arm: study["roles"][arm] for arm in found["arms"]}
  first = next(iter(next(iter(found["arms"].values())).values()))
  seeds = study.get("seeds") or list(range(len(first["accuracy"])))  # older files do not name them
  return _made(ArmScores, _with_facts({**found, "seeds": seeds, "roles": roles}))


def _read(path: epath.Path, upgrade: Callable[..., Any], make: Callable[[dict[str, Any]], Made]) -> Made:
  found = files.read_json(path)
  try:
    schema = found.get("schema")
    if schema is not None and schema > SCHEMA:
      raise errors.InputError(f"{path} has schema {schema}, newer than {SCHEMA}; read it with the lcgen that wrote it")
    return make(_numbers(found if schema is not None else upgrade(found)))
  except (AttributeError, IndexError, KeyError, TypeError) as error:
    raise errors.InputError(
      f"{path} is not what a run of lcgen writes ({errors.reason(error)}); run --stage=evaluate on that workdir again"
    ) from error


def _with_facts(found: Mapping[str, Any]) -> dict[str, Any]:
  """Types the facts of the test sets, and checks that every arm has a role."""
  missing = [arm for arm in found["arms"] if arm not in found["roles"]]
  if missing:
    raise KeyError(f"roles of {', '.join(missing)}")
  return {**found, "test_sets": {name: _made(TestSetFacts, facts) for name, facts in found["test_sets"].items()}}


def _made(kind: type[Made], found: Mapping[str, Any]) -> Made:
  """Makes a dataclass; what a newer version of the same schema has added is left out."""
  names = [field.name for field in dataclasses.fields(kind)]
  return kind(**{name: found[name] for name in names if name in found})


_TEXTS = ("data", "about", "metrics", "test_sets", "value")  # keys below which null is not a number


def _numbers(content: Any) -> Any:
  """Replaces None by nan, at any depth, wherever there are scores."""
  if isinstance(content, Mapping):
    return {key: value if key in _TEXTS else _numbers(value) for key, value in content.items()}
  if isinstance(content, Sequence) and not isinstance(content, str):
    return [_numbers(value) for value in content]
  return math.nan if content is None else content
