"""Makes every phase with untrained constants, to time it, or to compute its memory without running it."""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from lcgen.classifiers import arm_phase, judge_phase, labelled, policies
from lcgen.classifiers.arms import draws_from_mixture
from lcgen.constraints import draws, energy_phase, game_phase, mixture_phase
from lcgen.generator import statistics, trained
from lcgen.generator.frozen import Frozen
from lcgen.runtime import memory, parallel
from lcgen.studies.settings import Sections
from lcgen.training import checkpoint, loop
from lcgen.training.context import Context

ARM = "latent_constraints"  # the only arm of the phase "classifier"; "comparison" trains all arms of the config
NAMES = ("vae", "actor_critic", "energy", "classifier", "comparison", "judge")


def frozen(context: Context, sections: Sections, labels: np.ndarray) -> Frozen:
  """Makes the constants of all phases, `[S, ...]`: untrained networks, statistics of ones, and rows by these labels."""
  ones = {key: jnp.ones(leaf.shape, leaf.dtype) for key, leaf in statistics.shapes(context).items()}
  source, settings = draws.labels(context), sections.constraint
  game = game_phase.phase(context, settings.game, source, None)
  energy = energy_phase.phase(context, settings.energy, source, None)
  needed = any(map(draws_from_mixture, sections.classifier.arms))
  every = Frozen(
    trained.init(context),
    **ones,
    actor={"params": loop.init(game, context.mesh).actor_average},
    energy={"params": loop.init(energy, context.mesh).average},
    labelled=labelled.by_class(labels, context.classes, [np.arange(len(labels))] * len(context.seeds)),
    mixture=mixture_phase.untrained(context, settings.mixture) if needed else None,
  )
  return jax.device_put(every, parallel.per_seed(context.mesh))


def phase(context: Context, sections: Sections, name: str, every: Frozen | None) -> loop.Phase | None:
  """Makes the phase of this name, one of `NAMES`, with its constants; None for a generator that needs no training."""
  if name == "vae":
    return context.generator.phase(context)
  if name == "judge":
    return judge_phase.phase(context, sections.evaluate.judge)
  if name in ("actor_critic", "energy"):
    own, source = every and every.replace(actor=None, energy=None, labelled=None, mixture=None), draws.labels(context)
    if name == "energy":
      return energy_phase.phase(context, sections.constraint.energy, source, own)
    return game_phase.phase(context, sections.constraint.game, source, own)
  settings = sections.classifier
  tools = policies.tools(context, sections.constraint, sections.sample, sections.edit, settings.share)
  arms: Sequence[str] = settings.arms if name == "comparison" else (ARM,)
  return arm_phase.phase(context, settings, tools, every, arms=arms, name=name)


def peak_bytes(context: Context, sections: Sections, name: str) -> int:
  """Computes the peak bytes on a device while a phase trains: data, states and temporaries.

  It compiles the chunk of steps that a run would train, and runs nothing.
  """
  facts, longest, mesh = context.facts, context.train.chunk_steps, context.mesh
  size = facts.train or longest * phase(context, sections, name, None).batch_size
  labels = np.arange(size) % context.classes
  every = jax.eval_shape(lambda: frozen(context, sections, labels))
  constants = checkpoint.abstract(every, parallel.per_seed(mesh))
  one = dataclasses.replace(phase(context, sections, name, constants), epoch_size=size)
  count = loop.chunk_lengths(one.steps_per_epoch, min(longest, one.max_chunk or longest))[0]
  rows = size + -size % parallel.parts(context.data_sharding)
  data = lambda shape, dtype: jax.ShapeDtypeStruct((rows, *shape), dtype, sharding=context.data_sharding)
  arguments = (
    loop.abstract_state(one, mesh),
    one.frozen,
    {"image": data(facts.shape, jnp.uint8), "label": data((), jnp.int32)},
    one.keys,
    jax.ShapeDtypeStruct((len(context.seeds), count, one.batch_size), jnp.int32, sharding=parallel.per_seed(mesh)),
    jax.ShapeDtypeStruct((), jnp.int32, sharding=parallel.replicated(mesh)),
  )
  return memory.held_bytes(loop.compilable(one, mesh).lower(*arguments).compile())
