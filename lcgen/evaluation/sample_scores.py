"""What samples and edits are worth: the judge's verdicts, and distances in the space of its features."""

import functools
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lcgen.constraints import samplers
from lcgen.constraints.algebra import Constraint
from lcgen.data import ranges, sources
from lcgen.evaluation import evaluate, metrics
from lcgen.runtime import parallel
from lcgen.training import train_state as states
from lcgen.training.context import Phases

_MOST = 10_000  # images that samples are compared with
_EDITED = 200  # test images that are edited
_DISTANCE_WEIGHTS = (0.0, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)  # of the trade-off curve of edits

# (images [S, B, H, W, C], the judge's logits [S, B, K], which target) -> does it hold, bool [S, B]
Verdicts = Callable[[jax.Array, jax.Array, int], np.ndarray]


def labels_by_judge(images: jax.Array, logits: jax.Array, target: int) -> np.ndarray:
  """Whether the judge gives the image the label `target`."""
  del images
  return np.asarray(logits.argmax(axis=-1) == target)


def looks_like_a_class(images: jax.Array, logits: jax.Array, target: int) -> np.ndarray:
  """Whether the judge is 90 % sure of the image's class, whichever it is."""
  del images, target
  return np.asarray(jax.nn.softmax(logits).max(axis=-1) > 0.9)


def drawing(phases: Phases, way: Callable[..., samplers.Moved]) -> Callable[..., Any]:
  """Draws by one of `sampling.METHODS`, `evaluate.samples_per_class` at once, of one repetition.

  Returns:
    `(frozen, constraint, key) -> images [B, H, W, C] in [0, 1], distances moved [B], which the critics accept [B]`.
  """
  model, count = phases.networks.vae, phases.config["evaluate"]["samples_per_class"]

  def draw(frozen, constraint, key):
    prior_key, move_key = jax.random.split(key)
    moved = way(move_key, constraint, samplers.prior(prior_key, count, model.latent_dim))
    return samplers.decode(moved.latents, frozen, model=model), moved.distance, constraint.holds(moved.latents)

  return draw


class Quality:
  """Scores samples and edits of a trained model, one value a repetition.

  Args:
    phases: of the config.
    mesh: of all devices.
    frozen: the VAE and its statistics, `[S, ...]`.
    judge: variables of the judge, `[S, ...]`.
    test: images that samples are compared with.
    train: images that samples are to be no copies of.
  """

  def __init__(
    self,
    phases: Phases,
    mesh: jax.sharding.Mesh,
    frozen: states.Frozen,
    judge: Any,
    test: sources.Split,
    train: sources.Split,
  ):
    self._phases, self._mesh, self._frozen, self._judge = phases, mesh, frozen, judge
    self._test = test
    networks = phases.networks
    self._look = self._mapped(
      lambda variables, images: networks.judge.apply(variables, ranges.to_model(ranges.Unit(images)), method="score"),
      0,
      0,
    )
    self._look_at_stored = self._mapped(
      lambda variables, batch: networks.judge.apply(variables, phases.prepare(batch)["image"], method="features"),
      0,
      None,
    )
    self._decode = self._mapped(functools.partial(samplers.decode, model=networks.vae), 0, 0)
    self._test_features = self._features(test)
    self._train_features = self._features(train)

  def methods(
    self, targets: Sequence[Constraint], verdicts: Verdicts, real: np.ndarray | None = None
  ) -> dict[str, dict[str, Any]]:
    """Scores every method on the same targets, and the prior beside them.

    Args:
      targets: what is asked for, `evaluate.samples_per_class` samples of each.
      verdicts: who says whether it holds.
      real: which test images the samples should be like, bool `[N]`; None for all of them.

    Returns:
      `{method: {score: [one a seed]}}`. `conditional_accuracy`: share for which the target holds, also
      `_by_class`, by target. `accepted`: share that the critics accept. `diversity`: spread of the features within a
      target, relative to test images. `frechet_distance`, `kernel_distance`, `precision`, `recall`, `density`,
      `coverage`: against test images. `novelty`: median distance to the nearest training image, relative to that of
      test images; far below 1 means copies. `moved`: root mean square over latents. `ms_per_sample`: with decoding,
      without compilation.
    """
    ways = {"prior": lambda key, constraint, latents: samplers.Moved(latents, latents)}
    ways |= samplers.with_settings(self._phases.config["sample"])
    return {name: self._method(way, targets, verdicts, real) for name, way in ways.items()}

  def _method(self, way, targets: Sequence[Constraint], verdicts: Verdicts, real: np.ndarray | None) -> dict[str, Any]:
    draw, keys = self._mapped(drawing(self._phases, way), 0, 0, 0), self._phases.keys("evaluate")
    jax.block_until_ready(draw(self._frozen, targets[0], keys))  # compiles
    features, hits, accepted, distances, seconds = [], [], [], [], 0.0
    for index, target in enumerate(targets):
      target_keys = jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, index)
      started = time.perf_counter()
      images, distance, holds = jax.block_until_ready(draw(self._frozen, target, target_keys))
      seconds += time.perf_counter() - started
      seen, logits = self._look(self._judge, images)
      features.append(seen)
      hits.append(verdicts(images, logits, index))
      accepted.append(np.asarray(holds))
      distances.append(np.asarray(distance))
    by_target = np.stack([hit.mean(axis=1) for hit in hits], axis=1)  # [S, targets]
    flat = lambda parts: np.concatenate(parts, axis=1).mean(axis=1).tolist()
    count = sum(hit.size for hit in hits)
    groups = np.repeat(np.arange(len(targets)), hits[0].shape[1])
    return {
      "conditional_accuracy": by_target.mean(axis=1).tolist(),
      "conditional_accuracy_by_class": by_target.tolist(),
      "accepted": flat(accepted),
      "moved": flat(distances),
      "ms_per_sample": 1e3 * seconds / count,
      **self._compared(jnp.concatenate(features, axis=1), groups, real),
    }

  def _compared(self, features: jax.Array, groups: np.ndarray, real: np.ndarray | None) -> dict[str, list[float]]:
    """Samples' features `[S, M, D]`, of the targets `groups` `[M]`, against those of real images."""
    compared = self._test_features.shape[1]
    labels, classes = self._test.labels[:compared], int(groups.max()) + 1
    real = np.ones(compared, bool) if real is None else real[:compared]
    if classes == 1:
      labels = np.zeros_like(labels)
    every = lambda array: jnp.ones(len(array), bool)
    rows = []
    for samples, test, train in zip(features, self._test_features, self._train_features, strict=True):
      to_train = functools.partial(metrics.nearest_distances, references=train, reference_mask=every(train))
      novelty = jnp.median(to_train(samples)) / jnp.median(to_train(test))
      like = test[real] if real.any() else jnp.full((1, test.shape[1]), jnp.nan)  # no image is like that: no score
      known = jnp.asarray(labels[real] if real.any() else labels[:1])
      spread = functools.partial(metrics.within_class_spread, classes=classes)
      masks = every(samples), every(like)
      of_samples, of_test = metrics.moments(samples, masks[0]), metrics.moments(like, masks[1])
      rows.append(
        {
          "diversity": spread(samples, jnp.asarray(groups)) / spread(like, known),
          "frechet_distance": metrics.frechet_distance(of_samples, of_test),
          "kernel_distance": metrics.kernel_distance(samples, like, *masks),
          **metrics.neighbourhood_scores(like, samples, *reversed(masks)),
          "novelty": novelty,
        }
      )
    return {name: [float(row[name]) for row in rows] for name in rows[0]}

  def edits(self, of_conditions: Callable[[jax.Array], Constraint]) -> dict[str, Any]:
    """Test images, each edited to another class, at several prices of the distance.

    Args:
      of_conditions: the constraint for one-hot conditions `[B, K]`.

    Returns:
      `distance_weight`, the config's. `distance_weights`, and for each `success` (share that the judge gives the
      requested class) and `moved` (root mean square over latents), `[weights][S]`. `actor`: the same two for
      G(q(z|x), y), `[S]`. `anew`: how far from the encodings samples of the same classes lie that were drawn from the
      prior, `[S]`.
    """
    config, networks = self._phases.config, self._phases.networks
    rows = np.linspace(0, len(self._test) - 1, min(_EDITED, len(self._test))).astype(int)
    classes = networks.classifier.classes
    wanted = (self._test.labels[rows] + 1 + np.arange(len(rows)) % (classes - 1)) % classes
    constraint = of_conditions(jax.nn.one_hot(wanted, classes))
    descent = {name: config["edit"][name] for name in ("steps", "learning_rate")}

    def encode(frozen, batch):
      return networks.vae.apply(frozen.vae, self._phases.prepare(batch)["image"], method="encode").mean

    def edit(frozen, constraint, latents, weight):
      moved = samplers.edit(constraint, latents, frozen.posterior_scale, distance_weight=weight, **descent)
      return moved.latents, moved.distance

    def anew(constraint, latents, key):
      fresh = samplers.refine(key, constraint, jax.random.normal(key, latents.shape), **config["sample"]["refine"])
      return samplers.Moved(fresh.latents, latents).distance

    def act(constraint, latents):
      moved = samplers.actor(None, constraint, latents)
      return moved.latents, moved.distance

    def judged(latents, distance):
      _, logits = self._look(self._judge, self._decode(latents, self._frozen))
      return (np.asarray(logits).argmax(axis=-1) == wanted).mean(axis=1).tolist(), distance.mean(axis=1).tolist()

    encoded = self._mapped(encode, 0, None)(self._frozen, {"image": jnp.asarray(self._test.images[rows])})
    distance_weights = sorted({*_DISTANCE_WEIGHTS, config["edit"]["distance_weight"]})
    edited = self._mapped(edit, 0, 0, 0, None)
    found = [judged(*edited(self._frozen, constraint, encoded, weight)) for weight in jnp.float32(distance_weights)]
    success, moved = judged(*self._mapped(act, 0, 0)(constraint, encoded))
    return {
      "distance_weight": config["edit"]["distance_weight"],
      "distance_weights": distance_weights,
      "success": [each[0] for each in found],
      "moved": [each[1] for each in found],
      "actor": {"success": success, "moved": moved},
      "anew": self._mapped(anew, 0, 0, 0)(constraint, encoded, self._phases.keys("evaluate")).mean(axis=1).tolist(),
    }

  def _features(self, split: sources.Split) -> jax.Array:
    """Of the first `_MOST` images, `[S, N, D]`."""
    first = sources.Split(split.images[:_MOST], split.labels[:_MOST])
    size = min(self._phases.config["evaluate"]["batch_size"], len(first))
    batches = evaluate.batches(first, size, parallel.replicated(self._mesh))
    parts = [self._look_at_stored(self._judge, {"image": batch["image"]}) for batch in batches]
    return jnp.concatenate(parts, axis=1)[:, : len(first)]

  def _mapped(self, function: Callable[..., Any], *in_axes: int | None) -> Callable[..., Any]:
    return jax.jit(parallel.over_seeds(function, self._mesh, in_axes))
