"""Facts of a config before anything is trained: parameters, the generator's facts, reconstruction floor, memory."""

import math
from typing import Any

import jax
import jax.numpy as jnp

from lcgen.classifiers import arm_phase, judge_phase
from lcgen.constraints import draws, energy_phase, game_phase
from lcgen.data import batching, ranges, sources
from lcgen.runtime import memory, parallel
from lcgen.studies import dry_run
from lcgen.studies.settings import Sections
from lcgen.training.context import Context

_TRAINED = ("vae", "actor_critic", "energy", "comparison", "judge")  # those of `dry_run.NAMES` that a run trains


def find(context: Context, sections: Sections, training: sources.Split | None) -> dict[str, Any]:
  """Computes the content of `inspect.json`; without training images the reconstruction floor is None."""
  shapes, settings = parameter_shapes(context, sections), sections.classifier
  trained = [name for name in _TRAINED if dry_run.phase(context, sections, name, None) is not None]
  return {
    "parameters": {name: parameter_total(parameters) for name, parameters in shapes.items()},
    **context.generator.facts(),
    "reconstruction_floor": None if training is None else reconstruction_floor(context, training),
    "replaced_per_batch": round(settings.share * settings.batch_size),
    "memory_bytes": {name: dry_run.peak_bytes(context, sections, name) for name in trained},
  }


def parameter_shapes(context: Context, sections: Sections) -> dict[str, dict[str, tuple[int, ...]]]:
  """Gives the shapes of each network's trainable parameters by path, without allocating them."""
  condition = jnp.zeros((1, context.classes))
  on_latents, on_images = (context.latent, condition), (context.image,)
  game, energy = sections.constraint.game, sections.constraint.energy
  networks = {
    "actor": (game_phase.actor(context, game), on_latents),
    "critic": (game_phase.critic(context, game), on_latents),
    "energy": (energy_phase.critic(context, energy), on_latents),
    "classifier": (arm_phase.network(context, sections.classifier), on_images),
    "judge": (judge_phase.network(context, sections.evaluate.judge), on_images),
  }
  key = jax.random.key(0)
  variables = {"vae": jax.eval_shape(context.generator.init, key)}
  variables |= {name: jax.eval_shape(network.init, key, *inputs) for name, (network, inputs) in networks.items()}
  return {name: _paths(_parameters(own)) for name, own in variables.items()}


def _parameters(variables: Any) -> Any:
  return variables["params"] if isinstance(variables, dict) and "params" in variables else variables


def _paths(tree: Any) -> dict[str, tuple[int, ...]]:
  leaves = jax.tree.leaves_with_path(tree)
  return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf.shape for path, leaf in leaves}


def parameter_total(shapes: dict[str, tuple[int, ...]]) -> int:
  """Counts the parameters of these shapes."""
  return sum(math.prod(shape) for shape in shapes.values())


def reconstruction_floor(context: Context, split: sources.Split) -> float:
  """Computes the least mean squared error of decoded images, in model space, that the decoder's range allows."""
  limit = context.generator.output_limit
  if limit >= ranges.MODEL_LIMIT:
    return 0.0

  @jax.jit
  def excess(batch):
    beyond = jnp.maximum(jnp.abs(context.prepare(batch)["image"]) - limit, 0)
    return jnp.where(batch["mask"], jnp.square(beyond).mean(axis=(1, 2, 3)), 0).sum()

  batches = batching.padded(split, min(1000, len(split)), jax.devices()[0])
  return float(batching.total(excess, batches)) / len(split)


def check_memory(found: dict[str, Any]) -> None:
  """Raises an InputError if the largest phase needs more memory than is free on a device."""
  needed, name = max((size, name) for name, size in found["memory_bytes"].items())
  memory.check_memory(f"the phase {name}", needed)


def state_bytes(context: Context, sections: Sections) -> dict[str, int]:
  """Computes lower bounds of the bytes on each device: the data, and each phase's states with one copy of gradients."""
  facts, source = context.facts, draws.labels(context)
  per_device = len(context.seeds) // context.mesh.shape[parallel.SEED]
  size = lambda tree: sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
  result = {"data": facts.train * math.prod(facts.shape) // parallel.parts(context.data_sharding)}
  settings = sections.classifier
  for phase in (
    context.generator.phase(context),
    game_phase.phase(context, sections.constraint.game, source, None),
    energy_phase.phase(context, sections.constraint.energy, source, None),
    arm_phase.phase(context, settings, None, None, arms=settings.arms),
    judge_phase.phase(context, sections.evaluate.judge),
  ):
    if phase is not None:
      state = jax.eval_shape(phase.init, jax.random.key(0))
      gradients = sum(size(own.params) for own in (state.values() if isinstance(state, dict) else [state]))
      result[phase.name] = per_device * (size(state) + gradients)
  return result
