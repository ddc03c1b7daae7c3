"""The optimal-transport map between two classes, each taken for one normal distribution.

Among all maps that turn N(m, A) into N(n, B) it moves points least: z -> n + T (z - m), with the symmetric matrix
T = A^(-1/2) (A^(1/2) B A^(1/2))^(1/2) A^(-1/2) (Gelbrich 1990).
"""

import jax
import jax.numpy as jnp

from lcgen.constraints.mixture import Mixture

_LEAST = 1e-6  # least variance that is divided by


def moments(mixture: Mixture) -> tuple[jax.Array, jax.Array]:
  """Computes means `[K, L]` and covariances `[K, L, L]` of all classes."""
  weights = jnp.exp(mixture.log_weights)
  means = jnp.einsum("kc,kci->ki", weights, mixture.means)
  apart = mixture.means - means[:, None]
  within = jnp.einsum("kc,kcil,kcl,kcjl->kij", weights, mixture.directions, mixture.variances, mixture.directions)
  return means, within + jnp.einsum("kc,kci,kcj->kij", weights, apart, apart)


def transport(mixture: Mixture, latents: jax.Array, own: jax.Array, wanted: jax.Array) -> jax.Array:
  """Moves latents `[B, L]` from their own classes to the wanted ones, both int `[B]`; `[B, L]`."""
  means, covariances = moments(mixture)
  roots, inverses = _power(covariances, 0.5), _power(covariances, -0.5)

  def move(z, own, wanted):
    root, inverse = roots[own], inverses[own]
    middle = _power(root @ covariances[wanted] @ root, 0.5)
    return means[wanted] + inverse @ (middle @ (inverse @ (z - means[own])))

  return jnp.where((own == wanted)[:, None], latents, jax.vmap(move)(latents, own, wanted))


def _power(matrices: jax.Array, exponent: float) -> jax.Array:
  """Raises symmetric positive matrices `[..., L, L]` to a power."""
  values, vectors = jnp.linalg.eigh(matrices)
  scaled = vectors * jnp.maximum(values, _LEAST)[..., None, :] ** exponent
  return scaled @ jnp.swapaxes(vectors, -1, -2)
