"""What a config amounts to before anything is trained: sizes, noise scale, error floor, memory."""

import hashlib
import math
import os
import platform
from collections.abc import Sequence
from importlib import metadata
from typing import Any

import jax
import jax.numpy as jnp

from lcgen.data import ranges, sources, test_sets, tfds_sets
from lcgen.evaluation import evaluate
from lcgen.models import losses
from lcgen.runtime import parallel
from lcgen.studies import dry_run
from lcgen.training.context import Networks, Phases

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
_TRAINED = ("vae", "actor_critic", "energy", "comparison", "judge")  # by a run, of `untrained.NAMES`
_NETWORKS = {  # what each takes, by the names of `Networks.example`
  "vae": ("image", "key"),
  "actor": ("latent", "condition"),
  "critic": ("latent", "condition"),
  "energy": ("latent", "condition"),
  "classifier": ("image",),
  "judge": ("image",),
}


def find(phases: Phases, training: sources.Split | None) -> dict[str, Any]:
  """All that `inspect.json` holds; what needs the training images is None without them."""
  shapes, mesh = parameter_shapes(phases.networks), phases.mesh
  return {
    "parameters": {name: parameter_total(parameters) for name, parameters in shapes.items()},
    "observation_sigma": observation_sigma(phases),
    "reconstruction_floor": None if training is None else reconstruction_floor(phases, training),
    "replaced_per_batch": round(phases.config["classifier"]["share"] * phases.config["classifier"]["batch_size"]),
    "memory_bytes": {name: dry_run.peak_bytes(phases, name, mesh) for name in _TRAINED},
  }


def parameter_shapes(networks: Networks) -> dict[str, dict[str, tuple[int, ...]]]:
  """Shapes of the trainable parameters of each network by their path, found without allocating them."""
  result = {}
  for name, inputs in _NETWORKS.items():
    example = networks.example | {"key": jax.random.key(0)}
    variables = jax.eval_shape(getattr(networks, name).init, jax.random.key(0), *(example[part] for part in inputs))
    leaves = jax.tree.leaves_with_path(variables["params"])
    result[name] = {jax.tree_util.keystr(path, simple=True, separator="/"): leaf.shape for path, leaf in leaves}
  return result


def parameter_total(shapes: dict[str, tuple[int, ...]]) -> int:
  return sum(math.prod(shape) for shape in shapes.values())


def parameter_tables(networks: Networks) -> str:
  """For each network a line a parameter: path, shape, number of values."""
  lines = []
  for name, shapes in parameter_shapes(networks).items():
    lines.append(f"{name}: {parameter_total(shapes):,} trainable parameters")
    for path, shape in shapes.items():
      lines.append(f"  {path:<58} {'x'.join(map(str, shape)):>18} {math.prod(shape):>12,}")
    lines.append("")
  return "\n".join(lines)


def observation_sigma(phases: Phases) -> float:
  """Standard deviation of the Gaussian likelihood that the VAE is trained with, in units of [0, 1] images."""
  section = phases.config["vae"]
  if section["likelihood"] == "gaussian":
    return section["sigma"]
  pixels = math.prod(phases.networks.vae.image_shape)
  return losses.observation_sigma(section["kl_weight"], pixels) / ranges.model_scale(1.0)


def reconstruction_floor(phases: Phases, split: sources.Split) -> float:
  """Mean squared error, in model space, that the decoder cannot go below: its range may end before the images'."""
  limit = phases.networks.vae.output_limit
  if limit >= ranges.MODEL_LIMIT:
    return 0.0

  @jax.jit
  def excess(batch):
    beyond = jnp.maximum(jnp.abs(phases.prepare(batch)["image"]) - limit, 0)
    return jnp.where(batch["mask"], jnp.square(beyond).mean(axis=(1, 2, 3)), 0).sum()

  batches = evaluate.batches(split, min(1000, len(split)), jax.devices()[0])
  return float(evaluate.total(excess, batches)) / len(split)


def check_memory(found: dict[str, Any]) -> None:
  """Raises an InputError where a phase of what was found needs more than is free on a device."""
  needed, name = max((size, name) for name, size in found["memory_bytes"].items())
  parallel.check_memory(f"the phase {name}", needed)


def state_bytes(phases: Phases) -> dict[str, int]:
  """Bytes on each device at least: the data, and each phase's states with one copy of their gradients."""
  facts = phases.facts
  per_device = len(phases.seeds) // phases.mesh.shape[parallel.SEED]
  size = lambda tree: sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
  result = {"data": facts.train * math.prod(facts.shape) // parallel.parts(phases.data_sharding)}
  for phase in (
    phases.vae(),
    phases.actor_critic(None),
    phases.energy(None),
    phases.classifiers("classifier", phases.config["classifier"]["arms"], None),
    phases.judge(),
  ):
    state = jax.eval_shape(phase.init, jax.random.key(0))
    gradients = sum(size(own.params) for own in (state.values() if isinstance(state, dict) else [state]))
    result[phase.name] = per_device * (size(state) + gradients)
  return result


def about(phases: Phases, data: sources.Dataset) -> dict[str, Any]:
  """What a reader of the results must know to repeat them, or to doubt them."""
  device, limit = jax.devices()[0], phases.networks.vae.output_limit
  digest = lambda split: hashlib.sha256(split.images.tobytes() + split.labels.tobytes()).hexdigest()
  return {
    "device": f"{jax.device_count()} x {device.device_kind}, {os.cpu_count()} CPU cores",
    "versions": {"python": platform.python_version()} | {name: metadata.version(name) for name in _PACKAGES},
    "data": {name: digest(getattr(data, name)) for name in ("train", "validation", "test")},
    "ranges": (
      f"stored 0 to 255, in the networks {-ranges.MODEL_LIMIT:g} to {ranges.MODEL_LIMIT:g}, "
      f"decoded {-limit:g} to {limit:g}"
    ),
  }


def likelihood_words(phases: Phases, floor: float | None) -> str:
  """What the VAE's loss amounts to, and what its decoder's range costs."""
  section, sigma = phases.config["vae"], observation_sigma(phases)
  given = f"kl_weight={section['kl_weight']} amounts to" if section["likelihood"] == "weighted" else "likelihood:"
  words = f"{given} a Gaussian of standard deviation {sigma:.3f} on [0, 1] images"
  if floor:
    words += (
      f"; the decoder's range [-{section['output_limit']}, {section['output_limit']}] does not reach all data values: "
      f"no reconstruction error below {floor:.3f}"
    )
  return words


def data_words(facts: sources.Facts, wanted: Sequence[test_sets.TestSet], directory: str) -> str:
  """The data set and the test sets of a config, a line a family, and where published ones lie."""
  lines = [
    f"{facts.name}: {facts.train} training, {facts.validation} validation, {facts.test} test images of "
    f"{'x'.join(map(str, facts.shape))}, classes {', '.join(facts.class_names)}"
  ]
  for family in dict.fromkeys(test_set.family for test_set in wanted):
    members = [test_set for test_set in wanted if test_set.family == family]
    place = f", in {tfds_sets.home(directory) / family}" if members[0].tfds_name else ""
    lines.append(f"{family}: {len(members)} test sets, {members[0].origin}{place}")
  return "\n".join(lines)


def findings_words(phases: Phases, found: dict[str, Any]) -> str:
  """What was found, a line each."""
  facts, batch = phases.facts, phases.config["classifier"]["batch_size"]
  sizes = (
    f"{facts.train} training, {facts.validation} validation, {facts.test} test images" if facts.train else "images"
  )
  return "\n".join(
    [
      "parameters: " + ", ".join(f"{name} {count:,}" for name, count in found["parameters"].items()),
      f"data: {facts.name}, {sizes} of {'x'.join(map(str, facts.shape))}",
      f"VAE: {likelihood_words(phases, found['reconstruction_floor'])}",
      f"augmentation: {found['replaced_per_batch']} of the {batch} images of each batch are replaced",
      "memory on each device, data included: "
      + ", ".join(f"{name} {size / 2**20:,.1f} MiB" for name, size in found["memory_bytes"].items()),
    ]
  )
