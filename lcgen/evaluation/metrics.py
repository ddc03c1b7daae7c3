"""Scores of classifiers and of samples.

Samples are compared with real images by their features, those of a judge network. Wherever there is a mask, rows
that it excludes count for nothing, whatever they hold.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct

CONFIDENCE_BINS = 15


def count_correct(logits: jax.Array, labels: jax.Array, mask: jax.Array) -> jax.Array:
  """Number of unmasked examples whose largest logit is their label; `[B, K]`, `[B]`, `[B]` -> scalar."""
  return jnp.sum((logits.argmax(-1) == labels) & mask)


def soft_scores(logits: jax.Array, labels: jax.Array, targets: jax.Array, mask: jax.Array) -> dict[str, jax.Array]:
  """Sums of scores over the unmasked examples.

  Args:
    logits: `[B, K]`.
    labels: `[B]`.
    targets: label distributions `[B, K]`, one-hot where labels are certain.
    mask: `[B]`.

  Returns:
    `accuracy`: number of labels that have the largest logit. `nll`: cross-entropy to the label distributions, nats.
    `brier`: squared distance of the probabilities to the label distributions, summed over classes, from 0 to 2.
    `gaps`: correct minus confidence, by bins of the confidence, `[CONFIDENCE_BINS]`, for `calibration_error`.
  """
  nll = optax.softmax_cross_entropy(logits, targets)
  brier = jnp.square(jax.nn.softmax(logits) - targets).sum(axis=-1)
  masked = lambda values: jnp.where(mask, values, 0).sum()
  confidence = jax.nn.softmax(logits).max(axis=-1)
  bins = jnp.minimum((confidence * CONFIDENCE_BINS).astype(jnp.int32), CONFIDENCE_BINS - 1)
  gaps = jnp.where(mask, (logits.argmax(-1) == labels) - confidence, 0) @ jax.nn.one_hot(bins, CONFIDENCE_BINS)
  return {
    "accuracy": count_correct(logits, labels, mask), "nll": masked(nll), "brier": masked(brier), "gaps": gaps,
  }  # fmt: skip


def calibration_error(gaps: np.ndarray) -> np.ndarray:
  """Expected calibration error (Guo et al. 2017) of `soft_scores`' gaps over the number of examples, `[..., BINS]`."""
  return np.abs(gaps).sum(axis=-1)


def within_class_spread(
  features: jax.Array, labels: jax.Array, classes: int, mask: jax.Array | None = None
) -> jax.Array:
  """Root mean squared distance of features to the mean of their class; `[N, D]`, `[N]`, `[N]` -> scalar.

  Every example counts the same; the class means are those of the given examples.
  """
  mask = jnp.ones(len(features), bool) if mask is None else mask
  features = _zero_where_masked(features, mask)
  one_hot = jax.nn.one_hot(labels, classes) * mask[:, None]  # [N, K]
  means = (one_hot.T @ features) / jnp.maximum(one_hot.sum(axis=0)[:, None], 1)  # [K, D]
  return jnp.sqrt(jnp.square(features - means[labels]).sum(axis=-1).mean(where=mask))


@struct.dataclass
class Moments:
  """What the Fréchet distance needs of a feature set, or of a part of it.

  Attributes:
    count: number of rows.
    mean: `[D]`, zeros where there are no rows.
    scatter: sum over the rows of the outer products of their differences to the mean, `[D, D]`.
  """

  count: jax.Array
  mean: jax.Array
  scatter: jax.Array

  def merge(self, other: "Moments") -> "Moments":
    """Moments of both sets together (Chan et al. 1983); either may be empty."""
    count = self.count + other.count
    share = other.count / jnp.maximum(count, 1)
    difference = other.mean - self.mean
    return Moments(
      count=count,
      mean=self.mean + share * difference,
      scatter=self.scatter + other.scatter + self.count * share * jnp.outer(difference, difference),
    )


@jax.jit
def moments(features: jax.Array, mask: jax.Array) -> Moments:
  """Moments of the unmasked rows; `[N, D]`, `[N]`."""
  count = mask.sum()
  mean = _zero_where_masked(features, mask).sum(axis=0) / jnp.maximum(count, 1)
  centred = _zero_where_masked(features - mean[None, :], mask)
  return Moments(count, mean, jnp.matmul(centred.T, centred, precision="highest"))


def frechet_distance(a: Moments, b: Moments) -> float:
  """Squared Fréchet distance of two Gaussians, FID of Heusel et al. (2017) where Inception is the judge; from 0.

  |m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2)) with covariances over n - 1, in float64 on the host. The trace of
  the root is the sum of the roots of the eigenvalues of C_a^(1/2) C_b C_a^(1/2), also where covariances are singular.

  Returns:
    The distance; nan where a set has fewer than two rows or moments that are not finite.
  """
  counts = int(a.count), int(b.count)
  means, scatters = (np.asarray(pair, np.float64) for pair in ((a.mean, b.mean), (a.scatter, b.scatter)))
  if min(counts) < 2 or not (np.isfinite(means).all() and np.isfinite(scatters).all()):
    return math.nan
  first, second = (scatter / (count - 1) for scatter, count in zip(scatters, counts, strict=True))
  values, vectors = np.linalg.eigh(first)
  half = vectors * np.sqrt(values.clip(min=0))  # half half^T = C_a
  shared = np.sqrt(np.linalg.eigvalsh(half.T @ second @ half).clip(min=0)).sum()
  return max(0.0, float(np.square(means[0] - means[1]).sum() + np.trace(first + second) - 2 * shared))


@functools.partial(jax.jit, static_argnames="block")
def kernel_distance(a: jax.Array, b: jax.Array, a_mask: jax.Array, b_mask: jax.Array, block: int = 128) -> jax.Array:
  """Unbiased squared MMD with the kernel (x.y / D + 1)^3, KID of Bińkowski et al. (2018); it may be below 0.

  Args:
    a: `[N, D]`.
    b: `[M, D]`.
    a_mask: `[N]`.
    b_mask: `[M]`.
    block: number of rows whose kernels with a whole set are held at once.

  Returns:
    Scalar; nan where a set has fewer than two rows.
  """
  a, b = _zero_where_masked(a, a_mask), _zero_where_masked(b, b_mask)
  a_count, b_count = a_mask.sum(), b_mask.sum()
  centre = (a.sum(axis=0) + b.sum(axis=0)) / (a_count + b_count)
  cube = lambda products: (products / a.shape[1] + 1) ** 3
  # The distance is a small difference of means: a constant off all kernels leaves it as it is, and float32 more digits.
  kernel = lambda products: cube(products) - cube(jnp.square(centre).sum())

  def mean(x, x_mask, y, y_mask):
    row_mean = lambda row: kernel(jnp.matmul(y, row, precision="highest")).mean(where=y_mask)
    return jax.lax.map(row_mean, x, batch_size=block).mean(where=x_mask)

  def mean_of_pairs(x, mask, count):
    diagonal = kernel(jnp.square(x).sum(axis=-1)).mean(where=mask)
    return (count * mean(x, mask, x, mask) - diagonal) / (count - 1)

  return mean_of_pairs(a, a_mask, a_count) + mean_of_pairs(b, b_mask, b_count) - 2 * mean(a, a_mask, b, b_mask)


@functools.partial(jax.jit, static_argnames=("k", "block"))
def neighbourhood_scores(
  real: jax.Array, samples: jax.Array, real_mask: jax.Array, sample_mask: jax.Array, k: int = 5, block: int = 128
) -> dict[str, jax.Array]:
  """Which rows lie inside balls around those of the other set; a ball reaches to the k-th neighbour in its own set.

  Args:
    real: `[N, D]`.
    samples: `[M, D]`.
    real_mask: `[N]`.
    sample_mask: `[M]`.
    k: which neighbour; the row itself is not counted.
    block: number of rows whose distances to a whole set are held at once.

  Returns:
    `precision`: share of samples inside a real ball. `recall`: share of real rows inside a sample's ball (both of
    Kynkäänniemi et al. 2019). `density`: mean number of real balls around a sample over k, which may exceed 1.
    `coverage`: share of real balls with a sample inside (both of Naeem et al. 2020). All are nan where a set has no
    more than k rows or values that are not finite.
  """

  def radii(features, mask):
    kth_neighbour = lambda row: _kth_smallest(row, k + 1)  # the first is the row itself
    return _map_distances(kth_neighbour, features, features, mask, block)

  def usable(features, mask):
    return (mask.sum() > k) & jnp.isfinite(_zero_where_masked(features, mask)).all()

  real_radii, sample_radii = radii(real, real_mask), radii(samples, sample_mask)
  balls = _map_distances(lambda row: (row < real_radii).sum(), samples, real, real_mask, block)
  inside_and_nearest = lambda row: ((row < sample_radii).any(), row.min())
  inside, nearest = _map_distances(inside_and_nearest, real, samples, sample_mask, block)
  scores = {
    "precision": (balls > 0).mean(where=sample_mask),
    "recall": inside.mean(where=real_mask),
    "density": balls.mean(where=sample_mask) / k,
    "coverage": (nearest < real_radii).mean(where=real_mask),
  }
  defined = usable(real, real_mask) & usable(samples, sample_mask)
  return {name: jnp.where(defined, score, jnp.nan) for name, score in scores.items()}


@functools.partial(jax.jit, static_argnames="block")
def nearest_distances(
  samples: jax.Array, references: jax.Array, reference_mask: jax.Array, block: int = 128
) -> jax.Array:
  """Euclidean distance of each sample to the nearest reference, 0 for a copy; `[M, D]`, `[N, D]`, `[N]` -> `[M]`.

  Of `block` samples at a time the distances to all references are held.
  """
  return jnp.sqrt(_map_distances(jnp.min, samples, references, reference_mask, block))


def _zero_where_masked(features: jax.Array, mask: jax.Array) -> jax.Array:
  return jnp.where(mask[:, None], features, 0)


def _map_distances(
  function: Callable[[jax.Array], Any], rows: jax.Array, references: jax.Array, mask: jax.Array, block: int
) -> Any:
  """`function` of the squared distances `[N]` of each row to the references, infinite to those that `mask` excludes.

  |x|^2 + |y|^2 - 2 x.y would not be 0 for a copy, nor the same both ways, as `<` at the surface of a ball needs it. XLA
  on CPUs would hold the differences in all features at once, so they are added up feature by feature.
  """
  columns = references.T

  def distances(row):
    add = lambda d, total: total + jnp.square(columns[d] - row[d])
    total = jax.lax.fori_loop(0, len(columns), add, jnp.zeros(len(references), columns.dtype), unroll=8)
    return jnp.where(mask, total, jnp.inf)

  return jax.lax.map(lambda row: function(distances(row)), rows, batch_size=block)


def _kth_smallest(values: jax.Array, k: int) -> jax.Array:
  """`[N]` -> scalar; equal values count one by one. (`jax.lax.top_k` sorts on CPUs, tens of times slower.)"""

  def next_larger(_, threshold):
    enough = (values <= threshold).sum() >= k
    return jnp.where(enough, threshold, jnp.where(values > threshold, values, jnp.inf).min())

  return jax.lax.fori_loop(0, k, next_larger, -jnp.inf)
