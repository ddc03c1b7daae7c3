"""The density of latents, class by class: a mixture of normal distributions with full covariances.

The density of a class is sum_c w_c N(z; mean_c, Sigma_c). Each Sigma_c = U diag(v) U^T is stored by its eigenvectors U
and eigenvalues v. `lcgen.constraints.mixture_fit` finds it from encodings of training images.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from lcgen.runtime import parallel


@struct.dataclass
class Mixture:
  """A mixture of C normal distributions for each of K classes, on L latents.

  A class with fewer components than C has some of weight 0. Weights are kept as logarithms.

  Attributes:
    log_shares: share of each class among the images, `[K]`.
    log_weights: share of each component in its class, `[K, C]`.
    means: of the components, `[K, C, L]`.
    directions: eigenvectors of the covariances in columns, `[K, C, L, L]`.
    variances: their eigenvalues, `[K, C, L]`.
  """

  log_shares: jax.Array
  log_weights: jax.Array
  means: jax.Array
  directions: jax.Array
  variances: jax.Array

  @property
  def classes(self) -> int:
    """Number of classes K."""
    return self.log_shares.shape[-1]

  def log_density(self, latents: jax.Array) -> jax.Array:
    """Computes the log-density of latents `[B, L]` under every class, in nats, `[B, K]`."""
    of_class = lambda own: own.log_densities(latents)
    own = Components(self.log_weights, self.means, self.directions, self.variances)
    return jax.nn.logsumexp(jax.vmap(of_class, out_axes=1)(own), axis=-1)

  def log_density_of_any(self, latents: jax.Array) -> jax.Array:
    """Computes the log-density of latents `[B, L]` under the mixture of all classes by their shares, `[B]`."""
    return jax.nn.logsumexp(self.log_density(latents) + self.log_shares[None], axis=-1)

  def draw_labels(self, key: jax.Array, allowed: jax.Array) -> jax.Array:
    """Draws a class for each row of `allowed` `[B, K]`, by the classes' shares times these weights; int `[B]`."""
    given = allowed * jnp.exp(self.log_shares)[None]
    # A class without training images has a share of 0; it is drawn where nothing else is allowed.
    weights = jnp.where((given > 0).any(axis=1, keepdims=True), given, allowed)
    return jax.random.categorical(key, jnp.log(weights))

  def sample(self, key: jax.Array, labels: jax.Array, draws: jax.Array) -> jax.Array:
    """Moves draws from the prior to samples of classes, `[B, L]`.

    The key chooses a component for each draw z. The sample is mean + Sigma^(1/2) z: the nearest one among all linear
    maps of N(0, I) to that component, so that the distance moved says how far the component is from the prior.

    Args:
      key: of the components.
      labels: class of each sample, `[B]`.
      draws: from N(0, I), `[B, L]`.
    """
    # One number for each draw, so that components without weight, which only fill up the arrays, change nothing.
    place = jax.random.uniform(key, (len(labels), 1))
    below = jnp.cumsum(jnp.exp(self.log_weights), axis=-1)[labels] <= place
    component = jnp.minimum(below.sum(axis=-1), self.log_weights.shape[-1] - 1)
    directions = self.directions[labels, component]
    along = jnp.einsum("bij,bi->bj", directions, draws) * jnp.sqrt(self.variances[labels, component])
    return self.means[labels, component] + jnp.einsum("bij,bj->bi", directions, along)


def trimmed(mixture: Mixture) -> Mixture:
  """Leaves out the last components if they have no weight in any class; arrays may have a leading axis `[S]`."""
  weighted = np.isfinite(parallel.fetch(mixture.log_weights))
  count = int(np.flatnonzero(weighted.any(axis=tuple(range(weighted.ndim - 1)))).max()) + 1
  return mixture.replace(
    log_weights=mixture.log_weights[..., :count],
    means=mixture.means[..., :count, :],
    directions=mixture.directions[..., :count, :, :],
    variances=mixture.variances[..., :count, :],
  )


@struct.dataclass
class Components:
  """The components of one class; without the leading axis K of `Mixture`."""

  log_weights: jax.Array
  means: jax.Array
  directions: jax.Array
  variances: jax.Array

  def log_densities(self, latents: jax.Array) -> jax.Array:
    """Computes log w_c + log N(z; mean_c, Sigma_c) of latents `[B, L]` for every component, `[B, C]`."""

    def of_component(log_weight, mean, directions, variances):
      along = (latents - mean[None]) @ directions
      spread = (jnp.square(along) / variances[None]).sum(axis=-1) + jnp.log(variances).sum()
      return log_weight - 0.5 * (spread + latents.shape[1] * math.log(2 * math.pi))

    columns = jax.vmap(of_component, out_axes=1)
    return columns(self.log_weights, self.means, self.directions, self.variances)
