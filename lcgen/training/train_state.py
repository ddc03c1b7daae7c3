"""What a phase carries from step to step, and what it only looks at."""

from typing import Any

import jax
import optax
from flax import struct


@struct.dataclass
class TrainState:
  """A network under training: parameters, running batch statistics, optimiser state."""

  params: Any
  batch_stats: Any
  opt_state: Any

  @classmethod
  def create(cls, variables: dict[str, Any], optimizer: optax.GradientTransformation) -> "TrainState":
    params = variables["params"]
    return cls(params, variables.get("batch_stats", {}), optimizer.init(params))

  @property
  def variables(self) -> dict[str, Any]:
    """What `module.apply` takes."""
    return {"params": self.params, "batch_stats": self.batch_stats}

  def update(self, gradients: Any, optimizer: optax.GradientTransformation, updated: Any = None) -> "TrainState":
    """One optimiser step; `updated` are the collections that `apply` returned as mutable."""
    updates, opt_state = optimizer.update(gradients, self.opt_state, self.params)
    batch_stats = (updated or {}).get("batch_stats", self.batch_stats)
    return TrainState(optax.apply_updates(self.params, updates), batch_stats, opt_state)


@struct.dataclass
class ActorCriticState:
  """The two players, the moving average of the actor's parameters that samples are drawn with, its updates so far."""

  actor: TrainState
  critic: TrainState
  actor_average: Any
  updates: jax.Array

  @property
  def params(self) -> dict[str, Any]:
    """All that is trained."""
    return {"actor": self.actor.params, "critic": self.critic.params}


@struct.dataclass
class EnergyState:
  """An energy under training, and the chains that look for where it is wrong.

  Attributes:
    critic: the critic whose -log D is the energy.
    average: moving average of its parameters, which latents are drawn with.
    chains: latents on their way down the energy, `[B, L]`.
    conditions: what each chain is after, `[B, K]`.
    updates: so far.
  """

  critic: TrainState
  average: Any
  chains: jax.Array
  conditions: jax.Array
  updates: jax.Array

  @property
  def params(self) -> Any:
    """All that is trained."""
    return self.critic.params


@struct.dataclass
class Exemplars:
  """Latents that a rule has spoken on: they take the place of images and labels where a rule is learnt.

  Attributes:
    latents: draws from the prior, made realistic, `[N, L]`.
    labels: 1 where the rule holds for the decoded image, else 0, `[N]`.
    posterior_scale: as in `Frozen`, `[L]`.
  """

  latents: jax.Array
  labels: jax.Array
  posterior_scale: jax.Array


@struct.dataclass
class Frozen:
  """What later phases are given and never change: no gradient, no optimiser state, no batch-norm update.

  Attributes:
    vae: variables of the VAE, parameters and batch statistics.
    posterior_scale: standard deviation of q(z|x) averaged over the training set, `[L]`.
    calibration: monotone map of decoded pixel values, `[256]` (`lcgen.generator.calibration`).
    decoder_gain: amplitude of each frequency in decoded images over that in the data's, `[H, W // 2 + 1]`.
    decoder_error: root mean square of decoded minus original pixels in model space, scalar.
    actor: variables of the actor; None before phase 3.
    energy: variables of the critic whose -log D is the energy; None before phase 3.
    labelled: the images that classifiers are trained on; None before phase 3.
  """

  vae: Any
  posterior_scale: jax.Array
  calibration: jax.Array
  decoder_gain: jax.Array
  decoder_error: jax.Array
  actor: Any = None
  energy: Any = None
  labelled: "Labelled | None" = None


@struct.dataclass
class Labelled:
  """Training images by class.

  Attributes:
    rows: places of the images of each class, `[K, M]`, filled up with zeros.
    counts: how many there are of each, `[K]`.
    images: as they are stored, `[N, H, W, C]`; set where the data are at hand.
  """

  rows: jax.Array
  counts: jax.Array
  images: jax.Array | None = None
