"""The images that the figures show, of one repetition, as uint8."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from lcgen.constraints import samplers
from lcgen.constraints.algebra import Constraint
from lcgen.data import ranges, sources
from lcgen.training import train_state as states
from lcgen.training.context import Phases

ACROSS = 10  # images in a row


def reconstructions(phases: Phases, frozen: states.Frozen, test: sources.Split) -> dict[str, np.ndarray]:
  """Two rows of test images, spread over the set as it may come class by class: `originals`, `reconstructions`."""
  rows = np.linspace(0, len(test) - 1, 2 * ACROSS).astype(int)
  originals, latents = _encode(phases, frozen, test.images[rows])
  decoded = samplers.decode(latents, frozen, model=phases.networks.vae)
  return _as_uint8({"originals": ranges.from_model(originals), "reconstructions": decoded})


def samples(phases: Phases, frozen: states.Frozen, constraint: Constraint, count: int) -> dict[str, np.ndarray]:
  """What every method makes of the same `count` draws from the prior, and the draws themselves as `prior`."""
  networks, methods = phases.networks, samplers.with_settings(phases.config["sample"])
  prior_key, method_key = jax.random.split(phases.keys("evaluate")[0])

  @jax.jit
  def draw(frozen, constraint):
    prior = samplers.prior(prior_key, count, networks.vae.latent_dim)
    ways = {name: method(method_key, constraint, prior).latents for name, method in methods.items()}
    return jax.tree.map(functools.partial(samplers.decode, frozen=frozen, model=networks.vae), {"prior": prior} | ways)

  return _as_uint8(draw(frozen, constraint))


def edits(phases: Phases, frozen: states.Frozen, conditions: Constraint, test: sources.Split) -> dict[str, np.ndarray]:
  """One test image of each class, its reconstruction, and its edits to every class.

  Args:
    phases: of the config.
    frozen: the VAE.
    conditions: for K x K latents: to all K classes for the first image, and so on.
    test: where the images come from.

  Returns:
    `edit_originals`, `edit_reconstructions` `[K, H, W, C]` and `edits` `[K * K, H, W, C]`.
  """
  classes = phases.networks.classifier.classes
  firsts = [int(np.argmax(test.labels == label)) for label in range(classes)]  # the first image where a class is absent
  originals, latents = _encode(phases, frozen, test.images[firsts])

  settings = {name: phases.config["edit"][name] for name in ("steps", "learning_rate", "distance_weight")}

  @jax.jit
  def edit(frozen, conditions, latents):
    start = jnp.repeat(latents, classes, axis=0)
    moved = samplers.edit(conditions, start, frozen.posterior_scale, **settings)
    decode = functools.partial(samplers.decode, frozen=frozen, model=phases.networks.vae)
    return {"edit_reconstructions": decode(latents), "edits": decode(moved.latents)}

  return _as_uint8({"edit_originals": ranges.from_model(originals)} | edit(frozen, conditions, latents))


def _encode(phases: Phases, frozen: states.Frozen, stored: np.ndarray) -> tuple[jax.Array, jax.Array]:
  """Model-space images and the means of their q(z|x)."""
  images = phases.prepare({"image": jnp.asarray(stored)})["image"]
  return images, phases.networks.vae.apply(frozen.vae, images, method="encode").mean


def _as_uint8(units: dict[str, jax.Array]) -> dict[str, np.ndarray]:
  return {name: np.asarray(ranges.to_uint8(unit)) for name, unit in units.items()}
