"""The 15 corruptions of MNIST-C, each in its only published severity, which was made for 28x28 pixels.

Every function is `(key, images, severity) -> images` as in `cifar10_c`, and ignores the severity. None rounds to 8 bits
between its stages. The authors' code returns floats and rounds them to 8 bits (`round_and_astype` in its notebook), as
`ranges.to_uint8` does. On images of other sizes, stripes keep their share of the image and lines still cross it.
`least_side` states the smallest images that a function changes.

Source: Mu and Gilmer, "MNIST-C: a robustness benchmark for computer vision", 2019 (arXiv:1906.02337), and its code.
"""

import jax
import jax.numpy as jnp

from lcgen.data.corruptions import colours, edges, fields, filters, spattering
from lcgen.data.corruptions.cifar10_c import Corruption
from lcgen.data.corruptions.sizes import least_side


@least_side(1)
def shot_noise(key: jax.Array, images: jax.Array, severity: jax.Array) -> jax.Array:
  """Draws a Poisson count of photons for every value; white has 3 on average."""
  del severity
  return fields.photons(key, images, 3.0)


@least_side(1)
def impulse_noise(key: jax.Array, images: jax.Array, severity: jax.Array) -> jax.Array:
  """Sets 17 % of the values to 0 or 1 with equal probability (salt and pepper)."""
  del severity
  return fields.salt_and_pepper(key, images, 0.17)


@least_side(3)
def glass_blur(key: jax.Array, images: jax.Array, severity: jax.Array) -> jax.Array:
  """Blurs with a Gaussian, swaps neighbours at random twice, and blurs again.

  The original's Gaussian (0.7 pixels) takes the columns of grey images for channels, so that it blurs along y alone.
  This function does the same.
  """
  del severity
  height, width = images.shape[1:3]
  rows, same = filters.gaussian_matrices(height, (0.7,))[0], jnp.eye(width)
  images = filters.separable(images, rows, same)
  for time in range(2):
    images = _swap(jax.random.fold_in(key, time), images)
  return jnp.clip(filters.separable(images, rows, same), 0, 1)


def _swap(key: jax.Array, images: jax.Array) -> jax.Array:
  """Swaps each pixel, with probability 3/8, with its upper, left or upper-left neighbour.

  It goes from the last pixel back to the third of the third row. Each swap sees the swaps before it.
  """
  batch, height, width, channels = images.shape
  count = (height - 2) * (width - 2)
  drawn = jax.random.randint(key, (count, batch, 1, 1, 1), 0, 8)  # from 3 on the pixel stays

  def swap(step, images):
    row, column = height - 1 - step // (width - 2), width - 1 - step % (width - 2)
    start = (0, row - 1, column - 1, 0)
    block = jax.lax.dynamic_slice(images, start, (batch, 2, 2, channels))
    place = jnp.arange(4).reshape(1, 2, 2, 1)
    other = jnp.minimum(drawn[step], 3)
    chosen = (block * (place == other)).sum(axis=(1, 2), keepdims=True)
    block = jnp.where(place == 3, chosen, jnp.where(place == other, block[:, 1:, 1:], block))
    return jax.lax.dynamic_update_slice(images, block, start)

  return jax.lax.fori_loop(0, count, swap, images)


@least_side(1)
def motion_blur(key: jax.Array, images: jax.Array, severity: jax.Array) -> jax.Array:
  """Blurs along a one-sided line; draws an angle within 45 degrees of the horizontal for each image.

  This is ImageMagick's filter of 21 pixels without its rounding. Weights beyond five standard deviations (below 1e-6)
  are left out.
  """
  del severity
  angles = jnp.deg2rad(jax.random.uniform(key, images.shape[:1], minval=-45, maxval=45))
  return jnp.clip(filters.motion_blur(images, angles, radius=10, sigma=3.0, taps=16), 0, 1)


@least_side(2)
def shear(key: jax.Array, images: jax.Array, severity: jax.Array) -> jax.Array:
  """Shears by an angle a of ±0.4 radians about the centre: pixel (x, y) reads from (x - y sin(a), y cos(a))."""
  del severity
  angle = 0.4 * _signs(key, images, 1)[:, 0]
  return _affine(images, jnp.ones_like(angle), -jnp.sin(angle), jnp.zeros_like(angle), jnp.cos(angle))


@least_side(1)
def scale(key: jax.Array, images: jax.Array, severity: jax.Array) -> jax.Array:
  """Shrinks the image to 0.7 of its size about the centre."""
  del key, severity
  larger, none = jnp.full(images.shape[:1], 1 / 0.7), jnp.zeros(images.shape[:1])
  return _affine(images, larger, none, none, larger)


@least_side(2)
def rotate(key: jax.Array, images: jax.Array, severity: jax.Array) -> jax.Array:
  """Rotates by ±0.4 radians about the centre."""
  del severity
  angle = 0.4 * _signs(key, images, 1)[:, 0]
  return _affine(images, jnp.cos(angle), -jnp.sin(angle), jnp.sin(angle), jnp.cos(angle))


@least_side(4)
def translate(key: jax.Array, images: jax.Array, severity: jax.Array) -> jax.Array:
  """Shifts by ±3 pixels on each axis; zeros move in."""
  del severity
  same = jnp.broadcast_to(jnp.eye(2)[None], (len(images), 2, 2))
  return _warp(images, same, 3.0 * _signs(key, images, 2))


def _signs(key: jax.Array, images: jax.Array, count: int) -> jax.Array:
  """Draws -1 or 1 with equal probability, `[B, count]`."""
  return jax.random.rademacher(key, (len(images), count), jnp.float32)


def _affine(images: jax.Array, xx: jax.Array, xy: jax.Array, yx: jax.Array, yy: jax.Array) -> jax.Array:
  """Reads each pixel from the place to which a matrix (entries `[B]`) takes it; the centre is fixed, zeros outside."""
  matrix = jnp.stack([jnp.stack([xx, xy], axis=-1), jnp.stack([yx, yy], axis=-1)], axis=1)
  height, width = images.shape[1:3]
  centre = jnp.array([[(width - 1) / 2, (height - 1) / 2]])
  return _warp(images, matrix, centre - jnp.einsum("bij,kj->bi", matrix, centre))


def _warp(images: jax.Array, matrix: jax.Array, shift: jax.Array) -> jax.Array:
  rows, columns = filters.affine_places(*images.shape[1:3], matrix, shift)
  return filters.bilinear(images, rows, columns, border="zero")


@least_side(1)
def brightness(key: jax.Array, images: jax.Array, severity: jax.Array) -> jax.Array:
  """Adds 0.5 to the HSV value."""
  del key, severity
  return colours.brighten(images, 0.5)


@least_side(4)
def stripe(key: jax.Array, images: jax.Array, severity: jax.Array) -> jax.Array:
  """Inverts the left and the right quarter of the image."""
  del key, severity
  width = images.shape[2]
  columns = jnp.arange(width).reshape(1, 1, -1, 1)
  return jnp.where((columns < width // 4) | (columns >= width - width // 4), 1 - images, images)


@least_side(1)
def fog(key: jax.Array, images: jax.Array, severity: jax.Array) -> jax.Array:
  """Adds clouds (diamond-square plasma) and scales the result back to the image's range.

  The original takes a corner of clouds on 256x256 pixels. Here their range is that of every fourth pixel, which differs
  by a few per cent (`fields.plasma_corner`).
  """
  del severity
  height, width = images.shape[1:3]
  clouds = fields.plasma_corner(key, len(images), max(height, width), 1.4)
  return colours.add_fog(images, clouds[:, :height, :width, None], 3.0)


@least_side(1)
def spatter(key: jax.Array, images: jax.Array, severity: jax.Array) -> jax.Array:
  """Covers the image with grey mud wherever smoothed normal noise is high."""
  del severity
  noise = 0.65 + 0.3 * fields.normal(key, (*images.shape[:3], 1))
  liquid = filters.gaussian(noise, (1.0,), 1)
  return spattering.mud(images, jnp.where(liquid < 0.65, 0, liquid), sigma=1.5, colour=(63, 63, 63))


@least_side(4)
def dotted_line(key: jax.Array, images: jax.Array, severity: jax.Array) -> jax.Array:
  """Adds a dotted line from the left to the right side; its ends are at random rows, two columns are off, two on."""
  del severity
  height, width = images.shape[1:3]
  ends = jax.random.randint(key, (len(images), 2), 0, height - 1).astype(jnp.float32)
  columns = jnp.array([[0.0, width - 1.0]])
  line = _lines(jnp.broadcast_to(columns, ends.shape), ends, height, width)
  on = (jnp.arange(width) // 2 % 2 == 1).reshape(1, 1, -1, 1)
  return jnp.clip(images + line * on, 0, 1)


@least_side(7)
def zigzag(key: jax.Array, images: jax.Array, severity: jax.Array) -> jax.Array:
  """Adds a slightly tilted zigzag from a random row; its teeth are 4 pixels long and 2 high to each side."""
  del severity
  height, width = images.shape[1:3]
  tooth, left, right = 2.0, 2.0, width - 3.0
  start_key, tilt_key = jax.random.split(key)
  start = jax.random.randint(start_key, (len(images), 1), 0, height - 1).astype(jnp.float32)
  tilt = jnp.arctan(jax.random.randint(tilt_key, (len(images), 1), -5, 5) / (right - left))
  length = (right - left) / jnp.cos(tilt)
  teeth = jnp.arange((right - left + tooth) // (2 * tooth))[None]
  whole = 2 * tooth * ((right - left) // (2 * tooth))
  heights = tooth * (1 - 2 * (teeth % 2))
  along = jnp.concatenate([0 * length, (2 * teeth + 1) * tooth + 0 * length, length], axis=1)
  across = jnp.concatenate(
    [0 * length, heights + 0 * length, heights[:, -1:] / (2 * jnp.maximum(length - whole, 1))], axis=1
  )
  columns = left + jnp.cos(tilt) * along - jnp.sin(tilt) * across
  rows = start + jnp.sin(tilt) * along + jnp.cos(tilt) * across
  return jnp.clip(images + _lines(columns, rows, height, width), 0, 1)


def _lines(columns: jax.Array, rows: jax.Array, height: int, width: int) -> jax.Array:
  """Draws lines through given points, bright in the middle and 0 from 1.45 rows away: `[B, height, width, 1]`.

  Args:
    columns: `[B, points]`, increasing along the second axis.
    rows: `[B, points]`.
    height: Pixels.
    width: Pixels.
  """
  entry = lambda values: values[:, :, None, None]  # [B, segments, 1, 1]
  slope = (rows[:, 1:] - rows[:, :-1]) / (columns[:, 1:] - columns[:, :-1])
  y, x = jnp.mgrid[:height, :width].astype(jnp.float32)[:, None, None]
  off = jnp.abs(y - entry(slope) * (x - entry(columns[:, :-1])) - entry(rows[:, :-1]))
  bright = jnp.clip(1 + jnp.log(1 - jnp.minimum(off / 2.3, 1 - 1e-6)), 0, 1)
  within = (x >= jnp.floor(entry(columns[:, :-1]))) & (x < jnp.ceil(entry(columns[:, 1:])))
  return (bright * within).sum(axis=1)[..., None]


@least_side(3)
def canny_edges(key: jax.Array, images: jax.Array, severity: jax.Array) -> jax.Array:
  """Replaces the image by its Canny edges, white on black."""
  del key, severity
  found = edges.canny(colours.grey(images)[..., 0])
  return jnp.broadcast_to(found[..., None], images.shape).astype(images.dtype)


ALL: tuple[Corruption, ...] = (
  *(shot_noise, impulse_noise, glass_blur, motion_blur),
  *(shear, scale, rotate, brightness, translate),
  *(stripe, fog, spatter, dotted_line, zigzag, canny_edges),
)
