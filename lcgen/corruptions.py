"""Corruptions made on the device, each in five severities: shifted test sets of any data set.

Every corruption is a pure function `(key, images, severity) -> images` on unit images `[B, H, W, C]`; the severity, 1
to 5, may be traced. Parameters are those of CIFAR-10-C (Hendrycks & Dietterich 2019) where it has the corruption;
translation and rotation are graded around the one severity of MNIST-C (Mu & Gilmer 2019), which is the third here.
The sets are generated, not the published files: compare them with each other, not with published numbers.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

SEVERITIES = (1, 2, 3, 4, 5)
_BLUR_RADIUS = 4  # pixels; four standard deviations at severity 5

Corruption = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]


def _level(parameters, severity):
  """The parameter of this severity."""
  return jnp.asarray(parameters)[severity - 1]


def gaussian_noise(key: jax.Array, images: jax.Array, severity: jax.Array) -> jax.Array:
  """Normal noise added to every value."""
  sigma = _level((0.04, 0.06, 0.08, 0.09, 0.10), severity)
  return jnp.clip(images + sigma * jax.random.normal(key, images.shape), 0, 1)


def impulse_noise(key: jax.Array, images: jax.Array, severity: jax.Array) -> jax.Array:
  """A share of the values set to 0 or 1, each with the same chance."""
  share = _level((0.01, 0.02, 0.03, 0.05, 0.07), severity)
  drawn = jax.random.uniform(key, images.shape)
  return jnp.where(drawn < share / 2, 0.0, jnp.where(drawn < share, 1.0, images))


def gaussian_blur(key: jax.Array, images: jax.Array, severity: jax.Array) -> jax.Array:
  """Convolution with a Gaussian, the border repeated."""
  del key
  sigma = _level((0.4, 0.6, 0.7, 0.8, 1.0), severity)
  offsets = jnp.arange(-_BLUR_RADIUS, _BLUR_RADIUS + 1)
  weights = jax.nn.softmax(-0.5 * jnp.square(offsets / sigma))
  for axis in (1, 2):
    padding = [(_BLUR_RADIUS,) * 2 if a == axis else (0, 0) for a in range(4)]
    padded = jnp.pad(images, padding, mode="edge")
    shifted = [jax.lax.slice_in_dim(padded, i, i + images.shape[axis], axis=axis) for i in range(len(offsets))]
    images = sum(weight * part for weight, part in zip(weights, shifted, strict=True))
  return images


def contrast(key: jax.Array, images: jax.Array, severity: jax.Array) -> jax.Array:
  """Values drawn towards each image's mean per channel."""
  del key
  factor = _level((0.75, 0.5, 0.4, 0.3, 0.15), severity)
  mean = images.mean(axis=(1, 2), keepdims=True)
  return jnp.clip(mean + factor * (images - mean), 0, 1)


def brightness(key: jax.Array, images: jax.Array, severity: jax.Array) -> jax.Array:
  """A constant added to the HSV value, hue and saturation kept."""
  del key
  value = images.max(axis=-1, keepdims=True)
  brighter = jnp.clip(value + _level((0.05, 0.1, 0.15, 0.2, 0.3), severity), 0, 1)
  return jnp.where(value > 0, images * brighter / jnp.maximum(value, 1e-6), brighter)  # black has no hue: it turns grey


def translation(key: jax.Array, images: jax.Array, severity: jax.Array) -> jax.Array:
  """A shift by this many pixels along a random diagonal, zeros moved in."""
  pixels = _level((1.0, 2.0, 3.0, 4.0, 5.0), severity)
  shift = pixels * jax.random.rademacher(key, (images.shape[0], 2), images.dtype)
  return jax.vmap(lambda image, by: _warp(image, jnp.eye(2), by))(images, shift)


def rotation(key: jax.Array, images: jax.Array, severity: jax.Array) -> jax.Array:
  """A turn by this many radians about the centre, to a random side, zeros moved in."""
  angle = _level((0.13, 0.27, 0.4, 0.53, 0.67), severity)
  angles = angle * jax.random.rademacher(key, (images.shape[0],), images.dtype)

  def rotate(image, angle):
    sine, cosine = jnp.sin(angle), jnp.cos(angle)
    return _warp(image, jnp.array([[cosine, -sine], [sine, cosine]]), jnp.zeros(2))

  return jax.vmap(rotate)(images, angles)


def _warp(image: jax.Array, matrix: jax.Array, shift: jax.Array) -> jax.Array:
  """Bilinear sampling of one image `[H, W, C]` at `matrix` x (pixel - centre) + centre - shift."""
  height, width, _ = image.shape
  centre = jnp.array([height - 1, width - 1]) / 2
  pixels = jnp.stack(jnp.meshgrid(jnp.arange(height), jnp.arange(width), indexing="ij"))  # [2, H, W]
  centred = pixels - centre[:, None, None]
  sources = jnp.einsum("ij,jhw->ihw", matrix, centred) + (centre - shift)[:, None, None]
  sample = lambda channel: jax.scipy.ndimage.map_coordinates(channel, sources, order=1, mode="constant")
  return jnp.stack([sample(image[..., c]) for c in range(image.shape[-1])], axis=-1)


def pixelate(key: jax.Array, images: jax.Array, severity: jax.Array) -> jax.Array:
  """Shrunk by box averaging, then grown by repetition; both are linear, so one matrix a side does it."""
  del key
  factors = (0.95, 0.9, 0.85, 0.75, 0.65)
  rows = _level(np.stack([_pixelate_matrix(images.shape[1], factor) for factor in factors]), severity)
  columns = _level(np.stack([_pixelate_matrix(images.shape[2], factor) for factor in factors]), severity)
  return jnp.einsum("yh,bhwc,xw->byxc", rows, images, columns)


def _pixelate_matrix(size: int, factor: float) -> np.ndarray:
  """`[size, size]`: averages over boxes of size / int(size x factor) pixels, then the nearest box for each pixel."""
  small = int(size * factor)
  edges = np.linspace(0, size, small + 1)
  pixels = np.arange(size)
  overlap = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
  shrink = np.clip(overlap, 0, None) * small / size  # [small, size]
  nearest = ((pixels + 0.5) * small / size).astype(int)
  return shrink[nearest].astype(np.float32)


_ALL = (gaussian_noise, impulse_noise, gaussian_blur, contrast, brightness, translation, rotation, pixelate)
CORRUPTIONS: dict[str, Corruption] = {function.__name__: function for function in _ALL}
