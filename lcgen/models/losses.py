"""The paper's equations, one value per example; the caller takes the mean over the batch.

Pixels and latents are summed or averaged here, as each docstring says, and nowhere else. The paper prints Eqs. 2 and 3
with the names of actor and critic exchanged. Here the critic's loss is Eq. 2 and the actor's is Eq. 3.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from lcgen.models import vae
from lcgen.models.posterior import Posterior


def squared_error(images: jax.Array, reconstructions: jax.Array) -> jax.Array:
  """Computes the mean squared error over the pixels of each image; `[B, H, W, C]` twice -> `[B]`."""
  return jnp.square(images - reconstructions).mean(axis=(1, 2, 3))


def kl_divergence(posterior: Posterior) -> jax.Array:
  """Computes KL(q(z|x) || N(0, I)) in nats, summed over latents, `[B]`."""
  return 0.5 * (jnp.square(posterior.mean) + jnp.exp(posterior.logvar) - 1 - posterior.logvar).sum(axis=-1)


def weighted_elbo(images: jax.Array, output: vae.VAEOutput, kl_weight: float) -> tuple[jax.Array, dict[str, jax.Array]]:
  """Computes Eq. 1 as the paper trains it: squared error per pixel + `kl_weight` x KL summed over latents.

  Up to scale and a constant this is the negative ELBO of a Gaussian likelihood. Its standard deviation is
  `observation_sigma`. (Eq. 1 prints KL(q || p(z|x)); the standard bound has the prior, as here.)

  Returns:
    Loss `[B]` and its terms, each `[B]`.
  """
  terms = {"reconstruction": squared_error(images, output.images), "kl": kl_divergence(output.posterior)}
  return terms["reconstruction"] + kl_weight * terms["kl"], terms


def gaussian_elbo(images: jax.Array, output: vae.VAEOutput, sigma: float) -> tuple[jax.Array, dict[str, jax.Array]]:
  """Computes Eq. 1 in nats, -log N(x; decode(z), sigma^2) summed over pixels + KL, for a sigma in model space.

  Returns:
    Loss `[B]` and its terms, each `[B]`; `reconstruction` is the squared error per pixel, for comparison.
  """
  pixels = math.prod(images.shape[1:])
  error = squared_error(images, output.images)
  likelihood = pixels * (0.5 * error / sigma**2 + math.log(sigma) + 0.5 * math.log(2 * math.pi))
  kl = kl_divergence(output.posterior)
  return likelihood + kl, {"reconstruction": error, "negative_log_likelihood": likelihood, "kl": kl}


def observation_sigma(kl_weight: float, pixels: int) -> float:
  """Gives the standard deviation that `weighted_elbo` implies, in model space: sqrt(kl_weight x pixels / 2)."""
  return math.sqrt(kl_weight * pixels / 2)


def constraint_loss(logits: jax.Array, holds: bool) -> jax.Array:
  """Computes L_{c=1}(z) = -log D(z) if the constraint `holds`, else L_{c=0}(z) = -log(1 - D(z)); `[B]` -> `[B]`."""
  targets = jnp.full_like(logits, 1.0 if holds else 0.0)
  return optax.sigmoid_binary_cross_entropy(logits, targets)


def distance_penalty(moved: jax.Array, latents: jax.Array, posterior_scale: jax.Array, reduction: str) -> jax.Array:
  """Computes L_dist of Eq. 3 (Engel et al. 2018): log(1 + (z' - z)^2) / sigma^2 over the latents.

  Args:
    moved: z' = G(z), `[B, L]`.
    latents: z, `[B, L]`.
    posterior_scale: sigma, the standard deviation of q(z|x) averaged over the training set, `[L]`.
    reduction: `"sum"` over latents as in the paper, or `"mean"`, whose scale does not depend on the latent size.

  Returns:
    `[B]`.
  """
  terms = jnp.log1p(jnp.square(moved - latents)) / jnp.square(posterior_scale)[None, :]
  return terms.sum(axis=-1) if reduction == "sum" else terms.mean(axis=-1)


def squared_slopes(logit: Callable[[jax.Array], jax.Array], latents: jax.Array) -> jax.Array:
  """Computes the squared norm of the logit's gradient at each latent, `[B]`; `logit` maps `[B, L]` to `[B]`."""
  slopes = jax.grad(lambda z: logit(z).sum())(latents)
  return jnp.square(slopes).sum(axis=-1)


def interpolated_penalty(logit: Callable[[jax.Array], jax.Array], latents: jax.Array) -> jax.Array:
  """Computes (|gradient of the logit| - 1)^2 at each latent, `[B]` (Gulrajani et al. 2017).

  The latents lie between real ones and those of the critic's opponent.
  """
  return jnp.square(jnp.sqrt(squared_slopes(logit, latents) + 1e-10) - 1)  # the root has no gradient at 0


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
  """Computes the cross entropy of Eq. 4; logits `[B, K]` and label distributions `[B, K]` -> `[B]`."""
  return optax.softmax_cross_entropy(logits, labels)


def jensen_shannon_divergence(logits: jax.Array) -> jax.Array:
  """Computes the Jensen-Shannon divergence between the predictions for V views of each image, in nats.

  It is the consistency loss of AugMix (Hendrycks et al. 2020); logits `[V, B, K]` -> `[B]`.
  """
  shares, logs = jax.nn.softmax(logits), jax.nn.log_softmax(logits)
  mixture = jnp.log(jnp.clip(shares.mean(axis=0, keepdims=True), 1e-7, 1))
  return (shares * (logs - mixture)).sum(axis=-1).mean(axis=0)
