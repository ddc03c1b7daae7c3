"""The mixture of each class against SciPy and NumPy, and its fit."""

import dataclasses
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from scipy.special import logsumexp

from lcgen.constraints import mixture_fit
from lcgen.constraints.mixture import Mixture
from lcgen.constraints.settings import MixtureSettings

SETTINGS = MixtureSettings(components=(1, 2), iterations=30)


def covariances(rng, *shape, latents=5, scale=0.3):
  roots = rng.normal(size=(*shape, latents, latents)) * scale
  return roots @ np.swapaxes(roots, -1, -2) + 0.05 * np.eye(latents)


def known(classes=3, components=2, latents=5):
  """A mixture of random components, the last of the last class without weight, and its parts in float64."""
  rng = np.random.default_rng(0)
  spread = covariances(rng, classes, components, latents=latents)
  means = rng.normal(size=(classes, components, latents))
  weights = rng.dirichlet(np.ones(components), classes)
  weights[-1] = np.eye(components)[0]
  shares = rng.dirichlet(np.ones(classes))
  variances, directions = np.linalg.eigh(spread)
  with np.errstate(divide="ignore"):
    parts = np.log(shares), np.log(weights), means, directions, variances
  return Mixture(*(jnp.asarray(part, jnp.float32) for part in parts)), (shares, weights, means, spread)


def scipy_log_density(latents, weights, means, spread):
  rows = [
    np.log(weight) + stats.multivariate_normal(mean, one).logpdf(latents)
    for weight, mean, one in zip(weights, means, spread, strict=True)
    if weight
  ]
  return logsumexp(rows, axis=0)


def test_the_log_density_is_scipys():
  mixture, (shares, *parts) = known()
  latents = np.random.default_rng(1).normal(size=(40, 5))
  expected = np.stack([scipy_log_density(latents, *of_class) for of_class in zip(*parts, strict=True)], axis=1)
  actual = jax.jit(Mixture.log_density)(mixture, jnp.float32(latents))
  np.testing.assert_allclose(actual, expected, rtol=2e-4, atol=2e-4)
  of_any = jax.jit(Mixture.log_density_of_any)(mixture, jnp.float32(latents))
  np.testing.assert_allclose(of_any, logsumexp(expected + np.log(shares), axis=1), rtol=2e-4, atol=2e-4)


def test_samples_have_the_density_of_their_class():
  mixture, (_, weights, means, spread) = known()
  count = 40_000
  sample = jax.jit(lambda key, draws, labels: mixture.sample(key, labels, draws))
  for label in range(3):
    key, draw_key = jax.random.split(jax.random.key(label))
    draws = jax.random.normal(draw_key, (count, 5))
    found = np.asarray(sample(key, draws, jnp.full(count, label)), np.float64)
    mean = weights[label] @ means[label]
    centred = means[label] - mean
    covariance = np.tensordot(weights[label], spread[label], 1) + (weights[label][:, None] * centred).T @ centred
    np.testing.assert_allclose(found.mean(axis=0), mean, atol=5 * np.sqrt(covariance.max() / count))
    np.testing.assert_allclose(np.cov(found.T), covariance, atol=8 * covariance.max() / np.sqrt(count))
    for way in np.random.default_rng(label).normal(size=(3, 5)):
      along, deviation = means[label] @ way, np.sqrt(np.einsum("i,cij,j->c", way, spread[label], way))
      distribution = lambda x, along=along, deviation=deviation, label=label: (
        weights[label] * stats.norm.cdf(x[:, None], along, deviation)
      ).sum(axis=1)
      assert stats.kstest(found[:4000] @ way, distribution).pvalue > 1e-3


def test_a_sample_moves_its_draw_to_the_component_by_the_nearest_linear_map():
  """One component: x = mean + Sigma^(1/2) z, with the symmetric root, whatever the key."""
  mixture, (_, _, means, spread) = known(components=1)
  draws = np.random.default_rng(2).normal(size=(7, 5)).astype(np.float32)
  found = mixture.sample(jax.random.key(0), jnp.full(7, 1), draws)
  values, vectors = np.linalg.eigh(spread[1, 0])
  expected = means[1, 0] + draws @ (vectors * np.sqrt(values)) @ vectors.T
  np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_labels_are_drawn_by_their_shares_among_those_allowed():
  mixture, (shares, *_) = known()
  count = 20_000
  drawn = np.asarray(mixture.draw_labels(jax.random.key(0), jnp.tile(jnp.array([1.0, 0, 1.0]), (count, 1))))
  assert set(drawn.tolist()) == {0, 2}
  expected = shares[0] / (shares[0] + shares[2])
  np.testing.assert_allclose((drawn == 0).mean(), expected, atol=5 * np.sqrt(0.25 / count))
  empty = mixture.replace(log_shares=jnp.array([-jnp.inf, 0.0, -jnp.inf]))  # classes without training images
  assert empty.draw_labels(jax.random.key(0), jnp.eye(3)).tolist() == [0, 1, 2]


def encodings(rng, classes, images, latents=6, spread=1.0, scale=0.2):
  """Encodings of `images` images a class, whose classes are two clusters each."""
  centres = 2 * rng.normal(size=(classes, 2, latents))
  roots = spread * rng.normal(size=(classes, latents, latents)) / np.sqrt(latents)
  labels = np.repeat(np.arange(classes), images)
  side = np.arange(len(labels)) % 2
  means = centres[labels, side] + np.einsum("nij,nj->ni", roots[labels], rng.normal(size=(len(labels), latents)))
  return mixture_fit.Encodings(means.astype(np.float32), np.full(means.shape, scale, np.float32), labels)


def halves(given):
  """Every other pair of images, for training and for validation."""
  pair = np.arange(len(given.labels)) // 2 % 2
  return given.take(np.flatnonzero(pair == 0)), given.take(np.flatnonzero(pair == 1))


def fit(train, validation, classes, settings=SETTINGS, seed=0):
  return mixture_fit.fit(train, validation, classes, settings, settings.components, seed)


def test_the_fit_finds_the_clusters_and_their_density():
  train, held = halves(encodings(np.random.default_rng(3), 2, 800))
  mixture, choice = fit(train, held, 2)
  assert choice.components == 2
  log_density = np.asarray(mixture.log_density(jnp.asarray(held.means)))
  assert (log_density.argmax(axis=1) == held.labels).mean() > 0.95
  own = log_density[np.arange(len(held.labels)), held.labels].mean()
  assert own > choice.score  # of means, and of draws about them
  np.testing.assert_allclose(np.exp(mixture.log_weights), 0.5, atol=0.1)
  np.testing.assert_allclose(np.exp(mixture.log_shares), 0.5, atol=1e-6)


def test_the_same_numbers_give_the_same_mixture():
  train, held = halves(encodings(np.random.default_rng(4), 3, 100))
  one, again, other = (fit(train, held, 3, seed=seed)[0] for seed in (0, 0, 1))
  for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(again), strict=True):
    np.testing.assert_array_equal(a, b)
  assert not np.array_equal(one.means, other.means)


def test_validation_images_choose_by_their_likelihood():
  """The choice is the best of all, when each is fitted alone and scored by the density that samplers have."""
  train, held = halves(encodings(np.random.default_rng(5), 3, 160))
  _, choice = fit(train, held, 3)
  scores = {}
  for count in (1, 2):
    for shrinkage in SETTINGS.shrinkages if count > 1 else (0.0,):
      for pooling in SETTINGS.poolings:
        one = dataclasses.replace(SETTINGS, components=(count,), shrinkages=(shrinkage,), poolings=(pooling,))
        alone, only = fit(train, held, 3, one)
        scores[count, shrinkage, pooling] = only.score
        draws = [held.take(np.flatnonzero(held.labels == k)).draws(4, 8000, 0, 3 + k) for k in range(3)]
        own = [np.asarray(alone.log_density(jnp.float32(latents)))[:, k] for k, latents in enumerate(draws)]
        np.testing.assert_allclose(only.score, np.concatenate(own).mean(), rtol=1e-3, atol=1e-3)
  assert (choice.components, choice.shrinkage, choice.pooling) == max(scores, key=scores.get)
  assert choice.score == max(scores.values())


@pytest.mark.parametrize("images", [1, 2, 5])
def test_few_images_lean_on_the_covariance_pooled_over_classes(images):
  """With fewer images than latents no direction has the least variance, which would be a class of copies."""
  given = encodings(np.random.default_rng(6), 8, images, latents=6, scale=0.1)
  mixture, choice = fit(given, given, 8)
  assert choice.components == 1
  assert np.isfinite(mixture.variances).all()
  assert np.asarray(mixture.variances).min() > 10 * SETTINGS.least_variance
  counts = np.bincount(given.labels)
  np.testing.assert_allclose(np.exp(mixture.log_shares), counts / counts.sum(), rtol=1e-5)
  if images == 1:  # nothing is known of covariances, so that they are the prior's
    np.testing.assert_allclose(mixture.variances, 1, rtol=1e-5)


def test_a_class_with_one_image_takes_the_covariance_of_the_others():
  many = encodings(np.random.default_rng(7), 2, 200)
  one = mixture_fit.Encodings(np.full((1, 6), 9, np.float32), np.full((1, 6), 0.2, np.float32), np.array([2]))
  join = lambda name: np.concatenate([getattr(many, name), getattr(one, name)])
  train = mixture_fit.Encodings(*map(join, ("means", "scales", "labels")))
  mixture, _ = fit(train, many, 4)
  np.testing.assert_allclose(mixture.means[2, 0], 9, atol=0.5)
  pooled = np.linalg.eigvalsh(mixture_fit._pooled([many.take(many.labels == k) for k in (0, 1)]))
  np.testing.assert_allclose(mixture.variances[2, 0], pooled, rtol=0.3)
  np.testing.assert_allclose(mixture.means[3], 0)  # a class without images
  assert np.exp(mixture.log_shares[3]) == 0
  assert all(np.isfinite(leaf).all() for leaf in (mixture.means, mixture.directions, mixture.variances))


def test_collinear_and_dead_latents_get_the_least_variance():
  rng = np.random.default_rng(8)
  given = encodings(rng, 2, 200, latents=4)
  means = np.concatenate([given.means, given.means[:, :1], np.zeros((400, 1))], axis=1)
  train, held = halves(mixture_fit.Encodings(means, np.zeros_like(means), given.labels))
  mixture, choice = fit(train, held, 2)
  variances = np.asarray(mixture.variances)
  assert np.isfinite(choice.score)
  assert (variances >= SETTINGS.least_variance * (1 - 1e-6)).all()
  assert ((variances < 3 * SETTINGS.least_variance).sum(axis=-1) == 2).all()
  drawn = np.asarray(mixture.sample(jax.random.key(0), jnp.zeros(500, int), rng.normal(size=(500, 6)).astype("f4")))
  assert np.abs(drawn[:, 5]).max() < 0.3
  np.testing.assert_allclose(drawn[:, 0], drawn[:, 4], atol=0.3)
  assert np.isfinite(mixture.log_density(jnp.asarray(drawn))).all()


def test_a_thousand_classes_are_fitted_quickly():
  given = encodings(np.random.default_rng(9), 1000, 6, latents=8)
  started = time.process_time()
  mixture, choice = fit(*halves(given), 1000)
  assert time.process_time() - started < 20
  assert choice.components == 1
  labels = np.arange(1000)
  drawn = mixture.sample(jax.random.key(0), labels, jax.random.normal(jax.random.key(1), (1000, 8)))
  nearest = np.square(np.asarray(drawn)[:, None] - mixture.means[None, :, 0]).sum(axis=-1).argmin(axis=1)
  assert (nearest == labels).mean() > 0.05  # chance: 0.001
