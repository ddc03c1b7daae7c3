"""Fields that several networks declare, each with its own default: `hidden_dim: int = settings.hidden_dim(512)`."""

from collections.abc import Sequence
from typing import Any

from lcgen.runtime.fields import at_least, field, one_of, widths


def architecture(default: str) -> Any:
  """Declares the field `architecture`."""
  return field(default, one_of("dense", "conv"), "Dense layers on all pixels, or convolutions.")


def hidden_dim(default: int) -> Any:
  """Declares the field `hidden_dim`."""
  return field(default, at_least(1), "Width of the hidden dense layers.")


def depth(default: int) -> Any:
  """Declares the field `depth`."""
  return field(default, at_least(1), "Number of hidden dense layers.")


def channels(default: Sequence[int]) -> Any:
  """Declares the field `channels`."""
  return field(tuple(default), widths, "Channels of the convolutions, one number a layer.")
