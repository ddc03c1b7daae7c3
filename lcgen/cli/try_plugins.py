"""Tries the entries of plug-ins on abstract arrays, so that a wrong shape is refused before anything is trained."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lcgen import config as configs
from lcgen.api import build
from lcgen.classifiers import policies
from lcgen.classifiers.labelled import Labelled
from lcgen.constraints import algebra, learning, mixture_phase, samplers
from lcgen.constraints.draws import labels as labels_source
from lcgen.constraints.energy_phase import phase as energy_phase
from lcgen.constraints.game_phase import phase as game_phase
from lcgen.evaluation import metrics
from lcgen.generator import statistics
from lcgen.generator.base import Generator
from lcgen.generator.frozen import Frozen
from lcgen.models.posterior import Posterior
from lcgen.runtime import errors
from lcgen.training.context import Context

_BATCH, _FEATURES = 6, 12  # sizes of what is tried


def check(config: configs.Config, context: Context) -> None:
  """Traces the generator, samplers, arms and metrics of a run with plug-ins; costs nothing without them.

  Raises:
    InputError: if an entry cannot be traced or returns something else than it should; names the entry.
  """
  if not config.plugins:
    return
  generator, latent_dim = context.generator, context.generator.latent_dim
  images = _array(_BATCH, *generator.image_shape)
  latents = _array(_BATCH, latent_dim)
  name = f"generator {generator.name}"
  if generator.phase(context) is None and type(generator).fit is Generator.fit:
    raise errors.InputError(f"{name}: has neither fit nor phase; write one of them")
  variables = _traced(f"{name}: init", generator.init, jax.random.key(0))
  posterior = _traced(f"{name}: encode", generator.encode, variables, images)
  if not isinstance(posterior, Posterior):
    raise errors.InputError(f"{name}: encode returns a {type(posterior).__name__}; return a Posterior")
  _same(f"{name}: encode: mean", posterior.mean, latents)
  _same(f"{name}: encode: logvar", posterior.logvar, latents)
  _same(f"{name}: decode", _traced(f"{name}: decode", generator.decode, variables, latents), images)
  frozen, constraint = _frozen(config, context, variables)
  _check_samplers(config, context, constraint, latents)
  _check_arms(config, context, frozen, images)
  _check_metrics(context)


def _check_samplers(config: configs.Config, context: Context, constraint: Any, latents: Any) -> None:
  for name, way in samplers.bind(config.sample, context.generator.prior).items():
    moved = _traced(f"sampler {name}", way, jax.random.key(0), constraint, latents)
    if not isinstance(moved, samplers.Moved):
      raise errors.InputError(f"sampler {name}: returns a {type(moved).__name__}; return Moved(latents, start)")
    _same(f"sampler {name}: latents", moved.latents, latents)
    _same(f"sampler {name}: start", moved.start, latents)


def _check_arms(config: configs.Config, context: Context, frozen: Frozen, images: Any) -> None:
  sections = build.sections(config)
  tools = policies.tools(context, sections.constraint, sections.sample, sections.edit, config.classifier.share)
  labels = _array(_BATCH, context.classes)
  for arm in config.classifier.arms:
    built = policies.build(arm, tools)
    found = _traced(f"arm {arm}", built.policy, jax.random.key(0), images, labels, frozen)
    if not isinstance(found, tuple) or len(found) != 3:
      raise errors.InputError(f"arm {arm}: returns a {type(found).__name__}; return images, labels and weights")
    several = lambda leaf, views=built.views: _array(views * leaf.shape[0], *leaf.shape[1:])
    for words, got, given in zip(("images", "labels", "weights"), found, (images, labels, _array(_BATCH)), strict=True):
      _same(f"arm {arm}: {words}", got, several(given))


def _check_metrics(context: Context) -> None:
  random = np.random.default_rng(0)
  draw = lambda: jnp.asarray(random.uniform(size=(_FEATURES, 4)), jnp.float32)
  places = jnp.arange(_FEATURES) % 2
  sets = metrics.FeatureSets(draw(), places, draw(), places, 2, draw(), draw())
  for name, metric in metrics.registered(metrics.FEATURES).items():
    if metric.function.__module__.startswith("lcgen."):
      continue
    try:
      float(metric.function(sets))
    except Exception as error:  # a plug-in may raise anything
      raise _refused(f"metric {name}", error, "return one number for the features of one seed") from error
  logits, labels = _array(_BATCH, context.classes), jax.ShapeDtypeStruct((_BATCH,), jnp.int32)
  for name, metric in metrics.registered(metrics.LOGITS).items():
    _same(f"metric {name}", _traced(f"metric {name}", metric.function, logits, labels), _array(_BATCH))


def _frozen(config: configs.Config, context: Context, variables: Any) -> tuple[Frozen, Any]:
  """Gives abstract constants of the policies, and an abstract constraint, of one seed."""
  source, settings = labels_source(context), build.constraint(config)
  key = jax.random.key(0)
  game = jax.eval_shape(game_phase(context, settings.game, source, None).init, key)
  energy = jax.eval_shape(energy_phase(context, settings.energy, source, None).init, key)
  pair = learning.Pair(game.actor_average, energy.average)
  every = jax.eval_shape(lambda pair: learning.constraint(context, settings, pair, jnp.eye(context.classes)[0]), pair)
  first = lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype)
  constants = jax.tree.map(first, statistics.shapes(context))
  whole = jax.ShapeDtypeStruct((context.classes, _BATCH), jnp.int32)
  stored = jax.ShapeDtypeStruct((_BATCH, *context.facts.shape), jnp.uint8)
  density = jax.tree.map(first, mixture_phase.shapes(context, settings.mixture))
  frozen = Frozen(
    variables,
    **constants,
    actor={"params": pair.actor},
    energy={"params": pair.energy},
    labelled=Labelled(whole, jax.ShapeDtypeStruct((context.classes,), jnp.int32), stored),
    mixture=density,
  )
  constraint = every.replace(
    energy_variables={"params": pair.energy},
    actor_variables={"params": pair.actor},
    condition=_array(context.classes),
  )
  return frozen, algebra.Drawable(constraint, density)


def _array(*shape: int) -> jax.ShapeDtypeStruct:
  return jax.ShapeDtypeStruct(shape, jnp.float32)


def _traced(name: str, function: Callable[..., Any], *arguments: Any) -> Any:
  """Traces a function, and names the entry that it belongs to if that fails."""
  try:
    return jax.eval_shape(function, *arguments)
  except errors.InputError:
    raise
  except Exception as error:  # a plug-in may raise anything
    raise _refused(name, error, "it must be a JAX function as docs/extending.md has it") from error


def _refused(name: str, error: Exception, advice: str) -> errors.InputError:
  return errors.InputError(f"{name} fails ({errors.reason(error)}); {advice}")


def _same(name: str, found: Any, wanted: jax.ShapeDtypeStruct) -> None:
  """Raises an InputError if an entry returned anything but an array of the wanted shape and type."""
  described = lambda leaf: f"{leaf.dtype}{list(leaf.shape)}" if hasattr(leaf, "shape") else f"a {type(leaf).__name__}"
  if described(found) != described(wanted):
    raise errors.InputError(f"{name}: is {described(found)} and should be {described(wanted)}")
