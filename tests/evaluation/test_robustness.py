import numpy as np
import pytest

from lcgen.data import corruptions, test_sets
from lcgen.evaluation import robustness


def accuracies(names, seed=0):
  rng = np.random.default_rng(seed)
  return {one: rng.uniform(0.2, 0.9, 3) for one in test_sets.expand(names)}


@pytest.mark.parametrize("family", ["generated_cifar10_c", "cifar10_corrupted"])
def test_means_over_corruptions_severities_and_groups(family):
  given = accuracies(["test", family])
  clean = given[test_sets.TestSet("test")]
  table = np.array([[given[test_sets.TestSet(family, name, s)] for s in range(1, 6)] for name in corruptions.CIFAR10_C])
  assert table.shape == (19, 5, 3)
  summary = robustness.summarize(given)
  assert list(summary) == [family]
  summary = summary[family]
  assert list(summary["means"]) == ["benchmark", "all"]
  np.testing.assert_allclose(summary["means"]["benchmark"], table[:15].mean(axis=(0, 1)))
  np.testing.assert_allclose(summary["means"]["all"], table.mean(axis=(0, 1)))
  np.testing.assert_allclose(summary["relative"]["benchmark"], table[:15].mean(axis=(0, 1)) / clean)
  for severity in range(1, 6):
    np.testing.assert_allclose(summary["by_severity"][str(severity)], table[:, severity - 1].mean(axis=0))
  for place, name in enumerate(corruptions.CIFAR10_C):
    np.testing.assert_allclose(summary["by_corruption"][name], table[place].mean(axis=0))
  assert {name: len(members) for name, members in corruptions.GROUPS.items()} == {
    "noise": 3,
    "blur": 4,
    "weather": 4,
    "digital": 4,
    "extra": 4,
  }
  np.testing.assert_allclose(summary["by_group"]["noise"], table[:3].mean(axis=(0, 1)))
  np.testing.assert_allclose(summary["by_group"]["extra"], table[15:].mean(axis=(0, 1)))


def test_mnist_c_is_compared_with_its_own_clean_images():
  given = accuracies(["test", "mnist_corrupted"])
  identity = test_sets.TestSet("mnist_corrupted", "identity")
  mean = np.mean([value for one, value in given.items() if one.family != "test" and one != identity], axis=0)
  summary = robustness.summarize(given)["mnist_corrupted"]
  assert list(summary["means"]) == ["all"]
  assert len(summary["by_corruption"]) == 15
  np.testing.assert_allclose(summary["means"]["all"], mean)
  np.testing.assert_allclose(summary["relative"]["all"], mean / given[identity])
  assert "by_severity" not in summary


def test_some_corruptions_are_not_called_a_benchmark():
  given = accuracies(["generated_cifar10_c/fog", "generated_cifar10_c/saturate"])
  summary = robustness.summarize(given)["generated_cifar10_c"]
  assert list(summary["means"]) == ["selected"]
  assert "relative" not in summary
  np.testing.assert_allclose(summary["means"]["selected"], np.mean(list(given.values()), axis=0))
  assert robustness.summarize(accuracies(["test", "dirty_mnist"])) == {}
