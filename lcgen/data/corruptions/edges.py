"""Edges, and distances to them, of grey images `[B, H, W]`."""

import jax
import jax.numpy as jnp
import numpy as np

from lcgen.data.corruptions import filters


def sobel(grey: jax.Array, border: str) -> tuple[jax.Array, jax.Array]:
  """Derivatives along y and along x, eight times too large (as usual for Sobel's filter); `border` as for `jnp.pad`."""
  near = filters.shifts(grey[..., None], 1, border)
  smooth_x = lambda dy: near[dy, -1] + 2 * near[dy, 0] + near[dy, 1]
  smooth_y = lambda dx: near[-1, dx] + 2 * near[0, dx] + near[1, dx]
  return smooth_x(1) - smooth_x(-1), smooth_y(1) - smooth_y(-1)


def ridges(magnitude: jax.Array, dy: jax.Array, dx: jax.Array) -> jax.Array:
  """Where the magnitude is no smaller than half a pixel or so up and down the gradient (dy, dx); bool.

  Compared at the places where the gradient's line meets the square of the eight neighbours, linearly between them.
  """
  near = filters.shifts(magnitude[..., None], 1, "constant")
  steep = jnp.abs(dy) >= jnp.abs(dx)
  falling = dy * dx < 0
  short, long = jnp.minimum(jnp.abs(dy), jnp.abs(dx)), jnp.maximum(jnp.abs(dy), jnp.abs(dx))
  slant = short / jnp.maximum(long, 1e-12)
  result = True
  for side in (1, -1):
    straight = jnp.where(steep, near[side, 0], near[0, side])
    diagonal = jnp.where(falling, jnp.where(steep, near[side, -side], near[-side, side]), near[side, side])
    result &= magnitude >= slant * diagonal + (1 - slant) * straight
  return result


def connected(weak: jax.Array, strong: jax.Array) -> jax.Array:
  """The weak pixels that a chain of weak neighbours (of eight) links to a strong one; bool."""

  def grow(state):
    found, _ = state
    grown = jax.lax.reduce_window(found, False, jnp.logical_or, (1, 3, 3), (1, 1, 1), "SAME") & weak
    return grown, jnp.any(grown != found)

  return jax.lax.while_loop(lambda state: state[1], grow, (strong & weak, jnp.array(True)))[0]


def canny(grey: jax.Array) -> jax.Array:
  """Canny's edges of unit images with the defaults of scikit-image: Gaussian of 1 pixel, thresholds 0.1 and 0.2; bool.

  Pixels beyond the border have no weight in the Gaussian, and the outermost pixels are no edges.
  """
  height, width = grey.shape[1:]
  smooth = filters.separable(grey[..., None], _smoothing(height), _smoothing(width))[..., 0]
  dy, dx = sobel(smooth, "symmetric")
  magnitude = jnp.sqrt(dy**2 + dx**2)
  inner = jnp.pad(jnp.ones((1, height - 2, width - 2), bool), ((0, 0), (1, 1), (1, 1)))
  thin = ridges(magnitude, dy, dx) & inner
  return connected(thin & (magnitude >= 0.1), thin & (magnitude >= 0.2))


def _smoothing(size: int) -> np.ndarray:
  """The Gaussian of 1 pixel, cut off after 4, its weights within the image adding up to 1: `[size, size]`."""
  offsets = np.subtract.outer(np.arange(size), np.arange(size))
  weights = np.exp(-0.5 * offsets**2) * (np.abs(offsets) <= 4)
  return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def distance(edges: jax.Array, limit: float) -> jax.Array:
  """Pixels from every pixel to the nearest edge, at most `limit`: `[B, H, W]`."""
  height, width = edges.shape[1:]
  squares = lambda size: np.square(np.subtract.outer(np.arange(size), np.arange(size))).astype(np.float32)
  far = jnp.where(edges, 0.0, limit**2)
  far = (far[:, None] + squares(height).reshape(1, height, height, 1)).min(axis=2)
  far = (far[..., None] + squares(width).reshape(1, 1, width, width)).min(axis=2)
  return jnp.sqrt(jnp.minimum(far, limit**2))
