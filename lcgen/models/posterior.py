"""The Gaussian that an encoder gives for each image."""

import jax
import jax.numpy as jnp
from flax import struct


@struct.dataclass
class Posterior:
  """The Gaussian q(z|x): `mean` and log-variance `logvar`, both `[B, L]`."""

  mean: jax.Array
  logvar: jax.Array

  @property
  def scale(self) -> jax.Array:
    """Standard deviation, `[B, L]`."""
    return jnp.exp(0.5 * self.logvar)

  def sample(self, key: jax.Array) -> jax.Array:
    """Draws one latent for each image, `[B, L]`."""
    return self.mean + self.scale * jax.random.normal(key, self.mean.shape)
