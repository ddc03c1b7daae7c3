"""Fits the mixture of every class to encodings of training images, on the host.

Expectation-maximisation alone fails in many dimensions: with 360 images of a class and 64 latents, four components have
a worse held-out likelihood than one. Each covariance is therefore shrunk towards the mean covariance of its class, and
that towards the one pooled over classes. Validation images decide the number of components and both amounts.
"""

import dataclasses
import warnings
from collections.abc import Iterator, Sequence

import numpy as np
import threadpoolctl
from scipy.special import logsumexp
from sklearn import exceptions
from sklearn import mixture as sklearn_mixture

from lcgen.constraints.mixture import Mixture
from lcgen.constraints.settings import MixtureSettings

_LEAST_GAIN = 1e-3  # nats, for which more components are taken
_LEAST_IMAGES = 20  # of a class for each of its components; a class of fewer has fewer components


@dataclasses.dataclass(frozen=True)
class Encodings:
  """q(z|x) of images with their labels.

  Attributes:
    means: `[N, L]`.
    scales: standard deviations, `[N, L]`.
    labels: int `[N]`.
  """

  means: np.ndarray
  scales: np.ndarray
  labels: np.ndarray

  def take(self, rows: np.ndarray) -> "Encodings":
    """Takes some rows."""
    return Encodings(self.means[rows], self.scales[rows], self.labels[rows])

  def draws(self, count: int, most: int, *seed: int) -> np.ndarray:
    """Draws `count` latents of each image, fewer if they were more than `most` in all, and at least one."""
    repeats = max(1, min(count, most // max(len(self.means), 1)))
    generator, shape = np.random.Generator(np.random.Philox(key=list(seed))), (repeats, *self.means.shape)
    return (self.means + self.scales * generator.standard_normal(shape)).reshape(-1, self.means.shape[1])


@dataclasses.dataclass(frozen=True)
class Fitted:
  """The components of one class, before covariances are shrunk.

  Attributes:
    weights: `[c]`.
    means: `[c, L]`.
    covariances: `[c, L, L]`.
    images: number of training images.
  """

  weights: np.ndarray
  means: np.ndarray
  covariances: np.ndarray
  images: int

  @property
  def within(self) -> np.ndarray:
    """The mean covariance of the components, `[L, L]`."""
    return np.tensordot(self.weights, self.covariances, 1)

  def shrunk(self, shrinkage: float, pooling: float, pooled: np.ndarray) -> np.ndarray:
    """Moves covariances towards their mean, and then towards the pooled one; `[c, L, L]`.

    A class with fewer images than latents leans on the pooled covariance by at least the share of images that lack.
    """
    lacking = 1 - (self.images - 1) / len(pooled)
    pooling = min(1.0, max(pooling, lacking))
    own = (1 - shrinkage) * self.covariances + shrinkage * self.within
    return (1 - pooling) * own + pooling * pooled


@dataclasses.dataclass(frozen=True)
class Choice:
  """Records the choice of the validation images.

  Attributes:
    components: of a class that has images enough.
    shrinkage: towards the mean covariance of the class.
    pooling: towards the covariance pooled over classes.
    score: mean log-likelihood of validation draws under their own class, nats.
  """

  components: int
  shrinkage: float
  pooling: float
  score: float


def fit(
  train: Encodings,
  validation: Encodings,
  classes: int,
  settings: MixtureSettings,
  counts: Sequence[int],
  seed: int,
) -> tuple[Mixture, Choice]:
  """Fits the mixture of every class; the same numbers give the same mixture.

  More components are tried as long as validation images like them better.

  Args:
    train: encodings that the mixture is fitted to.
    validation: encodings that choose; those of classes without training images do not count.
    classes: number of classes K.
    settings: what to choose from, but for the number of components.
    counts: numbers of components to try, in rising order; the last is C of the result.
    seed: of draws and first components.
  """
  own = [train.take(np.flatnonzero(train.labels == label)) for label in range(classes)]
  kept = [encodings.draws(settings.draws, settings.most_draws, seed, label) for label, encodings in enumerate(own)]
  pooled = _pooled(own)
  held = _held_out(own, validation, settings, seed)
  best = None
  with threadpoolctl.threadpool_limits(1):  # matrices are small, and sums do not depend on the number of cores
    for count in counts:
      fitted = [
        _fit_class(draws, len(few.labels), count, pooled, settings, seed) for draws, few in zip(kept, own, strict=True)
      ]
      found, score = _chosen(fitted, held, pooled, settings, count)
      if best is not None and score < best[1].score + _LEAST_GAIN:
        break
      best = fitted, Choice(count, *found, score)
    fitted, choice = best
    images = np.array([len(encodings.labels) for encodings in own])
    return _mixture(fitted, images, choice, pooled, settings, counts[-1]), choice


def _pooled(own: Sequence[Encodings]) -> np.ndarray:
  """Computes the covariance within classes, over all of them; too few images fall back on the prior's, the identity."""
  latents = own[0].means.shape[1]
  present = [encodings for encodings in own if len(encodings.labels)]
  images = sum(len(encodings.labels) for encodings in present)
  free = images - len(present)  # the images beyond one of each class
  scatter, noise = np.zeros((latents, latents)), np.zeros(latents)
  for encodings in present:
    centred = encodings.means - encodings.means.mean(axis=0, dtype=np.float64)
    scatter += centred.T @ centred
    noise += np.square(encodings.scales, dtype=np.float64).sum(axis=0)
  found = scatter / max(free, 1) + np.diag(noise / max(images, 1))
  known = min(1.0, free / latents)
  return known * found + (1 - known) * np.eye(latents)


def _fit_class(
  draws: np.ndarray, images: int, count: int, pooled: np.ndarray, settings: MixtureSettings, seed: int
) -> Fitted:
  """Fits the components of one class to draws of its encodings."""
  latents = len(pooled)
  if not images:
    return Fitted(np.ones(1), np.zeros((1, latents)), pooled[None], 0)
  count = max(1, min(count, images // _LEAST_IMAGES))
  if count == 1:
    covariance = np.cov(draws.T, bias=True).reshape(latents, latents)
    return Fitted(np.ones(1), draws.mean(axis=0)[None], covariance[None], images)
  model = sklearn_mixture.GaussianMixture(
    count, reg_covar=settings.least_variance, max_iter=settings.iterations, random_state=seed
  )
  with warnings.catch_warnings():
    warnings.simplefilter("ignore", exceptions.ConvergenceWarning)  # the iterations are limited on purpose
    model.fit(draws)
  return Fitted(model.weights_, model.means_, model.covariances_, images)


def _held_out(
  own: Sequence[Encodings], validation: Encodings, settings: MixtureSettings, seed: int
) -> list[np.ndarray]:
  """Draws latents of the validation images of each class; none of a class without training images."""
  drawn = []
  for label, encodings in enumerate(own):
    held = validation.take(np.flatnonzero((validation.labels == label) & (len(encodings.labels) > 0)))
    drawn.append(held.draws(settings.draws, settings.most_draws, seed, len(own) + label))
  return drawn


def _chosen(
  fitted: Sequence[Fitted], held: Sequence[np.ndarray], pooled: np.ndarray, settings: MixtureSettings, count: int
) -> tuple[tuple[float, float], float]:
  """Finds shrinkage and pooling of the best held-out likelihood; a single component needs no shrinkage."""
  best, total = ((0.0, 0.0), -np.inf), sum(map(len, held))
  for shrinkage in settings.shrinkages if count > 1 else (0.0,):
    for pooling in settings.poolings:
      score = 0.0
      for own, latents in zip(fitted, held, strict=True):
        if len(latents):
          variances, directions = _spectra(own.shrunk(shrinkage, pooling, pooled), settings)
          score += _log_density(own, variances, directions, latents).sum()
      score = score / max(total, 1)
      if score > best[1] or total == 0:
        best = (shrinkage, pooling), score
  return best


def _spectra(covariances: np.ndarray, settings: MixtureSettings) -> tuple[np.ndarray, np.ndarray]:
  """Computes eigenvalues `[c, L]`, none below the least variance, and eigenvectors in columns `[c, L, L]`."""
  variances, directions = np.linalg.eigh(covariances)
  return np.maximum(variances, settings.least_variance), directions


def _log_density(own: Fitted, variances: np.ndarray, directions: np.ndarray, latents: np.ndarray) -> np.ndarray:
  """Computes the log-density of latents `[B, L]` under a class, `[B]`."""
  of_components = []
  for weight, mean, spread, basis in zip(own.weights, own.means, variances, directions, strict=True):
    along = (latents - mean) @ basis
    terms = (np.square(along) / spread).sum(axis=1) + np.log(2 * np.pi * spread).sum()
    of_components.append(np.log(weight) - terms / 2)
  return logsumexp(of_components, axis=0)


def _mixture(
  fitted: Sequence[Fitted],
  images: np.ndarray,
  choice: Choice,
  pooled: np.ndarray,
  settings: MixtureSettings,
  width: int,
) -> Mixture:
  """Puts all classes into arrays; what a class has not is a copy of its first component with weight 0."""
  with np.errstate(divide="ignore"):
    log_shares = np.log(images / images.sum())
  rows = list(_rows(fitted, choice, pooled, settings, width))
  stacked = (np.stack(parts).astype(np.float32) for parts in zip(*rows, strict=True))
  return Mixture(log_shares.astype(np.float32), *stacked)


def _rows(
  fitted: Sequence[Fitted], choice: Choice, pooled: np.ndarray, settings: MixtureSettings, width: int
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
  for own in fitted:
    variances, directions = _spectra(own.shrunk(choice.shrinkage, choice.pooling, pooled), settings)
    missing = width - len(own.weights)
    padded = lambda array, missing=missing: np.concatenate([array, np.repeat(array[:1], missing, axis=0)])
    log_weights = np.concatenate([np.log(own.weights), np.full(missing, -np.inf)])
    yield log_weights, padded(own.means), padded(directions), padded(variances)
