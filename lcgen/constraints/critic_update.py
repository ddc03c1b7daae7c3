"""One update of a critic (Eq. 2), shared by the game and the energy."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from lcgen.constraints.critic_batch import CriticBatch
from lcgen.models import actor_critic, losses
from lcgen.training.train_state import Metrics, TrainState


@dataclasses.dataclass(frozen=True)
class CriticTraining:
  """How a critic is trained.

  Attributes:
    network: the critic.
    optimizer: of its parameters.
    weights: of its loss terms: `real` (encodings with their label), the opponent's name (its samples), `prior` (raw
      draws), `mismatched` (encodings with another class's label), `r1` (squared slope of the logit at the encodings)
      and `interpolated` (Gulrajani's penalty between encodings and samples). A term of weight 0 is not computed.
  """

  network: actor_critic.Critic
  optimizer: optax.GradientTransformation
  weights: Mapping[str, float]

  def update(
    self,
    state: TrainState,
    opponent: Mapping[str, tuple[jax.Array, jax.Array]],
    batch: CriticBatch,
    key: jax.Array,
  ) -> tuple[TrainState, Metrics]:
    """Updates the critic once. Encodings under another class's label are further negatives (Engel et al. 2018).

    Args:
      state: of the critic.
      opponent: one entry, `{name: (latents, conditions)}`: the samples that the critic learns to tell from the data.
      batch: encodings and draws from the prior.
      key: of the interpolation.
    """
    ((samples, _),) = opponent.values()
    parts = {  # name: (latents, conditions, does the constraint hold)
      "real": (batch.encoded, batch.labels, True),
      **{name: (*part, False) for name, part in opponent.items()},
      "prior": (batch.prior, batch.labels, False),
      "mismatched": (batch.encoded, batch.other_labels, False),
    }
    parts = {name: part for name, part in parts.items() if self.weights[name]}
    latents, conditions = (jnp.concatenate([part[i] for part in parts.values()]) for i in (0, 1))
    mix = jax.random.uniform(key, (samples.shape[0], 1))  # one coefficient per sample
    between = batch.encoded + mix * (samples - batch.encoded)

    def loss(params):
      variables = {"params": params, "batch_stats": state.batch_stats}
      logits, updated = self.network.apply(variables, latents, conditions, train=True, mutable=["batch_stats"])
      terms = {
        name: losses.constraint_loss(part_logits, holds).mean()
        for (name, (_, _, holds)), part_logits in zip(parts.items(), jnp.split(logits, len(parts)), strict=True)
      }
      logit = lambda z: self.network.apply(variables, z, batch.labels)
      if self.weights["r1"]:
        terms["r1"] = losses.squared_slopes(logit, batch.encoded).mean()
      if self.weights["interpolated"]:
        terms["interpolated"] = losses.interpolated_penalty(logit, between).mean()
      total = sum(self.weights[name] * term for name, term in terms.items())
      return total, ({"critic_loss": total} | {f"critic_{name}": term for name, term in terms.items()}, updated)

    gradients, (metrics, updated) = jax.grad(loss, has_aux=True)(state.params)
    return state.update(gradients, self.optimizer, updated), metrics


def moving_average(average: Any, params: Any, decay: float, updates: jax.Array) -> Any:
  """Updates a moving average of parameters. Early updates weigh more, so that the first values fade."""
  decay = jnp.minimum(decay, (1 + updates) / (10 + updates))
  return optax.incremental_update(params, average, 1 - decay)
