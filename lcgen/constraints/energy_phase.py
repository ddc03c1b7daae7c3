"""Phase 2, for sampling by gradients: the energy of a constraint, its state, its step and its phase."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from lcgen.constraints.critic_update import CriticTraining, moving_average
from lcgen.constraints.draws import ConstraintSource, Draw, Exemplars
from lcgen.constraints.settings import ChainSettings, EnergySettings
from lcgen.generator.frozen import Frozen
from lcgen.models import actor_critic, losses
from lcgen.training import loop, optimizers
from lcgen.training.context import Context
from lcgen.training.train_state import Batch, Metrics, TrainState

NAME = "energy"  # of the phase


@struct.dataclass
class EnergyState:
  """An energy under training, and the chains that find its errors.

  Attributes:
    critic: the critic whose -log D is the energy.
    average: moving average of its parameters, used by the samplers.
    chains: latents on their way down the energy, `[B, L]`.
    conditions: target condition of each chain, `[B, K]`.
    updates: number of updates so far.
  """

  critic: TrainState
  average: Any
  chains: jax.Array
  conditions: jax.Array
  updates: jax.Array

  @property
  def params(self) -> Any:
    """All trained parameters."""
    return self.critic.params


def energy_step(
  state: EnergyState,
  frozen: Frozen | Exemplars,
  batch: Batch,
  key: jax.Array,
  *,
  draw: Draw,
  critic: CriticTraining,
  chain: ChainSettings,
  average_decay: float,
) -> tuple[EnergyState, Metrics]:
  """Updates a critic against chains that follow its own gradient.

  The game's critic is right where its actor goes; elsewhere its slope is arbitrary. A sample that follows its gradient
  from the prior leaves the data. Here such samples are the negatives (persistent chains as in Tieleman 2008, on the
  critic of Eq. 2). Each chain takes one step before every update.

  Args:
    state: of the energy.
    frozen: the generator's variables, or a rule's exemplars.
    batch: of images or of exemplars.
    key: of this step.
    draw: `(batch, key, frozen) -> CriticBatch`.
    critic: how the critic is trained; its opponent is `chain`.
    chain: step size, noise, share of chains that restart, and share of restarts from an encoding.
    average_decay: of the moving average of the parameters; 0 keeps the last ones.
  """
  drawn = draw(batch, key, frozen)
  restart_key, chain_key, critic_key = jax.random.split(jax.random.fold_in(key, 1), 3)
  shares = jnp.array([[chain.restart], [chain.encoded]])
  again, edits = jax.random.bernoulli(restart_key, shares, (2, state.chains.shape[0]))[..., None]
  start = jnp.where(edits, drawn.encoded, drawn.prior)
  goal = jnp.where(edits, drawn.other_labels, drawn.labels)  # encodings move to another class, as in edits
  chains, conditions = jnp.where(again, start, state.chains), jnp.where(again, goal, state.conditions)
  apply = lambda z: critic.network.apply(state.critic.variables, z, conditions)
  slope = jax.grad(lambda z: losses.constraint_loss(apply(z), True).sum())
  chains += chain.noise * jax.random.normal(chain_key, chains.shape) - chain.step_size * slope(chains)
  critic_state, metrics = critic.update(state.critic, {"chain": (chains, conditions)}, drawn, critic_key)
  average = moving_average(state.average, critic_state.params, average_decay, state.updates)
  return EnergyState(critic_state, average, chains, conditions, state.updates + 1), metrics


def critic(context: Context, settings: EnergySettings) -> actor_critic.Critic:
  """Builds the critic whose -log D(z, y) is the energy."""
  compute = context.compute
  return actor_critic.Critic(settings.hidden_dim, settings.depth, dtype=compute.dtype, style=compute.style)


def phase(
  context: Context, settings: EnergySettings, source: ConstraintSource, frozen: Frozen | Exemplars | None
) -> loop.Phase:
  """Builds the phase that trains the energy for one source of constraints."""
  rows, network = settings.batch_size, critic(context, settings)
  optimizer = optimizers.adam(settings, source.steps(rows, settings.epochs), b1=settings.beta1, b2=settings.beta2)
  chain = settings.chain
  if source.classes == 1:  # there is no other class to move encodings to
    chain = dataclasses.replace(chain, encoded=0.0)
  step = functools.partial(
    energy_step,
    draw=source.draw,
    critic=CriticTraining(network, optimizer, source.critic_weights(settings.critic_weights)),
    chain=chain,
    average_decay=settings.average_decay,
  )

  def init(key):
    critic_key, chain_key = jax.random.split(key)
    variables = network.init(critic_key, context.latent, jnp.zeros((1, source.classes)))
    own = TrainState.create(variables, optimizer)
    chains = context.generator.prior(chain_key, rows)
    conditions = jax.nn.one_hot(jnp.arange(rows) % source.classes, source.classes)
    return EnergyState(own, own.params, chains, conditions, jnp.zeros((), jnp.int32))

  return source.phase(NAME, step, rows, settings.epochs, context, init=init, frozen=frozen)
