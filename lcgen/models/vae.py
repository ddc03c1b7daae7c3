"""The variational autoencoder of phase 1 (paper, section 4, Fig. 14)."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import struct

from lcgen.models import layers
from lcgen.models.posterior import Posterior


@struct.dataclass
class VAEOutput:
  """Reconstructions `[B, H, W, C]` in model space, the posterior, and the decoded latents `[B, L]`."""

  images: jax.Array
  posterior: Posterior
  latents: jax.Array


class ConvDecoder(nn.Module):
  """A linear layer, one doubling per entry of `channels`, a 3x3 convolution; `[B, L]` -> `[B, H, W, C]`.

  The paper's text counts five transposed convolutions; going from 1x1 to 64x64 takes six.
  """

  image_shape: Sequence[int]
  channels: Sequence[int]
  form: str
  dtype: Any = None
  style: str = "flax"

  @nn.compact
  def __call__(self, latents: jax.Array, train: bool) -> jax.Array:
    height, width, colours = self.image_shape
    shrink = 2 ** len(self.channels)
    rows, columns = -(-height // shrink), -(-width // shrink)
    hidden = layers.Dense(rows * columns * self.channels[-1], self.dtype, self.style)(latents)
    hidden = hidden.reshape(-1, rows, columns, self.channels[-1])
    for features in (*self.channels[-2::-1], self.channels[0]):
      hidden = layers.ConvTranspose(features, self.form, self.dtype, self.style)(hidden)
      hidden = layers.NormalizedLeakyReLU(self.dtype, self.style)(hidden, train)
    images = layers.Conv(colours, 1, self.form, self.dtype, self.style)(hidden[:, :height, :width])
    return images.astype(jnp.float32)


class DenseDecoder(nn.Module):
  """Dense blocks and a linear layer; `[B, L]` -> `[B, H, W, C]`."""

  image_shape: Sequence[int]
  widths: Sequence[int]
  dtype: Any = None
  style: str = "flax"

  @nn.compact
  def __call__(self, latents: jax.Array, train: bool) -> jax.Array:
    height, width, colours = self.image_shape
    hidden = layers.DenseBlocks(self.widths, self.dtype, self.style)(latents, train)
    images = layers.Head(height * width * colours, self.dtype, self.style)(hidden)
    return images.reshape(-1, height, width, colours)


class VAE(nn.Module):
  """Encoder, Gaussian latent and decoder; images in and out are in model space (`lcgen.data.ranges`).

  Attributes:
    image_shape: `(H, W, C)`.
    latent_dim: L.
    architecture: `"dense"` or `"conv"`.
    widths: of the dense encoder's layers; the decoder mirrors them.
    channels: of the convolutional encoder's layers, each halving the image; the decoder mirrors them.
    output_limit: the decoder's range is `[-output_limit, output_limit]`. 2 reaches every data value; the
      paper's decoder stops at 1.
    form: form of the convolutions, one of `layers.FORMS`.
    dtype: type that the layers compute in.
    style: whose first weights and batch norm the layers have, one of `layers.STYLES`.
  """

  image_shape: Sequence[int]
  latent_dim: int
  architecture: str
  widths: Sequence[int]
  channels: Sequence[int]
  output_limit: float = 2.0
  form: str = "native"
  dtype: Any = None
  style: str = "flax"

  def setup(self):
    if self.architecture == "conv":
      self.trunk = layers.ConvBlocks(self.channels, self.form, self.dtype, self.style)
      self.decoder = ConvDecoder(self.image_shape, self.channels, self.form, self.dtype, self.style)
    else:
      self.trunk = layers.DenseBlocks(self.widths, self.dtype, self.style)
      self.decoder = DenseDecoder(self.image_shape, self.widths[::-1], self.dtype, self.style)
    self.mean = layers.Head(self.latent_dim, self.dtype, self.style)
    self.logvar = layers.Head(self.latent_dim, self.dtype, self.style)

  def encode(self, images: jax.Array, train: bool = False) -> Posterior:
    """Computes q(z|x) for images `[B, H, W, C]`."""
    hidden = self.trunk(images, train)
    return Posterior(self.mean(hidden), self.logvar(hidden))

  def decode(self, latents: jax.Array, train: bool = False) -> jax.Array:
    """Computes the mean of p(x|z), `[B, H, W, C]`, for latents `[B, L]`."""
    return self.output_limit * jnp.tanh(self.decoder(latents, train))

  def __call__(self, images: jax.Array, key: jax.Array, train: bool = False) -> VAEOutput:
    posterior = self.encode(images, train)
    latents = posterior.sample(key)
    return VAEOutput(self.decode(latents, train), posterior, latents)
