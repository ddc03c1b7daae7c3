"""What is found once of trained networks and labelled images, before a later phase may only look at them."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lcgen.constraints import samplers
from lcgen.data import ranges, sources
from lcgen.evaluation import evaluate
from lcgen.generator import calibration
from lcgen.runtime import parallel
from lcgen.training import train_state as states
from lcgen.training.context import Phases


def find(phases: Phases, mesh: jax.sharding.Mesh, variables: Any, data: sources.Dataset) -> dict[str, jax.Array]:
  """The statistics of a trained VAE, as `state.Frozen` has them, all repetitions.

  Latents' scales and the calibration are those of training images, the decoder's error and its gain by frequency are
  found on validation images.
  """
  keys, model = phases.keys("statistics"), phases.networks.vae

  def values(variables, key, batch):
    images = phases.prepare(batch)["image"]
    output = model.apply(variables, images, key)
    return {
      "scale": jnp.where(batch["mask"][:, None], output.posterior.scale, 0).sum(axis=0),
      "decoded": calibration.histogram(ranges.from_model(output.images), batch["mask"]),
      "data": calibration.histogram(ranges.from_model(images), batch["mask"]),
    }

  def conclude(sums):
    calibrate = phases.config["vae"]["calibrate"]
    table = calibration.fit(sums["decoded"], sums["data"]) if calibrate else calibration.identity()
    return {"posterior_scale": sums["scale"] / len(data.train), "calibration": table}

  sums = _summed(phases, mesh, values, (variables, keys), data.train)
  found = jax.jit(parallel.over_seeds(conclude, mesh, (0,)))(sums)

  def differences(frozen, key, batch):
    images = phases.prepare(batch)["image"]
    latents = model.apply(frozen.vae, images, method="encode").sample(key)
    decoded = ranges.to_model(ranges.Unit(samplers.decode(latents, frozen, model=model)))
    shown = lambda values: jnp.where(batch["mask"][:, None, None, None], values, 0)
    power = lambda values: jnp.square(jnp.abs(jnp.fft.rfft2(shown(values), axes=(1, 2)))).sum(axis=(0, 3))
    return {"decoded": power(decoded), "data": power(images), "error": jnp.square(shown(decoded - images)).sum()}

  nothing = jnp.zeros((len(phases.seeds), 1))
  frozen = states.Frozen(variables, **found, decoder_gain=nothing, decoder_error=nothing)
  sums = _summed(phases, mesh, differences, (frozen, keys), data.validation)
  pixels = len(data.validation) * np.prod(model.image_shape)
  return found | {
    "decoder_gain": jnp.sqrt(sums["decoded"] / jnp.maximum(sums["data"], 1e-6)),
    "decoder_error": jnp.sqrt(sums["error"] / pixels),
  }


def _summed(
  phases: Phases, mesh: jax.sharding.Mesh, function: Callable[..., Any], arguments: Sequence[Any], split: sources.Split
) -> Any:
  """The sums of a function of a batch over a split, all repetitions."""
  mapped = jax.jit(parallel.over_seeds(function, mesh, (0,) * len(arguments) + (None,)))
  size = min(phases.config["evaluate"]["batch_size"], len(split))
  batches = evaluate.batches(split, size, parallel.replicated(mesh))
  return evaluate.total(lambda batch: mapped(*arguments, batch), batches)


def labelled(labels: np.ndarray, classes: int, pools: Sequence[np.ndarray]) -> states.Labelled:
  """Where the images of each class lie, all repetitions.

  Args:
    labels: of the training images, `[N]`.
    classes: K.
    pools: the rows that each repetition may use.
  """
  by_class = [[pool[labels[pool] == label] for label in range(classes)] for pool in pools]
  counts = np.array([[len(rows) for rows in own] for own in by_class], np.int32)  # [S, K]
  table = np.zeros((*counts.shape, counts.max()), np.int32)
  for own, into in zip(by_class, table, strict=True):
    for rows, place in zip(own, into, strict=True):
      place[: len(rows)] = rows
  return states.Labelled(jnp.asarray(table), jnp.asarray(counts))
