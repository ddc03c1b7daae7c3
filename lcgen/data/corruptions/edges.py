"""Edges of grey images `[B, H, W]`, and distances to the edges."""

import jax
import jax.numpy as jnp
import numpy as np

from lcgen.data.corruptions import filters


def sobel(grey: jax.Array, border: str) -> tuple[jax.Array, jax.Array]:
  """Computes 8 times the derivatives along y and along x (the usual scale of Sobel's filter).

  `border` is a mode of `jnp.pad`.
  """
  near = filters.shifts(grey[..., None], 1, border)
  smooth_x = lambda dy: near[dy, -1] + 2 * near[dy, 0] + near[dy, 1]
  smooth_y = lambda dx: near[-1, dx] + 2 * near[0, dx] + near[1, dx]
  return smooth_x(1) - smooth_x(-1), smooth_y(1) - smooth_y(-1)


def ridges(magnitude: jax.Array, dy: jax.Array, dx: jax.Array) -> jax.Array:
  """Tells whether the magnitude is a maximum along the gradient (dy, dx): bool `[B, H, W]`.

  It compares with the two points at which the gradient's line crosses the square of the eight neighbours. The
  magnitude there is interpolated linearly.
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
  """Finds the weak pixels that a chain of weak pixels links to a strong one (8-neighbourhood): bool `[B, H, W]`."""

  def grow(state):
    found, _ = state
    grown = jax.lax.reduce_window(found, False, jnp.logical_or, (1, 3, 3), (1, 1, 1), "SAME") & weak
    return grown, jnp.any(grown != found)

  return jax.lax.while_loop(lambda state: state[1], grow, (strong & weak, jnp.array(True)))[0]


def canny(grey: jax.Array) -> jax.Array:
  """Finds Canny's edges of unit images: bool `[B, H, W]`.

  The defaults are scikit-image's: a Gaussian of 1 pixel, thresholds 0.1 and 0.2. Pixels beyond the border have no
  weight in the Gaussian. The outermost pixels are never edges.
  """
  height, width = grey.shape[1:]
  smooth = filters.separable(grey[..., None], _smoothing(height), _smoothing(width))[..., 0]
  dy, dx = sobel(smooth, "symmetric")
  magnitude = jnp.sqrt(dy**2 + dx**2)
  inner = jnp.pad(jnp.ones((1, height - 2, width - 2), bool), ((0, 0), (1, 1), (1, 1)))
  thin = ridges(magnitude, dy, dx) & inner
  return connected(thin & (magnitude >= 0.1), thin & (magnitude >= 0.2))


def _smoothing(size: int) -> np.ndarray:
  """Gives the matrix `[size, size]` of a Gaussian of 1 pixel, cut off after 4; weights inside the image sum to 1."""
  offsets = np.subtract.outer(np.arange(size), np.arange(size))
  weights = np.exp(-0.5 * offsets**2) * (np.abs(offsets) <= 4)
  return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def distance(edges: jax.Array, limit: float) -> jax.Array:
  """Computes the Euclidean distance of every pixel to the nearest edge, in pixels, at most `limit`: `[B, H, W]`."""
  height, width = edges.shape[1:]
  squares = lambda size: np.square(np.subtract.outer(np.arange(size), np.arange(size))).astype(np.float32)
  far = jnp.where(edges, 0.0, limit**2)
  far = (far[:, None] + squares(height).reshape(1, height, height, 1)).min(axis=2)
  far = (far[..., None] + squares(width).reshape(1, 1, width, width)).min(axis=2)
  return jnp.sqrt(jnp.minimum(far, limit**2))
