"""The 19 corruptions of CIFAR-10-C, with the published order and parameters, which were made for 32x32 pixels.

Every function is `(key, images, severity) -> images` on unit images `[B, H, W, C]` with C in {1, 3}. The severity is 1
to 5 and may be traced. `least_side` states the smallest images that the highest severity changes. A function that is
only an equivalent of the published one says so in its docstring. None rounds to 8 bits between its stages, but
`pixelate` and `jpeg_compression`. The published files hold truncated values, as `ranges.truncate_to_uint8` gives them,
except where another program had rounded them: `motion_blur`, `pixelate` and `jpeg_compression` return whole levels.

Source: Hendrycks and Dietterich, "Benchmarking neural network robustness to common corruptions and perturbations",
ICLR 2019, and the code that made the published files.
"""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from lcgen.data.corruptions import colours, elastic, fields, filters, jpeg, spattering
from lcgen.data.corruptions.filters import level
from lcgen.data.corruptions.sizes import least_side

Corruption = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]


@least_side(1)
def gaussian_noise(key: jax.Array, images: jax.Array, severity: jax.Array) -> jax.Array:
  """Adds normal noise to every value."""
  sigma = level((0.04, 0.06, 0.08, 0.09, 0.10), severity)
  return jnp.clip(images + sigma * fields.normal(key, images.shape), 0, 1)


@least_side(1)
def shot_noise(key: jax.Array, images: jax.Array, severity: jax.Array) -> jax.Array:
  """Draws a Poisson count of photons for every value; white has 500 (severity 1) to 50 (severity 5) on average."""
  return fields.photons(key, images, level((500, 250, 100, 75, 50), severity))


@least_side(1)
def impulse_noise(key: jax.Array, images: jax.Array, severity: jax.Array) -> jax.Array:
  """Sets a share of the values to 0 or 1 with equal probability (salt and pepper)."""
  return fields.salt_and_pepper(key, images, level((0.01, 0.02, 0.03, 0.05, 0.07), severity))


@least_side(1)
def defocus_blur(key: jax.Array, images: jax.Array, severity: jax.Array) -> jax.Array:
  """Correlates with a slightly smoothed disk (radius in pixels); the border is mirrored."""
  del key
  parameters = ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1.0, 0.2), (1.5, 0.1))
  kernels = np.stack([filters.disk_kernel(radius, sigma) for radius, sigma in parameters])
  return jnp.clip(filters.correlate(images, level(kernels, severity)), 0, 1)


@least_side(3)
def glass_blur(key: jax.Array, images: jax.Array, severity: jax.Array) -> jax.Array:
  """Blurs with a Gaussian, displaces pixels at random once or twice, and blurs again.

  The original means to swap neighbours, but on colour images its statement copies. Each pixel becomes itself or its
  left, upper or upper-left neighbour, except in the first two rows and columns. This function does the same.
  """
  sigmas = (0.05, 0.25, 0.4, 0.25, 0.4)
  images = filters.gaussian(images, sigmas, severity)
  images = _displace(key, images, level((1, 1, 1, 2, 2), severity))
  return jnp.clip(filters.gaussian(images, sigmas, severity), 0, 1)


def _displace(key: jax.Array, images: jax.Array, times: jax.Array) -> jax.Array:
  """Replaces each pixel by itself or one of its three neighbours above and to the left, once or twice."""
  batch, height, width, _ = images.shape
  bits = jax.random.bits(key, (batch, height, width, 1))
  row, column = jnp.arange(height).reshape(1, -1, 1, 1), jnp.arange(width).reshape(1, 1, -1, 1)
  inner = (row > 1) & (column > 1)
  for time in range(2):
    step = (bits >> (2 * time)) & 3
    step = jnp.where(inner & (time < times), step, 0)
    moved = jax.lax.select_n(
      jnp.broadcast_to(step, images.shape).astype(jnp.int32),
      images,
      jnp.roll(images, 1, axis=2),
      jnp.roll(images, 1, axis=1),
      jnp.roll(images, (1, 1), axis=(1, 2)),
    )
    images = jax.lax.optimization_barrier(moved)
  return images


@least_side(1)
def motion_blur(key: jax.Array, images: jax.Array, severity: jax.Array) -> jax.Array:
  """Blurs along a one-sided line; draws an angle within 45 degrees of the horizontal for each image.

  This is ImageMagick's filter, rounded to 8 bits at its end. Weights beyond five standard deviations (below 1e-5) are
  left out.
  """
  radius, sigma = level((6, 6, 6, 8, 9), severity), level((1, 1.5, 2, 2, 2.5), severity)
  blurred = filters.motion_blur(images, _angles(key, images, -45, 45), radius, sigma, taps=14)
  return jnp.round(jnp.clip(blurred, 0, 1) * 255) / 255


def _angles(key: jax.Array, images: jax.Array, low: float, high: float) -> jax.Array:
  """Draws one angle an image, uniform between `low` and `high` degrees; returns radians `[B]`."""
  return jnp.deg2rad(jax.random.uniform(key, images.shape[:1], minval=low, maxval=high))


@least_side(3)
def zoom_blur(key: jax.Array, images: jax.Array, severity: jax.Array) -> jax.Array:
  """Averages the image and its centre enlarged by 1, 1.01, 1.02 ... up to 1.06, 1.11, 1.15, 1.2 or 1.25."""
  del key
  stops = (1.06, 1.11, 1.16, 1.21, 1.26)
  branches = [functools.partial(_mean_of_zooms, np.arange(1, stop, 0.01)) for stop in stops]
  return jnp.clip(jax.lax.switch(severity - 1, branches, images), 0, 1)


def _mean_of_zooms(zooms: np.ndarray, images: jax.Array) -> jax.Array:
  """Averages the image itself and its zooms; factor 1 among the zooms counts the image once more."""
  matrices = [np.stack([filters.zoom_matrix(size, zoom) for zoom in (1, *zooms)]) for size in images.shape[1:3]]
  # Many zooms of a small image are the same: each is computed once and weighted by its count.
  pairs = np.concatenate([table.reshape(len(table), -1) for table in matrices], axis=1)
  _, kept, counts = np.unique(pairs, axis=0, return_index=True, return_counts=True)
  rows, columns = (table[kept] for table in matrices)
  return filters.sum_of_separable(images, rows, columns * (counts / counts.sum())[:, None, None].astype(np.float32))


@least_side(2)
def snow(key: jax.Array, images: jax.Array, severity: jax.Array) -> jax.Array:
  """Adds flakes, upright and upside down, to the image mixed with a brighter grey version of itself.

  Flakes are the high values of enlarged normal noise, blurred along a steep line. The motion blur is ImageMagick's
  without its rounding.
  """
  mean, sd = level((0.1, 0.1, 0.15, 0.25, 0.3), severity), level((0.2, 0.2, 0.3, 0.3, 0.3), severity)
  threshold, mix = level((0.6, 0.5, 0.55, 0.6, 0.65), severity), level((0.95, 0.9, 0.9, 0.85, 0.8), severity)
  radius, sigma = level((8, 10, 10, 12, 14), severity), level((3, 4, 4, 6, 12), severity)
  zooms = (1, 1, 1.75, 2.25, 1.25)
  noise_key, angle_key = jax.random.split(key)
  noise = mean + sd * fields.normal(noise_key, (*images.shape[:3], 1))
  matrices = [np.stack([filters.zoom_matrix(size, zoom) for zoom in zooms]) for size in images.shape[1:3]]
  noise = filters.separable(noise, *(level(table, severity) for table in matrices))
  flakes = jnp.where(noise < threshold, 0, jnp.clip(noise, 0, 1))
  flakes = filters.motion_blur(flakes, _angles(angle_key, images, -135, -45), radius, sigma, taps=29)
  images = mix * images + (1 - mix) * jnp.maximum(images, 1.5 * colours.grey(images) + 0.5)
  return jnp.clip(images + flakes + flakes[:, ::-1, ::-1], 0, 1)


@least_side(2)
def frost(key: jax.Array, images: jax.Array, severity: jax.Array) -> jax.Array:
  """Darkens the image a little and adds ice.

  This is an equivalent: the original adds crops of five photographs of frost. Here `fields.frost` generates the ice.
  """
  keep, add = level((1, 1, 0.9, 0.85, 0.75), severity), level((0.2, 0.3, 0.4, 0.4, 0.45), severity)
  ice = fields.frost(key, *images.shape[:3])
  return jnp.clip(keep * images + add * (ice if images.shape[-1] == 3 else colours.grey(ice)), 0, 1)


@least_side(2)
def fog(key: jax.Array, images: jax.Array, severity: jax.Array) -> jax.Array:
  """Adds clouds (diamond-square plasma) and scales the result back to the image's range."""
  amount, decay = level((0.2, 0.5, 0.75, 1, 1.5), severity), level((3, 3, 2.5, 2, 1.75), severity)
  batch, height, width, _ = images.shape
  clouds = fields.plasma(key, batch, fields.power_of_two(max(height, width)), decay)
  return colours.add_fog(images, clouds[:, :height, :width, None], amount)


@least_side(1)
def brightness(key: jax.Array, images: jax.Array, severity: jax.Array) -> jax.Array:
  """Adds a constant to the HSV value; hue and saturation stay."""
  del key
  return colours.brighten(images, level((0.05, 0.1, 0.15, 0.2, 0.3), severity))


@least_side(1)
def contrast(key: jax.Array, images: jax.Array, severity: jax.Array) -> jax.Array:
  """Pulls values towards the mean of each channel of each image."""
  del key
  factor = level((0.75, 0.5, 0.4, 0.3, 0.15), severity)
  mean = images.mean(axis=(1, 2), keepdims=True)
  return jnp.clip(mean + factor * (images - mean), 0, 1)


@least_side(3)
def elastic_transform(key: jax.Array, images: jax.Array, severity: jax.Array) -> jax.Array:
  """Applies a random affine map, then a smooth random displacement of every pixel.

  Lengths are shares of the shorter side. Both steps interpolate linearly and mirror the border. OpenCV rounds the
  positions of the affine map to 1/32 pixel; this function does not.
  """
  side = min(images.shape[1:3])
  affine_key, field_key = jax.random.split(key)
  images = elastic.affine_of_points(affine_key, images, side * level((0.08, 0.07, 0.06, 0.05, 0.03), severity))
  alpha = side * level((0, 0.05, 0.08, 0.1, 0.1), severity)
  return elastic.displace(field_key, images, alpha, [side * share for share in (0, 0.2, 0.06, 0.04, 0.03)], severity)


@least_side(2)
def pixelate(key: jax.Array, images: jax.Array, severity: jax.Array) -> jax.Array:
  """Shrinks the image and enlarges it again, both with Pillow's box filter, which rounds to 8 bits after each axis."""
  del key
  factors = (0.95, 0.9, 0.85, 0.75, 0.65)
  steps = zip(*(_pixelate_matrices(size, factors) for size in images.shape[1:3]), strict=True)
  levels = jnp.round(images * 255)
  for rows, columns in steps:  # down, up
    rows, columns = level(rows, severity), level(columns, severity)
    levels = _rounded(jnp.einsum("bhwc,xw->bhxc", levels, columns, precision=jax.lax.Precision.HIGHEST))
    levels = _rounded(jnp.einsum("bhxc,yh->byxc", levels, rows, precision=jax.lax.Precision.HIGHEST))
  return levels / 255


def _rounded(levels: jax.Array) -> jax.Array:
  """Rounds levels, halves up; 1e-3 more because means of whole levels may come out inexact."""
  return jnp.floor(levels + 0.501)


def _pixelate_matrices(size: int, factors: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
  """Gives the matrices that shrink and enlarge a side, `[factors, size, size]` each, filled up with zeros."""
  small = [int(size * factor) for factor in factors]
  down = [np.pad(_box_matrix(size, new), ((0, size - new), (0, 0))) for new in small]
  up = [np.pad(_box_matrix(new, size), ((0, 0), (0, size - new))) for new in small]
  return np.stack(down).astype(np.float32), np.stack(up).astype(np.float32)


def _box_matrix(size: int, new: int) -> np.ndarray:
  """Gives the matrix `[new, size]` of Pillow's box resize.

  A new pixel is the mean of the pixels whose centres lie in its box, or the nearest pixel.
  """
  scale = size / new
  middles = (np.arange(new) + 0.5) * scale
  half = max(scale, 1) / 2
  first, last = np.floor(middles - half + 0.5)[:, None], np.floor(middles + half + 0.5)[:, None]
  inside = (np.arange(size) >= first) & (np.arange(size) < last)
  return inside / inside.sum(axis=1, keepdims=True)


@least_side(1)
def jpeg_compression(key: jax.Array, images: jax.Array, severity: jax.Array) -> jax.Array:
  """Applies the losses of JPEG at quality 80 to 40; an equivalent without the codec (`jpeg.compress`)."""
  del key
  tables = np.stack([jpeg.quantisation(quality) for quality in (80, 65, 58, 50, 40)])
  return jpeg.compress(images, level(tables, severity))


@least_side(1)
def speckle_noise(key: jax.Array, images: jax.Array, severity: jax.Array) -> jax.Array:
  """Multiplies every value by 1 + normal noise."""
  sigma = level((0.06, 0.1, 0.12, 0.16, 0.2), severity)
  return jnp.clip(images + images * sigma * fields.normal(key, images.shape), 0, 1)


@least_side(1)
def gaussian_blur(key: jax.Array, images: jax.Array, severity: jax.Array) -> jax.Array:
  """Convolves with a Gaussian (sigma in pixels); the border is repeated."""
  del key
  return jnp.clip(filters.gaussian(images, (0.4, 0.6, 0.7, 0.8, 1.0), severity), 0, 1)


@least_side(1)
def spatter(key: jax.Array, images: jax.Array, severity: jax.Array) -> jax.Array:
  """Adds drops of water (severity 1 to 3) or mud (4 and 5) wherever smoothed normal noise is high.

  Water is an equivalent: see `spattering.water`.
  """
  mean, sd = level((0.62, 0.65, 0.65, 0.65, 0.65), severity), level((0.1, 0.1, 0.3, 0.1, 0.1), severity)
  threshold, mix = level((0.7, 0.7, 0.69, 0.69, 0.68), severity), level((0.5, 0.5, 0.5, 0.6, 0.6), severity)
  noise = mean + sd * fields.normal(key, (*images.shape[:3], 1))
  liquid = filters.gaussian(noise, (0.7, 0.8, 1, 0.7, 0.5), severity)
  liquid = jnp.where(liquid < threshold, 0, liquid)
  water = lambda images, liquid: spattering.water(images, liquid, mix)
  mud = lambda images, liquid: spattering.mud(images, liquid, sigma=0.6)
  return jax.lax.cond(severity < 4, water, mud, images, liquid)


@least_side(1)
def saturate(key: jax.Array, images: jax.Array, severity: jax.Array) -> jax.Array:
  """Multiplies HSV saturation by a factor and adds an offset; hue, value and grey images `[..., 1]` stay the same.

  A grey pixel of a colour image has no hue and counts as red, as in the original. An offset therefore turns it reddish.
  """
  del key
  factor, offset = level((0.3, 0.1, 1.5, 2, 2.5), severity), level((0, 0, 0, 0.1, 0.2), severity)
  return colours.scale_saturation(images, factor, offset)


# In the published order: the benchmark's 15, then the four extra ones.
ALL: tuple[Corruption, ...] = (
  *(gaussian_noise, shot_noise, impulse_noise),
  *(defocus_blur, glass_blur, motion_blur, zoom_blur),
  *(snow, frost, fog, brightness),
  *(contrast, elastic_transform, pixelate, jpeg_compression),
  *(speckle_noise, gaussian_blur, spatter, saturate),
)
