"""Scores of classifiers and of samples."""

import jax
import jax.numpy as jnp


def count_correct(logits: jax.Array, labels: jax.Array, mask: jax.Array) -> jax.Array:
  """Number of unmasked examples whose largest logit is their label; `[B, K]`, `[B]`, `[B]` -> scalar."""
  return jnp.sum((logits.argmax(-1) == labels) & mask)


def within_class_spread(features: jax.Array, labels: jax.Array, classes: int) -> jax.Array:
  """Root mean squared distance of features to the mean of their class; `[N, D]`, `[N]` -> scalar.

  Every example counts the same; the class means are those of the given examples.
  """
  one_hot = jax.nn.one_hot(labels, classes)  # [N, K]
  means = (one_hot.T @ features) / jnp.maximum(one_hot.sum(axis=0)[:, None], 1)  # [K, D]
  return jnp.sqrt(jnp.square(features - means[labels]).sum(axis=-1).mean())
