"""The value ranges of images, and the conversions between them.

Images are uint8 on disk and on the device. Floats in [0, 1] are wrapped in `Unit`. The networks see model space,
(unit - 0.5) / 0.25, which is [-2, 2] (paper, section 5.1). No other module knows these two numbers. Images in model
space are plain floats. No conversion to model space takes those, so that images cannot be normalised twice.
"""

import flax.struct
import jax
import jax.numpy as jnp

MODEL_LIMIT = 2.0
PILLOW_ERRORS = (OSError, ValueError, SyntaxError)  # Pillow raises these for broken files and files that are no images
_MEAN, _STD = 0.5, 0.25


@flax.struct.dataclass
class Unit:
  """Floats `[..., H, W, C]` whose type says that their range is [0, 1]; noise may exceed it."""

  values: jax.Array


def to_unit(images: jax.Array | Unit) -> jax.Array:
  """Converts uint8 or `Unit` images to plain floats in [0, 1], `[..., H, W, C]`.

  Raises:
    ValueError: if the images are plain floats, because their range is unknown.
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
  """Converts floats to uint8: clips to [0, 1] and rounds."""
  return jnp.round(jnp.clip(unit, 0, 1) * 255).astype(jnp.uint8)


def truncate_to_uint8(unit: jax.Array) -> jax.Array:
  """Converts floats to uint8 as `np.uint8(255 * unit)` does in float64: clips to [0, 1] and truncates.

  Whole levels stay: float32 may leave them less than 1e-3 below their value.
  """
  return jnp.floor(jnp.clip(unit, 0, 1) * 255 + 1e-3).astype(jnp.uint8)


def to_model(images: jax.Array | Unit) -> jax.Array:
  """Converts uint8 or `Unit` images to model space, [-2, 2]."""
  return (to_unit(images) - _MEAN) / _STD


def from_model(images: jax.Array) -> jax.Array:
  """Converts model-space images to floats, clipped to [0, 1]."""
  return jnp.clip(images * _STD + _MEAN, 0, 1)


def model_scale(difference: float) -> float:
  """Converts a difference of [0, 1] values, such as a standard deviation, to model space."""
  return difference / _STD


def resize(unit: jax.Array, height: int, width: int) -> jax.Array:
  """Resizes `[B, H, W, C]` bilinearly to `[B, height, width, C]`; returns images of the right size unchanged."""
  if unit.shape[1:3] == (height, width):
    return unit
  return jax.image.resize(unit, (unit.shape[0], height, width, unit.shape[-1]), "bilinear")


def prepare(images: jax.Array | Unit, height: int, width: int) -> jax.Array:
  """Resizes images for a network and converts them to model space: `[B, H, W, C]` -> `[B, height, width, C]`."""
  return to_model(Unit(resize(to_unit(images), height, width)))
