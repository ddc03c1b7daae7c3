"""The losses of saving as JPEG and loading again, without the codec and its lossless coding."""

import jax
import jax.numpy as jnp
import numpy as np

from lcgen.data.corruptions import filters

# The example tables of the JPEG standard (ITU-T T.81, annex K), which libjpeg scales by quality.
_LUMINANCE = (
  (16, 11, 10, 16, 24, 40, 51, 61),
  (12, 12, 14, 19, 26, 58, 60, 55),
  (14, 13, 16, 24, 40, 57, 69, 56),
  (14, 17, 22, 29, 51, 87, 80, 62),
  (18, 22, 37, 56, 68, 109, 103, 77),
  (24, 35, 55, 64, 81, 104, 113, 92),
  (49, 64, 78, 87, 103, 121, 120, 101),
  (72, 92, 95, 98, 112, 100, 103, 99),
)
_CHROMINANCE = (
  (17, 18, 24, 47, 99, 99, 99, 99),
  (18, 21, 26, 66, 99, 99, 99, 99),
  (24, 26, 56, 99, 99, 99, 99, 99),
  (47, 66, 99, 99, 99, 99, 99, 99),
  *((99,) * 8,) * 4,
)


def quantisation(quality: int) -> np.ndarray:
  """Gives the luminance and the chrominance table at this quality, 1 to 100: `[2, 8, 8]`."""
  percent = 5000 // quality if quality < 50 else 200 - 2 * quality
  return np.clip((np.array([_LUMINANCE, _CHROMINANCE]) * percent + 50) // 100, 1, 255)


def compress(images: jax.Array, tables: jax.Array) -> jax.Array:
  """Applies JPEG's losses with tables `[2, 8, 8]` to unit images `[B, H, W, C]`, C in {1, 3}; chroma is halved."""
  height, width = images.shape[1:3]
  levels = jnp.round(images * 255)
  if images.shape[-1] == 1:
    luma = _quantise(_fill(levels[..., 0], 8), tables[0])
    return luma[:, :height, :width, None] / 255
  luma, *chroma = _to_ycbcr(_fill(levels, 16))
  halves = jnp.concatenate([_halve(plane) for plane in chroma])
  halves = _double(_quantise(halves, tables[1])[:, : (height + 1) // 2, : (width + 1) // 2])
  halves = halves.reshape(2, -1, *halves.shape[1:])[:, :, :height, :width]
  luma = _quantise(luma, tables[0])[:, :height, :width]
  return jnp.clip(_to_rgb(luma, *halves), 0, 255) / 255


def _fill(levels: jax.Array, multiple: int) -> jax.Array:
  """Repeats the last row and column until both sides are multiples of `multiple`."""
  sides = [(0, -size % multiple) if axis in (1, 2) else (0, 0) for axis, size in enumerate(levels.shape)]
  return jnp.pad(levels, sides, mode="edge")


def _to_ycbcr(levels: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
  red, green, blue = (levels[..., channel] for channel in range(3))
  luma = 0.299 * red + 0.587 * green + 0.114 * blue
  return jnp.round(luma), jnp.round(128 + (blue - luma) / 1.772), jnp.round(128 + (red - luma) / 1.402)


def _to_rgb(luma: jax.Array, blueness: jax.Array, redness: jax.Array) -> jax.Array:
  blue, red = luma + 1.772 * (blueness - 128), luma + 1.402 * (redness - 128)
  green = (luma - 0.299 * red - 0.114 * blue) / 0.587
  return jnp.round(jnp.stack([red, green, blue], axis=-1))


def _halve(plane: jax.Array) -> jax.Array:
  """Averages 2x2 pixels; rounds halves down and up in turn, as libjpeg does."""
  batch, height, width = plane.shape
  total = plane.reshape(batch, height // 2, 2, width // 2, 2).sum(axis=(2, 4))
  bias = 1.0 + jnp.arange(width // 2) % 2
  return jnp.floor((total + bias.reshape(1, 1, -1)) / 4)


def _double(plane: jax.Array) -> jax.Array:
  """Doubles the size: each new pixel is 3/4 of the nearest one plus 1/4 of the next, on each axis."""
  rows, columns = (_doubling_matrix(size) for size in plane.shape[1:])
  return jnp.round(filters.separable(plane[..., None], rows, columns)[..., 0])


def _doubling_matrix(size: int) -> np.ndarray:
  matrix = np.zeros((2 * size, size), np.float32)
  for pixel in range(2 * size):
    nearest = pixel // 2
    matrix[pixel, nearest] += 0.75
    matrix[pixel, np.clip(nearest + (1 if pixel % 2 else -1), 0, size - 1)] += 0.25
  return matrix


def _quantise(plane: jax.Array, table: jax.Array) -> jax.Array:
  """Rounds the cosine transform of 8x8 blocks to multiples of the table and transforms back: levels 0 to 255."""
  height, width = plane.shape[1:]
  rows, columns = (np.kron(np.eye(size // 8), _cosines()).astype(np.float32) for size in (height, width))
  steps = jnp.tile(table, (height // 8, width // 8))[None, :, :, None]
  coefficients = filters.separable(plane[..., None] - 128, rows, columns) / steps
  # Round halves, which are common, away from zero as libjpeg does; 1e-4 more because they come out inexact.
  rounded = jnp.sign(coefficients) * jnp.floor(jnp.abs(coefficients) + 0.5001) * steps
  levels = filters.separable(rounded, rows.T, columns.T)[..., 0] + 128
  return jnp.clip(jnp.round(levels), 0, 255)


def _cosines() -> np.ndarray:
  """Gives the orthonormal cosine transform of 8 values: `[8 frequencies, 8 values]`."""
  frequencies, places = np.mgrid[:8, :8]
  basis = np.cos(np.pi * frequencies * (2 * places + 1) / 16) / 2
  basis[0] /= np.sqrt(2)
  return basis
