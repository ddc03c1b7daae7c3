"""Batches of equal size, padded and masked, and exact sums over them."""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lcgen.data.dataset import Split
from lcgen.runtime import parallel

Batch = dict[str, Any]


def padded(split: Split, size: int, sharding: jax.sharding.Sharding | jax.Device) -> list[Batch]:
  """Puts a split on the device in uint8 batches of exactly `size`; rows that pad the last one have a False `mask`."""
  arrays = {"image": split.images, "label": split.labels, "mask": np.ones(len(split), bool)}
  return list(padded_arrays(arrays, size, sharding))


def padded_arrays(arrays: Mapping[str, np.ndarray], size: int, sharding: Any) -> Iterator[Batch]:
  """Yields batches of exactly `size` rows of arrays `[N, ...]`; rows that pad the last one have a False `mask`."""
  count = len(arrays["mask"])
  for start in range(0, count, size):
    rows = np.arange(start, start + size)
    batch = {name: array[rows % count] for name, array in arrays.items()}
    yield parallel.put(batch | {"mask": batch["mask"] & (rows < count)}, sharding)


def total(function: Callable[[Batch], Any], batches: Sequence[Batch]) -> Any:
  """Sums a function over all batches; it takes a batch and may return any pytree."""
  return functools.reduce(lambda a, b: jax.tree.map(jnp.add, a, b), map(function, batches))
