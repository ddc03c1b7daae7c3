"""Standard augmentations of images, as pure functions that run inside a jitted training step.

All take a random key and a batch of floats `[B, H, W, C]`, and return such a batch. `images` have any range; `unit`
images are in [0, 1], grey or RGB. `fill` is the value outside of images. `labels` are distributions `[B, K]`. Each
image has its own draws, but `mixup` and `cutmix` draw once a batch, as their authors' code does. If the settings allow
no effect (0), the input is returned bit by bit. A batch of another form or a setting out of range raises a ValueError.

What an augmentation is named after, it does as its authors' code, or as the library that its docstring names. All
authors flip and crop CIFAR images first, as `flip_crop` does: write `flip_crop+cutmix` for that.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from lcgen.classifiers import operations as ops
from lcgen.classifiers.operations import AUGMIX_OPERATIONS, BLENDS, OPERATIONS
from lcgen.classifiers.pixels import coordinates, flat, matrices, read

_BINS = 30  # torchvision's magnitudes of RandAugment go from 0 to 30


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
  sources = matrices(images, jnp.deg2rad(degrees * angle), shift=(pixels * right, pixels * down))
  return _resample(images, sources, fill)


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
  rows, columns, _ = coordinates(images)
  columns = columns + right  # [B, P]
  columns = jnp.where(flipped, images.shape[2] - 1 - columns, columns)
  return read(images, rows + down, columns, fill).reshape(images.shape)


def cutout(key: jax.Array, images: jax.Array, *, side: float, fill: ArrayLike) -> jax.Array:
  """Sets a square of each image to `fill`, one value or one for each channel (DeVries & Taylor 2017).

  The side is the share `side` of the image's height, rounded to pixels. The square lies around a uniformly drawn pixel
  and is cut off at the borders. As in the authors' code, an odd side loses a pixel.
  """
  _check(images)
  _require(0 <= side <= 1, "side", side, "in [0, 1]")
  pixels = round(side * images.shape[1])
  if pixels < 2:
    return images
  box = _box(key, images, (len(images), 1), pixels, pixels)
  values = jnp.broadcast_to(jnp.asarray(fill), images.shape[1:]).reshape(1, -1)
  return jnp.where(box, values, flat(images)).reshape(images.shape)


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
  return mix(flat(images)).reshape(images.shape), mix(labels)


def cutmix(
  key: jax.Array, images: jax.Array, labels: jax.Array, *, alpha: float, probability: float
) -> tuple[jax.Array, jax.Array]:
  """Takes a box of each image from another image of the batch, and mixes labels by its area (Yun et al. 2019).

  A batch is mixed with this probability; the authors take 0.5 on CIFAR and 1 on ImageNet. lambda ~ Beta(alpha, alpha).
  The box has the proportions of the image and 1 - lambda of its area, with sides cut to whole pixels. It lies around a
  uniformly drawn pixel and is cut off at the borders. Labels are mixed by the area that is left. As in the authors'
  code, an odd side loses a pixel, and a batch has one box and one permutation.
  """
  _check_labelled(images, labels, alpha)
  _require(0 <= probability <= 1, "probability", probability, "in [0, 1]")
  if alpha == 0 or probability == 0:
    return images, labels
  share_key, order_key, box_key, chance_key = jax.random.split(key, 4)
  side = jnp.sqrt(1 - jax.random.beta(share_key, alpha, alpha))
  height, width = ((side * size).astype(jnp.int32) for size in images.shape[1:3])
  box = _box(box_key, images, (1, 1), height, width) & (jax.random.uniform(chance_key) < probability)  # [1, P]
  order = jax.random.permutation(order_key, len(images))
  values, share = flat(images), box.mean()
  return jnp.where(box, values[order], values).reshape(images.shape), (1 - share) * labels + share * labels[order]


def randaugment(key: jax.Array, unit: jax.Array, *, operations: int, magnitude: float) -> jax.Array:
  """Applies operations to each image, drawn with replacement from the 14 of RandAugment (Cubuk et al. 2020).

  This is `torchvision.transforms.RandAugment` 0.28 on Pillow images with its defaults: 31 magnitudes, nearest pixels,
  black outside. torchvision has the paper's operations, the identity among them, at strengths that grow with the
  magnitude. timm has others, and some that weaken. Strengths are linear, and random in sign. At 30 they are rotation by
  30 degrees, shear by 0.3, translation by 150/331 of the side, solarisation above 0, 4 of 8 bits, and enhancers at
  1 ± 0.9. At torchvision's default of 9 they are 9 degrees, 0.09, 45/331, 178.5, 7 bits and 1 ± 0.27. It differs in
  three things: magnitudes may lie between whole numbers, floats are rounded to 8 bits first, and single levels of
  autocontrast, of enhancers and of averages may be off by 1.

  Args:
    key: random key.
    unit: `[B, H, W, C]`.
    operations: number of operations on each image, one after another.
    magnitude: from 0 to 30.
  """
  _check(unit, coloured=True)
  _require(isinstance(operations, int) and operations >= 0, "operations", operations, "an integer of at least 0")
  _require(0 <= magnitude <= _BINS, "magnitude", magnitude, f"from 0 to {_BINS}")
  if operations == 0:
    return unit
  operation_key, sign_key = jax.random.split(key)
  shape = (operations, len(unit))
  drawn = jax.random.randint(operation_key, shape, 0, len(OPERATIONS))
  turned = jax.random.bernoulli(sign_key, 0.5, shape).astype(jnp.int32)
  known = _randaugment_strengths(magnitude, unit.shape[1:3])  # [2, operations]
  fixed = ops.fixed_point(ops.sources(unit, np.arange(len(OPERATIONS)), known, np))
  pick = lambda table: jnp.asarray(table)[turned, drawn]

  def step(levels, draws):
    operation, matrix, strength = draws
    return ops.retouch(ops.move_nearest(levels, matrix), operation, strength), None

  draws = drawn, pick(fixed), pick(known.astype(np.float32))
  return jax.lax.scan(step, ops.to_levels(unit), draws)[0] / 255


def _randaugment_strengths(magnitude: float, sides: tuple[int, int]) -> np.ndarray:
  """Gives torchvision's strength of each operation in both directions, `[2, operations]`."""
  height, width = sides
  level = magnitude / _BINS
  signed = {"rotate": 30 * level, "shear_x": 0.3 * level, "shear_y": 0.3 * level}
  signed |= {"translate_x": int(150 / 331 * width * level), "translate_y": int(150 / 331 * height * level)}
  strengths = {name: (value, -value) for name, value in signed.items()}
  strengths |= dict.fromkeys(BLENDS, (1 + 0.9 * level, 1 - 0.9 * level))
  strengths |= {"posterize": (8 - round(4 * level),) * 2, "solarize": (255 - 255 * level,) * 2}
  return np.array([strengths.get(name, (0, 0)) for name in OPERATIONS], np.float64).T


def augmix(key: jax.Array, unit: jax.Array, *, severity: float, width: int, depth: int, alpha: float) -> jax.Array:
  """Mixes each image with chains of operations, as one view of AugMix (Hendrycks et al. 2020, Algorithm 1).

  This is the authors' code for CIFAR, with its operations of Pillow and their bilinear pixels, which repeat the border
  for sources inside the image and are black outside. Before it, the authors flip and crop, the same for all views: the
  arm `flip_crop+augmix`. Every operation has its own level from U(0.1, severity). Strengths grow linearly with the
  level. At 10 they are rotation by 30 degrees, shear by 0.3, translation by a third of the side, solarisation above 0,
  and 0 of 4 bits. Signs are random. Degrees, pixels, levels and bits are rounded to whole numbers, towards no effect.
  At severity 0, geometry and solarisation do nothing and posterisation keeps 4 bits. Autocontrast and equalisation have
  no strength, and always act. It differs in two things: chains round floats to 8 bits first, and single levels of
  autocontrast and of averages may be off by 1.

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
  strengths = _augmix_strengths(sign_key, drawn, levels, unit)
  chains = _apply_all(jnp.tile(unit, (width, 1, 1, 1)), drawn, strengths)
  # Shares of gamma draws follow Beta and Dirichlet. There is one call, because XLA takes a second to compile each.
  gammas = jax.random.loggamma(weight_key, alpha, (len(unit), 2 + width))
  share = jax.nn.softmax(gammas[:, :2])[:, :1]
  weights = share * jax.nn.softmax(gammas[:, 2:])  # [B, width]
  mixed = (weights.T[:, :, None] * chains.reshape(width, len(unit), -1)).sum(axis=0) + (1 - share) * flat(unit)
  return jnp.clip(mixed, 0, 1).reshape(unit.shape)  # by rounding, the weights' sum may exceed 1


def _apply_all(unit: jax.Array, operations: jax.Array, strengths: jax.Array) -> jax.Array:
  """Applies AugMix's operations, the rows of `operations` and `strengths` `[N, B]`, one after another."""

  def step(levels, draws):
    moved = ops.move_bilinear(levels, ops.sources(levels, *draws))
    return ops.retouch(moved, *draws, AUGMIX_OPERATIONS), None

  return jax.lax.scan(step, ops.to_levels(unit), (operations, strengths))[0] / 255


def _augmix_strengths(key: jax.Array, operations: jax.Array, levels: jax.Array, unit: jax.Array) -> jax.Array:
  """Turns levels from 0 to 10 into strengths of AugMix's operations, with random signs; shaped as `operations`."""
  height, width = unit.shape[1:3]
  one_way = {"solarize": (256, -256), "posterize": (4, -4)}  # the value without effect, and the change at level 10
  whole = one_way | {"rotate": (0, 30), "translate_x": (0, width / 3), "translate_y": (0, height / 3)}
  ranges = whole | dict.fromkeys(("shear_x", "shear_y"), (0, 0.3))
  neutral, change = jnp.array([ranges.get(name, (0, 0)) for name in OPERATIONS], jnp.float32).T
  change = levels * (change / 10)[operations]
  change = jnp.where(ops.one_of(operations, whole), jnp.trunc(change), change)
  turned = jax.random.bernoulli(key, 0.5, operations.shape) & ~ops.one_of(operations, one_way)
  return neutral[operations] + jnp.where(turned, -change, change)


def _resample(images: jax.Array, matrices: jax.Array, fill: ArrayLike) -> jax.Array:
  """Reads each image bilinearly at the sources that its matrix gives, `[B, H, W, C]`."""
  rows, columns, _ = coordinates(images)
  entry = lambda row, column: matrices[:, row, column, None]
  x = entry(0, 0) * (columns + 0.5) + entry(0, 1) * (rows + 0.5) + entry(0, 2) - 0.5  # [B, P]
  y = entry(1, 0) * (columns + 0.5) + entry(1, 1) * (rows + 0.5) + entry(1, 2) - 0.5
  left, top = jnp.floor(x), jnp.floor(y)
  right_share, lower_share = x - left, y - top
  column, row = left.astype(jnp.int32), top.astype(jnp.int32)

  def across(row):
    near, far = read(images, row, column, fill), read(images, row, column + 1, fill)
    return (1 - right_share) * near + right_share * far

  return ((1 - lower_share) * across(row) + lower_share * across(row + 1)).reshape(images.shape)


def _box(key: jax.Array, images: jax.Array, shape: tuple[int, int], height, width) -> jax.Array:
  """Marks a box around a drawn pixel, odd sides less one; draws of `shape` `[B, 1]` or `[1, 1]` -> `[B or 1, P]`."""
  rows, columns, _ = coordinates(images)
  row_key, column_key = jax.random.split(key)
  row = jax.random.randint(row_key, shape, 0, images.shape[1])
  column = jax.random.randint(column_key, shape, 0, images.shape[2])
  up, left = height // 2, width // 2
  return (row - up <= rows) & (rows < row + up) & (column - left <= columns) & (columns < column + left)


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
