"""Fits decoded pixel values to the data's by one monotone map.

Decoded images hold small values where the data are exactly black, and a classifier trained on them learns those
artefacts. The map matches the pixel values of reconstructions to those of the training images, in distribution. It is
computed once for each seed's generator: a table of 256 entries over [0, 1], read with linear interpolation.
"""

import jax
import jax.numpy as jnp

LEVELS = 256


def identity() -> jax.Array:
  """Gives the map that changes nothing, `[LEVELS]`."""
  return jnp.linspace(0.0, 1.0, LEVELS)


def histogram(unit: jax.Array, mask: jax.Array) -> jax.Array:
  """Counts the pixel values of some images, each rounded up to one of the `LEVELS` grid points.

  Args:
    unit: images in [0, 1], `[B, H, W, C]`.
    mask: which images count, `[B]`.

  Returns:
    `[LEVELS]`.
  """
  bins = jnp.ceil(unit * (LEVELS - 1) - 1e-3).astype(jnp.int32)  # 1e-3 of a level keeps grid points in place
  weights = jnp.broadcast_to(mask[:, None, None, None], unit.shape).astype(jnp.float32)
  return jnp.zeros(LEVELS).at[bins.ravel()].add(weights.ravel(), mode="clip")


def fit(decoded_counts: jax.Array, data_counts: jax.Array) -> jax.Array:
  """Computes the monotone map under which decoded values are distributed like the data's.

  Args:
    decoded_counts: `histogram` of decoded pixels, `[LEVELS]`, summed over any number of images.
    data_counts: the same of the data's pixels.

  Returns:
    `[LEVELS]` values in [0, 1], non-decreasing: at each grid point the data's quantile of the decoded share below it.
  """
  shares = jnp.cumsum(decoded_counts) / decoded_counts.sum()
  data_shares = jnp.cumsum(data_counts) / data_counts.sum()
  ranks = jnp.searchsorted(data_shares, shares - 1e-6)  # float32 sums of equal shares differ in the last digits
  return identity()[jnp.minimum(ranks, LEVELS - 1)]


def apply(table: jax.Array, unit: jax.Array) -> jax.Array:
  """Maps decoded values in [0, 1] through the table; any shape."""
  return jnp.interp(unit, identity(), table)
