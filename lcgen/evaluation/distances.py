"""Compares sets of a judge's features. Rows that a mask excludes never count, whatever their values, NaN included."""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

_ROUNDING = 1e-5  # of the length of the features: rows that are no farther apart count as alike


def within_class_spread(
  features: jax.Array, labels: jax.Array, classes: int, mask: jax.Array | None = None
) -> jax.Array:
  """Computes the root mean square distance of features to the mean of their class; `[N, D]`, `[N]`, `[N]` -> scalar.

  Every example has the same weight. Class means are those of the given examples.
  """
  mask = jnp.ones(len(features), bool) if mask is None else mask
  features = _zero_where_masked(features, mask)
  one_hot = jax.nn.one_hot(labels, classes) * mask[:, None]  # [N, K]
  means = (one_hot.T @ features) / jnp.maximum(one_hot.sum(axis=0)[:, None], 1)  # [K, D]
  return jnp.sqrt(jnp.square(features - means[labels]).sum(axis=-1).mean(where=mask))


@struct.dataclass
class Moments:
  """Moments of a feature set, or of a part of it, for the Fréchet distance.

  Attributes:
    count: number of rows.
    mean: `[D]`, zeros if there are no rows.
    scatter: sum over rows of the outer products of their differences to the mean, `[D, D]`.
  """

  count: jax.Array
  mean: jax.Array
  scatter: jax.Array

  def merge(self, other: "Moments") -> "Moments":
    """Computes the moments of both sets together (Chan et al. 1983); either may be empty."""
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
  """Computes the moments of the unmasked rows; `[N, D]`, `[N]`."""
  count = mask.sum()
  mean = _zero_where_masked(features, mask).sum(axis=0) / jnp.maximum(count, 1)
  centred = _zero_where_masked(features - mean[None, :], mask)
  return Moments(count, mean, jnp.matmul(centred.T, centred, precision="highest"))


def frechet_distance(a: Moments, b: Moments) -> float:
  """Computes the squared Fréchet distance of two Gaussians, at least 0.

  With Inception as the judge this is the FID of Heusel et al. (2017).
  |m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2)) with covariances over n - 1, in float64 on the host. The trace of
  the root is the sum of the roots of the eigenvalues of C_a^(1/2) C_b C_a^(1/2), even for singular covariances.

  Returns:
    The distance; nan if a set has fewer than two rows or moments that are not finite.
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
  """Computes the unbiased squared MMD with kernel (x.y / D + 1)^3, KID of Bińkowski et al. (2018); can be negative.

  Args:
    a: `[N, D]`.
    b: `[M, D]`.
    a_mask: `[N]`.
    b_mask: `[M]`.
    block: number of rows whose kernels with a whole set are held at once.

  Returns:
    Scalar; nan if a set has fewer than two rows.
  """
  a, b = _zero_where_masked(a, a_mask), _zero_where_masked(b, b_mask)
  a_count, b_count = a_mask.sum(), b_mask.sum()
  centre = (a.sum(axis=0) + b.sum(axis=0)) / (a_count + b_count)
  cube = lambda products: (products / a.shape[1] + 1) ** 3
  # The distance is a small difference of means. Subtracting a constant from all kernels does not change it, but leaves
  # float32 more digits.
  kernel = lambda products: cube(products) - cube(jnp.square(centre).sum())

  def mean(x, x_mask, y, y_mask):
    row_mean = lambda row: kernel(jnp.matmul(y, row, precision="highest")).mean(where=y_mask)
    return jax.lax.map(row_mean, x, batch_size=block).mean(where=x_mask)

  def mean_of_pairs(x, mask, count):
    diagonal = kernel(jnp.square(x).sum(axis=-1)).mean(where=mask)
    return (count * mean(x, mask, x, mask) - diagonal) / (count - 1)

  distance = mean_of_pairs(a, a_mask, a_count) + mean_of_pairs(b, b_mask, b_count) - 2 * mean(a, a_mask, b, b_mask)
  return jnp.where(jnp.minimum(a_count, b_count) > 1, distance, jnp.nan)


@functools.partial(jax.jit, static_argnames=("k", "block"))
def neighbourhood_scores(
  real: jax.Array, samples: jax.Array, real_mask: jax.Array, sample_mask: jax.Array, k: int = 5, block: int = 128
) -> dict[str, jax.Array]:
  """Scores how far each set covers the other by balls that reach to the k-th neighbour in their own set.

  Args:
    real: `[N, D]`.
    samples: `[M, D]`.
    real_mask: `[N]`.
    sample_mask: `[M]`.
    k: rank of the neighbour; the row itself does not count.
    block: number of rows whose distances to a whole set are held at once.

  Returns:
    `precision`: share of samples inside a real ball. `recall`: share of real rows inside a sample's ball (both of
    Kynkäänniemi et al. 2019). `density`: mean number of real balls around a sample, divided by k; it may exceed 1.
    `coverage`: share of real balls with a sample inside (both of Naeem et al. 2020). All are nan if a set has at most
    k rows or values that are not finite, and if all real balls are points, whose inside is a matter of rounding.
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
  widest = jnp.sqrt(jnp.max(real_radii, where=real_mask, initial=0))
  defined = usable(real, real_mask) & usable(samples, sample_mask) & (widest > _rounding(real, real_mask))
  return {name: jnp.where(defined, score, jnp.nan) for name, score in scores.items()}


@functools.partial(jax.jit, static_argnames="block")
def nearest_distances(
  samples: jax.Array, references: jax.Array, reference_mask: jax.Array, block: int = 128
) -> jax.Array:
  """Computes each sample's Euclidean distance to the nearest reference; `[M, D]`, `[N, D]`, `[N]` -> `[M]`.

  The distance of a copy is 0. Distances of `block` samples to all references are held at once.
  """
  return jnp.sqrt(_map_distances(jnp.min, samples, references, reference_mask, block))


def ratio(numerator: jax.Array, denominator: jax.Array, features: jax.Array) -> jax.Array:
  """Divides one distance by another; nan if the denominator is 0 up to the rounding of the features `[N, D]`.

  Images that are all alike have features that differ in their last digits, and 0/0 would be a ratio of noise.
  """
  defined = denominator > _rounding(features, jnp.ones(len(features), bool))
  return jnp.where(defined, numerator / denominator, jnp.nan)


def _rounding(features: jax.Array, mask: jax.Array) -> jax.Array:
  """Gives the distance up to which features count as alike, a scalar."""
  lengths = jnp.square(_zero_where_masked(features, mask)).sum(axis=-1)
  return _ROUNDING * jnp.sqrt(lengths.mean(where=mask))


def _zero_where_masked(features: jax.Array, mask: jax.Array) -> jax.Array:
  return jnp.where(mask[:, None], features, 0)


def _map_distances(
  function: Callable[[jax.Array], Any], rows: jax.Array, references: jax.Array, mask: jax.Array, block: int
) -> Any:
  """Maps `function` over the squared distances `[N]` of each row to the references; masked ones are infinitely far.

  |x|^2 + |y|^2 - 2 x.y is not exactly 0 for a copy, nor exactly symmetric. The comparison with a ball's radius needs
  both. Distances are summed feature by feature, because XLA on CPUs would hold the differences in all features at once.
  """
  columns = references.T

  def distances(row):
    add = lambda d, total: total + jnp.square(columns[d] - row[d])
    total = jax.lax.fori_loop(0, len(columns), add, jnp.zeros(len(references), columns.dtype), unroll=8)
    return jnp.where(mask, total, jnp.inf)

  return jax.lax.map(lambda row: function(distances(row)), rows, batch_size=block)


def _kth_smallest(values: jax.Array, k: int) -> jax.Array:
  """Finds the k-th smallest value, `[N]` -> scalar; equal values count one by one.

  `jax.lax.top_k` sorts on CPUs, which is tens of times slower.
  """

  def next_larger(_, threshold):
    enough = (values <= threshold).sum() >= k
    return jnp.where(enough, threshold, jnp.where(values > threshold, values, jnp.inf).min())

  return jax.lax.fori_loop(0, k, next_larger, -jnp.inf)
