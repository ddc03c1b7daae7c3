"""Every phase before anything is trained, with all that it needs to run: to be timed, or measured without running."""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from lcgen.generator import statistics as vae_statistics
from lcgen.runtime import parallel
from lcgen.training import checkpoint, loop
from lcgen.training import train_state as states
from lcgen.training.context import Phases

ARM = "latent_constraints"  # of the phase "classifier"; "comparison" trains all arms of the config
NAMES = ("vae", "actor_critic", "energy", "classifier", "comparison", "judge")


def frozen(phases: Phases, mesh: jax.sharding.Mesh, labels: np.ndarray) -> states.Frozen:
  """What phases look at, `[S, ...]`: networks as they begin, statistics of ones, and images of these labels `[N]`."""
  ones = {key: jnp.ones(leaf.shape, leaf.dtype) for key, leaf in phases.statistics().items()}
  every = states.Frozen(
    loop.init(phases.vae(), mesh).variables,
    **ones,
    actor={"params": loop.init(phases.actor_critic(None), mesh).actor_average},
    energy={"params": loop.init(phases.energy(None), mesh).average},
    labelled=vae_statistics.labelled(
      labels, len(phases.facts.class_names), [np.arange(len(labels))] * len(phases.seeds)
    ),
  )
  return jax.device_put(every, parallel.per_seed(mesh))


def phase(phases: Phases, name: str, every: states.Frozen | None) -> loop.Phase:
  """The phase of this name, one of `NAMES`, with what it looks at of `every`."""
  if name in ("vae", "judge"):
    return getattr(phases, name)()
  if name in ("actor_critic", "energy"):
    return getattr(phases, name)(every and every.replace(actor=None, energy=None, labelled=None))
  arms: Sequence[str] = phases.config["classifier"]["arms"] if name == "comparison" else (ARM,)
  return phases.classifiers(name, arms, every)


def peak_bytes(phases: Phases, name: str, mesh: jax.sharding.Mesh) -> int:
  """Most bytes that each device holds while a phase trains: data, states and what its steps need; nothing is run.

  As the compiler has it, of the chunk of steps that a run would train.
  """
  facts, longest = phases.facts, phases.config["train"]["chunk_steps"]
  size = facts.train or longest * phase(phases, name, None).rows
  labels = np.arange(size) % len(facts.class_names)
  every = jax.eval_shape(lambda: frozen(phases, mesh, labels))
  one = dataclasses.replace(phase(phases, name, checkpoint.abstract(every, parallel.per_seed(mesh))), size=size)
  count = loop.chunk_lengths(one.steps_per_epoch, min(longest, one.longest or longest))[0]
  rows = size + -size % parallel.parts(phases.data_sharding)
  data = lambda shape, dtype: jax.ShapeDtypeStruct((rows, *shape), dtype, sharding=phases.data_sharding)
  arguments = (
    loop.abstract_state(one, mesh),
    one.frozen,
    {"image": data(facts.shape, jnp.uint8), "label": data((), jnp.int32)},
    one.keys,
    jax.ShapeDtypeStruct((len(phases.seeds), count, one.rows), jnp.int32, sharding=parallel.per_seed(mesh)),
    jax.ShapeDtypeStruct((), jnp.int32, sharding=parallel.replicated(mesh)),
  )
  return parallel.held_bytes(loop.compilable(one, mesh).lower(*arguments).compile())
