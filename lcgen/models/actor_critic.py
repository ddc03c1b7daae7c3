"""Actor and critic of phase 2 (paper, section 4, Figs. 15 and 16, Eq. 5)."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from lcgen.models import layers


class ConditionalBody(nn.Module):
  """A linear embedding of the one-hot label beside the latent, then `depth` times (linear, leaky ReLU).

  `batch_norm` puts a batch norm before each leaky ReLU. The paper's text has it in the critic; its figure and its
  published code do not. `style` is one of `layers.STYLES`.
  """

  hidden_dim: int
  depth: int
  batch_norm: bool = False
  dtype: Any = None
  style: str = "flax"

  @nn.compact
  def __call__(self, latents: jax.Array, conditions: jax.Array, train: bool = False) -> jax.Array:
    embedding = layers.Dense(self.hidden_dim, self.dtype, self.style, name="condition")(conditions)
    hidden = jnp.concatenate([embedding, latents.astype(embedding.dtype)], axis=-1)  # [B, hidden_dim + L]
    for _ in range(self.depth):
      hidden = layers.Dense(self.hidden_dim, self.dtype, self.style)(hidden)
      normalize = layers.NormalizedLeakyReLU(self.dtype, self.style) if self.batch_norm else None
      hidden = normalize(hidden, train) if normalize else layers.leaky_relu(hidden)
    return hidden


class Actor(nn.Module):
  """G(z, y): moves a latent to where the constraint y holds; `[B, L], [B, K]` -> `[B, L]`."""

  latent_dim: int
  hidden_dim: int
  depth: int = 4
  dtype: Any = None
  style: str = "flax"

  @nn.compact
  def __call__(self, latents: jax.Array, conditions: jax.Array) -> jax.Array:
    hidden = ConditionalBody(self.hidden_dim, self.depth, False, self.dtype, self.style)(latents, conditions)
    gate = nn.sigmoid(layers.Head(self.latent_dim, self.dtype, self.style, name="gate")(hidden))
    proposal = layers.Head(self.latent_dim, self.dtype, self.style, name="dz")(hidden)
    return (1 - gate) * latents + gate * proposal  # Eq. 5


class Critic(nn.Module):
  """D(z, y) as one logit, high if a latent is real and satisfies y; `[B, L], [B, K]` -> `[B]`."""

  hidden_dim: int
  depth: int = 4
  batch_norm: bool = False
  dtype: Any = None
  style: str = "flax"

  @nn.compact
  def __call__(self, latents: jax.Array, conditions: jax.Array, train: bool = False) -> jax.Array:
    body = ConditionalBody(self.hidden_dim, self.depth, self.batch_norm, self.dtype, self.style)
    hidden = body(latents, conditions, train)
    return layers.Head(1, self.dtype, self.style, name="logit")(hidden)[:, 0]
