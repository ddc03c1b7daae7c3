"""Phase 3: trains the classifiers of all arms side by side (Eq. 4)."""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lcgen.classifiers import policies
from lcgen.classifiers.classifier_step import Update
from lcgen.classifiers.settings import ClassifierSettings
from lcgen.generator.frozen import Frozen
from lcgen.models import classifier
from lcgen.runtime import parallel
from lcgen.training import loop, optimizers
from lcgen.training.context import Context
from lcgen.training.train_state import Batch, Metrics, TrainState

NAME = "classifier"  # name of the phase, of its random keys and of its folder
_AUGMENTED_BYTES = 32 * 2**20  # most bytes of augmented batches held at once


@dataclasses.dataclass(frozen=True)
class Comparison:
  """Arms that are trained side by side.

  Attributes:
    arms: each arm by its name.
    fetch: `(data, rows [B]) -> batch`.
    model: the network of every arm.
    optimizer: the optimiser of every arm's parameters.
  """

  arms: Mapping[str, policies.Arm]
  fetch: Callable[[Batch, jax.Array], Batch]
  model: classifier.Classifier
  optimizer: optax.GradientTransformation


def compare_arms(
  state: dict[str, TrainState],
  frozen: Frozen,
  data: Batch,
  rows: jax.Array,
  keys: jax.Array,
  *,
  comparison: Comparison,
) -> tuple[dict[str, TrainState], dict[str, Metrics]]:
  """Updates the classifier of every arm T times (Eq. 4). The generator and the actor stay fixed.

  All arms see the same images and the same keys, so they differ by their policies alone. The policies change all T
  batches at once. Then the classifiers are updated on them, one batch after another.

  Args:
    state: training state of each arm, by its name.
    frozen: constants of the policies.
    data: the stored training images with their labels.
    rows: rows of the batches, `[T, B]`.
    keys: one key for each step, `[T]`.
    comparison: the arms and their network.
  """
  frozen = frozen.replace(labelled=frozen.labelled.replace(images=data["image"]))
  arms, model = comparison.arms, comparison.model
  groups: dict[tuple[int, float], list[str]] = {}  # arms whose batches have the same shape and loss
  for name, arm in arms.items():
    groups.setdefault((arm.views, arm.consistency), []).append(name)
  stack = lambda trees: jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)
  batch = jax.vmap(comparison.fetch, (None, 0))(data, rows)
  labels = jax.nn.one_hot(batch["label"], model.classes)  # [T, B, K]
  trained, metrics = {}, {}
  for (views, consistency), names in groups.items():
    changes = [jax.vmap(arms[name].policy, (0, 0, 0, None)) for name in names]
    examples = stack([change(keys, batch["image"], labels, frozen) for change in changes])  # [arms, T, ...]
    update = Update(model, comparison.optimizer, views, consistency)
    train = lambda own, examples, update=update: jax.lax.scan(lambda s, e: update(s, *e), own, examples)
    states_after, terms = parallel.over_arms(train)(stack([state[name] for name in names]), examples)
    for place, name in enumerate(names):
      pick = lambda leaf, place=place: leaf[place]
      trained[name], metrics[name] = jax.tree.map(pick, states_after), jax.tree.map(pick, terms)
  return trained, metrics


def network(context: Context, settings: ClassifierSettings) -> classifier.Classifier:
  """Builds the network that every arm trains."""
  return classifier.Classifier(
    classes=context.classes,
    architecture=settings.architecture,
    widths=(settings.hidden_dim,) * settings.depth,
    channels=settings.channels,
    activate_logits=settings.activate_logits,
    form=context.compute.form,
    dtype=context.compute.dtype,
    style=context.compute.style,
  )


def phase(
  context: Context,
  settings: ClassifierSettings,
  tools: policies.Tools | None,
  frozen: Frozen | None,
  *,
  arms: Sequence[str],
  name: str = NAME,
  pool: np.ndarray | None = None,
) -> loop.Phase:
  """Builds the phase that trains the classifiers of these arms, on all labelled images or on those in `pool`.

  Args:
    context: context of the run.
    settings: settings of the classifiers.
    tools: tools that the arms are built with; None if only the state is needed.
    frozen: constants of the policies, `[S, ...]`.
    arms: texts for `lcgen.classifiers.arms.parse`.
    name: name of the phase.
    pool: rows to train on, as in `loop.Phase`.
  """
  model, size = network(context, settings), context.facts.train
  optimizer = optimizers.adam(settings, size // settings.batch_size * settings.epochs)
  built = {arm: policies.build(arm, tools) for arm in arms} if tools else {}
  fetch = functools.partial(loop.take, prepare=context.prepare)

  def init(key):
    first = TrainState.create(model.init(key, context.image), optimizer)
    return dict.fromkeys(arms, first)

  views, pixels = sum(arm.views for arm in built.values()), math.prod(context.generator.image_shape)
  of_batch = max(views, 1) * settings.batch_size * pixels * 4
  return loop.Phase(
    name=name,
    kind=NAME,
    run_steps=functools.partial(compare_arms, comparison=Comparison(built, fetch, model, optimizer)),
    init=init,
    frozen=frozen,
    keys=context.keys(NAME),
    batch_size=settings.batch_size,
    epoch_size=size,
    epochs=settings.epochs,
    stage=NAME,
    pool=pool,
    max_chunk=max(1, _AUGMENTED_BYTES // of_batch),
  )
