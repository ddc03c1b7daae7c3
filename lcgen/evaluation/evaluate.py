"""Exact evaluation: padded batches with a mask, sums before divisions, one compilation for all test sets."""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent import futures
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lcgen.data import ranges, sources, test_sets
from lcgen.evaluation import metrics
from lcgen.runtime import parallel

Batch = dict[str, Any]
Scores = dict[str, dict[str, dict[str, list[float]]]]


def batches(split: sources.Split, size: int, sharding: jax.sharding.Sharding | jax.Device) -> list[Batch]:
  """A split on the device in batches of exactly `size`, uint8; the last is filled with rows that its mask excludes."""
  parts = {"image": split.images, "label": split.labels, "mask": np.ones(len(split), bool)}
  return list(_batches(parts, size, sharding))


def _batches(parts: Mapping[str, np.ndarray], size: int, sharding: Any) -> Iterator[Batch]:
  count = len(parts["mask"])
  for start in range(0, count, size):
    rows = np.arange(start, start + size)
    batch = {name: array[rows % count] for name, array in parts.items()}
    yield parallel.put(batch | {"mask": batch["mask"] & (rows < count)}, sharding)


def changed_batches(
  test_set: test_sets.TestSet, split: sources.Split, classes: int, size: int, sharding: Any
) -> Iterator[Batch]:
  """The images of a test set as they are scored, `Unit`, each with its label distribution `target` `[B, K]`.

  All sets come alike, whatever they are, so that what scores them compiles once.
  """
  rows = np.arange(len(split), dtype=np.uint32)
  targets = np.eye(classes, dtype=np.float32)[split.labels] if split.targets is None else split.targets
  parts = {"image": split.images, "label": split.labels, "mask": np.ones(len(split), bool)}
  key, change = test_sets.key(test_set), test_sets.change(test_set)

  def changed(batch: Batch) -> Batch:
    images = change(key, batch.pop("row"), batch["image"])
    return batch | {"image": ranges.Unit(ranges.to_unit(images))}

  with futures.ThreadPoolExecutor() as pool:  # a CPU runs one call on few of its cores
    yield from pool.map(changed, _batches(parts | {"row": rows, "target": targets}, size, sharding))


def total(function: Callable[[Batch], Any], parts: Sequence[Batch]) -> Any:
  """The sum of a function of a batch, which may return any pytree, over all batches."""
  return functools.reduce(lambda a, b: jax.tree.map(jnp.add, a, b), map(function, parts))


def scores(
  score: Callable[[Batch], Mapping[str, Mapping[str, jax.Array]]],
  wanted: Sequence[test_sets.TestSet],
  read: Callable[[test_sets.TestSet], sources.Split],
  *,
  classes: int,
  size: int,
  sharding: Any,
) -> tuple[Scores, dict[str, dict[str, Any]]]:
  """Scores several classifiers on the same test sets.

  Args:
    score: `batch -> {classifier: scores}` of `metrics.soft_scores`, all repetitions, each `[S]` or `[S, bins]`.
    wanted: the test sets.
    read: the stored images of one; called once each, so that one at a time is held.
    classes: number of classes.
    size: of a batch.
    sharding: where batches go.

  Returns:
    `{classifier: {test set: {score: [one a seed]}}}`, and what is known of each set: `origin`, `images` and, where
    labels were drawn, `ceiling` (the best classifier's accuracy) and `label_entropy` (its NLL, nats).
    Scores are `accuracy`, `nll`, `brier` and the expected calibration error `ece`. Where labels were drawn there is
    also `kl`, from the label distribution to the classifier's, in nats.
    `corrupted` is the mean accuracy over all generated sets.
  """
  results, facts = {}, {}
  for test_set in wanted:
    split = read(test_set)
    known = facts[test_set.name] = {"origin": test_set.origin, "images": len(split)}
    if split.targets is not None:
      known |= {"ceiling": test_sets.ceiling(split), "label_entropy": test_sets.label_entropy(split)}
    parts = list(changed_batches(test_set, split, classes, size, sharding))
    for classifier, sums in jax.device_get(total(score, parts)).items():
      means = {name: value.astype(np.float64) / len(split) for name, value in sums.items()}
      if split.targets is not None:
        means["kl"] = means["nll"] - known["label_entropy"]
      results.setdefault(classifier, {})[test_set.name] = means
  generated = [test_set.name for test_set in wanted if test_set.family in test_sets.GENERATED]
  for by_set in results.values() if generated else ():
    by_set[test_sets.CORRUPTED] = {"accuracy": np.mean([by_set[name]["accuracy"] for name in generated], axis=0)}
  for family in test_sets.DIRTY:
    halves = [f"{family}/{half}" for half in test_sets.HALVES]
    if set(halves) <= set(facts):
      _join(results, facts, family, halves)
  listed = lambda by_set: {name: _listed(means) for name, means in by_set.items()}
  return {classifier: listed(by_set) for classifier, by_set in results.items()}, facts


def _listed(means: dict[str, np.ndarray]) -> dict[str, list[float]]:
  """As `results.json` has them."""
  errors = {"ece": metrics.calibration_error(means["gaps"])} if "gaps" in means else {}
  return {name: values.tolist() for name, values in (means | errors).items() if name != "gaps"}


def _join(results: Scores, facts: dict[str, dict[str, Any]], name: str, parts: Sequence[str]) -> None:
  """Adds a set that consists of others: the mean of each score and fact, weighted by their images."""
  sizes = [facts[part]["images"] for part in parts]
  mean = lambda values: np.average(values, axis=0, weights=sizes)
  facts[name] = {"origin": facts[parts[0]]["origin"], "images": sum(sizes)}
  for fact in ("ceiling", "label_entropy"):
    facts[name][fact] = float(mean([facts[part][fact] for part in parts]))
  for by_set in results.values():
    by_set[name] = {score: mean([by_set[part][score] for part in parts]) for score in by_set[parts[0]]}
