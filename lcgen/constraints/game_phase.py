"""Phase 2: the game of actor and critic (Eqs. 2, 3, 5), its state, its step and its phase."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct

from lcgen.constraints.critic_update import CriticTraining, moving_average
from lcgen.constraints.draws import ConstraintSource, CriticBatch, Draw, Exemplars
from lcgen.constraints.settings import GameSettings
from lcgen.generator.frozen import Frozen
from lcgen.models import actor_critic, losses
from lcgen.training import loop, optimizers
from lcgen.training.context import Context
from lcgen.training.train_state import Batch, Metrics, TrainState

NAME = "actor_critic"  # of the phase


@struct.dataclass
class ActorCriticState:
  """Actor and critic under training, a moving average of the actor for the samplers, and its updates so far."""

  actor: TrainState
  critic: TrainState
  actor_average: Any
  updates: jax.Array

  @property
  def params(self) -> dict[str, Any]:
    """All trained parameters."""
    return {"actor": self.actor.params, "critic": self.critic.params}


@dataclasses.dataclass(frozen=True)
class Game:
  """The networks, weights and pace of the game.

  Attributes:
    draw: `(batch, key, frozen) -> CriticBatch`.
    critic: how the critic is trained.
    actor: the network.
    optimizer: of the actor's parameters.
    critic_steps: updates of the critic for each update of the actor.
    actor_weights: of the terms of the actor's loss: `prior` (Eq. 3), `encoded` (encodings with a new label) and
      `distance` (lambda_dist of Eq. 3).
    distance_reduction: of that penalty over latents, `"mean"` or `"sum"`.
    average_decay: of the moving average of the actor's parameters; 0 keeps the last ones.
  """

  draw: Draw
  critic: CriticTraining
  actor: actor_critic.Actor
  optimizer: optax.GradientTransformation
  critic_steps: int
  actor_weights: Mapping[str, float]
  distance_reduction: str
  average_decay: float


def actor_critic_step(
  state: ActorCriticState, frozen: Frozen | Exemplars, batch: Batch, key: jax.Array, *, game: Game
) -> tuple[ActorCriticState, Metrics]:
  """Updates the critic `critic_steps` times, then the actor once (Eqs. 2 and 3); the generator is held fixed.

  The batch holds `critic_steps` x B images. Each critic update sees its own B images; the actor sees the last B.
  """
  drawn = game.draw(batch, key, frozen)
  rounds = jax.tree.map(lambda a: a.reshape(game.critic_steps, -1, *a.shape[1:]), drawn)  # [critic_steps, B, ...]
  keys = jax.random.split(jax.random.fold_in(key, 1), game.critic_steps)

  def update_critic(critic_state, inputs):
    own, critic_key = inputs
    moved = game.actor.apply({"params": state.actor.params}, own.prior, own.labels)
    return game.critic.update(critic_state, {"actor": (moved, own.labels)}, own, critic_key)

  critic_state, critic_metrics = jax.lax.scan(update_critic, state.critic, (rounds, keys))
  last = jax.tree.map(lambda a: a[-1], rounds)
  actor_state, actor_metrics = _update_actor(state.actor, critic_state.variables, last, frozen.posterior_scale, game)
  average = moving_average(state.actor_average, actor_state.params, game.average_decay, state.updates)
  metrics = {name: values.mean() for name, values in critic_metrics.items()} | actor_metrics
  return ActorCriticState(actor_state, critic_state, average, state.updates + 1), metrics


def _update_actor(
  state: TrainState, critic_variables: Any, batch: CriticBatch, posterior_scale: jax.Array, game: Game
) -> tuple[TrainState, Metrics]:
  """Updates the actor (Eq. 3), which learns to fool the critic by small moves."""
  weights = game.actor_weights
  parts = {"prior": (batch.prior, batch.labels), "encoded": (batch.encoded, batch.other_labels)}
  parts = {name: part for name, part in parts.items() if weights[name]}
  latents, conditions = (jnp.concatenate([part[i] for part in parts.values()]) for i in (0, 1))

  def loss(params):
    moved = game.actor.apply({"params": params}, latents, conditions)
    logits = game.critic.network.apply(critic_variables, moved, conditions)
    fooled = losses.constraint_loss(logits, True)
    terms = {name: part.mean() for name, part in zip(parts, jnp.split(fooled, len(parts)), strict=True)}
    terms["distance"] = losses.distance_penalty(moved, latents, posterior_scale, game.distance_reduction).mean()
    total = sum(weights[name] * term for name, term in terms.items())
    return total, {"actor_loss": total} | {f"actor_{name}": term for name, term in terms.items()}

  gradients, metrics = jax.grad(loss, has_aux=True)(state.params)
  return state.update(gradients, game.optimizer), metrics


def actor(context: Context, settings: GameSettings) -> actor_critic.Actor:
  """Builds the actor G(z, y)."""
  latent_dim, compute = context.generator.latent_dim, context.compute
  return actor_critic.Actor(latent_dim, settings.hidden_dim, settings.depth, compute.dtype, compute.style)


def critic(context: Context, settings: GameSettings) -> actor_critic.Critic:
  """Builds the game's critic D(z, y)."""
  normed, compute = settings.critic_batch_norm, context.compute
  return actor_critic.Critic(settings.hidden_dim, settings.depth, normed, compute.dtype, compute.style)


def phase(
  context: Context, settings: GameSettings, source: ConstraintSource, frozen: Frozen | Exemplars | None
) -> loop.Phase:
  """Builds the phase that plays the game for one source of constraints."""
  rows = settings.batch_size * settings.critic_steps
  optimizer = optimizers.adam(settings, source.steps(rows, settings.epochs), b1=settings.beta1, b2=settings.beta2)
  players = actor(context, settings), critic(context, settings)
  actor_weights = dataclasses.asdict(settings.actor_weights) | {"distance": settings.distance_weight}
  if source.classes == 1:  # there is no other class to move encodings to
    actor_weights["encoded"] = 0.0
  game = Game(
    draw=source.draw,
    critic=CriticTraining(players[1], optimizer, source.critic_weights(settings.critic_weights)),
    actor=players[0],
    optimizer=optimizer,
    critic_steps=settings.critic_steps,
    actor_weights=actor_weights,
    distance_reduction=settings.distance_reduction,
    average_decay=settings.average_decay,
  )

  def init(key):
    inputs = context.latent, jnp.zeros((1, source.classes))
    states = [
      TrainState.create(player.init(own_key, *inputs), optimizer)
      for player, own_key in zip(players, jax.random.split(key), strict=True)
    ]
    return ActorCriticState(*states, states[0].params, jnp.zeros((), jnp.int32))

  return source.phase(
    NAME, functools.partial(actor_critic_step, game=game), rows, settings.epochs, context, init=init, frozen=frozen
  )
