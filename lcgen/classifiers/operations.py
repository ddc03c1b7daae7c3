"""The operations of RandAugment and AugMix, as Pillow computes them, for batches inside a jitted step.

Images are levels, whole numbers from 0 to 255 as floats, `[B, H, W, C]` with C 1 or 3. Each operation returns levels.

Operations are not chosen among functions, because `jax.vmap` would execute all of them. Instead they share one affine
resampling, one table of levels and one blend with a degenerate image. Each of these is neutral for an image with
another operation.

Against Pillow itself the largest difference is 1 level: where a product is whole in exact numbers, the order of its
float32 operations decides. `tests/classifiers/test_operations.py` holds all operations against Pillow and torchvision.
"""

from collections.abc import Collection

import jax
import jax.numpy as jnp
import numpy as np

from lcgen.classifiers.pixels import coordinates, flat, matrices, nearest_inside

GEOMETRY = ("rotate", "shear_x", "shear_y", "translate_x", "translate_y")
TABLES = ("autocontrast", "equalize", "posterize", "solarize")
BLENDS = ("color", "contrast", "brightness", "sharpness")
AUGMIX_OPERATIONS = (*GEOMETRY, *TABLES)
OPERATIONS = ("identity", *AUGMIX_OPERATIONS, *BLENDS)  # `augmix` draws indices from 1 on
_LEVELS = 256
_FIXED = 1 << 16  # Pillow's nearest resampling counts in 1/65536 of a pixel


def to_levels(unit: jax.Array) -> jax.Array:
  """Rounds unit images to levels."""
  return jnp.round(jnp.clip(unit, 0, 1) * 255)


def sources(images: jax.Array, operations, strengths, xp=jnp) -> jax.Array:
  """Gives the matrix of each operation, `[..., 2, 3]`; the identity's for those that move nothing.

  Args:
    images: `[B, H, W, C]`, of which only the sides count.
    operations: indices into `OPERATIONS`, `[...]`.
    strengths: degrees counterclockwise, shears about the upper left corner (the entry of Pillow's matrix), or pixels
      by which the content moves left or up, `[...]`.
    xp: `jax.numpy`, or `numpy` for constants in float64.
  """
  strength = lambda name: xp.where(operations == OPERATIONS.index(name), strengths, 0.0)
  shift = (-strength("translate_x"), -strength("translate_y"))
  shear = (strength("shear_x"), strength("shear_y"))
  return matrices(images, xp.deg2rad(strength("rotate")), shear, shift, xp)


def fixed_point(sources: np.ndarray) -> np.ndarray:
  """Converts matrices `[..., 2, 3]` to Pillow's whole numbers, which map pixels (column, row, 1); int32."""
  start = sources[..., 2] + (sources[..., 0] + sources[..., 1]) / 2  # of the first pixel's centre
  exact = np.concatenate([sources[..., :2], start[..., None]], axis=-1)
  return np.floor(exact * _FIXED + 0.5).astype(np.int32)


def move_nearest(levels: jax.Array, fixed: jax.Array) -> jax.Array:
  """Reads each pixel where its matrix points, as Pillow's `NEAREST`; black outside.

  Args:
    levels: `[B, H, W, C]`.
    fixed: `[B, 2, 3]`, from `fixed_point`.
  """
  _, height, width, _ = levels.shape
  rows, columns, _ = coordinates(levels)
  entry = lambda row, column: fixed[:, row, column, None]
  column, row = ((entry(i, 0) * columns + entry(i, 1) * rows + entry(i, 2)) >> 16 for i in (0, 1))
  inside = (0 <= row) & (row < height) & (0 <= column) & (column < width)
  return jnp.where(inside, nearest_inside(levels, row, column), 0).reshape(levels.shape)


def move_bilinear(levels: jax.Array, matrices: jax.Array) -> jax.Array:
  """Reads each pixel where its matrix `[B, 2, 3]` points, as Pillow's `BILINEAR`.

  A source inside the image repeats the border if a neighbour is outside. Any other is black. Values are truncated.
  """
  _, height, width, _ = levels.shape
  rows, columns, _ = coordinates(levels)
  entry = lambda row, column: matrices[:, row, column, None]
  x, y = (entry(i, 0) * (columns + 0.5) + entry(i, 1) * (rows + 0.5) + entry(i, 2) for i in (0, 1))  # [B, P]
  inside = (0 <= x) & (x < width) & (0 <= y) & (y < height)
  left, top = jnp.floor(x - 0.5), jnp.floor(y - 0.5)
  right_share, lower_share = x - 0.5 - left, y - 0.5 - top
  column, row = left.astype(jnp.int32), top.astype(jnp.int32)
  between = lambda near, far, share: near + (far - near) * share

  def across(row):
    near, far = nearest_inside(levels, row, column), nearest_inside(levels, row, column + 1)
    return between(near, far, right_share)

  moved = jnp.floor(between(across(row), across(row + 1), lower_share))
  return jnp.where(inside, moved, 0).reshape(levels.shape)


def retouch(
  levels: jax.Array, operations: jax.Array, strengths: jax.Array, among: Collection[str] = OPERATIONS
) -> jax.Array:
  """Applies the operations that move no pixel, as Pillow's `ImageOps` and `ImageEnhance` do.

  Args:
    levels: `[B, H, W, C]`.
    operations: indices into `OPERATIONS`, `[B]`; geometry and the identity change nothing, nor does `color` in grey.
    strengths: `[B]`: the level from which solarisation inverts, the bits that posterisation keeps, enhancers' factors.
      Autocontrast and equalisation take none.
    among: names of all operations that occur; without any of `BLENDS` the blend is skipped.
  """
  levels = _map_levels(levels, operations, strengths)
  return _blend(levels, operations, strengths) if set(BLENDS) & set(among) else levels


def one_of(operations: jax.Array, names: Collection[str]) -> jax.Array:
  """Tells which operations have one of these names."""
  return jnp.array([name in names for name in OPERATIONS])[operations]


def _map_levels(levels: jax.Array, operations: jax.Array, strengths: jax.Array) -> jax.Array:
  """Applies the operations that map levels to levels, by one table for each image and channel."""
  batch, channels = len(levels), levels.shape[-1]
  places = coordinates(levels)[2] * _LEVELS + flat(levels).astype(jnp.int32)  # [B, P] in tables [B, C * 256]
  counts = jnp.zeros((batch, channels * _LEVELS), jnp.int32).at[jnp.arange(batch)[:, None], places].add(1, mode="clip")
  counts = counts.reshape(batch, channels, _LEVELS)
  level = jnp.arange(_LEVELS).reshape(1, 1, -1)
  low = jnp.where(counts > 0, level, _LEVELS).min(axis=-1, keepdims=True)
  high = jnp.where(counts > 0, level, -1).max(axis=-1, keepdims=True)
  below = jnp.cumsum(counts, axis=-1) - counts
  step = jnp.where(counts > 0, below, 0).max(axis=-1, keepdims=True) // 255
  # The added 0.5 keeps quotients off whole numbers, which an inexact division could miss.
  stretched = jnp.floor(((level - low) * 255 + 0.5) / jnp.maximum(high - low, 1))
  equalized = jnp.floor((below + step // 2 + 0.5) / jnp.maximum(step, 1))
  strength = strengths.reshape(-1, 1, 1)
  dropped = 8 - jnp.clip(strength, 0, 8).astype(jnp.int32)  # bits
  maps = {
    "autocontrast": jnp.where(high > low, stretched, level),
    "equalize": jnp.where(step > 0, equalized, level),
    "posterize": (level >> dropped) << dropped,
    "solarize": jnp.where(level < strength, level, 255 - level),
  }
  table = jnp.zeros(counts.shape)
  for name, values in maps.items():
    table = jnp.where((operations == OPERATIONS.index(name)).reshape(-1, 1, 1), values, table)
  mapped = jnp.take_along_axis(jnp.clip(table, 0, 255).reshape(batch, -1), places, axis=1, mode="clip")
  return jnp.where(one_of(operations, maps)[:, None], mapped, flat(levels)).reshape(levels.shape)


def _blend(images: jax.Array, operations: jax.Array, strengths: jax.Array) -> jax.Array:
  """Applies Pillow's enhancers, which move levels away from those of a degenerate image, or towards them."""
  coloured, levels = images.shape[-1] == 3, flat(images)
  chosen = lambda name: (operations == OPERATIONS.index(name))[:, None]
  grey = levels
  if coloured:  # Pillow's integers for ITU-R 601, exact in float32; the other channels of a pixel are at most 2 away
    weights = np.array([0, 0, 19595, 38470, 7471, 0, 0], np.float32)
    channel = coordinates(images)[2]
    grey = sum(weights[channel + step] * jnp.roll(levels, 2 - step, axis=1) for step in range(5))
    grey = jnp.floor(grey / 65536 + 0.5)  # [B, P]
  mean = jnp.floor(grey.mean(axis=1, keepdims=True) + 0.5)
  base = jnp.where(chosen("sharpness"), _smooth(images), jnp.where(chosen("contrast"), mean, 0.0))
  if coloured:
    base = jnp.where(chosen("color"), grey, base)
  blended = jnp.floor(jnp.clip(base + strengths[:, None] * (levels - base), 0, 255))
  changed = one_of(operations, BLENDS if coloured else set(BLENDS) - {"color"})
  return jnp.where(changed[:, None], blended, levels).reshape(images.shape)


def _smooth(images: jax.Array) -> jax.Array:
  """Smooths levels by Pillow's filter `SMOOTH`, which leaves the border as it is; `[B, P]`."""
  _, height, width, channels = images.shape
  rows, columns, _ = coordinates(images)
  inside = (0 < rows) & (rows < height - 1) & (0 < columns) & (columns < width - 1)
  levels = flat(images)
  around = lambda values, step: values + jnp.roll(values, step, axis=1) + jnp.roll(values, -step, axis=1)
  total = around(around(levels, channels), width * channels) + 4 * levels
  return jnp.where(inside, jnp.floor(total / 13 + 0.5), levels)
