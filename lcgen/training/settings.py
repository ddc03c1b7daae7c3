"""The config section of the training loop, and fields that the sections of several phases declare."""

import dataclasses
from typing import Any

from lcgen.runtime.fields import at_least, decay, field, one_of, positive


@dataclasses.dataclass(frozen=True)
class TrainSettings:
  """The training loop and the devices, for all phases."""

  chunk_steps: int = field(
    200, at_least(1), "Most steps in one compiled call, between two looks at the metrics.", free=True
  )
  checkpoint_steps: int = field(2000, at_least(1), "Steps between two checkpoints.", free=True)
  seed_axis: int = field(
    0, at_least(0), "Devices that seeds are spread over; 0: as many as divide both seeds and devices.", free=True
  )
  convolution: str = field(
    "auto",
    one_of("auto", "native", "matmul"),
    "Form of a convolution; auto: matmul on a CPU, native elsewhere.",
    free=True,
  )
  dtype: str = field(
    "float32",
    one_of("float32", "bfloat16"),
    "Type that networks compute in; parameters, statistics and losses are float32.",
  )
  layers: str = field(
    "flax",
    one_of("flax", "pytorch"),
    "Whose first weights and running variance of batch norms layers have; the judge's are always flax.",
  )
  on_nonfinite: str = field(
    "stop",
    one_of("stop", "restore"),
    "After NaN: stop, or go on from the last checkpoint with another key for that seed.",
    free=True,
  )
  restores: int = field(3, at_least(1), "Most times that one seed goes back to a checkpoint in a phase.", free=True)
  grace_s: float = field(
    25.0, positive, "Seconds from SIGTERM or SIGINT to the end of the process, at the latest.", free=True
  )


def epochs(default: int) -> Any:
  """Declares the field `epochs`."""
  return field(default, at_least(1), "Passes over the training images.")


def batch_size(default: int) -> Any:
  """Declares the field `batch_size`."""
  return field(default, at_least(2), "Images in a training step, for each seed.")  # batch norm needs two


def learning_rate(default: float) -> Any:
  """Declares the field `learning_rate`."""
  return field(default, positive, "Adam's learning rate.")


def schedule(default: str) -> Any:
  """Declares the field `schedule`."""
  return field(default, one_of("constant", "cosine"), "Learning rate over the steps: constant, or a cosine down to 0.")


def beta1(default: float) -> Any:
  """Declares the field `beta1`."""
  return field(default, decay, "Adam's decay of the mean of gradients.")


def beta2(default: float) -> Any:
  """Declares the field `beta2`."""
  return field(default, decay, "Adam's decay of the mean of squared gradients.")
