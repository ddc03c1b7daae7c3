"""The trained generator with its statistics, the input of later phases."""

from typing import Any

import jax
from flax import struct

from lcgen.data import ranges
from lcgen.generator import calibration
from lcgen.generator.base import Generator


@struct.dataclass
class Frozen:
  """The input of later phases, which they never change: no gradient, no optimiser state, no batch-norm update.

  Attributes:
    generator: variables of the generator.
    posterior_scale: standard deviation of q(z|x) averaged over the training set, `[L]`.
    calibration: monotone map of decoded pixel values, `[256]` (`lcgen.generator.calibration`).
    decoder_gain: ratio of each frequency's amplitude in decoded images to that in the data, `[H, W // 2 + 1]`.
    decoder_error: root mean square of decoded minus original pixels in model space, scalar.
    actor: variables of the actor; None before phase 3.
    energy: variables of the critic whose -log D is the energy; None before phase 3.
    mixture: density of each class's latents, a `lcgen.constraints.mixture.Mixture`; None if no arm draws from it.
    labelled: the images that classifiers are trained on, a `lcgen.classifiers.labelled.Labelled`; None before phase 3.
  """

  generator: Any
  posterior_scale: jax.Array
  calibration: jax.Array
  decoder_gain: jax.Array
  decoder_error: jax.Array
  actor: Any = None
  energy: Any = None
  labelled: Any = None
  mixture: Any = None


def decode(latents: jax.Array, frozen: Frozen, *, generator: Generator, calibrate: bool = True) -> jax.Array:
  """Decodes latents `[B, L]` to images in [0, 1], `[B, H, W, C]`, calibrated by default."""
  unit = ranges.from_model(generator.decode(frozen.generator, latents))
  return calibration.apply(frozen.calibration, unit) if calibrate else unit
