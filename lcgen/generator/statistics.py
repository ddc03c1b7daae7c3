"""Statistics computed once from the trained generator and the images; later phases treat them as constants."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lcgen.data import ranges, sources
from lcgen.generator import calibration
from lcgen.generator.frozen import Frozen, decode
from lcgen.training.context import Context

NAME = "statistics"  # of their folder among the checkpoints, and in an export


def shapes(context: Context) -> dict[str, jax.ShapeDtypeStruct]:
  """Gives the shapes of the statistics for all seeds, by their names in `Frozen`."""
  height, width, _ = context.generator.image_shape
  of_one = {
    "posterior_scale": (context.generator.latent_dim,),
    "calibration": (calibration.LEVELS,),
    "decoder_gain": (height, width // 2 + 1),
    "decoder_error": (),
  }
  return {name: jax.ShapeDtypeStruct((len(context.seeds), *shape), jnp.float32) for name, shape in of_one.items()}


def find(context: Context, variables: Any, data: sources.Dataset) -> dict[str, jax.Array]:
  """Computes the statistics of a trained generator for all seeds, by their names in `Frozen`.

  The scale of the latents and the calibration come from training images. The decoder's error and its gain by frequency
  come from validation images.

  Args:
    context: of the run.
    variables: of the generator, `[S, ...]`.
    data: the data set.
  """
  keys, generator = context.keys(NAME), context.generator

  def values(variables, key, batch):
    images = context.prepare(batch)["image"]
    posterior = generator.encode(variables, images)
    decoded = generator.decode(variables, posterior.sample(key))
    return {
      "scale": jnp.where(batch["mask"][:, None], posterior.scale, 0).sum(axis=0),
      "decoded": calibration.histogram(ranges.from_model(decoded), batch["mask"]),
      "data": calibration.histogram(ranges.from_model(images), batch["mask"]),
    }

  def conclude(sums):
    table = calibration.fit(sums["decoded"], sums["data"]) if generator.calibrate else calibration.identity()
    return {"posterior_scale": sums["scale"] / len(data.train), "calibration": table}

  found = context.over_seeds(conclude, 0)(context.sum_over(data.train, values, variables, keys))

  def differences(frozen, key, batch):
    images = context.prepare(batch)["image"]
    latents = generator.encode(frozen.generator, images).sample(key)
    decoded = ranges.to_model(ranges.Unit(decode(latents, frozen, generator=generator)))
    shown = lambda values: jnp.where(batch["mask"][:, None, None, None], values, 0)
    power = lambda values: jnp.square(jnp.abs(jnp.fft.rfft2(shown(values), axes=(1, 2)))).sum(axis=(0, 3))
    return {"decoded": power(decoded), "data": power(images), "error": jnp.square(shown(decoded - images)).sum()}

  nothing = jnp.zeros((len(context.seeds), 1))
  frozen = Frozen(variables, **found, decoder_gain=nothing, decoder_error=nothing)
  sums = context.sum_over(data.validation, differences, frozen, keys)
  pixels = len(data.validation) * np.prod(generator.image_shape)
  return found | {
    "decoder_gain": jnp.sqrt(sums["decoded"] / jnp.maximum(sums["data"], 1e-6)),
    "decoder_error": jnp.sqrt(sums["error"] / pixels),
  }
