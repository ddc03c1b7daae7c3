"""What many corrupted test sets say together: means over corruptions, severities and groups, beside the clean accuracy.

Means are of accuracies and not normalised by another classifier's errors: on CIFAR-10-C the unnormalised mean over 15
corruptions in five severities is what papers and RobustBench report.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from lcgen.data import corruptions, test_sets

BENCHMARK, ALL, SELECTED = "benchmark", "all", "selected"

Accuracies = Mapping[test_sets.TestSet, np.ndarray]  # each [S]


def summarize(accuracies: Accuracies) -> dict[str, dict[str, Any]]:
  """Summaries of each family of corruptions among the sets.

  Returns:
    For each family: `means` over sets, each `[S]`: `benchmark` (the 15 corruptions of CIFAR-10-C's benchmark, five
    severities each), `all` (every corruption of the family); `selected` where only some were evaluated.
    `relative`: the same over the accuracy on the family's clean images. `by_severity`, `by_corruption`, `by_group`:
    means over all sets of the family that were evaluated.
  """
  result = {}
  for family in dict.fromkeys(test_set.family for test_set in accuracies):
    corrupted = {
      test_set: value
      for test_set, value in accuracies.items()
      if test_set.family == family and test_set.part in corruptions.CIFAR10_C | corruptions.MNIST_C
    }
    if corrupted:
      result[family] = _summary(family, corrupted, accuracies.get(_clean(family)))
  return result


def _clean(family: str) -> test_sets.TestSet:
  """The clean images that a family's corrupted ones are compared with: MNIST-C brings its own."""
  return test_sets.TestSet(family, test_sets.IDENTITY) if family == "mnist_corrupted" else test_sets.TestSet("test")


def _summary(family: str, corrupted: Accuracies, clean: np.ndarray | None) -> dict[str, Any]:
  graded = any(test_set.severity for test_set in corrupted)
  family_sets = [test_set for test_set in test_sets.expand([family]) if test_set.part != test_sets.IDENTITY]
  whole = {BENCHMARK: [one for one in family_sets if one.part in corruptions.BENCHMARK]} if graded else {}
  whole[ALL] = family_sets
  means = {name: _mean(corrupted, sets) for name, sets in whole.items() if set(sets) <= set(corrupted)}
  means = means or {SELECTED: _mean(corrupted, corrupted)}
  result = {"means": means}
  if clean is not None:
    result["relative"] = {name: (np.array(mean) / clean).tolist() for name, mean in means.items()}
  result["by_corruption"] = _by(corrupted, lambda test_set: test_set.part)
  if graded:
    groups = {name: group for group, names in corruptions.GROUPS.items() for name in names}
    result["by_severity"] = _by(corrupted, lambda test_set: str(test_set.severity))
    result["by_group"] = _by(corrupted, lambda test_set: groups[test_set.part])
  return result


def _mean(accuracies: Accuracies, sets: Iterable[test_sets.TestSet]) -> list[float]:
  return np.mean([accuracies[test_set] for test_set in sets], axis=0).tolist()


def _by(accuracies: Accuracies, group: Callable[[test_sets.TestSet], str]) -> dict[str, list[float]]:
  """Means over the sets of each group."""
  groups: dict[str, list[test_sets.TestSet]] = {}
  for test_set in accuracies:
    groups.setdefault(group(test_set), []).append(test_set)
  return {name: _mean(accuracies, sets) for name, sets in groups.items()}
