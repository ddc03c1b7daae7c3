"""The config sections of the evaluation and of the judge."""

import dataclasses

from lcgen.data import test_set_names
from lcgen.models import settings as models
from lcgen.runtime.fields import Check, at_least, each, field, section
from lcgen.training import settings as training

some_sets: Check = each(test_set_names.known, test_set_names.KNOWN, hint=test_set_names.nearest)
"""Accepts names of test sets, each once."""


@dataclasses.dataclass(frozen=True)
class JudgeSettings:
  """The judge: a convolutional classifier that scores samples and edits."""

  channels: tuple[int, ...] = models.channels((16, 32))
  feature_dim: int = field(64, at_least(1), "Size of the features that sample scores compare.")
  epochs: int = training.epochs(15)
  batch_size: int = training.batch_size(64)
  learning_rate: float = training.learning_rate(1e-3)
  schedule: str = training.schedule("cosine")


@dataclasses.dataclass(frozen=True)
class EvaluateSettings:
  """The evaluation of classifiers and of samples."""

  sets: tuple[str, ...] = field(
    ("test", "diagnostic", "generated_cifar10_c", "generated_mnist_c"),
    some_sets,
    "Test sets of the classifiers; generated sets need no files.",
    free=True,
  )
  batch_size: int = field(1000, at_least(1), "Images that are scored at once.", free=True)
  samples_per_class: int = field(100, at_least(2), "Samples of each class that are scored.", free=True)
  judge: JudgeSettings = section(JudgeSettings)
