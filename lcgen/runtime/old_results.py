"""Upgrades the files of the version before `schema` was stored. Only this module knows the names of that version.

Its test sets, roles and phases were known by their names alone, so that here, and here only, names are parsed.
"""

import re
from collections.abc import Mapping
from typing import Any

_ROLES = {  # of policies
  "none": "baseline",
  "latent_constraints": "method",
  **dict.fromkeys(
    ("reconstruction", "duplicate", "clip", "contrast", "blur", "noise", "shuffled"),
    "control",
  ),
}
_GRADED = ("generated_cifar10_c", "cifar10_corrupted", "custom")  # families in five severities
_TITLES = {  # of the scores of samples that tables showed, in their order
  "diversity": "diversity",
  "frechet_distance": "Fréchet distance",
  "kernel_distance": "kernel distance",
  "precision": "precision",
  "recall": "recall",
  "density": "density",
  "coverage": "coverage",
  "novelty": "novelty",
}
_HIDDEN = ("kernel_distance",)
_OF_RECORDS = ("phase", "step", "epoch")  # keys of a record beside its terms


def results(found: Mapping[str, Any]) -> dict[str, Any]:
  """Adds roles, facts of test sets and metrics to the results of a run."""
  return {
    **found,
    "roles": roles(found["arms"]),
    "test_sets": _test_sets(found["test_sets"]),
    "metrics": _metrics(found.get("samples", {})),
  }


def rule(found: Mapping[str, Any]) -> dict[str, Any]:
  """Adds metrics to the results of a rule, and the empty bound to those of realism."""
  return {"bound": "", "value": None, **found, "metrics": _metrics(found["samples"])}


def study(found: Mapping[str, Any]) -> dict[str, Any]:
  """Adds roles and facts of test sets to the points of a learning curve. Tables of a study stay as they are."""
  points = [{**point, "test_sets": _test_sets(point["test_sets"])} for point in found.get("points", ())]
  return {**found, "points": points, "roles": roles(points[0]["arms"] if points else ())}


def record(found: Mapping[str, Any]) -> dict[str, Any]:
  """Moves the terms of a metrics record into `terms`; returns a record of this version as it is.

  Terms such as `clip/loss` are nested by their arm. The kind of a phase is its name without the checksum of its arms.
  Phases that a study, a rule or realism trained have the kind of that study: older records do not say more.
  """
  if "kind" in found:
    return dict(found)
  study, slash, _ = found["phase"].partition("/")
  terms: dict[str, Any] = {}
  for name, values in found.items():
    arm, nested, term = name.rpartition("/")
    if name not in _OF_RECORDS:
      (terms.setdefault(arm, {}) if nested else terms)[term] = values
  kind = study if slash else re.sub(r"-[0-9a-f]{8}$", "", found["phase"])
  return {"phase": found["phase"], "kind": kind, "step": found["step"], "epoch": found["epoch"], "terms": terms}


def roles(arms: Any) -> dict[str, str]:
  """Gives the role of each arm, such as `flip_crop+latent_constraints:share=0.5`, by the policies in its name."""
  return {arm: _role([part.partition(":")[0] for part in arm.split("+")]) for arm in arms}


def _role(policies: list[str]) -> str:
  found = [_ROLES.get(name, "augmentation") for name in policies]
  if "method" in found:
    return "method"
  return found[0] if len(found) == 1 else "augmentation"


def _test_sets(found: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
  return {name: {**_place(name), "images": 0, **facts} for name, facts in found.items()}


def _place(name: str) -> dict[str, Any]:
  family, _, part = name.partition("/")
  graded = re.fullmatch(r"(.+)_([1-5])", part) if family in _GRADED else None
  part, severity = (graded[1], int(graded[2])) if graded else (part, 0)
  return {"family": family, "part": part, "severity": severity}


def _metrics(samples: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
  known = {name for scores in samples.values() for name in scores}
  return {
    name: {"title": title, "scale": 1.0, "digits": 2, "of": "features", "shown": name not in _HIDDEN}
    for name, title in _TITLES.items()
    if name in known
  }
