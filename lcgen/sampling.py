"""Drawing latents where a constraint holds, and turning latents into images."""

import jax

from lcgen import calibration
from lcgen import state as states
from lcgen.data import images as ranges
from lcgen.models import actor_critic, vae


def prior(key: jax.Array, count: int, latent_dim: int) -> jax.Array:
  """Latents from N(0, I), `[count, latent_dim]`."""
  return jax.random.normal(key, (count, latent_dim))


def actor_latents(
  key: jax.Array, labels: jax.Array, frozen: states.Frozen, *, actor: actor_critic.Actor, classes: int
) -> jax.Array:
  """G(z, y) with z from the prior (Eq. 5); labels `[B]` -> latents `[B, L]`."""
  latents = prior(key, labels.shape[0], actor.latent_dim)
  return actor.apply(frozen.actor, latents, jax.nn.one_hot(labels, classes))


def decode(latents: jax.Array, frozen: states.Frozen, *, model: vae.VAE) -> jax.Array:
  """Decoded and calibrated images as floats in [0, 1]; latents `[B, L]` -> `[B, H, W, C]`."""
  unit = ranges.from_model(model.apply(frozen.vae, latents, method="decode"))
  return calibration.apply(frozen.calibration, unit)


def actor_images(
  key: jax.Array, labels: jax.Array, frozen: states.Frozen, *, model: vae.VAE, actor: actor_critic.Actor, classes: int
) -> jax.Array:
  """One image in [0, 1] for each requested label; labels `[B]` -> `[B, H, W, C]`."""
  return decode(actor_latents(key, labels, frozen, actor=actor, classes=classes), frozen, model=model)
