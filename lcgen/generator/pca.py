"""A linear generator by principal components, found in closed form."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from lcgen.data import ranges
from lcgen.generator import base
from lcgen.generator.registration import register
from lcgen.generator.settings import PCASettings
from lcgen.models.posterior import Posterior
from lcgen.runtime import errors
from lcgen.training.context import Compute, Context

_LEAST_VARIANCE = 1e-6  # of the noise, in model space; it would be 0 if the components explain all
_IMAGES = "the number of training images"


@struct.dataclass
class Components:
  """Variables of `PCA`, for D pixels and L latents.

  Attributes:
    mean: of the training images, `[D]`.
    directions: orthonormal principal directions, `[L, D]`.
    variances: of the data along them, `[L]`.
    noise: variance of each pixel that the directions leave out, scalar.
  """

  mean: jax.Array
  directions: jax.Array
  variances: jax.Array
  noise: jax.Array


@register("pca", PCASettings)
class PCA(base.Generator):
  """Probabilistic principal components: x = W z + mean + noise, with z from N(0, I) (Tipping and Bishop 1999).

  Raises:
    InputError: if there are more latents than values in an image.
  """

  def __init__(self, settings: PCASettings, image_shape: tuple[int, int, int], compute: Compute):
    super().__init__(settings, image_shape, compute)
    self._check(math.prod(image_shape), f"the number of values in an image of shape {list(image_shape)}")

  def init(self, key: jax.Array) -> Components:
    del key
    size, latents = math.prod(self.image_shape), self.latent_dim
    return Components(jnp.zeros(size), jnp.zeros((latents, size)), jnp.ones(latents), jnp.ones(()))

  def phase(self, context: Context) -> None:
    """Trains nothing; refuses more latents than training images before a run begins."""
    self._check(context.facts.train, _IMAGES)

  def fit(self, images: np.ndarray) -> Components:
    self._check(len(images), _IMAGES)
    height, width, _ = self.image_shape
    flat = np.asarray(ranges.prepare(jnp.asarray(images), height, width)).reshape(len(images), -1)
    mean = flat.mean(axis=0, dtype=np.float64)
    _, singular, directions = np.linalg.svd(flat - mean, full_matrices=False)
    variances = np.zeros(flat.shape[1])
    variances[: len(singular)] = np.square(singular) / len(flat)
    kept = variances[: self.latent_dim]
    left_out = variances[self.latent_dim :]
    noise = max(left_out.sum() / max(len(left_out), 1), _LEAST_VARIANCE)  # Tipping and Bishop's equation 8
    return jax.tree.map(
      jnp.float32, Components(mean, directions[: self.latent_dim], np.maximum(kept, noise * (1 + 1e-3)), noise)
    )

  def encode(self, variables: Components, images: jax.Array) -> Posterior:
    along = (images.reshape(len(images), -1) - variables.mean[None, :]) @ variables.directions.T  # [B, L]
    scale = jnp.sqrt(variables.variances - variables.noise)
    logvar = jnp.log(variables.noise / variables.variances)
    mean = along * (scale / variables.variances)[None, :]
    return Posterior(mean, jnp.broadcast_to(logvar, mean.shape))

  def decode(self, variables: Components, latents: jax.Array) -> jax.Array:
    scale = jnp.sqrt(variables.variances - variables.noise)
    flat = (latents * scale[None, :]) @ variables.directions + variables.mean[None, :]
    limit = ranges.MODEL_LIMIT
    return jnp.clip(flat, -limit, limit).reshape(-1, *self.image_shape)

  def words(self) -> str:
    return f"{self.latent_dim} principal components, found in closed form"

  def _check(self, most: int, words: str) -> None:
    if self.latent_dim > most:
      raise errors.InputError(f"config.pca.latent_dim={self.latent_dim}: must be at most {most}, {words}")
