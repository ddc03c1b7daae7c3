"""Mean accuracies over corrupted test sets: by corruption, severity and group, and relative to clean images.

Accuracies are not normalised by the errors of another classifier. For CIFAR-10-C papers and RobustBench report this
unnormalised mean, over 15 corruptions in five severities.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from lcgen.data import corruptions, test_sets

BENCHMARK, ALL, SELECTED = "benchmark", "all", "selected"

Accuracies = Mapping[test_sets.TestSet, np.ndarray]  # each [S]


def summarize(accuracies: Accuracies) -> dict[str, dict[str, Any]]:
  """Summarizes each family of corruptions among the sets.

  Returns:
    For each family, `means` over sets, each `[S]`. `benchmark` (the 15 corruptions of CIFAR-10-C's benchmark, five
    severities each) and `all` (every corruption of the family) are there if all their sets were evaluated. If neither
    is, `selected` is the mean of the evaluated sets. `relative`: the means divided by the accuracy on the family's
    clean images, if these were evaluated; nan if it is 0. `by_corruption`, and with several severities `by_severity`
    and `by_group`: means over all evaluated sets of the family. The user's own corruptions have no `by_group`.
  """
  result = {}
  for family in dict.fromkeys(test_set.family for test_set in accuracies):
    corrupted = {
      test_set: value
      for test_set, value in accuracies.items()
      if test_set.family == family
      and (family == test_sets.CUSTOM or test_set.part in corruptions.CIFAR10_C | corruptions.MNIST_C)
    }
    if corrupted:
      result[family] = _summary(family, corrupted, accuracies.get(_clean(family)))
  return result


def _clean(family: str) -> test_sets.TestSet:
  """Gives the clean set that a family is compared with: published MNIST-C has its own, others use the test images."""
  return test_sets.TestSet(family, test_sets.IDENTITY) if family == "mnist_corrupted" else test_sets.TestSet("test")


def _summary(family: str, corrupted: Accuracies, clean: np.ndarray | None) -> dict[str, Any]:
  graded = any(test_set.severity for test_set in corrupted)
  family_sets = [test_set for test_set in test_sets.expand([family]) if test_set.part != test_sets.IDENTITY]
  benchmark = [one for one in family_sets if one.part in corruptions.BENCHMARK]
  whole = {BENCHMARK: benchmark} if graded and benchmark else {}
  whole[ALL] = family_sets or list(corrupted)  # for the user's own corruptions, all that were evaluated
  means = {name: _mean(corrupted, sets) for name, sets in whole.items() if set(sets) <= set(corrupted)}
  means = means or {SELECTED: _mean(corrupted, corrupted)}
  result = {"means": means}
  if clean is not None:
    share = lambda mean: np.divide(mean, clean, out=np.full(clean.shape, np.nan), where=clean > 0)
    result["relative"] = {name: share(mean).tolist() for name, mean in means.items()}
  result["by_corruption"] = _by(corrupted, lambda test_set: test_set.part)
  if graded:
    groups = {name: group for group, names in corruptions.GROUPS.items() for name in names}
    result["by_severity"] = _by(corrupted, lambda test_set: str(test_set.severity))
    if family != test_sets.CUSTOM:
      result["by_group"] = _by(corrupted, lambda test_set: groups[test_set.part])
  return result


def _mean(accuracies: Accuracies, sets: Iterable[test_sets.TestSet]) -> list[float]:
  return np.mean([accuracies[test_set] for test_set in sets], axis=0).tolist()


def _by(accuracies: Accuracies, group: Callable[[test_sets.TestSet], str]) -> dict[str, list[float]]:
  """Computes the mean over the sets of each group."""
  groups: dict[str, list[test_sets.TestSet]] = {}
  for test_set in accuracies:
    groups.setdefault(group(test_set), []).append(test_set)
  return {name: _mean(accuracies, sets) for name, sets in groups.items()}
