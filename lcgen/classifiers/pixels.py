"""Reads pixels of batches at computed places.

All work is on `[B, P]`, P = H x W x C, with coordinates as constants of that length. XLA on CPUs vectorises only the
innermost loop, and a loop over channels would be too short.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike


def coordinates(images: jax.Array) -> np.ndarray:
  """Gives row, column and channel of each value of an image, `[3, 1, P]`."""
  return np.indices(images.shape[1:], np.int32).reshape(3, 1, -1)


def flat(images: jax.Array) -> jax.Array:
  """Reshapes `[B, H, W, C]` to `[B, P]`."""
  return images.reshape(len(images), -1)


def nearest_inside(images: jax.Array, rows: jax.Array, columns: jax.Array) -> jax.Array:
  """Reads the values at whole coordinates `[B, P]`; outside it repeats the border."""
  _, height, width, channels = images.shape
  pixels = jnp.clip(rows, 0, height - 1) * width + jnp.clip(columns, 0, width - 1)
  return jnp.take_along_axis(flat(images), pixels * channels + coordinates(images)[2], axis=1, mode="clip")


def read(images: jax.Array, rows: jax.Array, columns: jax.Array, fill: ArrayLike) -> jax.Array:
  """Reads the values at whole coordinates `[B, P]`; gives `fill` outside."""
  _, height, width, _ = images.shape
  inside = (0 <= rows) & (rows < height) & (0 <= columns) & (columns < width)
  return jnp.where(inside, nearest_inside(images, rows, columns), fill)


def matrices(images: jax.Array, angles, shear=(0.0, 0.0), shift=(0.0, 0.0), xp=jnp) -> jax.Array:
  """Gives the matrices that map each pixel to its source, `[..., 2, 3]`.

  They act on (x, y, 1) from the upper left corner, and are exact if nothing moves.

  Args:
    images: `[B, H, W, C]`, of which only the sides count.
    angles: radians counterclockwise about the centre, `[...]`.
    shear: pair of the entries of Pillow's matrix, about the upper left corner.
    shift: pair of pixels by which the content moves right and down, after the rotation.
    xp: `jax.numpy`, or `numpy` for constants in float64.
  """
  cosine, sine = xp.cos(angles), xp.sin(angles)
  x, y = images.shape[2] / 2, images.shape[1] / 2
  from_x, from_y = x + shift[0], y + shift[1]
  to_x = (cosine, shear[0] - sine, x - cosine * from_x + sine * from_y)
  to_y = (shear[1] + sine, cosine, y - sine * from_x - cosine * from_y)
  return xp.stack([*to_x, *to_y], axis=-1).reshape(*np.shape(angles), 2, 3)
