"""The config section of the classifiers."""

import dataclasses

from lcgen.classifiers.arms import some_arms
from lcgen.models import settings as models
from lcgen.runtime.fields import field, share, switch
from lcgen.training import settings as training


@dataclasses.dataclass(frozen=True)
class ClassifierSettings:
  """The classifiers, phase 3, and the arms that train them."""

  architecture: str = models.architecture("dense")
  hidden_dim: int = models.hidden_dim(128)
  depth: int = models.depth(1)
  channels: tuple[int, ...] = models.channels((32, 64, 128))
  activate_logits: bool = field(
    False, switch, "Leaky ReLU on the logits, as in the paper's code; a flaw, kept for comparison."
  )
  arms: tuple[str, ...] = field(
    (
      *("none", "latent_constraints", "latent_constraints:share=0.5", "reconstruction", "duplicate", "clip"),
      *("reconstruction:share=0.5", "duplicate:share=0.5", "shift_rotate"),
    ),
    some_arms,
    "Arms to compare: ways to change the training batches.",
    free=True,
  )
  share: float = field(0.125, share, "Share of each batch that is replaced, if an arm does not say.")
  epochs: int = training.epochs(30)
  batch_size: int = training.batch_size(32)
  learning_rate: float = training.learning_rate(1e-3)
  schedule: str = training.schedule("cosine")
