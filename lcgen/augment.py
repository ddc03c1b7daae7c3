"""The arms of phase 3: what each puts into the classifier's batch.

A policy is a pure function `(key, images, labels, frozen) -> (images, labels)` on model-space images
`[B, H, W, C]` and integer labels `[B]`, run inside the jitted step.
"""

from collections.abc import Callable

import jax

from lcgen import state

ARMS = ("none", "latent_constraints")

Policy = Callable[[jax.Array, jax.Array, jax.Array, state.Frozen | None], tuple[jax.Array, jax.Array]]
Generator = Callable[[jax.Array, jax.Array, state.Frozen], jax.Array]


def none(key: jax.Array, images: jax.Array, labels: jax.Array, frozen: state.Frozen | None):
  """The batch as it is."""
  del key, frozen
  return images, labels


def latent_constraints(generate: Generator, count: int) -> Policy:
  """The paper's augmentation: `count` images, drawn without replacement, give way to samples of their own labels.

  Args:
    generate: `(key, labels [count], frozen) -> images [count, H, W, C]` in model space.
    count: how many images of the batch are replaced.
  """

  def policy(key: jax.Array, images: jax.Array, labels: jax.Array, frozen: state.Frozen):
    pick_key, sample_key = jax.random.split(key)
    picked = jax.random.permutation(pick_key, images.shape[0])[:count]
    samples = generate(sample_key, labels[picked], frozen)
    return images.at[picked].set(samples), labels

  return policy
