"""Makes the images for the figures, of one seed, as uint8."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lcgen.constraints import samplers
from lcgen.constraints.algebra import Constraint
from lcgen.constraints.settings import EditSettings
from lcgen.data import picking, ranges, sources
from lcgen.generator.frozen import Frozen, decode
from lcgen.training.context import Context

ACROSS = 10  # images in a row
MOST_CLASSES = 20  # in the figures: edits are drawn from each to each


def shown_classes(classes: int) -> np.ndarray:
  """Picks the classes that the figures show, int `[K]`: all, or an even pick where there are many."""
  return np.unique(np.linspace(0, classes - 1, min(classes, MOST_CLASSES)).round().astype(int))


def reconstructions(context: Context, frozen: Frozen, test: sources.Split) -> dict[str, np.ndarray]:
  """Reconstructs two rows of test images: `originals` and `reconstructions`, `[20, H, W, C]`.

  The images are of all classes; they repeat where there are fewer.
  """
  rows = np.sort(np.resize(picking.pick(test.labels, 2 * ACROSS), 2 * ACROSS))
  originals, latents = _encode(context, frozen, test.images[rows])
  decoded = decode(latents, frozen, generator=context.generator)
  return _as_uint8({"originals": ranges.from_model(originals), "reconstructions": decoded})


def samples(
  context: Context, ways: Mapping[str, Callable[..., Any]], frozen: Frozen, constraint: Constraint, count: int
) -> dict[str, np.ndarray]:
  """Draws samples with every sampler from the same `count` latents of the prior; `prior` has these latents decoded."""
  generator = context.generator
  prior_key, move_key = jax.random.split(context.keys("evaluate")[0])

  @jax.jit
  def draw(frozen, constraint):
    prior = generator.prior(prior_key, count)
    moved = {name: way(move_key, constraint, prior).latents for name, way in ways.items()}
    to_images = functools.partial(decode, frozen=frozen, generator=generator)
    return jax.tree.map(to_images, {"prior": prior} | moved)

  return _as_uint8(draw(frozen, constraint))


def edits(
  context: Context, frozen: Frozen, conditions: Constraint, test: sources.Split, settings: EditSettings
) -> dict[str, np.ndarray]:
  """Edits one test image of each of the K shown classes to each of them, and reconstructs it.

  Args:
    context: the run's context.
    frozen: the generator.
    conditions: constraint on K x K latents: all K classes for the first image, then for the second, and so on.
    test: images to edit.
    settings: settings of edits.

  Returns:
    `edit_originals`, `edit_reconstructions` `[K, H, W, C]` and `edits` `[K * K, H, W, C]`.
  """
  shown = shown_classes(context.classes)
  classes = len(shown)
  firsts = [int(np.argmax(test.labels == label)) for label in shown]  # image 0 stands for an absent class
  originals, latents = _encode(context, frozen, test.images[firsts])

  @jax.jit
  def edit(frozen, conditions, latents):
    start = jnp.repeat(latents, classes, axis=0)
    moved = samplers.edit(conditions, start, frozen.posterior_scale, settings)
    to_images = functools.partial(decode, frozen=frozen, generator=context.generator)
    return {"edit_reconstructions": to_images(latents), "edits": to_images(moved.latents)}

  return _as_uint8({"edit_originals": ranges.from_model(originals)} | edit(frozen, conditions, latents))


def _encode(context: Context, frozen: Frozen, stored: np.ndarray) -> tuple[jax.Array, jax.Array]:
  """Gives the images in model space and the means of their q(z|x)."""
  images = context.prepare({"image": jnp.asarray(stored)})["image"]
  return images, context.generator.encode(frozen.generator, images).mean


def _as_uint8(units: dict[str, jax.Array]) -> dict[str, np.ndarray]:
  return {name: np.asarray(ranges.to_uint8(unit)) for name, unit in units.items()}
