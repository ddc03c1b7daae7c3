"""Finds the mixture of each class for all seeds; computed once, without training steps, and kept in the workdir."""

import logging
import time
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from lcgen.constraints import mixture
from lcgen.constraints.mixture import Mixture
from lcgen.constraints.settings import MixtureSettings
from lcgen.data import sources
from lcgen.generator.frozen import Frozen
from lcgen.runtime import errors, parallel
from lcgen.training.context import Context
from lcgen.training.trainer import Trainer

_log = logging.getLogger(__name__)

NAME = "mixture"  # of its folder among the checkpoints, and in an export
_LEAST_IMAGES = 20  # of a class, on average, for each of its components


def candidates(context: Context, settings: MixtureSettings) -> list[int]:
  """Lists the numbers of components to try, in rising order: those for which there are images enough."""
  most = max(1, context.facts.train // context.classes // _LEAST_IMAGES)
  return sorted({min(count, most) for count in settings.components})


def shapes(context: Context, settings: MixtureSettings) -> Mixture:
  """Gives the shapes of the mixture for all seeds, `[S, ...]`."""
  count, latents = max(candidates(context, settings)), context.generator.latent_dim
  shape = lambda *sizes: jax.ShapeDtypeStruct((len(context.seeds), context.classes, *sizes), jnp.float32)
  return Mixture(shape(), shape(count), shape(count, latents), shape(count, latents, latents), shape(count, latents))


def untrained(context: Context, settings: MixtureSettings) -> Mixture:
  """Makes a mixture of this size whose components are all the prior, for measurements."""
  fill = lambda shape, value: jnp.full(shape.shape, value, jnp.float32)
  wanted = shapes(context, settings)
  count, latents = wanted.means.shape[-2:]
  return Mixture(
    fill(wanted.log_shares, -np.log(context.classes)),
    fill(wanted.log_weights, -np.log(count)),
    fill(wanted.means, 0),
    jnp.broadcast_to(jnp.eye(latents), wanted.directions.shape),
    fill(wanted.variances, 1),
  )


def learn(
  context: Context,
  trainer: Trainer,
  frozen: Frozen,
  settings: MixtureSettings,
  read: Callable[[], sources.Dataset],
  name: str = NAME,
  pools: Sequence[np.ndarray] | None = None,
) -> Mixture:
  """Restores the mixture of a workdir, or fits and keeps it; `[S, ...]`.

  Args:
    context: of the run.
    trainer: of the workdir.
    frozen: the trained generator, `[S, ...]`.
    settings: of the mixture.
    read: reads the data set, if the mixture is not kept yet.
    name: of the folder among the checkpoints.
    pools: rows of the training images that each seed may use; None for all.

  Raises:
    InputError: if encodings are not finite.
  """
  choices: dict[str, list[float]] = {}  # filled by `make`, before it is written

  def make() -> Mixture:
    data, started = read(), time.process_time()
    found, chosen = _find(context, frozen, settings, data, pools)
    choices.update({key: [float(getattr(one, key)) for one in chosen] for key in vars(chosen[0])})
    _log.info(
      "%s: %s components a class, held-out log-likelihood %.1f nats, fitted in %.1f CPU s",
      name,
      ", ".join(str(one.components) for one in chosen),
      np.mean(choices["score"]),
      time.process_time() - started,
    )
    return parallel.put(found, parallel.per_seed(trainer.mesh))

  return mixture.trimmed(trainer.keep(name, make, shapes(context, settings), choices))


def _find(
  context: Context,
  frozen: Frozen,
  settings: MixtureSettings,
  data: sources.Dataset,
  pools: Sequence[np.ndarray] | None,
) -> tuple[Mixture, list]:
  """Fits the mixtures of all seeds, one after another; returns them with the choices that were made."""
  from lcgen.constraints import mixture_fit  # here, because scikit-learn is slow to import and fits only once

  splits = {"train": data.train, "validation": data.validation}
  encoded = {name: _encode(context, frozen, split) for name, split in splits.items()}
  if not all(np.isfinite(array).all() for arrays in encoded.values() for array in arrays):
    raise errors.InputError("the mixture is fitted to encodings, and some are not finite; train the generator anew")
  counts, found, chosen = candidates(context, settings), [], []
  for place, seed in enumerate(context.seeds):
    of_seed = lambda name, place=place: mixture_fit.Encodings(
      *(array[place] for array in encoded[name]), splits[name].labels
    )
    train = of_seed("train")
    if pools is not None:
      train = train.take(pools[place])
    one, choice = mixture_fit.fit(train, of_seed("validation"), context.classes, settings, counts, seed)
    found.append(one)
    chosen.append(choice)
  return jax.tree.map(lambda *leaves: np.stack(leaves), *found), chosen


def _encode(context: Context, frozen: Frozen, split: sources.Split) -> tuple[np.ndarray, np.ndarray]:
  """Encodes a split: means and standard deviations of q(z|x), `[S, N, L]` on the host."""

  def posterior(variables, images):
    found = context.generator.encode(variables, context.prepare({"image": images})["image"])
    return found.mean, found.scale

  mapped = context.over_seeds(posterior, 0, None)
  parts = [parallel.fetch(mapped(frozen.generator, batch["image"])) for batch in context.batches(split)]
  means, scales = (np.concatenate(part, axis=1)[:, : len(split)] for part in zip(*parts, strict=True))
  return means, scales
