"""What a config amounts to before anything is trained: sizes, noise scale, error floor, memory."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from etils import epath

from lcgen import errors, evaluate, experiment, losses, parallel, report
from lcgen.data import images as ranges
from lcgen.data import sources
from lcgen.phases import Networks, Phases

_NETWORKS = {  # what each takes, by the names of `Networks.example`
  "vae": ("image", "key"),
  "actor": ("latent", "condition"),
  "critic": ("latent", "condition"),
  "classifier": ("image",),
  "judge": ("image",),
}


def run(config: dict[str, Any], workdir: epath.Path) -> None:
  """Builds everything, trains nothing; prints what it found and writes `inspect.json`.

  Of a TFDS data set that is not prepared here, all is found but what needs its images.

  Raises:
    InputError: as `experiment.run`.
  """
  experiment.check_workdir(config, workdir)
  data = None
  try:
    data = experiment.load_data(config)
  except errors.MissingDataError as error:
    print(f"{error}\nInspecting without the images.\n")
  facts = data.facts if data else sources.announced(config["data"]["name"], config["data"]["dir"])
  if data:
    experiment.check_fit(config, facts)
  phases = Phases(config, facts)
  found = {
    "parameters": {name: parameter_total(shapes) for name, shapes in parameter_shapes(phases.networks).items()},
    "observation_sigma": observation_sigma(config, phases.networks),
    "reconstruction_floor": reconstruction_floor(phases, data.train) if data else None,
    "replaced_per_batch": phases.replaced(),
    "memory_bytes": memory(phases),
  }
  for name, shapes in parameter_shapes(phases.networks).items():
    print(parameter_table(name, shapes))
  _print_findings(config, phases, found)
  report.write_json(workdir / "inspect.json", found)


def parameter_shapes(networks: Networks) -> dict[str, dict[str, tuple[int, ...]]]:
  """Shapes of the trainable parameters of each network by their path, found without allocating them."""
  result = {}
  for name, inputs in _NETWORKS.items():
    example = networks.example | {"key": jax.random.key(0)}
    variables = jax.eval_shape(getattr(networks, name).init, jax.random.key(0), *(example[part] for part in inputs))
    leaves = jax.tree.leaves_with_path(variables["params"])
    result[name] = {jax.tree_util.keystr(path, simple=True, separator="/"): leaf.shape for path, leaf in leaves}
  return result


def parameter_table(name: str, shapes: dict[str, tuple[int, ...]]) -> str:
  """A line a parameter: path, shape, number of values."""
  lines = [f"{path:<58} {'x'.join(map(str, shape)):>18} {math.prod(shape):>12,}" for path, shape in shapes.items()]
  return "\n".join([f"{name}: {parameter_total(shapes):,} trainable parameters", *(f"  {line}" for line in lines), ""])


def parameter_total(shapes: dict[str, tuple[int, ...]]) -> int:
  return sum(math.prod(shape) for shape in shapes.values())


def observation_sigma(config: dict[str, Any], networks: Networks) -> float:
  """Standard deviation of the Gaussian likelihood that the VAE is trained with, in units of [0, 1] images."""
  section = config["vae"]
  if section["likelihood"] == "gaussian":
    return section["sigma"]
  pixels = math.prod(networks.vae.image_shape)
  return losses.observation_sigma(section["kl_weight"], pixels) / ranges.model_scale(1.0)


def reconstruction_floor(phases: Phases, split: sources.Split) -> float:
  """Mean squared error, in model space, that the decoder cannot go below: its range may end before the images'."""
  limit = phases.networks.vae.output_limit

  @jax.jit
  def excess(batch):
    beyond = jnp.maximum(jnp.abs(phases.prepare(batch)["image"]) - limit, 0)
    return jnp.where(batch["mask"], jnp.square(beyond).mean(axis=(1, 2, 3)), 0).sum()

  batches = evaluate.batches(split, min(1000, len(split)), jax.devices()[0])
  return float(evaluate.total(excess, batches)) / len(split)


def memory(phases: Phases) -> dict[str, int]:
  """Bytes on each device: the data, and each phase's states with one copy of their gradients, without activations."""
  facts = phases.facts
  per_device = phases.config["seeds"] // parallel.make_mesh(phases.config["seeds"]).shape[parallel.SEED]
  size = lambda tree: sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
  arms = [phases.classifier(arm, None) for arm in phases.config["classifier"]["arms"][:1]]
  result = {"data": (facts.train + facts.validation + facts.test) * math.prod(facts.shape)}
  for phase in (phases.vae(), phases.actor_critic(None), *arms, phases.judge()):
    state = jax.eval_shape(phase.init, jax.random.key(0))
    players = (state.actor, state.critic) if phase.name == "actor_critic" else (state,)
    gradients = sum(size(player.params) for player in players)
    result[phase.name.partition("/")[0]] = per_device * (size(state) + gradients)
  return result


def _print_findings(config: dict[str, Any], phases: Phases, found: dict[str, Any]) -> None:
  section, facts = config["vae"], phases.facts
  sigma = found["observation_sigma"]
  print("parameters: " + ", ".join(f"{name} {count:,}" for name, count in found["parameters"].items()))
  if facts.train:
    print(
      f"{facts.name}: {facts.train} training, {facts.validation} validation, {facts.test} test images {facts.shape}"
    )
  print(
    f"likelihood: kl_weight={section['kl_weight']} is a Gaussian of standard deviation {sigma:.3f} on [0, 1] images"
    if section["likelihood"] == "weighted"
    else f"likelihood: Gaussian of standard deviation {sigma:.3f} on [0, 1] images"
  )
  floor = found["reconstruction_floor"]
  if floor is not None:
    reach = "the decoder reaches every data value" if floor == 0 else "THE DECODER CANNOT REACH ALL DATA VALUES"
    print(f"reconstruction floor: {floor:.3f} mean squared error in model space ({reach})")
  batch = config["classifier"]["batch_size"]
  print(f"augmentation: {found['replaced_per_batch']} of {batch} images of each batch replaced")
  print(
    "memory per device, without activations: "
    + ", ".join(f"{name} {size / 2**20:,.0f} MiB" for name, size in found["memory_bytes"].items())
  )
