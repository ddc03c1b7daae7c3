"""Probabilistic principal components against NumPy in float64 (Tipping and Bishop 1999)."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lcgen.api import build
from lcgen.generator import generators
from lcgen.generator.pca import Components
from lcgen.generator.settings import PCASettings
from lcgen.runtime import errors
from lcgen.studies import inspection
from lcgen.training.context import Compute
from tests.support.helpers import FACTS, config_of, context_of

SHAPE, LATENTS = (6, 5, 1), 4
PIXELS = 30
NOISE = 0.08  # standard deviation of the left-out noise, in model space


def images_of(count, seed=0):
  """Grey uint8 images of a linear model with `LATENTS` latents; none is clipped."""
  directions = np.linalg.qr(np.random.default_rng(7).normal(size=(PIXELS, LATENTS)))[0] * [0.7, 0.55, 0.4, 0.3]
  rng = np.random.default_rng(seed)
  flat = rng.normal(size=(count, LATENTS)) @ directions.T + NOISE * rng.normal(size=(count, PIXELS)) + 0.1
  stored = np.rint(255 * (0.25 * flat + 0.5))
  assert 0 <= stored.min() < stored.max() <= 255
  return stored.astype(np.uint8).reshape(-1, *SHAPE)


def in_model_space(images):
  return ((images / 255 - 0.5) / 0.25).reshape(len(images), -1)


def pca(latent_dim=LATENTS, shape=SHAPE):
  return generators.build("pca", PCASettings(latent_dim), shape, Compute("matmul", jnp.float32))


def weights_of(variables):
  """W, `[D, L]`, in float64."""
  values = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), variables)
  return values.directions.T * np.sqrt(values.variances - values.noise)


@pytest.fixture(scope="module", params=[400, 20], ids=["more images than pixels", "fewer"])
def fitted(request):
  """The generator, its variables, its training images in model space, and the reference's mean, W and sigma^2."""
  images = images_of(request.param)
  model, flat = pca(), in_model_space(images)
  variables = model.fit(images)
  values, vectors = np.linalg.eigh(np.cov(flat.T, bias=True))
  values, vectors = values[::-1], vectors[:, ::-1]
  noise = values[LATENTS:].mean()  # over all left-out directions, those without any variance too
  vectors = vectors[:, :LATENTS] * np.sign((vectors[:, :LATENTS].T * np.asarray(variables.directions)).sum(axis=1))
  weights = vectors * np.sqrt(values[:LATENTS] - noise)
  return model, variables, flat, (flat.mean(axis=0), weights, noise)


def test_components_are_those_of_the_covariance(fitted):
  _, variables, flat, (mean, weights, noise) = fitted
  assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {np.dtype("float32")}
  np.testing.assert_allclose(variables.mean, mean, atol=1e-6)
  np.testing.assert_allclose(variables.directions @ variables.directions.T, np.eye(LATENTS), atol=1e-5)
  np.testing.assert_allclose(variables.noise, noise, rtol=1e-4)
  np.testing.assert_allclose(weights_of(variables), weights, rtol=1e-3, atol=1e-4)
  total = variables.variances.sum() + (PIXELS - LATENTS) * variables.noise  # the trace of W W^T + sigma^2 I
  np.testing.assert_allclose(total, flat.var(axis=0).sum(), rtol=1e-5)


def test_the_posterior_is_that_of_the_textbook(fitted):
  model, variables, flat, (mean, weights, noise) = fitted
  posterior = model.encode(variables, jnp.asarray(flat, jnp.float32).reshape(-1, *SHAPE))
  matrix = weights.T @ weights + noise * np.eye(LATENTS)  # M
  expected = np.linalg.solve(matrix, weights.T @ (flat - mean).T).T
  np.testing.assert_allclose(posterior.mean, expected, rtol=1e-3, atol=1e-4)
  covariance = noise * np.linalg.inv(matrix)
  np.testing.assert_allclose(covariance, np.diag(np.diag(covariance)), atol=1e-9)  # so that q may be diagonal
  np.testing.assert_allclose(np.exp(posterior.logvar), np.tile(np.diag(covariance), (len(flat), 1)), rtol=1e-3)
  # Over the data the aggregate of q(z|x) is the prior.
  aggregate = np.cov(np.asarray(posterior.mean).T, bias=True) + np.diag(np.exp(posterior.logvar[0]))
  np.testing.assert_allclose(aggregate, np.eye(LATENTS), atol=1e-3)


def test_reconstructions_are_projections_shrunk_towards_the_mean(fitted):
  model, variables, flat, (mean, weights, noise) = fitted
  images = jnp.asarray(flat, jnp.float32).reshape(-1, *SHAPE)
  decoded = np.asarray(model.decode(variables, model.encode(variables, images).mean)).reshape(len(flat), -1)
  matrix = weights.T @ weights + noise * np.eye(LATENTS)
  np.testing.assert_allclose(
    decoded - mean, (flat - mean) @ (weights @ np.linalg.solve(matrix, weights.T)).T, atol=1e-4
  )
  shares = 1 - noise / (np.square(weights).sum(axis=0) + noise)  # by direction: 1 - sigma^2 / variance
  directions = weights / np.linalg.norm(weights, axis=0)
  np.testing.assert_allclose((decoded - mean) @ directions, shares * ((flat - mean) @ directions), atol=1e-4)


def test_held_out_images_err_by_the_variance_that_is_left_out():
  model, held_out = pca(), in_model_space(images_of(3000, seed=1))
  variables = model.fit(images_of(6000))
  latents = model.encode(variables, jnp.asarray(held_out, jnp.float32).reshape(-1, *SHAPE)).mean
  decoded = np.asarray(model.decode(variables, latents)).reshape(held_out.shape)
  noise, variances = (np.asarray(part, np.float64) for part in (variables.noise, variables.variances))
  np.testing.assert_allclose(noise, NOISE**2, rtol=0.02)
  left_out = (PIXELS - LATENTS) * noise + (noise**2 / variances).sum()  # the second: by the shrinking
  # 5 standard errors: 26 directions x 3,000 images of chi^2.
  np.testing.assert_allclose(np.square(held_out - decoded).sum(axis=1).mean(), left_out, rtol=0.025)


def test_draws_of_the_prior_have_the_covariance_of_the_model():
  model = pca()
  variables = model.fit(images_of(2000))
  decoded = np.asarray(model.decode(variables, model.prior(jax.random.key(0), 50_000))).reshape(-1, PIXELS)
  weights = weights_of(variables)
  np.testing.assert_allclose(decoded.mean(axis=0), variables.mean, atol=0.02)
  np.testing.assert_allclose(np.cov(decoded.T), weights @ weights.T, atol=0.02)


def test_decoded_images_stay_in_range():
  model = pca()
  variables = model.fit(images_of(100))
  decoded = model.decode(variables, 1e4 * model.prior(jax.random.key(0), 50))
  assert decoded.shape == (50, *SHAPE)
  assert decoded.min() == -model.output_limit
  assert decoded.max() == model.output_limit


def test_untrained_variables_have_the_shapes_of_the_fitted_ones():
  model = pca()
  first, found = jax.eval_shape(model.init, jax.random.key(0)), model.fit(images_of(50))
  assert isinstance(found, Components)
  shapes = lambda tree: jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tree)
  assert shapes(first) == shapes(found)


def finite_reconstructions(model, images):
  variables = model.fit(images)
  posterior = model.encode(variables, jnp.asarray(in_model_space(images), jnp.float32).reshape(-1, *model.image_shape))
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((variables, posterior)))
  return np.asarray(model.decode(variables, posterior.mean)).reshape(len(images), -1)


def test_images_that_are_all_the_same_are_decoded_as_they_are():
  images = np.tile(images_of(1), (10, 1, 1, 1))
  np.testing.assert_allclose(finite_reconstructions(pca(), images), in_model_space(images), atol=1e-5)


@pytest.mark.parametrize(("latents", "count"), [(PIXELS, 100), (10, 10)])
def test_as_many_latents_as_pixels_or_images_leave_nothing_out(latents, count):
  images = images_of(count)
  np.testing.assert_allclose(finite_reconstructions(pca(latents), images), in_model_space(images), atol=2e-3)


def test_more_latents_than_pixels_are_refused_in_a_sentence():
  words = r"^config\.pca\.latent_dim=31: must be at most 30, the number of values in an image of shape \[6, 5, 1\]$"
  with pytest.raises(errors.InputError, match=words):
    pca(31)


def test_more_latents_than_images_are_refused_in_a_sentence():
  words = r"^config\.pca\.latent_dim=11: must be at most 10, the number of training images$"
  config = config_of("smoke", generator="pca", pca__latent_dim=11)
  with pytest.raises(errors.InputError, match=words):
    pca(11).fit(images_of(10))
  facts = dataclasses.replace(FACTS, train=10)
  with pytest.raises(errors.InputError, match=words):  # before the run begins
    inspection.state_bytes(context_of(config, facts), build.sections(config))
