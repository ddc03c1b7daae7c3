"""Scores of classifiers and of samples.

Samples are compared with real images by the features of a judge network, see `lcgen.evaluation.distances`.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lcgen.evaluation import distances
from lcgen.runtime import errors
from lcgen.runtime.registry import Registry

CONFIDENCE_BINS = 15
FEATURES, LOGITS = "features", "logits"
_OTHER_SCORES = {  # that results have beside the registered metrics
  FEATURES: (
    *("conditional_accuracy", "conditional_accuracy_by_class", "accepted", "moved", "ms_per_sample"),
    "classification_accuracy",
  ),
  LOGITS: ("accuracy", "nll", "brier", "gaps", "ece", "kl"),
}


@dataclasses.dataclass(frozen=True)
class Metric:
  """A score that reports show under its title.

  Attributes:
    function: computes the score, see `register`.
    title: name of its column or row in the tables.
    scale: factor that tables multiply it by.
    digits: decimal places in the tables.
    of: `FEATURES` (of samples) or `LOGITS` (of classifiers).
    shown: whether tables show it; results always contain it.
    undefined: why its value can be no number, which results say beside it.
  """

  function: Callable[..., Any]
  title: str
  scale: float = 1.0
  digits: int = 2
  of: str = FEATURES
  shown: bool = True
  undefined: str = "its function returned no finite number"


METRICS: Registry[Metric] = Registry("metric")


def register(
  title: str,
  scale: float = 1.0,
  digits: int = 2,
  *,
  of: str = FEATURES,
  shown: bool = True,
  undefined: str = Metric.undefined,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
  """Returns a decorator that registers a metric under the name of its function.

  A metric of features is `(sets: FeatureSets) -> float`. A metric of logits is `(logits [B, K], labels [B]) -> [B]`.
  It runs jitted, and its mean over the images of each test set is the score. A score that is not defined, such as 0/0,
  is NaN: results hold null in its place, with the reason `undefined`.

  Raises:
    InputError: if the name belongs to another score.
  """
  if of not in (FEATURES, LOGITS):
    raise errors.InputError(f"metric {title!r}: of={of!r} must be {FEATURES!r} or {LOGITS!r}")

  def decorate(function):
    name = function.__name__.lstrip("_")
    if name in _OTHER_SCORES[of]:
      raise errors.InputError(f"metric {name!r}: there is one of this name already; choose another name")
    METRICS.add(name, Metric(function, title, scale, digits, of, shown, undefined))
    return function

  return decorate


def registered(of: str) -> dict[str, Metric]:
  """Gives all metrics of features, or all of logits, by name."""
  return {name: metric for name, metric in METRICS.items() if metric.of == of}


def about() -> dict[str, dict[str, Any]]:
  """Gives the descriptions of all metrics for the results: title, scale, digits, `of`, `shown`, `undefined`."""
  fields = ("title", "scale", "digits", "of", "shown", "undefined")
  return {name: {field: getattr(metric, field) for field in fields} for name, metric in METRICS.items()}


def count_correct(logits: jax.Array, labels: jax.Array, mask: jax.Array) -> jax.Array:
  """Counts the unmasked examples whose largest logit is their label; `[B, K]`, `[B]`, `[B]` -> scalar."""
  return jnp.sum((logits.argmax(-1) == labels) & mask)


def soft_scores(logits: jax.Array, labels: jax.Array, targets: jax.Array, mask: jax.Array) -> dict[str, jax.Array]:
  """Sums the scores of the unmasked examples.

  Args:
    logits: `[B, K]`.
    labels: `[B]`.
    targets: label distributions `[B, K]`, one-hot if labels are certain.
    mask: `[B]`.

  Returns:
    `accuracy`: number of labels that have the largest logit. `nll`: cross-entropy to the label distributions, nats.
    `brier`: squared distance of the probabilities to the label distributions, summed over classes, 0 to 2 an example.
    `gaps`: correct minus confidence in bins of the confidence, `[CONFIDENCE_BINS]`, for `calibration_error`.
    Also every registered metric of logits.
  """
  nll = optax.softmax_cross_entropy(logits, targets)
  brier = jnp.square(jax.nn.softmax(logits) - targets).sum(axis=-1)
  masked = lambda values: jnp.where(mask, values, 0).sum()
  confidence = jax.nn.softmax(logits).max(axis=-1)
  bins = jnp.minimum((confidence * CONFIDENCE_BINS).astype(jnp.int32), CONFIDENCE_BINS - 1)
  gaps = jnp.where(mask, (logits.argmax(-1) == labels) - confidence, 0) @ jax.nn.one_hot(bins, CONFIDENCE_BINS)
  scores = {"accuracy": count_correct(logits, labels, mask), "nll": masked(nll), "brier": masked(brier), "gaps": gaps}
  return scores | {name: masked(metric.function(logits, labels)) for name, metric in registered(LOGITS).items()}


def calibration_error(gaps: np.ndarray) -> np.ndarray:
  """Computes the expected calibration error (Guo et al. 2017); `[..., BINS]` -> `[...]`.

  `gaps` are those of `soft_scores`, divided by the number of examples.
  """
  return np.abs(gaps).sum(axis=-1)


@dataclasses.dataclass(frozen=True)
class FeatureSets:
  """Features by one seed's judge, which metrics compare.

  Attributes:
    samples: `[M, D]`.
    targets: index of the target that each sample was drawn for, `[M]`.
    real: test images that the samples should be like, `[N, D]`; one row of NaN if there are none.
    labels: labels of `real`, `[N]`.
    classes: number of targets.
    test: all test images that are compared, `[T, D]`.
    train: training images, `[R, D]`.
  """

  samples: jax.Array
  targets: jax.Array
  real: jax.Array
  labels: jax.Array
  classes: int
  test: jax.Array
  train: jax.Array

  @functools.cached_property
  def neighbourhood(self) -> dict[str, jax.Array]:
    """Precision, recall, density and coverage, from the same distances."""
    return distances.neighbourhood_scores(self.real, self.samples, _every(self.real), _every(self.samples))


_FEW = "fewer than two images on one side, or features that are not finite"
_NO_BALLS = "too few images on one side to have neighbours, real images that are all alike, or features not finite"


def _every(features: jax.Array) -> jax.Array:
  return jnp.ones(len(features), bool)


@register("diversity", undefined="the real images of a class are all alike, there are none, or features are not finite")
def diversity(sets: FeatureSets) -> jax.Array:
  """Computes the spread of the features within a target, relative to that of test images."""
  spread = functools.partial(distances.within_class_spread, classes=sets.classes)
  return distances.ratio(spread(sets.samples, sets.targets), spread(sets.real, sets.labels), sets.real)


@register("Fréchet distance", undefined=_FEW)
def _frechet_distance(sets: FeatureSets) -> float:
  samples, real = (distances.moments(features, _every(features)) for features in (sets.samples, sets.real))
  return distances.frechet_distance(samples, real)


@register("kernel distance", shown=False, undefined=_FEW)
def _kernel_distance(sets: FeatureSets) -> jax.Array:
  return distances.kernel_distance(sets.samples, sets.real, _every(sets.samples), _every(sets.real))


@register("precision", undefined=_NO_BALLS)
def precision(sets: FeatureSets) -> jax.Array:
  """Gives the share of samples inside a ball around a real image."""
  return sets.neighbourhood["precision"]


@register("recall", undefined=_NO_BALLS)
def recall(sets: FeatureSets) -> jax.Array:
  """Gives the share of real images inside a ball around a sample."""
  return sets.neighbourhood["recall"]


@register("density", undefined=_NO_BALLS)
def density(sets: FeatureSets) -> jax.Array:
  """Gives the mean number of real balls around a sample, divided by the number of neighbours."""
  return sets.neighbourhood["density"]


@register("coverage", undefined=_NO_BALLS)
def coverage(sets: FeatureSets) -> jax.Array:
  """Gives the share of real balls with a sample inside."""
  return sets.neighbourhood["coverage"]


@register(
  "novelty",
  undefined="most test images are copies of training images, there are none, or a feature is not finite",
)
def novelty(sets: FeatureSets) -> jax.Array:
  """Computes the median distance to the nearest training image over that of test images; far below 1 means copies."""
  if not len(sets.train):
    return jnp.array(jnp.nan)
  to_train = functools.partial(distances.nearest_distances, references=sets.train, reference_mask=_every(sets.train))
  return distances.ratio(jnp.median(to_train(sets.samples)), jnp.median(to_train(sets.test)), sets.test)
