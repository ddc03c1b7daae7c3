"""Scores of samples and edits: the judge's verdicts, and metrics of its features.

Two rows of real images stand beside the samplers, as a distance says little without them. `real` has as many real
images as there are samples: a Fréchet distance of N images is above 0 even if they are of the very same distribution,
and this row shows by how much. `reconstructed` has test images that were encoded and decoded: what the generator can
show at all.
"""

import dataclasses
import functools
import itertools
import math
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lcgen.constraints import samplers
from lcgen.constraints.algebra import Constraint
from lcgen.constraints.settings import EditSettings
from lcgen.data import batching, picking, ranges, sources
from lcgen.evaluation import metrics
from lcgen.generator.frozen import Frozen, decode
from lcgen.models import classifier
from lcgen.runtime import parallel
from lcgen.runtime.results import PRIOR, REAL, RECONSTRUCTED
from lcgen.training.context import Context

_MOST = 10_000  # test images, and training images, that samples are compared with
_EDITED = 200  # test images that are edited
_DISTANCE_WEIGHTS = (0.0, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)  # points on the trade-off curve of edits

# (images [S, B, H, W, C], the judge's logits [S, B, K], index of the target) -> whether it holds, bool [S, B]
Verdicts = Callable[[jax.Array, jax.Array, int], np.ndarray]
Like = Callable[[np.ndarray], np.ndarray]  # uint8 images [N, H, W, C] -> whether samples should be like them, bool [N]
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
    validation: held-out images for the row `real`.
  """

  model: classifier.Judge
  variables: Any
  test: sources.Split
  train: sources.Split
  validation: sources.Split


def held_out(
  validation: np.ndarray, train: np.ndarray, targets: int, count: int
) -> list[tuple[np.ndarray, np.ndarray]]:
  """Picks the real images of the row `real`: for each target as many as it has samples.

  None of them is in the reference set, the test images: else their distance to it would be too small. Validation images
  come first, because nothing was trained on them. Training images follow if there are too few. Generator and judge have
  seen these, so that their features lie a little farther from those of test images; fewer images would lie much
  farther.

  Args:
    validation: target of each validation image, -1 for none, `[N]`.
    train: the same of training images.
    targets: number of targets.
    count: number of samples of each.

  Returns:
    For each target, rows of validation images and of training images, `count` together if there are so many.
  """
  picked = []
  for target in range(targets):
    first, then = (np.flatnonzero(part == target) for part in (validation, train))
    first = first[picking.pick(np.zeros(len(first)), count)]
    picked.append((first, then[picking.pick(np.zeros(len(then)), count - len(first))]))
  return picked


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
    self._encode = self._mapped(
      lambda frozen, batch: context.generator.encode(frozen.generator, context.prepare(batch)["image"]).mean, 0, None
    )
    self._holds = self._mapped(lambda constraint, latents: constraint.holds(latents), 0, 0)
    self._test, self._train, self._validation = map(_some, (judged.test, judged.train, judged.validation))
    self._test_features, self._train_features = map(self._features, (self._test, self._train))

  def all_samplers(
    self,
    ways: dict[str, Way],
    targets: Sequence[Constraint],
    verdicts: Verdicts,
    count: int,
    like: Like | None = None,
  ) -> dict[str, dict[str, Any]]:
    """Scores every sampler on the same targets, and beside them `prior`, `real` and `reconstructed`.

    Args:
      ways: the samplers, from `samplers.bind`.
      targets: constraints to draw for: one for each class, or a single one.
      verdicts: tells whether a target holds.
      count: number of samples for each target.
      like: tells which images the samples of a single target should be like; None for all of them.

    Returns:
      `{sampler: {score: [one a seed]}}`. `conditional_accuracy`: share for which the target holds.
      `conditional_accuracy_by_class`: the same by target, `[S][targets]`. `accepted`: share that the critics accept.
      `moved`: mean distance to the draw from the prior (root mean square over latents). `ms_per_sample`: a single
      number for all seeds, with decoding, without compilation. Also every metric of features in
      `lcgen.evaluation.metrics`.

      `real` and `reconstructed` have no `moved` and no `ms_per_sample`, and `real` nothing that critics could accept.
      Their `images` are the numbers of images by the split that they come from.
    """
    prior = {PRIOR: lambda key, constraint, latents: samplers.Moved(latents, latents)}
    labels = [self._targets(split, len(targets), like) for split in (self._test, self._validation, self._train)]
    found = {name: self._scores(way, targets, verdicts, count, labels[0]) for name, way in (prior | ways).items()}
    return found | {
      REAL: self._real(verdicts, count, len(targets), labels),
      RECONSTRUCTED: self._reconstructed(targets, verdicts, count, labels[0]),
    }

  def _targets(self, split: sources.Split, targets: int, like: Like | None) -> np.ndarray:
    """Gives the target of each image, -1 for none: its label; or 0 if there is one target, and it is like that."""
    if targets > 1:
      return split.labels
    fits = np.ones(len(split), bool) if like is None or not len(split) else like(split.images)
    return np.where(fits, 0, -1)

  def _scores(
    self, way: Way, targets: Sequence[Constraint], verdicts: Verdicts, count: int, labels: np.ndarray
  ) -> dict[str, Any]:
    draw, keys = self._mapped(drawing(self._context, way, count), 0, 0, 0), self._context.keys("evaluate")
    jax.block_until_ready(draw(self._frozen, targets[0], keys))  # compiles, so that the times below do not include it
    accepted, distances, seconds = [], [], []

    def drawn(index, target):
      target_keys = jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, index)
      started = time.perf_counter()
      images, distance, holds = jax.block_until_ready(draw(self._frozen, target, target_keys))
      seconds.append(time.perf_counter() - started)
      accepted.append(np.asarray(holds))
      distances.append(np.asarray(distance))
      return images

    found = self._judge(itertools.starmap(drawn, enumerate(targets)), verdicts, labels, self._train_features)
    flat = lambda parts: _means(np.concatenate(parts, axis=1))
    total = sum(part.size for part in accepted)
    moves = {"accepted": flat(accepted), "moved": flat(distances), "ms_per_sample": 1e3 * sum(seconds) / total}
    return found | moves

  def _real(self, verdicts: Verdicts, count: int, targets: int, labels: Sequence[np.ndarray]) -> dict[str, Any]:
    """Scores held-out real images as if they were samples; `labels` are those of test, validation and training."""
    test, validation, train = labels
    picked = held_out(validation, train, targets, count)
    ours = [np.concatenate([self._validation.images[first], self._train.images[then]]) for first, then in picked]
    # An image is no copy of itself: novelty goes without those that are shown here.
    others = np.delete(np.arange(len(train)), np.concatenate([then for _, then in picked]))
    found = self._judge(map(self._as_samples, ours), verdicts, test, self._train_features[:, others])
    sizes = np.sum([[len(first), len(then)] for first, then in picked], axis=0).tolist()
    return found | {"images": dict(zip(("validation", "train"), sizes, strict=True))}

  def _reconstructed(
    self, targets: Sequence[Constraint], verdicts: Verdicts, count: int, labels: np.ndarray
  ) -> dict[str, Any]:
    """Scores decoded encodings of test images; `labels` are the targets of these."""
    accepted = [np.zeros((len(self._context.seeds), 0), bool)]

    def decoded(index, target):
      rows = np.flatnonzero(labels == index)
      rows = rows[picking.pick(np.zeros(len(rows)), count)]
      if not len(rows):
        return self._nothing
      latents = self._encode(self._frozen, {"image": jnp.asarray(self._test.images[rows])})
      accepted.append(np.asarray(self._holds(target, latents)))
      return self._decode(latents, self._frozen)

    found = self._judge(itertools.starmap(decoded, enumerate(targets)), verdicts, labels, self._train_features)
    every = np.concatenate(accepted, axis=1)
    return found | {"accepted": _means(every), "images": {"test": every.shape[1]}}

  def _as_samples(self, stored: np.ndarray) -> jax.Array:
    """Gives stored images as samples of every seed are: in [0, 1], `[S, N, H, W, C]`."""
    if not len(stored):
      return self._nothing
    units = ranges.from_model(self._context.prepare({"image": jnp.asarray(stored)})["image"])
    return jnp.broadcast_to(units, (len(self._context.seeds), *units.shape))

  @property
  def _nothing(self) -> jax.Array:
    return jnp.zeros((len(self._context.seeds), 0, *self._context.generator.image_shape))

  def _judge(
    self, by_target: Iterable[jax.Array], verdicts: Verdicts, labels: np.ndarray, train: jax.Array
  ) -> dict[str, Any]:
    """Computes the verdicts and the metrics of images in [0, 1] `[S, B, H, W, C]`, given target by target.

    Args:
      by_target: the images of each target.
      verdicts: tells whether a target holds.
      labels: target of each test image, -1 for none, `[N]`.
      train: features of the training images that these should not copy, `[S, R, D]`.
    """
    features, hits = [], []
    for index, images in enumerate(by_target):
      if images.shape[1]:
        seen, logits = self._look(self._judged.variables, images)
        features.append(seen)
        hits.append(_of_finite(images, verdicts(images, logits, index)))
      else:  # no real image of this class is left
        hits.append(np.zeros(images.shape[:2], bool))
    sizes = [hit.shape[1] for hit in hits]
    by_class = np.stack([np.array(_means(hit)) for hit in hits], axis=1)  # [S, targets]
    asked = by_class if min(sizes) else by_class[:, np.array(sizes) > 0]
    scores = {"conditional_accuracy": _means(asked), "conditional_accuracy_by_class": by_class.tolist()}
    if not features:
      return scores | {name: [math.nan] * len(by_class) for name in metrics.registered(metrics.FEATURES)}
    return scores | self._compared(jnp.concatenate(features, axis=1), sizes, labels, train)

  def _compared(
    self, features: jax.Array, sizes: Sequence[int], labels: np.ndarray, train: jax.Array
  ) -> dict[str, list[float]]:
    """Computes the metrics of features `[S, M, D]`, which are of so many images for each target."""
    targets, classes = np.repeat(np.arange(len(sizes)), sizes), len(sizes)
    like, rows = np.flatnonzero(labels >= 0), []
    for samples, test, own_train in zip(features, self._test_features, train, strict=True):
      real = test[like] if len(like) else jnp.full((1, test.shape[1]), jnp.nan)  # NaN: nothing to compare with
      known = jnp.asarray(labels[like] if len(like) else np.zeros(1, np.int32))
      sets = metrics.FeatureSets(samples, jnp.asarray(targets), real, known, classes, test, own_train)
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
    rows = picking.pick(test.labels, _EDITED)
    wanted = (test.labels[rows] + 1 + np.arange(len(rows)) % (classes - 1)) % classes
    constraint = of_conditions(jax.nn.one_hot(wanted, classes))
    by = lambda method: dataclasses.replace(settings, method=method)

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
      images = self._decode(latents, self._frozen)
      _, logits = self._look(self._judged.variables, images)
      hits = _of_finite(images, np.asarray(logits).argmax(axis=-1) == wanted)
      return hits.mean(axis=1).tolist(), distance.mean(axis=1).tolist()

    encoded = self._encode(self._frozen, {"image": jnp.asarray(test.images[rows])})
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
    """Computes the judge's features, `[S, N, D]`."""
    size = min(self._context.batch_size, len(split))
    batches = batching.padded(split, size, parallel.replicated(self._mesh))
    parts = [self._look_at_stored(self._judged.variables, {"image": batch["image"]}) for batch in batches]
    return jnp.concatenate(parts, axis=1)[:, : len(split)]

  def _mapped(self, function: Callable[..., Any], *in_axes: int | None) -> Callable[..., Any]:
    return jax.jit(parallel.over_seeds(function, self._mesh, in_axes))


def _some(split: sources.Split) -> sources.Split:
  """Picks at most `_MOST` images, which stand for all."""
  return split if len(split) <= _MOST else split.take(picking.pick(split.labels, _MOST))


def _of_finite(images: jax.Array, hits: np.ndarray) -> np.ndarray:
  """Gives verdicts on images `[S, B, H, W, C]` as numbers; an image that is not finite has none, and so NaN."""
  return np.where(jnp.isfinite(images).all(axis=(2, 3, 4)), hits, np.nan)


def _means(parts: np.ndarray) -> list[float]:
  """Computes the mean for each seed, `[S, B]` -> `[S]`; NaN if there is nothing."""
  return parts.mean(axis=1).tolist() if parts.shape[1] else [math.nan] * len(parts)
