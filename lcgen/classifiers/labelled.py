"""Lists training images by class, for policies that draw other images of the same class."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct


@struct.dataclass
class Labelled:
  """Training images by class.

  Attributes:
    rows: rows of the images of each class, `[K, M]`, padded with zeros.
    counts: number of images of each class, `[K]`.
    images: the stored images, `[N, H, W, C]`; None until the training step sets them.
  """

  rows: jax.Array
  counts: jax.Array
  images: jax.Array | None = None


def by_class(labels: np.ndarray, classes: int, pools: Sequence[np.ndarray]) -> Labelled:
  """Lists the rows of each class, for all seeds: every array has a leading axis `[S]`.

  Args:
    labels: labels of the training images, `[N]`.
    classes: number of classes K.
    pools: the rows that each seed may use.
  """
  by_class = [[pool[labels[pool] == label] for label in range(classes)] for pool in pools]
  counts = np.array([[len(rows) for rows in own] for own in by_class], np.int32)  # [S, K]
  table = np.zeros((*counts.shape, counts.max()), np.int32)
  for own, into in zip(by_class, table, strict=True):
    for rows, place in zip(own, into, strict=True):
      place[: len(rows)] = rows
  return Labelled(jnp.asarray(table), jnp.asarray(counts))
