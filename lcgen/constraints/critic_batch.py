"""Batches that critics learn from."""

import jax
from flax import struct


@struct.dataclass
class Exemplars:
  """Latents labelled by a rule. Learning a rule trains on these instead of on encoded images and their labels.

  Attributes:
    latents: draws from the prior, made realistic, `[N, L]`.
    labels: 1 if the rule holds for the decoded image, else 0, `[N]`.
    posterior_scale: as in `Frozen`, `[L]`.
  """

  latents: jax.Array
  labels: jax.Array
  posterior_scale: jax.Array


@struct.dataclass
class CriticBatch:
  """One training batch of a constraint: latents `[B, L]`, one-hot conditions `[B, K]`."""

  encoded: jax.Array  # q(z|x), or a rule's exemplars
  prior: jax.Array  # p(z)
  labels: jax.Array  # of the encoded latents
  other_labels: jax.Array  # of another class; the same label if there is only one
