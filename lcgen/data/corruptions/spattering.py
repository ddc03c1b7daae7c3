"""Drops on the lens: water and mud."""

import jax
import jax.numpy as jnp

from lcgen.data.corruptions import edges, filters

TURQUOISE, BROWN = (175, 238, 238), (63, 42, 20)  # RGB, 0 to 255
_EMBOSS = ((-2, -1, 0), (-1, 1, 1), (0, 1, 2))
_FAR = 20  # pixels; longer distances count as this


def water(images: jax.Array, liquid: jax.Array, mix: jax.Array | float) -> jax.Array:
  """Adds turquoise to the image under the liquid, more on the lit sides of the drops.

  This is an equivalent of the original's chain of OpenCV filters. Edges come from `lcgen.data.corruptions.edges`, whose
  thinning differs in detail, and weak edges do not count. Distances are exact instead of OpenCV's 5x5 approximation.

  Args:
    images: Unit images `[B, H, W, C]`.
    liquid: `[B, H, W, 1]`, 0 for no liquid.
    mix: Largest amount that is added, as a share of turquoise.
  """
  levels = jnp.floor(liquid[..., 0] * 255)
  distances = _box(edges.distance(_outlines(levels), _FAR)[..., None])
  relief = _equalise(jnp.floor(distances + 1e-3))  # rounding may leave a whole mean just below its value
  relief = jnp.clip(filters.correlate(relief, jnp.array(_EMBOSS, jnp.float32)), 0, 255)
  amount = levels[..., None] * jnp.round(_box(relief))
  amount = mix * amount / jnp.maximum(amount.max(axis=(1, 2, 3), keepdims=True), 1)
  return jnp.clip(images + amount * _colour(TURQUOISE, images), 0, 1)


def mud(images: jax.Array, liquid: jax.Array, sigma: float, colour: tuple[int, int, int] = BROWN) -> jax.Array:
  """Blends in a colour (0 to 255) wherever liquid `[B, H, W, 1]` covers at least 0.8 of the Gaussian neighbourhood."""
  cover = filters.gaussian((liquid > 0).astype(images.dtype), (sigma,), 1)
  cover = jnp.where(cover < 0.8, 0, cover)
  return jnp.clip(images * (1 - cover) + cover * _colour(colour, images), 0, 1)


def _colour(levels: tuple[int, int, int], images: jax.Array) -> jax.Array:
  """Gives a colour as `[1, 1, 1, C]` in [0, 1]; its luma for grey images."""
  colour = jnp.array(levels) / 255
  if images.shape[-1] == 1:
    colour = colour @ jnp.array([[0.299], [0.587], [0.114]])
  return colour.reshape(1, 1, 1, -1)


def _outlines(levels: jax.Array) -> jax.Array:
  """Finds the ridges of the gradient of `[B, H, W]` that exceed the upper threshold of the original's Canny filter."""
  dy, dx = edges.sobel(levels, "edge")
  steepness = jnp.abs(dy) + jnp.abs(dx)
  return edges.ridges(steepness, dy, dx) & (steepness > 150)


def _box(images: jax.Array) -> jax.Array:
  """Averages 3x3 pixels."""
  return filters.correlate(images, jnp.full((3, 3), 1 / 9))


def _equalise(levels: jax.Array) -> jax.Array:
  """Equalises the histogram of each image as OpenCV does: whole levels 0 to 20 become 0 to 255 by their ranks."""
  batch, height, width, _ = levels.shape
  upto = levels.reshape(batch, 1, height, width) <= jnp.arange(_FAR + 1, dtype=levels.dtype).reshape(1, -1, 1, 1)
  upto = upto.astype(levels.dtype).sum(axis=2).sum(axis=2)  # [B, 21] pixels; XLA vectorises the sum if rows come first
  pixels = height * width
  least = jnp.where(upto > 0, upto, pixels).min(axis=1, keepdims=True)
  ranks = jnp.round((upto - least) * 255 / jnp.maximum(pixels - least, 1))
  places = levels.reshape(batch, pixels).astype(jnp.int32)
  return jnp.take_along_axis(ranks, places, axis=1, mode="clip").reshape(levels.shape)
