"""The config sections of generators, and the registry of generators."""

import dataclasses

from lcgen.models import settings as models
from lcgen.runtime.fields import at_least, field, non_negative, one_of, positive, switch, widths
from lcgen.runtime.registry import Registry
from lcgen.training import settings as training

GENERATORS: Registry[type] = Registry("generator")
"""Settings class of each generator by its name, which is also the name of its section."""


@GENERATORS.register("vae")
@dataclasses.dataclass(frozen=True)
class VAESettings:
  """The VAE, phase 1."""

  architecture: str = models.architecture("dense")
  hidden_dim: int = models.hidden_dim(512)
  depth: int = models.depth(3)
  channels: tuple[int, ...] = field(
    (32, 64, 128), widths, "Channels of the convolutional encoder, one number a layer; the decoder mirrors them."
  )
  latent_dim: int = field(64, at_least(1), "Dimensions of the latent space; fewer give blurrier images.")
  output_limit: float = field(2.0, positive, "Largest value that the decoder can return; images span [-2, 2].")
  likelihood: str = field(
    "weighted",
    one_of("weighted", "gaussian"),
    "Loss: mean squared error + kl_weight x KL, or a Gaussian likelihood with sigma.",
  )
  kl_weight: float = field(0.00025, non_negative, "Weight of the KL term in the weighted loss.")
  sigma: float = field(0.1, positive, "Standard deviation of the Gaussian likelihood, for images in [0, 1].")
  calibrate: bool = field(True, switch, "Whether decoded pixel values are fitted to those of the data.")
  epochs: int = training.epochs(40)
  batch_size: int = training.batch_size(64)
  learning_rate: float = training.learning_rate(1e-3)
  schedule: str = training.schedule("cosine")


@GENERATORS.register("pca")
@dataclasses.dataclass(frozen=True)
class PCASettings:
  """Principal components: a linear generator, found in closed form."""

  latent_dim: int = field(64, at_least(1), "Number of components; fewer give blurrier images.")
