"""Scores of classifiers and of samples."""

import jax
import jax.numpy as jnp
import optax


def count_correct(logits: jax.Array, labels: jax.Array, mask: jax.Array) -> jax.Array:
  """Number of unmasked examples whose largest logit is their label; `[B, K]`, `[B]`, `[B]` -> scalar."""
  return jnp.sum((logits.argmax(-1) == labels) & mask)


def soft_scores(logits: jax.Array, labels: jax.Array, targets: jax.Array, mask: jax.Array) -> dict[str, jax.Array]:
  """Sums of scores over the unmasked examples.

  Args:
    logits: `[B, K]`.
    labels: `[B]`.
    targets: label distributions `[B, K]`, one-hot where labels are certain.
    mask: `[B]`.

  Returns:
    `accuracy`: number of labels that have the largest logit. `nll`: cross-entropy to the label distributions, nats.
    `brier`: squared distance of the probabilities to the label distributions, summed over classes, from 0 to 2.
  """
  nll = optax.softmax_cross_entropy(logits, targets)
  brier = jnp.square(jax.nn.softmax(logits) - targets).sum(axis=-1)
  masked = lambda values: jnp.where(mask, values, 0).sum()
  return {"accuracy": count_correct(logits, labels, mask), "nll": masked(nll), "brier": masked(brier)}


def within_class_spread(features: jax.Array, labels: jax.Array, classes: int) -> jax.Array:
  """Root mean squared distance of features to the mean of their class; `[N, D]`, `[N]` -> scalar.

  Every example counts the same; the class means are those of the given examples.
  """
  one_hot = jax.nn.one_hot(labels, classes)  # [N, K]
  means = (one_hot.T @ features) / jnp.maximum(one_hot.sum(axis=0)[:, None], 1)  # [K, D]
  return jnp.sqrt(jnp.square(features - means[labels]).sum(axis=-1).mean())
