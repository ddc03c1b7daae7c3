"""Drops on the lens: water and mud."""

import jax
import jax.numpy as jnp

from lcgen.data.corruptions import edges, filters

TURQUOISE, BROWN = (175, 238, 238), (63, 42, 20)  # of 255
_EMBOSS = ((-2, -1, 0), (-1, 1, 1), (0, 1, 2))
_FAR = 20  # pixels; distances end here


def water(images: jax.Array, liquid: jax.Array, mix: jax.Array | float) -> jax.Array:
  """Turquoise added where there is liquid, more on the lit sides of the drops.

  An equivalent of the original's chain of OpenCV filters: the drops' edges are those of `edges` (whose thinning differs
  in detail, and weak edges do not count), and distances are exact instead of OpenCV's 5x5 approximation.

  Args:
    images: Unit images `[B, H, W, C]`.
    liquid: `[B, H, W, 1]`, 0 where there is none.
    mix: The most that is added.
  """
  levels = jnp.floor(liquid[..., 0] * 255)
  distances = _box(edges.distance(_outlines(levels), _FAR)[..., None])
  relief = _equalise(jnp.floor(distances + 1e-3))  # a mean of whole numbers may come out just below one
  relief = jnp.clip(filters.correlate(relief, jnp.array(_EMBOSS, jnp.float32)), 0, 255)
  amount = levels[..., None] * jnp.round(_box(relief))
  amount = mix * amount / jnp.maximum(amount.max(axis=(1, 2, 3), keepdims=True), 1)
  return jnp.clip(images + amount * _colour(TURQUOISE, images), 0, 1)


def mud(images: jax.Array, liquid: jax.Array, sigma: float, colour: tuple[int, int, int] = BROWN) -> jax.Array:
  """A colour (of 255) in place of the image where liquid `[B, H, W, 1]` covers most of the Gaussian neighbourhood."""
  cover = filters.gaussian((liquid > 0).astype(images.dtype), (sigma,), 1)
  cover = jnp.where(cover < 0.8, 0, cover)
  return jnp.clip(images * (1 - cover) + cover * _colour(colour, images), 0, 1)


def _colour(levels: tuple[int, int, int], images: jax.Array) -> jax.Array:
  """`[1, 1, 1, C]` in [0, 1]; its luma for grey images."""
  colour = jnp.array(levels) / 255
  if images.shape[-1] == 1:
    colour = colour @ jnp.array([[0.299], [0.587], [0.114]])
  return colour.reshape(1, 1, 1, -1)


def _outlines(levels: jax.Array) -> jax.Array:
  """The ridges of the gradient of `[B, H, W]` that are steeper than Canny's upper threshold of the original."""
  dy, dx = edges.sobel(levels, "edge")
  steepness = jnp.abs(dy) + jnp.abs(dx)
  return edges.ridges(steepness, dy, dx) & (steepness > 150)


def _box(images: jax.Array) -> jax.Array:
  """Means of 3x3 pixels."""
  return filters.correlate(images, jnp.full((3, 3), 1 / 9))


def _equalise(levels: jax.Array) -> jax.Array:
  """Spreads whole levels from 0 to 20 over 0 to 255 by their ranks within each image, as OpenCV does."""
  batch, height, width, _ = levels.shape
  upto = levels.reshape(batch, 1, height, width) <= jnp.arange(_FAR + 1, dtype=levels.dtype).reshape(1, -1, 1, 1)
  upto = upto.astype(levels.dtype).sum(axis=2).sum(axis=2)  # [B, 21] pixels; rows first, which runs in vectors
  pixels = height * width
  least = jnp.where(upto > 0, upto, pixels).min(axis=1, keepdims=True)
  ranks = jnp.round((upto - least) * 255 / jnp.maximum(pixels - least, 1))
  places = levels.reshape(batch, pixels).astype(jnp.int32)
  return jnp.take_along_axis(ranks, places, axis=1, mode="clip").reshape(levels.shape)
