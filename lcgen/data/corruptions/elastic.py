"""Random affine maps and smooth displacements of images."""

import jax
import jax.numpy as jnp

from lcgen.data.corruptions import fields, filters


def affine_of_points(key: jax.Array, images: jax.Array, reach: jax.Array) -> jax.Array:
  """Applies the affine map that moves three points around the centre by up to ±reach pixels on each axis."""
  batch, height, width, _ = images.shape
  centre, arm = jnp.array([height // 2, width // 2], jnp.float32), min(height, width) // 3
  moves = jax.random.uniform(key, (batch, 3, 2), minval=-1) * reach
  # The points are centre + (arm, arm), (arm, -arm) and (-arm, -arm): their differences lie along the axes.
  columns = jnp.stack([moves[:, 1] - moves[:, 2], moves[:, 0] - moves[:, 1]], axis=-1) / (2 * arm)
  matrix = columns + jnp.eye(2)[None]
  corner = (centre + jnp.array([arm, -arm]))[None]
  inverse = _inverse(matrix)
  shift = corner - jnp.einsum("bij,bj->bi", inverse, corner + moves[:, 1])
  return filters.bilinear(images, *filters.affine_places(height, width, inverse, shift), border="reflect")


def _inverse(matrix: jax.Array) -> jax.Array:
  """Inverts 2x2 matrices, `[B, 2, 2]`."""
  determinant = matrix[:, 0, 0] * matrix[:, 1, 1] - matrix[:, 0, 1] * matrix[:, 1, 0]
  adjugate = jnp.stack([matrix[:, 1, 1], -matrix[:, 0, 1], -matrix[:, 1, 0], matrix[:, 0, 0]], axis=-1)
  return (adjugate / determinant[:, None]).reshape(-1, 2, 2)


def displace(key: jax.Array, images: jax.Array, alpha: jax.Array, sigmas, severity: jax.Array) -> jax.Array:
  """Displaces pixels by `alpha` x uniform noise in ±1 that is smoothed by the Gaussian of this severity."""
  batch, height, width, _ = images.shape
  noise = 2 * fields.uniform(key, (batch, height, width, 2)) - 1
  smoothing = (filters.gaussian_matrices(size, sigmas, truncate=3, border="symmetric") for size in (height, width))
  field = alpha * filters.separable(noise, *(filters.level(matrices, severity) for matrices in smoothing))
  rows, columns = jnp.mgrid[:height, :width].astype(jnp.float32)[:, None]
  return filters.bilinear(images, rows + field[..., 0], columns + field[..., 1], border="symmetric")
