"""The context that every phase is built from: data set, generator, seeds, devices and random keys."""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from lcgen.data import batching, ranges
from lcgen.data.dataset import Facts, Split
from lcgen.runtime import memory, parallel
from lcgen.training.settings import TrainSettings

# A phase's key is its index here folded into the key of the seed: append only. All arms of the classifier share one key
# and so their first parameters, which makes their differences paired.
_KEYS = (
  "vae",
  "statistics",
  "actor_critic",
  "classifier",
  "judge",
  "evaluate",
  "energy",
  "realism/actor_critic",
  "realism/energy",
  "rule",
  "rule/actor_critic",
  "rule/energy",
)
_SHARE_OF_DATA = 0.25  # of a device's free memory; larger data are spread over several devices


@dataclasses.dataclass(frozen=True)
class Compute:
  """How networks compute.

  Attributes:
    form: of convolutions, one of `lcgen.models.layers.FORMS`.
    dtype: of activations; parameters and losses are always float32.
    style: of layers, one of `lcgen.models.layers.STYLES`.
  """

  form: str
  dtype: Any
  style: str = "flax"


@dataclasses.dataclass(frozen=True)
class Context:
  """Everything that all phases of a run share.

  Attributes:
    facts: of the data set.
    generator: a `lcgen.generator.base.Generator`; phases 2 and 3 work with its latents.
    seeds: of the run; every state has a leading axis `[S]` over them.
    train: settings of the training loop.
    placement: of the training images, "replicated", "sharded" or "auto".
    batch_size: images at once outside of training.
  """

  facts: Facts
  generator: Any
  seeds: range
  train: TrainSettings
  placement: str = "auto"
  batch_size: int = 1000

  @functools.cached_property
  def mesh(self) -> jax.sharding.Mesh:
    """The mesh of all devices, spread over seeds first."""
    return parallel.make_mesh(len(self.seeds), seed_axis=self.train.seed_axis)

  @functools.cached_property
  def data_sharding(self) -> jax.sharding.NamedSharding:
    """The sharding of the training images on the mesh."""
    size = self.facts.train * math.prod(self.facts.shape)
    return data_sharding(self.mesh, self.placement, size)

  @property
  def compute(self) -> Compute:
    """How networks compute on these devices."""
    return compute(self.train)

  @property
  def classes(self) -> int:
    """Number of classes K."""
    return len(self.facts.class_names)

  @property
  def image(self) -> jax.Array:
    """One image of zeros in model space, `[1, H, W, C]`."""
    return jnp.zeros((1, *self.generator.image_shape))

  @property
  def latent(self) -> jax.Array:
    """One latent of zeros, `[1, L]`."""
    return jnp.zeros((1, self.generator.latent_dim))

  def keys(self, name: str) -> jax.Array:
    """Gives the key of a phase for each seed, `[S]`."""
    index = _KEYS.index(name)
    return jnp.stack([jax.random.fold_in(jax.random.key(seed), index) for seed in self.seeds])

  def prepare(self, batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """Converts a batch's stored images to model space, at the generator's size."""
    height, width, _ = self.generator.image_shape
    return batch | {"image": ranges.prepare(batch["image"], height, width)}

  def over_seeds(self, function: Callable[..., Any], *in_axes: int | None) -> Callable[..., Any]:
    """Maps a function over the seed axis of the arguments whose entry in `in_axes` is 0, and jits it."""
    return jax.jit(parallel.over_seeds(function, self.mesh, in_axes))

  def batches(self, split: Split) -> list[batching.Batch]:
    """Puts a split on the mesh in padded batches, for sums over it."""
    return batching.padded(split, min(self.batch_size, len(split)), parallel.replicated(self.mesh))

  def sum_over(self, split: Split, function: Callable[..., Any], *arguments: Any) -> Any:
    """Sums `function(*arguments, batch)` over a split; the arguments have a seed axis."""
    mapped = self.over_seeds(function, *[0] * len(arguments), None)
    return batching.total(lambda batch: mapped(*arguments, batch), self.batches(split))


def compute(train: TrainSettings) -> Compute:
  """Chooses the form of convolutions for these devices, unless the settings name one."""
  form = train.convolution
  if form == "auto":
    form = "matmul" if parallel.on_cpu() else "native"
  return Compute(form, jnp.dtype(train.dtype), train.layers)


def data_sharding(mesh: jax.sharding.Mesh, placement: str, size: int) -> jax.sharding.NamedSharding:
  """Chooses the sharding of the training images.

  Args:
    mesh: from `parallel.make_mesh`.
    placement: "replicated" (in full on every device), "sharded" (spread over those that share a batch) or "auto".
    size: bytes of all training images.
  """
  if placement == "auto":
    free = memory.free_memory()
    # Free memory differs between processes, but all must choose alike.
    sharded = parallel.anywhere(free is not None and size > _SHARE_OF_DATA * free)
    placement = "sharded" if sharded else "replicated"
  return parallel.over_rows(mesh) if placement == "sharded" else parallel.replicated(mesh)
