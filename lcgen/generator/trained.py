"""Trains or restores the generator of a workdir, and computes the statistics that later phases need."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from lcgen.data import sources
from lcgen.generator import statistics
from lcgen.generator.frozen import Frozen
from lcgen.runtime import errors, parallel
from lcgen.training import checkpoint, loop
from lcgen.training.context import Context
from lcgen.training.trainer import Trainer

_FITTED = "generator"  # folder of variables that were computed without the training loop


def learn(context: Context, trainer: Trainer, validation: sources.Split) -> Any:
  """Trains the generator to its end, or computes its variables; returns them with a seed axis.

  Args:
    context: of the run.
    trainer: of the workdir.
    validation: images that it is scored on while it trains.
  """
  generator = context.generator
  phase = generator.phase(context)
  if phase is not None:
    return trainer.train(phase, trainer.images, generator.validate(context, validation)).variables

  def make():
    found = generator.fit(trainer.stored.images)
    _check_like_init(context, found)
    if not all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(found)):
      raise errors.NonFiniteError(f"generator {generator.name}: fit returned numbers that are not finite", ())
    return _for_all_seeds(context, found)

  return trainer.keep(_FITTED, make, shapes(context), {})


def read(context: Context, trainer: Trainer) -> Any:
  """Restores the variables of a generator that is trained to its end.

  Raises:
    InputError: if it is not.
  """
  phase = context.generator.phase(context)
  if phase is not None:
    return trainer.finished(phase).variables
  with checkpoint.Checkpoints(trainer.directory(_FITTED)) as saved:
    if saved.latest is None:
      raise errors.InputError(f"the generator is not found yet in {trainer.workdir}; run --stage=generator first")
    return saved.restore(checkpoint.abstract(shapes(context), parallel.per_seed(trainer.mesh)))


def shapes(context: Context) -> Any:
  """Gives the shapes of the generator's variables for all seeds."""
  first = jax.eval_shape(context.generator.init, jax.random.key(0))
  count = len(context.seeds)
  return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((count, *leaf.shape), leaf.dtype), first)


def init(context: Context) -> Any:
  """Makes untrained variables for all seeds, for measurements."""
  keys = context.keys("vae")
  first = lambda key: context.generator.init(jax.random.fold_in(key, loop.INIT_STEP))
  return context.over_seeds(first, 0)(keys)


def freeze(context: Context, trainer: Trainer, variables: Any, data: sources.Dataset) -> Frozen:
  """Gives the trained generator with its statistics, which are computed once and kept in the workdir."""
  make = lambda: statistics.find(context, variables, data)
  record = dataclasses.asdict(data.facts)
  return Frozen(variables, **trainer.keep(statistics.NAME, make, statistics.shapes(context), record))


def _check_like_init(context: Context, found: Any) -> None:
  """Raises an InputError if `fit` returned another tree, or other shapes, than `init`."""
  described = lambda tree: {
    jax.tree_util.keystr(path, simple=True, separator="/"): jnp.shape(leaf)
    for path, leaf in jax.tree.leaves_with_path(tree)
  }
  wanted, given = described(jax.eval_shape(context.generator.init, jax.random.key(0))), described(found)
  if wanted != given:
    name = context.generator.name
    raise errors.InputError(f"generator {name}: fit returns {given} and init {wanted}; make them alike")


def _for_all_seeds(context: Context, variables: Any) -> Any:
  repeat = lambda leaf: jnp.repeat(jnp.asarray(leaf)[None], len(context.seeds), axis=0)
  return parallel.put(jax.tree.map(repeat, variables), parallel.per_seed(context.mesh))
