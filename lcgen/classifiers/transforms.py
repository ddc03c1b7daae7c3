"""Standard augmentations of images, as pure functions that run inside a jitted training step.

All take a random key and a batch of floats `[B, H, W, C]`, and return such a batch. `images` have any range; `unit`
images are in [0, 1], grey or RGB. `fill` is the value outside of images. `labels` are distributions `[B, K]`. Each
image has its own draws, but `mixup` and `cutmix` draw once a batch, as their authors' code does. If the settings allow
no effect (0), the input is returned bit by bit. A batch of another form or a setting out of range raises a ValueError.

Operations are not chosen among functions, because `jax.vmap` would execute all of them. Instead they share one affine
resampling, one table of levels and one blend with a degenerate image. Each of these is neutral for an image with
another operation. All work is on `[B, P]`, P = H x W x C, with coordinates as constants of that length. XLA on CPUs
vectorises only the innermost loop, and a loop over channels would be too short.
"""

from collections.abc import Collection

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

GEOMETRY = ("rotate", "shear_x", "shear_y", "translate_x", "translate_y")
TABLES = ("autocontrast", "equalize", "posterize", "solarize")
BLENDS = ("color", "contrast", "brightness", "sharpness")
AUGMIX_OPERATIONS = (*GEOMETRY, *TABLES)
OPERATIONS = ("identity", *AUGMIX_OPERATIONS, *BLENDS)  # `augmix` draws indices from 1 on
_LEVELS = 256


def shift_rotate(key: jax.Array, images: jax.Array, *, pixels: float, degrees: float, fill: ArrayLike) -> jax.Array:
  """Rotates each image by U(-degrees, degrees) about its centre, then shifts it by U(-pixels, pixels) in x and in y.

  Resampling is bilinear. Values within a pixel of the border are mixed with `fill`.
  """
  _check(images)
  _require(pixels >= 0, "pixels", pixels, "at least 0")
  _require(degrees >= 0, "degrees", degrees, "at least 0")
  if pixels == 0 and degrees == 0:
    return images
  angle, right, down = jax.random.uniform(key, (3, len(images)), minval=-1.0)
  matrices = _matrices(images, jnp.deg2rad(degrees * angle), shift=(pixels * right, pixels * down))
  return _resample(images, matrices, fill)


def flip_crop(key: jax.Array, images: jax.Array, *, padding: int, flip: float, fill: ArrayLike) -> jax.Array:
  """Flips each image left to right with probability `flip`, pads it by `padding` pixels and crops it at random.

  This is section 4.2 of He et al. 2016. Every place of the crop is equally likely.
  """
  _check(images)
  _require(isinstance(padding, int) and padding >= 0, "padding", padding, "an integer of at least 0")
  _require(0 <= flip <= 1, "flip", flip, "in [0, 1]")
  if padding == 0 and flip == 0:
    return images
  flip_key, place_key = jax.random.split(key)
  flipped = jax.random.uniform(flip_key, (len(images), 1)) < flip
  down, right = jax.random.randint(place_key, (2, len(images), 1), -padding, padding + 1)
  rows, columns, _ = _coordinates(images)
  columns = columns + right  # [B, P]
  columns = jnp.where(flipped, images.shape[2] - 1 - columns, columns)
  return _read(images, rows + down, columns, fill).reshape(images.shape)


def cutout(key: jax.Array, images: jax.Array, *, side: float, fill: ArrayLike) -> jax.Array:
  """Sets a square of each image to `fill` (DeVries & Taylor 2017).

  The side is the share `side` of the image's height, rounded to pixels. The square lies around a uniformly drawn pixel
  and is cut off at the borders.
  """
  _check(images)
  _require(0 <= side <= 1, "side", side, "in [0, 1]")
  pixels = round(side * images.shape[1])
  if pixels == 0:
    return images
  box = _box(key, images, (len(images), 1), pixels, pixels)
  return jnp.where(box, fill, _flat(images)).reshape(images.shape)


def mixup(key: jax.Array, images: jax.Array, labels: jax.Array, *, alpha: float) -> tuple[jax.Array, jax.Array]:
  """Mixes images and labels with a permutation of the batch: lambda x + (1 - lambda) x' (Zhang et al. 2018).

  lambda ~ Beta(alpha, alpha). As in the authors' code, a batch has one lambda and one permutation.
  """
  _check_labelled(images, labels, alpha)
  if alpha == 0:
    return images, labels
  share_key, order_key = jax.random.split(key)
  share = jax.random.beta(share_key, alpha, alpha)
  order = jax.random.permutation(order_key, len(images))
  mix = lambda values: share * values + (1 - share) * values[order]
  return mix(_flat(images)).reshape(images.shape), mix(labels)


def cutmix(key: jax.Array, images: jax.Array, labels: jax.Array, *, alpha: float) -> tuple[jax.Array, jax.Array]:
  """Takes a box of each image from another image of the batch, and mixes labels by its area (Yun et al. 2019).

  lambda ~ Beta(alpha, alpha). The box has the proportions of the image and 1 - lambda of its area, with sides cut to
  whole pixels. It lies around a uniformly drawn pixel and is cut off at the borders. Labels are mixed by the area that
  is left. As in the authors' code, a batch has one box and one permutation.
  """
  _check_labelled(images, labels, alpha)
  if alpha == 0:
    return images, labels
  share_key, order_key, box_key = jax.random.split(key, 3)
  side = jnp.sqrt(1 - jax.random.beta(share_key, alpha, alpha))
  height, width = ((side * size).astype(jnp.int32) for size in images.shape[1:3])
  box = _box(box_key, images, (1, 1), height, width)  # [1, P]
  order = jax.random.permutation(order_key, len(images))
  flat, share = _flat(images), box.mean()
  return jnp.where(box, flat[order], flat).reshape(images.shape), (1 - share) * labels + share * labels[order]


def randaugment(key: jax.Array, unit: jax.Array, *, operations: int, magnitude: float) -> jax.Array:
  """Applies operations to each image, drawn with replacement from the 14 of RandAugment (Cubuk et al. 2020).

  Strengths grow linearly with the magnitude. At 10 they are those of AutoAugment's code for CIFAR: rotation by 30
  degrees, shear by 0.3, translation by 10/32 of the side, solarisation above 0, 4 of 8 bits, enhancers at 1 ± 0.9.
  Signs are random. Degrees, pixels, levels and bits are rounded to whole numbers, towards no effect. Magnitude 0 still
  rounds to 8 bits, and applies autocontrast and equalisation, which have no strength.

  Args:
    key: random key.
    unit: `[B, H, W, C]`.
    operations: number of operations on each image, one after another; see `apply_operations`.
    magnitude: from 0 to 10.
  """
  _check(unit, coloured=True)
  _require(isinstance(operations, int) and operations >= 0, "operations", operations, "an integer of at least 0")
  _require(0 <= magnitude <= 10, "magnitude", magnitude, "from 0 to 10")
  if operations == 0:
    return unit
  operation_key, sign_key = jax.random.split(key)
  drawn = jax.random.randint(operation_key, (operations, len(unit)), 0, len(OPERATIONS))
  strengths = _strengths(sign_key, drawn, magnitude, unit, translation=10 / 32, bits=8)
  return _apply_all(unit, drawn, strengths, OPERATIONS)


def augmix(key: jax.Array, unit: jax.Array, *, severity: float, width: int, depth: int, alpha: float) -> jax.Array:
  """Mixes each image with chains of operations, as one view of AugMix (Hendrycks et al. 2020, Algorithm 1).

  As in the authors' code for CIFAR, every operation has its own level from U(0.1, severity). Strengths grow linearly
  with the level. At 10 they are rotation by 30 degrees, shear by 0.3, translation by a third of the side, solarisation
  above 0, and 0 of 4 bits. Signs are random. Degrees, pixels, levels and bits are rounded to whole numbers, towards no
  effect. At severity 0, geometry and solarisation do nothing and posterisation keeps 4 bits. Autocontrast and
  equalisation have no strength, and always act.

  Args:
    key: random key.
    unit: `[B, H, W, C]`.
    severity: the largest level, from 0 to 10.
    width: number of chains.
    depth: operations in a chain; 0 draws 1, 2 or 3 for each chain.
    alpha: chains are weighted by Dirichlet(alpha, ..., alpha). Their sum has weight m ~ Beta(alpha, alpha), and the
      image has 1 - m.
  """
  _check(unit, coloured=True)
  _require(0 <= severity <= 10, "severity", severity, "from 0 to 10")
  _require(isinstance(width, int) and width >= 1, "width", width, "an integer of at least 1")
  _require(isinstance(depth, int) and depth >= 0, "depth", depth, "an integer of at least 0, where 0 draws it")
  _require(alpha > 0, "alpha", alpha, "above 0")
  weight_key, depth_key, operation_key, level_key, sign_key = jax.random.split(key, 5)
  shape = (depth or 3, width * len(unit))
  drawn = jax.random.randint(operation_key, shape, 1, 1 + len(AUGMIX_OPERATIONS))
  if depth == 0:
    lengths = jax.random.randint(depth_key, (1, shape[1]), 1, 4)
    drawn = jnp.where(jnp.arange(3)[:, None] < lengths, drawn, OPERATIONS.index("identity"))
  levels = jax.random.uniform(level_key, shape, minval=min(0.1, severity), maxval=severity)
  strengths = _strengths(sign_key, drawn, levels, unit, translation=1 / 3, bits=4)
  chains = _apply_all(jnp.tile(unit, (width, 1, 1, 1)), drawn, strengths, AUGMIX_OPERATIONS)
  # Shares of gamma draws follow Beta and Dirichlet. There is one call, because XLA takes a second to compile each.
  gammas = jax.random.loggamma(weight_key, alpha, (len(unit), 2 + width))
  share = jax.nn.softmax(gammas[:, :2])[:, :1]
  weights = share * jax.nn.softmax(gammas[:, 2:])  # [B, width]
  mixed = (weights.T[:, :, None] * chains.reshape(width, len(unit), -1)).sum(axis=0) + (1 - share) * _flat(unit)
  return jnp.clip(mixed, 0, 1).reshape(unit.shape)  # by rounding, the weights' sum may exceed 1


def apply_operations(
  unit: jax.Array, operations: jax.Array, strengths: jax.Array, among: Collection[str] = OPERATIONS
) -> jax.Array:
  """Applies one operation to each image, as Pillow's `ImageOps`, `ImageEnhance` and `Image.transform` do.

  Geometry is bilinear, and black outside. The other operations round to 8 bits, except the identity and `color` on
  grey images, which change nothing.

  Args:
    unit: `[B, H, W, C]`.
    operations: indices into `OPERATIONS`, `[B]`.
    strengths: `[B]`: degrees counterclockwise, shears about the upper left corner (the entry of Pillow's matrix),
      pixels by which the content moves left or up, the level from which solarisation inverts, the bits that
      posterisation keeps, enhancers' factors. The identity, autocontrast and equalisation take none.
    among: names of all operations that occur; without any of `BLENDS` the blend is skipped.
  """
  strength = lambda name: jnp.where(operations == OPERATIONS.index(name), strengths, 0.0)
  shift = (-strength("translate_x"), -strength("translate_y"))
  matrices = _matrices(unit, jnp.deg2rad(strength("rotate")), (strength("shear_x"), strength("shear_y")), shift)
  unit = _map_levels(_resample(unit, matrices, fill=0.0), operations, strengths)
  return _blend(unit, operations, strengths) if set(BLENDS) & set(among) else unit


def _apply_all(unit: jax.Array, operations: jax.Array, strengths: jax.Array, among: Collection[str]) -> jax.Array:
  """Applies the rows of `operations` and `strengths` `[N, B]` one after another."""

  def step(flat, draws):
    return _flat(apply_operations(flat.reshape(unit.shape), *draws, among)), None

  return jax.lax.scan(step, _flat(unit), (operations, strengths))[0].reshape(unit.shape)


def _strengths(
  key: jax.Array, operations: jax.Array, levels: ArrayLike, unit: jax.Array, *, translation: float, bits: int
) -> jax.Array:
  """Turns levels from 0 to 10 into strengths for `apply_operations`, with random signs; shaped as `operations`."""
  height, width = unit.shape[1:3]
  one_way = {"solarize": (256, -256), "posterize": (bits, -4)}  # the value without effect, and the change at level 10
  whole = one_way | {
    "rotate": (0, 30),
    "translate_x": (0, translation * width),
    "translate_y": (0, translation * height),
  }
  ranges = whole | dict.fromkeys(("shear_x", "shear_y"), (0, 0.3)) | dict.fromkeys(BLENDS, (1, 0.9))
  neutral, change = jnp.array([ranges.get(name, (0, 0)) for name in OPERATIONS], jnp.float32).T
  change = levels * (change / 10)[operations]
  change = jnp.where(_one_of(operations, whole), jnp.trunc(change), change)
  turned = jax.random.bernoulli(key, 0.5, operations.shape) & ~_one_of(operations, one_way)
  return neutral[operations] + jnp.where(turned, -change, change)


def _matrices(images: jax.Array, angles: jax.Array, shear=(0.0, 0.0), shift=(0.0, 0.0)) -> jax.Array:
  """Gives the matrices that map each pixel to its source, `[B, 2, 3]`.

  They act on (x, y, 1) from the upper left corner, and are exact if nothing moves. Angles `[B]` are radians
  counterclockwise about the centre. The shifts, right and down, follow the rotation.
  """
  cosine, sine = jnp.cos(angles), jnp.sin(angles)
  x, y = images.shape[2] / 2, images.shape[1] / 2
  from_x, from_y = x + shift[0], y + shift[1]
  to_x = (cosine, shear[0] - sine, x - cosine * from_x + sine * from_y)
  to_y = (shear[1] + sine, cosine, y - sine * from_x - cosine * from_y)
  return jnp.stack([*to_x, *to_y], axis=-1).reshape(-1, 2, 3)


def _resample(images: jax.Array, matrices: jax.Array, fill: ArrayLike) -> jax.Array:
  """Reads each image bilinearly at the sources that its matrix gives, `[B, H, W, C]`."""
  rows, columns, _ = _coordinates(images)
  entry = lambda row, column: matrices[:, row, column, None]
  x = entry(0, 0) * (columns + 0.5) + entry(0, 1) * (rows + 0.5) + entry(0, 2) - 0.5  # [B, P]
  y = entry(1, 0) * (columns + 0.5) + entry(1, 1) * (rows + 0.5) + entry(1, 2) - 0.5
  left, top = jnp.floor(x), jnp.floor(y)
  right_share, lower_share = x - left, y - top
  column, row = left.astype(jnp.int32), top.astype(jnp.int32)

  def across(row):
    near, far = _read(images, row, column, fill), _read(images, row, column + 1, fill)
    return (1 - right_share) * near + right_share * far

  return ((1 - lower_share) * across(row) + lower_share * across(row + 1)).reshape(images.shape)


def _map_levels(unit: jax.Array, operations: jax.Array, strengths: jax.Array) -> jax.Array:
  """Applies the operations that map levels to levels, by one table for each image and channel."""
  batch, channels = len(unit), unit.shape[-1]
  places = _coordinates(unit)[2] * _LEVELS + _levels(unit).astype(jnp.int32)  # [B, P] in tables [B, C * 256]
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
  table = jnp.clip(table, 0, 255).reshape(batch, -1) / 255
  mapped = jnp.take_along_axis(table, places, axis=1, mode="clip")
  return jnp.where(_one_of(operations, maps)[:, None], mapped, _flat(unit)).reshape(unit.shape)


def _blend(unit: jax.Array, operations: jax.Array, strengths: jax.Array) -> jax.Array:
  """Applies Pillow's enhancers, which move levels away from those of a degenerate image, or towards them."""
  coloured = unit.shape[-1] == 3
  chosen = lambda name: (operations == OPERATIONS.index(name))[:, None]
  levels = _levels(unit)
  grey = levels
  if coloured:  # Pillow's integers for ITU-R 601, exact in float32; the other channels of a pixel are at most 2 away
    weights = np.array([0, 0, 19595, 38470, 7471, 0, 0], np.float32)
    channel = _coordinates(unit)[2]
    grey = sum(weights[channel + step] * jnp.roll(levels, 2 - step, axis=1) for step in range(5))
    grey = jnp.floor(grey / 65536 + 0.5)  # [B, P]
  mean = jnp.floor(grey.mean(axis=1, keepdims=True) + 0.5)
  base = jnp.where(chosen("sharpness"), _smooth(unit), jnp.where(chosen("contrast"), mean, 0.0))
  if coloured:
    base = jnp.where(chosen("color"), grey, base)
  blended = jnp.floor(jnp.clip(base + strengths[:, None] * (levels - base), 0, 255)) / 255
  changed = _one_of(operations, BLENDS if coloured else set(BLENDS) - {"color"})
  return jnp.where(changed[:, None], blended, _flat(unit)).reshape(unit.shape)


def _smooth(unit: jax.Array) -> jax.Array:
  """Smooths levels by Pillow's filter `SMOOTH`, which leaves the border as it is; `[B, P]`."""
  _, height, width, channels = unit.shape
  rows, columns, _ = _coordinates(unit)
  inside = (0 < rows) & (rows < height - 1) & (0 < columns) & (columns < width - 1)
  levels = _levels(unit)
  around = lambda values, step: values + jnp.roll(values, step, axis=1) + jnp.roll(values, -step, axis=1)
  total = around(around(levels, channels), width * channels) + 4 * levels
  return jnp.where(inside, jnp.floor(total / 13 + 0.5), levels)


def _read(images: jax.Array, rows: jax.Array, columns: jax.Array, fill: ArrayLike) -> jax.Array:
  """Reads the values at whole coordinates `[B, P]`; gives `fill` outside."""
  _, height, width, channels = images.shape
  inside = (0 <= rows) & (rows < height) & (0 <= columns) & (columns < width)
  pixels = jnp.clip(rows, 0, height - 1) * width + jnp.clip(columns, 0, width - 1)
  values = jnp.take_along_axis(_flat(images), pixels * channels + _coordinates(images)[2], axis=1, mode="clip")
  return jnp.where(inside, values, fill)


def _box(key: jax.Array, images: jax.Array, shape: tuple[int, int], height, width) -> jax.Array:
  """Marks the values in a box around a drawn pixel; `shape` of the draws `[B, 1]` or `[1, 1]` -> `[B or 1, P]`."""
  rows, columns, _ = _coordinates(images)
  row_key, column_key = jax.random.split(key)
  top = jax.random.randint(row_key, shape, 0, images.shape[1]) - height // 2
  left = jax.random.randint(column_key, shape, 0, images.shape[2]) - width // 2
  return (top <= rows) & (rows < top + height) & (left <= columns) & (columns < left + width)


def _one_of(operations: jax.Array, names: Collection[str]) -> jax.Array:
  return jnp.array([name in names for name in OPERATIONS])[operations]


def _coordinates(images: jax.Array) -> np.ndarray:
  """Gives row, column and channel of each value of an image, `[3, 1, P]`."""
  return np.indices(images.shape[1:], np.int32).reshape(3, 1, -1)


def _flat(images: jax.Array) -> jax.Array:
  return images.reshape(len(images), -1)


def _levels(unit: jax.Array) -> jax.Array:
  return jnp.round(jnp.clip(_flat(unit), 0, 1) * 255)


def _check(images: jax.Array, coloured: bool = False) -> None:
  if images.ndim != 4 or not jnp.issubdtype(images.dtype, jnp.floating):
    raise ValueError(f"images are {images.dtype} of shape {images.shape}: pass floats [B, H, W, C]")
  if coloured and images.shape[-1] not in (1, 3):
    raise ValueError(f"images have {images.shape[-1]} channels: pass 1 (grey) or 3 (RGB)")


def _check_labelled(images: jax.Array, labels: jax.Array, alpha: float) -> None:
  _check(images)
  if labels.ndim != 2 or len(labels) != len(images):
    raise ValueError(f"labels are of shape {labels.shape}: pass a distribution [K] for each of {len(images)} images")
  _require(alpha >= 0, "alpha", alpha, "at least 0")


def _require(holds: bool, name: str, value: float, what: str) -> None:
  if not holds:
    raise ValueError(f"{name}={value}: must be {what}")
