"""Exact evaluation: padded batches with a mask, sums before divisions, one compilation for all test sets."""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lcgen import corruptions
from lcgen.data import images as ranges
from lcgen.data import sources

TEST, CORRUPTIONS = "test", "corruptions"  # what `evaluate.sets` may name beside single corruptions
CORRUPTED = "corrupted"  # the mean over all corrupted sets, in the results
KNOWN_SETS = (TEST, CORRUPTIONS, *corruptions.CORRUPTIONS)

Batch = dict[str, jax.Array]


def batches(split: sources.Split, size: int, sharding: jax.sharding.Sharding | jax.Device) -> list[Batch]:
  """A split on the device in batches of exactly `size`, uint8; the last is filled with rows that its mask excludes."""
  filled = -(-len(split) // size) * size
  rows = np.arange(filled)
  picked, mask = rows % len(split), rows < len(split)
  parts = {"image": split.images[picked], "label": split.labels[picked], "mask": mask}
  return [
    jax.device_put({name: array[start : start + size] for name, array in parts.items()}, sharding)
    for start in range(0, filled, size)
  ]


def total(function: Callable[[Batch], Any], parts: Sequence[Batch]) -> Any:
  """The sum of a function of a batch, which may return any pytree, over all batches."""
  return functools.reduce(lambda a, b: jax.tree.map(jnp.add, a, b), map(function, parts))


def test_sets(clean: Sequence[Batch], names: Sequence[str]) -> Iterator[tuple[str, Sequence[Batch]]]:
  """The test sets that `names` ask for, each `(name, batches)`: `test`, and every corruption as `name_severity`.

  A corrupted set is a function of the images, their batches and its name alone: all arms and seeds see the same.
  """
  if TEST in names:
    yield TEST, clean
  for index, name in enumerate(corruptions.CORRUPTIONS):
    if name not in names and CORRUPTIONS not in names:
      continue
    for severity in corruptions.SEVERITIES:
      key = jax.random.fold_in(jax.random.key(index), severity)
      yield (
        f"{name}_{severity}",
        [
          batch | {"image": _corrupt(name)(jax.random.fold_in(key, place), batch["image"], severity)}
          for place, batch in enumerate(clean)
        ],
      )


@functools.cache
def _corrupt(name: str) -> Callable[[jax.Array, jax.Array, int], jax.Array]:
  """A jitted corruption of uint8 images, rounded to uint8 as a set on disk would be."""
  corruption = corruptions.CORRUPTIONS[name]
  return jax.jit(lambda key, images, severity: ranges.to_uint8(corruption(key, ranges.to_unit(images), severity)))


def accuracies(
  counts: Mapping[str, Callable[[Batch], jax.Array]], clean: Sequence[Batch], names: Sequence[str]
) -> dict[str, dict[str, dict[str, list[float]]]]:
  """Accuracy of several classifiers on the same test sets.

  Args:
    counts: for each classifier, `batch -> [S]` correct predictions among the unmasked.
    clean: the test images, from `batches`.
    names: as for `test_sets`.

  Returns:
    `{classifier: {test set: {"accuracy": [one a seed]}}}`; `corrupted` is the mean over the corrupted sets.
  """
  size = int(total(lambda batch: batch["mask"].sum(), clean))
  scores = {classifier: {} for classifier in counts}
  for name, parts in test_sets(clean, names):
    for classifier, count in counts.items():
      scores[classifier][name] = np.asarray(total(count, parts)) / size
  results = {}
  for classifier, by_set in scores.items():
    results[classifier] = {name: {"accuracy": accuracy.tolist()} for name, accuracy in by_set.items()}
    if corrupted := [accuracy for name, accuracy in by_set.items() if name != TEST]:
      results[classifier][CORRUPTED] = {"accuracy": np.mean(corrupted, axis=0).tolist()}
  return results
