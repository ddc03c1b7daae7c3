"""Images that corruptions are tried on, and the compiled corruptions."""

import jax
import numpy as np
import scipy.ndimage

from lcgen.data import corruptions

KEY = jax.random.key(0)
CIFAR10_C, MNIST_C = (
  {name: jax.jit(corruption) for name, corruption in table.items()}
  for table in (corruptions.CIFAR10_C, corruptions.MNIST_C)
)


def scenes(count=4, height=16, width=12, channels=3):
  """Smooth colourful unit images that reach from 0 to 1."""
  noise = np.random.default_rng(0).random((count, height, width, channels))
  smooth = scipy.ndimage.gaussian_filter(noise, (0, 1.5, 1.5, 0), mode="wrap")
  low, high = smooth.min(axis=(1, 2, 3), keepdims=True), smooth.max(axis=(1, 2, 3), keepdims=True)
  return ((smooth - low) / (high - low)).astype(np.float32)
