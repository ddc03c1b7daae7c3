"""The value ranges of images, and the conversions between them.

On disk and on the device images are uint8. Floats in [0, 1] are `Unit`. The networks see `model` space, (unit - 0.5) /
0.25, which is [-2, 2] (paper, section 5.1). No other module knows these numbers. Model space is plain floats, which no
conversion to model space takes: images cannot be normalised twice.
"""

import flax.struct
import jax
import jax.numpy as jnp

MODEL_LIMIT = 2.0
PILLOW_ERRORS = (OSError, ValueError, SyntaxError)  # what Pillow raises for files that are no images, or broken ones
_MEAN, _STD = 0.5, 0.25


@flax.struct.dataclass
class Unit:
  """Floats in [0, 1] (noise may lead beyond), `[..., H, W, C]`, that say so by their type."""

  values: jax.Array


def to_unit(images: jax.Array | Unit) -> jax.Array:
  """The [0, 1] values of uint8 images or of `Unit`, `[..., H, W, C]`.

  Raises:
    ValueError: for plain floats, whose range nothing tells.
  """
  if isinstance(images, Unit):
    return images.values
  if images.dtype != jnp.uint8:
    raise ValueError(
      f"images are {images.dtype}, which does not say their range: pass uint8, or floats in [0, 1] as Unit; images in "
      "model space are normalised already"
    )
  return images.astype(jnp.float32) / 255


def to_uint8(unit: jax.Array) -> jax.Array:
  """Floats in [0, 1], clipped and rounded to uint8."""
  return jnp.round(jnp.clip(unit, 0, 1) * 255).astype(jnp.uint8)


def to_model(images: jax.Array | Unit) -> jax.Array:
  """uint8 or `Unit` images in model space, [-2, 2]."""
  return (to_unit(images) - _MEAN) / _STD


def from_model(images: jax.Array) -> jax.Array:
  """Model-space images as floats in [0, 1], clipped."""
  return jnp.clip(images * _STD + _MEAN, 0, 1)


def model_scale(difference: float) -> float:
  """A difference of [0, 1] values, such as a standard deviation, in model space."""
  return difference / _STD


def resize(unit: jax.Array, height: int, width: int) -> jax.Array:
  """Bilinear resize of `[B, H, W, C]` to `[B, height, width, C]`; the identity where the size is right already."""
  if unit.shape[1:3] == (height, width):
    return unit
  return jax.image.resize(unit, (unit.shape[0], height, width, unit.shape[-1]), "bilinear")


def prepare(images: jax.Array | Unit, height: int, width: int) -> jax.Array:
  """What every network sees of stored images: `[B, H, W, C]` uint8 or `Unit` -> `[B, height, width, C]` model space."""
  return to_model(Unit(resize(to_unit(images), height, width)))
