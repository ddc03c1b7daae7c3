"""The config sections of constraints, samplers and edits, and the registry of samplers."""

import dataclasses

from lcgen.constraints import rule_spec
from lcgen.models import settings as models
from lcgen.runtime.fields import (
  Check,
  at_least,
  counts,
  decay,
  field,
  non_negative,
  one_of,
  positive,
  section,
  share,
  switch,
  text,
)
from lcgen.runtime.registry import Registry, nearest
from lcgen.training import settings as training

constraint = Check(str, rule_spec.known, rule_spec.KNOWN, hint=lambda value: nearest(str(value), ("labels", "realism")))
"""Allows the text of a constraint: labels, realism, or a rule with its bound."""

SAMPLERS: Registry[type] = Registry("sampler")
"""Settings class of each sampler by its name, which is also the name of its section in `config.sample`."""


@dataclasses.dataclass(frozen=True)
class CriticWeights:
  """Weights of the terms of the game's critic."""

  real: float = field(1.0, positive, "Weight of encoded images with their own label, which the critic accepts.")
  actor: float = field(1.0, positive, "Weight of the actor's latents, which the critic refuses.")
  prior: float = field(0.1, non_negative, "Weight of latents from the prior, which the critic refuses.")
  mismatched: float = field(1.0, non_negative, "Weight of encoded images with another label, which it refuses.")
  r1: float = field(0.1, non_negative, "Weight of the penalty on the critic's gradient at encoded images.")
  interpolated: float = field(0.0, non_negative, "Weight of the penalty on the gradient between real and refused.")


@dataclasses.dataclass(frozen=True)
class ActorWeights:
  """Weights of the terms of the game's actor."""

  prior: float = field(1.0, positive, "Weight of the actor's latents that start from the prior.")
  encoded: float = field(1.0, non_negative, "Weight of the actor's latents that start from encodings, with new labels.")


@dataclasses.dataclass(frozen=True)
class _LatentNetworks:
  """The networks on latents, actor and critics, and their Adam."""

  hidden_dim: int = models.hidden_dim(256)
  depth: int = models.depth(4)
  batch_size: int = training.batch_size(128)
  learning_rate: float = training.learning_rate(5e-4)
  schedule: str = training.schedule("constant")
  beta1: float = training.beta1(0.0)
  beta2: float = training.beta2(0.99)


@dataclasses.dataclass(frozen=True)
class GameSettings(_LatentNetworks):
  """The game of actor and critic, phase 2."""

  critic_batch_norm: bool = field(
    False, switch, "Batch norm in the critic: the paper's text has it, its figure and its code do not."
  )
  epochs: int = training.epochs(80)
  critic_steps: int = field(1, at_least(1), "Updates of the critic for each update of the actor.")
  critic_weights: CriticWeights = section(CriticWeights)
  actor_weights: ActorWeights = section(ActorWeights)
  distance_weight: float = field(
    0.1, non_negative, "Weight of the distance that the actor moves; more: it stays closer."
  )
  distance_reduction: str = field(
    "mean", one_of("sum", "mean"), "How the distance is reduced over latent dimensions; the paper's is the sum."
  )
  average_decay: float = field(0.999, decay, "Decay of the moving average of the actor that samples.")


@dataclasses.dataclass(frozen=True)
class EnergyWeights:
  """Weights of the terms of the energy's critic."""

  real: float = field(1.0, positive, "Weight of encoded images with their own label, which the energy accepts.")
  chain: float = field(1.0, positive, "Weight of the chain's latents, which the energy refuses.")
  prior: float = field(0.1, non_negative, "Weight of latents from the prior, which the energy refuses.")
  mismatched: float = field(3.0, non_negative, "Weight of encoded images with another label, which it refuses.")
  r1: float = field(0.1, non_negative, "Weight of the penalty on the energy's gradient at encoded images.")
  interpolated: float = field(0.0, non_negative, "Weight of the penalty on the gradient between real and refused.")


@dataclasses.dataclass(frozen=True)
class ChainSettings:
  """The Langevin chains that the energy learns from."""

  step_size: float = field(0.1, positive, "Size of a chain's step along the gradient.")
  noise: float = field(0.05, non_negative, "Standard deviation of the noise in a chain's step.")
  restart: float = field(0.05, share, "Share of the chains that start again at each training step.")
  encoded: float = field(0.5, share, "Share of the chains that start again from encodings; others take the prior.")


@dataclasses.dataclass(frozen=True)
class EnergySettings(_LatentNetworks):
  """The energy of constraints, for sampling by gradients."""

  epochs: int = training.epochs(40)
  critic_weights: EnergyWeights = section(EnergyWeights)
  chain: ChainSettings = section(ChainSettings)
  average_decay: float = field(0.995, decay, "Decay of the moving average of the energy that samples.")


@dataclasses.dataclass(frozen=True)
class RuleSettings:
  """Learning a rule, a function of images, in place of labels."""

  exemplars: int = field(32768, at_least(2), "Samples of the prior that are decoded and labelled by the rule.")
  epochs: int = field(5, at_least(1), "Passes over them, of the game and of the energy.")
  mismatched: float = field(
    5.0, positive, "Weight of the critics' mismatched term; more: the rule is kept more strictly."
  )


_some_counts = Check(
  tuple, lambda value: len(value) > 0 and counts.holds(value), "one or more whole numbers of at least 1"
)
_amounts = Check(
  tuple,
  lambda value: len(value) > 0 and all(type(one) in (int, float) and 0 <= one <= 1 for one in value),
  "one or more numbers from 0 to 1",
)


@dataclasses.dataclass(frozen=True)
class MixtureSettings:
  """The mixture of normal distributions of each class, fitted to encodings of training images.

  Validation images choose the number of components and both kinds of shrinkage.
  """

  components: tuple[int, ...] = field((1, 4, 8, 16), _some_counts, "Numbers of components of a class to choose from.")
  shrinkages: tuple[float, ...] = field(
    (0.2, 0.4, 0.6), _amounts, "Weights of the class's mean covariance in each component's, to choose from."
  )
  poolings: tuple[float, ...] = field(
    (0.0, 0.1, 0.3), _amounts, "Weights of the covariance pooled over classes, to choose from."
  )
  draws: int = field(4, at_least(1), "Draws of q(z|x) of each image that the mixture is fitted to.")
  most_draws: int = field(8000, at_least(1), "Most draws of a class; each image has one at least.")
  iterations: int = field(20, at_least(1), "Most iterations of expectation-maximisation.")
  least_variance: float = field(1e-3, positive, "Least variance of a component in any direction.")


@SAMPLERS.register("actor")
@dataclasses.dataclass(frozen=True)
class Actor:
  """Sampling by one evaluation of the actor."""


@SAMPLERS.register("optimize")
@dataclasses.dataclass(frozen=True)
class Optimize:
  """Sampling by Adam on latents, down the energy."""

  steps: int = field(100, at_least(1), "Steps of Adam.")
  learning_rate: float = field(0.05, positive, "Adam's learning rate.")


@SAMPLERS.register("langevin")
@dataclasses.dataclass(frozen=True)
class Langevin:
  """Sampling by Langevin dynamics on the energy."""

  steps: int = field(100, at_least(1), "Steps of the chain.")
  step_size: float = field(0.3, positive, "Size of a step along the gradient.")
  noise: float = field(0.1, non_negative, "Standard deviation of the noise in the first step; it falls to 0.")


@SAMPLERS.register("refine")
@dataclasses.dataclass(frozen=True)
class Refine:
  """Sampling by the actor, followed by Langevin steps."""

  steps: int = field(20, at_least(0), "Steps of the chain in a round.")
  step_size: float = field(0.3, positive, "Size of a step along the gradient.")
  noise: float = field(
    0.2, non_negative, "Standard deviation of the noise in the first step of a round; it falls to 0."
  )
  rounds: int = field(3, at_least(1), "Most draws from the prior; each replaces the latents that the critics refuse.")


@SAMPLERS.register("mixture")
@dataclasses.dataclass(frozen=True)
class Mixture:
  """Sampling from the mixture of each class."""

  rounds: int = field(3, at_least(1), "Most draws from the prior; each replaces the latents that the critics refuse.")


@SAMPLERS.register("flow")
@dataclasses.dataclass(frozen=True)
class Flow:
  """Sampling by the flow of the mixture, guided by rules."""

  steps: int = field(10, at_least(1), "Steps of Heun's method, each two evaluations of the velocity.")
  guidance: float = field(5.0, non_negative, "Weight of the energies of rules in the velocity.")
  rounds: int = field(3, at_least(1), "Most draws from the prior; each replaces the latents that the critics refuse.")


@dataclasses.dataclass(frozen=True)
class SampleSettings:
  """Sampling: the stage `sample`, and the settings of each sampler everywhere."""

  method: str = field("refine", one_of(SAMPLERS), "Sampler of the stages sample and traverse.")
  labels: str = field("", text, "Names of classes to sample, such as 3,7; empty: all of them.")
  count: int = field(10, at_least(1), "Samples of each class.")
  optimize: Optimize = section(Optimize)
  langevin: Langevin = section(Langevin)
  refine: Refine = section(Refine)
  mixture: Mixture = section(Mixture)
  flow: Flow = section(Flow)


@dataclasses.dataclass(frozen=True)
class EditSettings:
  """Edits of images: the stage `edit`, and edits everywhere."""

  images: str = field(
    "", text, "An .npz file, an image file or a folder, whose images are picked evenly; empty: test images."
  )
  count: int = field(10, at_least(1), "Images to edit.")
  labels: str = field("", text, "Names of the classes to edit to, such as 3,7; empty: all of them.")
  method: str = field(
    "adam",
    one_of("adam", "flow", "map"),
    "Adam on latents; back and forth along the mixture's flow; or the optimal-transport map between classes.",
  )
  steps: int = field(100, at_least(1), "Steps of Adam.")
  learning_rate: float = field(0.05, positive, "Adam's learning rate.")
  distance_weight: float = field(0.003, non_negative, "Adam's weight of the distance from the image's own encoding.")
  flow_steps: int = field(10, at_least(1), "Steps of Heun's method along the flow, each way.")
  flow_guidance: float = field(5.0, non_negative, "Weight of the energies of rules on the flow's way forth.")


@dataclasses.dataclass(frozen=True)
class TraverseSettings:
  """Ways between images and between classes: the stage `traverse`."""

  points: int = field(8, at_least(2), "Images on each way, both ends included.")
  count: int = field(5, at_least(1), "Ways between images; images come from where edits take theirs.")


@dataclasses.dataclass(frozen=True)
class ConstraintSettings:
  """All settings of how constraints are learnt.

  Attributes:
    game: of actor and critic.
    energy: of the energy.
    rule: of rules.
    langevin: of the sampler that makes draws from the prior realistic, before a rule judges them.
    mixture: of the mixture of each class.
  """

  game: GameSettings
  energy: EnergySettings
  rule: RuleSettings
  langevin: Langevin
  mixture: MixtureSettings
