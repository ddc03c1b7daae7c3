"""What a config may say: every key, its type and its range, checked once before anything is built."""

import dataclasses
import json
from collections.abc import Callable, Mapping
from typing import Any

from etils import epath

from lcgen.classifiers import policies
from lcgen.constraints import rule_spec, samplers
from lcgen.data import sources, test_sets
from lcgen.reporting import expectations
from lcgen.runtime import errors


@dataclasses.dataclass(frozen=True)
class Rule:
  """A type, a predicate on values of that type, both in words, and what the value stands for."""

  type: type
  holds: Callable[[Any], bool]
  words: str
  meaning: Callable[[Any], Any] = lambda value: value


def _at_least(bound: int) -> Rule:
  return Rule(int, lambda value: value >= bound, f"a whole number of at least {bound}")


def _one_of(*choices: str) -> Rule:
  return Rule(str, lambda value: value in choices, f"one of {', '.join(choices)}")


def _some_of(*choices: str) -> Rule:
  known = lambda value: len(value) > 0 and len(set(value)) == len(value) and all(item in choices for item in value)
  return Rule(tuple, known, f"one or more, each once, of {', '.join(choices)}")


def _known_test_sets(names: tuple[Any, ...]) -> bool:
  return len(names) > 0 and len(set(names)) == len(names) and all(map(test_sets.known, map(str, names)))


_NATURAL, _POSITIVE = _at_least(0), _at_least(1)
_RATE = Rule(float, lambda value: 0 < value < float("inf"), "a finite number above 0")
_WEIGHT = Rule(float, lambda value: 0 <= value < float("inf"), "a finite number of at least 0")
_SHARE = Rule(float, lambda value: 0 <= value <= 1, "a number in [0, 1]")
_PROPER_SHARE = Rule(float, lambda value: 0 < value < 1, "a number between 0 and 1, both excluded")
_DECAY = Rule(float, lambda value: 0 <= value < 1, "a number in [0, 1)")
_SWITCH = Rule(bool, lambda value: True, "True or False")
_TEXT = Rule(str, lambda value: True, "a text")
_NAME = Rule(str, lambda value: value != "", "a text that is not empty")
_WIDTHS = Rule(
  tuple, lambda value: len(value) > 0 and all(isinstance(w, int) and w > 0 for w in value), "positive whole numbers"
)

_SETS = Rule(
  tuple,
  _known_test_sets,
  f"one or more, each once, of {', '.join(test_sets.FAMILIES)}, or a part of one, as in generated_cifar10_c/fog",
)
_SHARES = Rule(
  tuple,
  lambda value: len(set(value)) == len(value) > 0 and all(type(s) in (int, float) and 0 < s <= 1 for s in value),
  "one or more numbers, each once, above 0 and at most 1",
)
_ARMS = Rule(
  tuple,
  lambda value: len(value) > 0 and len(set(value)) == len(value) and all(map(policies.known, map(str, value))),
  "one or more, each once, of "
  f"{', '.join(policies.POLICIES)}; with settings as in latent_constraints:share=0.5, joined as in flip_crop+mixup; "
  "or all",
  lambda value: tuple(policies.POLICIES) if value == ("all",) else value,
)

_TRAINING = {
  "epochs": _POSITIVE,
  "batch_size": _at_least(2),  # batch norm needs two
  "learning_rate": _RATE,
  "schedule": _one_of("constant", "cosine"),
}
_TRUNK = {"architecture": _one_of("dense", "conv"), "hidden_dim": _POSITIVE, "depth": _POSITIVE, "channels": _WIDTHS}
_CRITIC_WEIGHTS = {"real": _RATE, "prior": _WEIGHT, "mismatched": _WEIGHT, "r1": _WEIGHT, "interpolated": _WEIGHT}

SCHEMA: dict[str, Any] = {
  "seed": _NATURAL,
  "seeds": _POSITIVE,
  "data": {
    "source": _one_of(*sources.SOURCES),
    "name": _NAME,
    "dir": _TEXT,
    "path": _TEXT,
    "validation": _PROPER_SHARE,
    "test": _PROPER_SHARE,
    "image_size": _NATURAL,
    "placement": _one_of("auto", "replicated", "sharded"),
    "train_limit": _NATURAL,
    "test_limit": _NATURAL,
  },
  "vae": _TRUNK
  | _TRAINING
  | {
    "latent_dim": _POSITIVE,
    "output_limit": _RATE,
    "likelihood": _one_of("weighted", "gaussian"),
    "kl_weight": _WEIGHT,
    "sigma": _RATE,
    "calibrate": _SWITCH,
  },
  "actor_critic": _TRAINING
  | {
    "hidden_dim": _POSITIVE,
    "depth": _POSITIVE,
    "critic_batch_norm": _SWITCH,
    "beta1": _DECAY,
    "beta2": _DECAY,
    "critic_steps": _POSITIVE,
    "critic_weights": _CRITIC_WEIGHTS | {"actor": _RATE},
    "actor_weights": {"prior": _RATE, "encoded": _WEIGHT},
    "distance_weight": _WEIGHT,
    "distance_reduction": _one_of("sum", "mean"),
    "average_decay": _DECAY,
    "constraint": Rule(str, rule_spec.known, rule_spec.KNOWN),
  },
  "energy": _TRAINING
  | {
    "hidden_dim": _POSITIVE,
    "depth": _POSITIVE,
    "beta1": _DECAY,
    "beta2": _DECAY,
    "critic_weights": _CRITIC_WEIGHTS | {"chain": _RATE},
    "chain": {"step_size": _RATE, "noise": _WEIGHT, "restart": _SHARE, "encoded": _SHARE},
    "average_decay": _DECAY,
  },
  "rule": {"exemplars": _at_least(2), "epochs": _POSITIVE, "mismatched": _RATE},
  "classifier": _TRUNK | _TRAINING | {"activate_logits": _SWITCH, "arms": _ARMS, "share": _SHARE},
  "evaluate": {
    "sets": _SETS,
    "batch_size": _POSITIVE,
    "samples_per_class": _at_least(2),
    "judge": _TRAINING | {"channels": _WIDTHS, "feature_dim": _POSITIVE},
  },
  "audit": {
    "shares": _SHARES,
    "limit": _RATE,
    "calibrate": _SWITCH,
    "share": _SHARE,
    "activate_logits": _SWITCH,
    "learning_rate": _RATE,
    "schedule": _one_of("constant", "cosine"),
  },
  "learning_curve": {"shares": _SHARES, "arms": _ARMS, "sets": _SETS},
  "expected": Rule(
    tuple,
    lambda value: all(map(expectations.known, map(str, value))),
    "texts such as 'samples actor conditional_accuracy > 0.97', a path in results.json, < or >, and a number",
  ),
  "sample": {
    "method": _one_of(*samplers.METHODS),
    "labels": _TEXT,
    "count": _POSITIVE,
    "optimize": {"steps": _POSITIVE, "learning_rate": _RATE},
    "langevin": {"steps": _POSITIVE, "step_size": _RATE, "noise": _WEIGHT},
    "refine": {"steps": _NATURAL, "step_size": _RATE, "noise": _WEIGHT, "rounds": _POSITIVE},
  },
  "edit": {
    "images": _TEXT,
    "count": _POSITIVE,
    "labels": _TEXT,
    "steps": _POSITIVE,
    "learning_rate": _RATE,
    "distance_weight": _WEIGHT,
  },
  "traverse": {"points": _at_least(2), "count": _POSITIVE},
  "benchmark": {
    "phases": _some_of("vae", "actor_critic", "energy", "classifier", "comparison", "judge", "sampling", "evaluation"),
    "chunks": _POSITIVE,
    "curve": Rule(tuple, lambda value: all(type(s) is int and s > 0 for s in value), "whole numbers of at least 1"),
    "seconds": _RATE,
  },
  "train": {
    "chunk_steps": _POSITIVE,
    "checkpoint_steps": _POSITIVE,
    "seed_axis": _NATURAL,
    "convolution": _one_of("auto", "native", "matmul"),
    "dtype": _one_of("float32", "bfloat16"),
    "on_nonfinite": _one_of("stop", "restore"),
    "restores": _POSITIVE,
    "grace_s": _RATE,
  },
}

# What may change between two commands on one workdir: it alters what is reported or how fast, not what was trained.
_FREE = (
  "data.dir",
  "data.placement",
  "actor_critic.constraint",
  "rule.",
  "classifier.arms",
  "evaluate.sets",
  "evaluate.batch_size",
  "evaluate.samples_per_class",
  "audit.",
  "learning_curve.",
  "expected",
  "sample.",
  "edit.",
  "traverse.",
  "benchmark.",
  "train.chunk_steps",
  "train.checkpoint_steps",
  "train.seed_axis",
  "train.convolution",
  "train.on_nonfinite",
  "train.restores",
  "train.grace_s",
)


def checked(values: Mapping[str, Any]) -> dict[str, Any]:
  """The config as a plain dict, every value of its type and in its range.

  Tuples of names may come as one comma-separated text, as they do from the command line.

  Raises:
    InputError: names the first key that is unknown, missing, of the wrong type or out of range, and what it may be.
  """
  return _checked(values, SCHEMA, "")


def _checked(values: Mapping[str, Any], schema: Mapping[str, Any], prefix: str) -> dict[str, Any]:
  for key in values:
    if key not in schema:
      raise errors.InputError(f"config.{prefix}{key}: unknown key; there are {', '.join(sorted(schema))}")
  result = {}
  for key, rule in schema.items():
    path = prefix + key
    if key not in values:
      raise errors.InputError(f"config.{path}: missing")
    value = values[key]
    if isinstance(rule, Mapping):
      if not isinstance(value, Mapping):
        raise errors.InputError(f"config.{path}={_shown(value)}: must be a section with {', '.join(sorted(rule))}")
      result[key] = _checked(value, rule, path + ".")
      continue
    value = rule.meaning(_converted(value, rule.type))
    if type(value) is not rule.type or not rule.holds(value):
      raise errors.InputError(f"config.{path}={_shown(value)}: must be {rule.words}")
    result[key] = value
  return result


def _shown(value: Any) -> str:
  text = repr(value)
  return text if len(text) <= 200 else f"{text[:200]}..."


def _converted(value: Any, kind: type) -> Any:
  if kind is float and type(value) is int:
    return float(value)
  if kind is tuple and isinstance(value, str | list | tuple):
    parts = [value] if isinstance(value, str) else value
    return tuple(item for part in parts for item in (part.split(",") if isinstance(part, str) else [part]))
  return value


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
  """`{"vae.epochs": 3, ...}`."""
  result = {}
  for key, value in values.items():
    result |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value}
  return result


def read(workdir: epath.Path) -> dict[str, Any] | None:
  """The config that the workdir belongs to; None for a new one.

  Raises:
    InputError: where its `config.json` cannot be read.
  """
  if workdir.exists() and not workdir.is_dir():
    raise errors.InputError(f"--workdir={workdir} is not a folder; choose another")
  path = workdir / "config.json"
  if not path.exists():
    return None
  try:
    return checked(json.loads(path.read_text()))
  except ValueError as error:
    raise errors.InputError(
      f"{path} is not a config of this version of lcgen ({error}); choose another --workdir"
    ) from error


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
  """Keys that differ and that decide what is trained, as `key: old -> new`."""
  before, after = flat(old), flat(new)
  return [
    f"{key}: {before[key]!r} -> {after[key]!r}"
    for key in after
    if before[key] != after[key] and not key.startswith(_FREE)
  ]
