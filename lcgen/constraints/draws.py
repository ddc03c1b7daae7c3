"""Training data of constraints: latents with the conditions that hold for them."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lcgen.constraints.critic_batch import CriticBatch, Exemplars
from lcgen.constraints.settings import RuleSettings
from lcgen.generator.base import Generator
from lcgen.generator.frozen import Frozen
from lcgen.training import loop
from lcgen.training.context import Context
from lcgen.training.train_state import Batch

Draw = Callable[[Batch, jax.Array, Any], CriticBatch]


@dataclasses.dataclass(frozen=True)
class ConstraintSource:
  """The training data of a constraint; its critics and its actor distinguish K conditions.

  Attributes:
    name: prefix of its phases' names; "" for the data set's labels.
    kind: prefix of the names of their random keys: "" for labels, "realism" or "rule".
    draw: makes the critics' batches.
    classes: K: one for each label; 1 for realism; 2 for a rule (it does not hold, it holds).
    epoch_size: rows of an epoch.
    epochs: passes over them; None for the number in the phase's settings.
    mismatched: weight of the critics' term of that name; None for the weight in the phase's settings.
    prepare: turns rows into a step's batch.
    pool: as in `lcgen.training.loop.Phase`.
  """

  name: str
  kind: str
  draw: Draw
  classes: int
  epoch_size: int
  epochs: int | None = None
  mismatched: float | None = None
  prepare: Callable[[Any], Any] = lambda batch: batch
  pool: np.ndarray | None = None

  def critic_weights(self, weights: Any) -> dict[str, float]:
    """Gives the weights of a phase's settings, adapted to this source."""
    given = dataclasses.asdict(weights)
    return given if self.mismatched is None else given | {"mismatched": self.mismatched}

  def steps(self, batch_size: int, epochs: int) -> int:
    """Counts the steps of a phase whose settings have this batch size and number of epochs."""
    return self.epoch_size // batch_size * (self.epochs or epochs)

  def phase(self, name: str, step: Callable, batch_size: int, epochs: int, context: Context, **own: Any) -> loop.Phase:
    """Builds a phase that trains on this source.

    Args:
      name: of the phase, without this source's prefix.
      step: `(state, frozen, batch, key) -> (state, metrics)`.
      batch_size: rows of a step.
      epochs: in the phase's settings.
      context: of the run.
      **own: the phase's `init` and `frozen`.
    """
    return loop.Phase(
      name=f"{self.name}/{name}".lstrip("/"),
      kind=name,
      run_steps=loop.OneByOne(step, self.prepare),
      keys=context.keys(f"{self.kind}/{name}".lstrip("/")),
      batch_size=batch_size,
      epoch_size=self.epoch_size,
      epochs=self.epochs or epochs,
      stage="actor_critic",
      pool=self.pool,
      **own,
    )


def labels(context: Context, name: str = "", pool: np.ndarray | None = None) -> ConstraintSource:
  """Makes the source of the data set's labels, or of those of the rows in `pool` alone."""
  draw = functools.partial(draw_images, generator=context.generator, classes=context.classes)
  return ConstraintSource(name, "", draw, context.classes, context.facts.train, prepare=context.prepare, pool=pool)


def realism(context: Context) -> ConstraintSource:
  """Makes the source of realism, which has one class: the images of the data set."""
  draw = functools.partial(draw_images, generator=context.generator, classes=1)
  size = context.facts.train
  return ConstraintSource("realism", "realism", draw, 1, size, mismatched=0.0, prepare=context.prepare)


def rule(context: Context, settings: RuleSettings, name: str) -> ConstraintSource:
  """Makes the source of a rule, which has exemplars."""
  draw = functools.partial(draw_exemplars, generator=context.generator)
  return ConstraintSource(
    f"rule/{name}", "rule", draw, 2, settings.exemplars, epochs=settings.epochs, mismatched=settings.mismatched
  )


def draw_images(batch: Batch, key: jax.Array, frozen: Frozen, *, generator: Generator, classes: int) -> CriticBatch:
  """Encodes the batch's images, for labels or for realism, which has one class and reads no labels."""
  encode_key, prior_key, label_key = jax.random.split(key, 3)
  encoded = generator.encode(frozen.generator, batch["image"]).sample(encode_key)
  own = batch["label"] if classes > 1 else jnp.zeros(encoded.shape[0], jnp.int32)
  return _critic_batch(encoded, generator.prior(prior_key, len(encoded)), own, classes, label_key)


def draw_exemplars(batch: Batch, key: jax.Array, frozen: Exemplars, *, generator: Generator) -> CriticBatch:
  """Takes exemplars of a rule by their indices `row`, `[B]`."""
  prior_key, label_key = jax.random.split(key)
  encoded, own = frozen.latents[batch["row"]], frozen.labels[batch["row"]]
  return _critic_batch(encoded, generator.prior(prior_key, len(encoded)), own, 2, label_key)


def _critic_batch(encoded: jax.Array, prior: jax.Array, own: jax.Array, classes: int, key: jax.Array) -> CriticBatch:
  shift = jax.random.randint(key, own.shape, 1, max(classes, 2))
  return CriticBatch(
    encoded=encoded,
    prior=prior,
    labels=jax.nn.one_hot(own, classes),
    other_labels=jax.nn.one_hot((own + shift) % classes, classes),
  )
