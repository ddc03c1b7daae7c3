"""Scores of samples and edits: the judge's verdicts, and metrics of its features."""

import dataclasses
import functools
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lcgen.constraints import samplers
from lcgen.constraints.algebra import Constraint
from lcgen.constraints.settings import EditSettings
from lcgen.data import batching, ranges, sources
from lcgen.evaluation import metrics
from lcgen.generator.frozen import Frozen, decode
from lcgen.models import classifier
from lcgen.runtime import parallel
from lcgen.training.context import Context

_MOST = 10_000  # test images, and training images, that samples are compared with
_EDITED = 200  # test images that are edited
_DISTANCE_WEIGHTS = (0.0, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)  # points on the trade-off curve of edits

# (images [S, B, H, W, C], the judge's logits [S, B, K], index of the target) -> whether it holds, bool [S, B]
Verdicts = Callable[[jax.Array, jax.Array, int], np.ndarray]
Way = Callable[[jax.Array, Constraint, jax.Array], samplers.Moved]


def labels_by_judge(images: jax.Array, logits: jax.Array, target: int) -> np.ndarray:
  """Tells whether the judge gives each image the label `target`: bool `[S, B]`."""
  del images
  return np.asarray(logits.argmax(axis=-1) == target)


def looks_like_a_class(images: jax.Array, logits: jax.Array, target: int) -> np.ndarray:
  """Tells whether the judge is more than 90 % sure of each image's class, whichever it is: bool `[S, B]`."""
  del images, target
  return np.asarray(jax.nn.softmax(logits).max(axis=-1) > 0.9)


def drawing(context: Context, way: Way, count: int) -> Callable[..., Any]:
  """Gives a function that draws `count` samples of one seed at once.

  Returns:
    `(frozen, constraint, key) -> (images in [0, 1] [B, H, W, C], distances moved [B], whether critics accept [B])`.
  """
  generator = context.generator

  def draw(frozen, constraint, key):
    prior_key, move_key = jax.random.split(key)
    moved = way(move_key, constraint, generator.prior(prior_key, count))
    return decode(moved.latents, frozen, generator=generator), moved.distance, constraint.holds(moved.latents)

  return draw


@dataclasses.dataclass(frozen=True)
class Judged:
  """The judge and the real images that samples are compared with.

  Attributes:
    model: the judge's network.
    variables: variables of the network, `[S, ...]`.
    test: images that samples are compared with.
    train: images that samples should not copy.
  """

  model: classifier.Judge
  variables: Any
  test: sources.Split
  train: sources.Split


class SampleScorer:
  """Scores samples and edits of a trained generator, for each seed.

  Args:
    context: the run's context.
    mesh: mesh of the devices that score.
    frozen: the generator and its statistics, `[S, ...]`.
    judged: the judge and the real images.
  """

  def __init__(self, context: Context, mesh: jax.sharding.Mesh, frozen: Frozen, judged: Judged):
    self._context, self._mesh, self._frozen, self._judged = context, mesh, frozen, judged
    model = judged.model
    self._look = self._mapped(
      lambda variables, images: model.apply(variables, ranges.to_model(ranges.Unit(images)), method="score"), 0, 0
    )
    self._look_at_stored = self._mapped(
      lambda variables, batch: model.apply(variables, context.prepare(batch)["image"], method="features"), 0, None
    )
    self._decode = self._mapped(functools.partial(decode, generator=context.generator), 0, 0)
    self._test_features = self._features(judged.test)
    self._train_features = self._features(judged.train)

  def all_samplers(
    self,
    ways: dict[str, Way],
    targets: Sequence[Constraint],
    verdicts: Verdicts,
    count: int,
    real: np.ndarray | None = None,
  ) -> dict[str, dict[str, Any]]:
    """Scores every sampler, and the prior as `prior`, on the same targets.

    Args:
      ways: the samplers, from `samplers.bind`.
      targets: constraints to draw for.
      verdicts: tells whether a target holds.
      count: number of samples for each target.
      real: mask of the test images that the samples should be like, bool `[N]`; None for all of them.

    Returns:
      `{sampler: {score: [one a seed]}}`. `conditional_accuracy`: share for which the target holds.
      `conditional_accuracy_by_class`: the same by target, `[S][targets]`. `accepted`: share that the critics accept.
      `moved`: mean distance to the draw from the prior (root mean square over latents). `ms_per_sample`: a single
      number for all seeds, with decoding, without compilation. Also every metric of features in
      `lcgen.evaluation.metrics`.
    """
    prior = {"prior": lambda key, constraint, latents: samplers.Moved(latents, latents)}
    return {name: self._scores(way, targets, verdicts, count, real) for name, way in (prior | ways).items()}

  def _scores(
    self, way: Way, targets: Sequence[Constraint], verdicts: Verdicts, count: int, real: np.ndarray | None
  ) -> dict[str, Any]:
    draw, keys = self._mapped(drawing(self._context, way, count), 0, 0, 0), self._context.keys("evaluate")
    jax.block_until_ready(draw(self._frozen, targets[0], keys))  # compiles, so that the times below do not include it
    features, hits, accepted, distances, seconds = [], [], [], [], 0.0
    for index, target in enumerate(targets):
      target_keys = jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, index)
      started = time.perf_counter()
      images, distance, holds = jax.block_until_ready(draw(self._frozen, target, target_keys))
      seconds += time.perf_counter() - started
      seen, logits = self._look(self._judged.variables, images)
      features.append(seen)
      hits.append(verdicts(images, logits, index))
      accepted.append(np.asarray(holds))
      distances.append(np.asarray(distance))
    by_target = np.stack([hit.mean(axis=1) for hit in hits], axis=1)  # [S, targets]
    flat = lambda parts: np.concatenate(parts, axis=1).mean(axis=1).tolist()
    total = sum(hit.size for hit in hits)
    groups = np.repeat(np.arange(len(targets)), hits[0].shape[1])
    return {
      "conditional_accuracy": by_target.mean(axis=1).tolist(),
      "conditional_accuracy_by_class": by_target.tolist(),
      "accepted": flat(accepted),
      "moved": flat(distances),
      "ms_per_sample": 1e3 * seconds / total,
      **self._compared(jnp.concatenate(features, axis=1), groups, real),
    }

  def _compared(self, features: jax.Array, groups: np.ndarray, real: np.ndarray | None) -> dict[str, list[float]]:
    """Computes the metrics of samples' features `[S, M, D]`, drawn for the targets `groups` `[M]`."""
    compared = self._test_features.shape[1]
    labels, classes = self._judged.test.labels[:compared], int(groups.max()) + 1
    real = np.ones(compared, bool) if real is None else real[:compared]
    if classes == 1:
      labels = np.zeros_like(labels)
    rows = []
    for samples, test, train in zip(features, self._test_features, self._train_features, strict=True):
      like = test[real] if real.any() else jnp.full((1, test.shape[1]), jnp.nan)  # NaN: nothing to compare with
      known = jnp.asarray(labels[real] if real.any() else labels[:1])
      sets = metrics.FeatureSets(samples, jnp.asarray(groups), like, known, classes, test, train)
      found = metrics.registered(metrics.FEATURES)
      rows.append({name: float(metric.function(sets)) for name, metric in found.items()})
    return {name: [row[name] for row in rows] for name in rows[0]}

  def edits(
    self, of_conditions: Callable[[jax.Array], Constraint], settings: EditSettings, refine: Way
  ) -> dict[str, Any]:
    """Edits test images to another class, for several weights of the distance penalty.

    Args:
      of_conditions: gives the constraint, a `Drawable`, for one-hot conditions `[B, K]`.
      settings: settings of edits.
      refine: the sampler that draws new samples, for a comparison of distances.

    Returns:
      `distance_weight`: that of the settings. `distance_weights`: all weights. For each of these, `[weights][S]`:
      `success`, the share to which the judge gives the requested class, and `moved`, the mean distance (root mean
      square over latents), both by Adam. `actor`: the same two for G(q(z|x), y), `[S]`; `flow` and `map`: for these
      methods of edits. `anew`: mean distance from the encodings to new samples of the same classes, drawn from the
      prior, `[S]`.
    """
    context, test = self._context, self._judged.test
    generator, classes = context.generator, context.classes
    rows = np.linspace(0, len(test) - 1, min(_EDITED, len(test))).astype(int)
    wanted = (test.labels[rows] + 1 + np.arange(len(rows)) % (classes - 1)) % classes
    constraint = of_conditions(jax.nn.one_hot(wanted, classes))
    by = lambda method: dataclasses.replace(settings, method=method)

    def encode(frozen, batch):
      return generator.encode(frozen.generator, context.prepare(batch)["image"]).mean

    def edit(frozen, constraint, latents, weight):
      moved = samplers.edit(constraint, latents, frozen.posterior_scale, by("adam"), weight)
      return moved.latents, moved.distance

    def carry(constraint, latents, method):
      moved = samplers.edit(constraint, latents, jnp.ones(generator.latent_dim), by(method))
      return moved.latents, moved.distance

    def anew(constraint, latents, key):
      fresh = refine(key, constraint, generator.prior(key, len(latents)))
      return samplers.Moved(fresh.latents, latents).distance

    def act(constraint, latents):
      moved = samplers.Moved(constraint.propose(latents), latents)
      return moved.latents, moved.distance

    def judged(latents, distance):
      _, logits = self._look(self._judged.variables, self._decode(latents, self._frozen))
      return (np.asarray(logits).argmax(axis=-1) == wanted).mean(axis=1).tolist(), distance.mean(axis=1).tolist()

    encoded = self._mapped(encode, 0, None)(self._frozen, {"image": jnp.asarray(test.images[rows])})
    distance_weights = sorted({*_DISTANCE_WEIGHTS, settings.distance_weight})
    edited = self._mapped(edit, 0, 0, 0, None)
    found = [judged(*edited(self._frozen, constraint, encoded, weight)) for weight in jnp.float32(distance_weights)]
    one = lambda function: dict(
      zip(("success", "moved"), judged(*self._mapped(function, 0, 0)(constraint, encoded)), strict=True)
    )
    return {
      "distance_weight": settings.distance_weight,
      "distance_weights": distance_weights,
      "success": [each[0] for each in found],
      "moved": [each[1] for each in found],
      "actor": one(act),
      **{method: one(functools.partial(carry, method=method)) for method in ("flow", "map")},
      "anew": self._mapped(anew, 0, 0, 0)(constraint, encoded, context.keys("evaluate")).mean(axis=1).tolist(),
    }

  def _features(self, split: sources.Split) -> jax.Array:
    """Computes the judge's features of the first `_MOST` images, `[S, N, D]`."""
    first = sources.Split(split.images[:_MOST], split.labels[:_MOST])
    size = min(self._context.batch_size, len(first))
    batches = batching.padded(first, size, parallel.replicated(self._mesh))
    parts = [self._look_at_stored(self._judged.variables, {"image": batch["image"]}) for batch in batches]
    return jnp.concatenate(parts, axis=1)[:, : len(first)]

  def _mapped(self, function: Callable[..., Any], *in_axes: int | None) -> Callable[..., Any]:
    return jax.jit(parallel.over_seeds(function, self._mesh, in_axes))
