"""Pixelwise changes of colour and light in unit images `[B, H, W, C]`, C in {1, 3}."""

import jax
import jax.numpy as jnp


def grey(images: jax.Array) -> jax.Array:
  """Computes the luma of colour images, `[B, H, W, 1]`; returns grey images unchanged."""
  if images.shape[-1] == 1:
    return images
  return images @ jnp.array([[0.299], [0.587], [0.114]])


def brighten(images: jax.Array, amount: jax.Array | float) -> jax.Array:
  """Scales each pixel so that its largest channel grows by `amount`, up to 1; black turns grey."""
  value = images.max(axis=-1, keepdims=True)
  brighter = jnp.clip(value + amount, 0, 1)
  return jnp.where(value > 0, images * (brighter / jnp.maximum(value, 1e-6)), brighter)


def scale_saturation(images: jax.Array, factor: jax.Array, offset: jax.Array) -> jax.Array:
  """Changes the HSV saturation s to factor x s + offset, clipped to [0, 1]; grey images stay the same."""
  if images.shape[-1] == 1:
    return images
  value, least = images.max(axis=-1, keepdims=True), images.min(axis=-1, keepdims=True)
  spread = value - least
  new = jnp.clip(factor * spread / jnp.maximum(value, 1e-6) + offset, 0, 1)
  away_from_value = (value - images) / jnp.where(spread > 0, spread, 1)  # 0 to 1, set by the hue alone
  red = jnp.array([0.0, 1.0, 1.0]).reshape(1, 1, 1, 3)
  return value * (1 - new * jnp.where(spread > 0, away_from_value, red))


def add_fog(images: jax.Array, clouds: jax.Array, amount: jax.Array | float) -> jax.Array:
  """Computes (x + amount x clouds) x max / (max + amount), clipped; max is the largest value of each image."""
  largest = images.max(axis=(1, 2, 3), keepdims=True)
  return jnp.clip((images + amount * clouds) * largest / (largest + amount), 0, 1)
