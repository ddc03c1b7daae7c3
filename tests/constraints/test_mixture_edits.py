"""Edits along the flow of the mixture and by the optimal-transport map."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from lcgen.constraints import algebra, mixture_map, samplers
from lcgen.constraints.mixture_flow import flow
from lcgen.constraints.settings import EditSettings
from lcgen.runtime import errors
from tests.constraints.test_mixture_flow import CLASSES, DRAWS, LABELS, LATENTS, Above, random_mixture

MIXTURE = random_mixture()
A, B, C = (algebra.Learnt(None, None, {}, {}, jnp.eye(CLASSES)[k]) for k in range(CLASSES))


@pytest.fixture(scope="module")
def latents():
  """Samples of all classes, and the class that is most probable for each."""
  found = MIXTURE.sample(jax.random.key(3), LABELS, DRAWS)
  return found, np.asarray((MIXTURE.log_density(found) + MIXTURE.log_shares).argmax(axis=1))


def edit(constraint, start, method):
  settings = EditSettings(method=method, flow_steps=40)
  return samplers.edit(algebra.Drawable(constraint, MIXTURE), start, jnp.ones(LATENTS), settings)


def test_the_map_is_the_one_of_gelbrich(latents):
  start, own = latents
  wanted = (own + 1) % CLASSES
  found = jax.jit(mixture_map.transport)(MIXTURE, start, own, wanted)
  means, covariances = (np.asarray(part, np.float64) for part in mixture_map.moments(MIXTURE))
  for z, moved, a, b in zip(np.asarray(start, np.float64), found, own, wanted, strict=True):
    root = scipy.linalg.sqrtm(covariances[a]).real
    inverse = np.linalg.inv(root)
    matrix = inverse @ scipy.linalg.sqrtm(root @ covariances[b] @ root).real @ inverse
    np.testing.assert_allclose(matrix @ covariances[a] @ matrix, covariances[b], atol=1e-5)
    np.testing.assert_allclose(moved, means[b] + matrix @ (z - means[a]), atol=2e-3)
  np.testing.assert_array_equal(mixture_map.transport(MIXTURE, start, own, own), start)


def test_the_moments_are_those_of_samples():
  means, covariances = mixture_map.moments(MIXTURE)
  draws = jax.random.normal(jax.random.key(0), (40_000, LATENTS))
  for label in range(CLASSES):
    drawn = np.asarray(MIXTURE.sample(jax.random.key(1), jnp.full(40_000, label), draws))
    np.testing.assert_allclose(drawn.mean(axis=0), means[label], atol=0.03)
    np.testing.assert_allclose(np.cov(drawn.T), covariances[label], atol=0.06)


def test_an_edit_by_the_flow_keeps_the_draw_of_its_image(latents):
  start, own = latents
  moved = edit(B, start, "flow")
  np.testing.assert_array_equal(moved.start, start)
  noise = flow(MIXTURE, own, 40).backward(start)
  np.testing.assert_allclose(moved.latents, flow(MIXTURE, np.ones(60, int), 40).forward(noise), atol=1e-4)
  resting = own == 1
  assert 10 < resting.sum() < 60
  assert np.asarray(moved.distance)[resting].max() < 0.05 < np.asarray(moved.distance)[~resting].mean()


@pytest.mark.parametrize("method", ["flow", "map"])
def test_an_edit_goes_to_the_most_probable_class_that_is_allowed(latents, method):
  start, _ = latents
  log_density = np.asarray(MIXTURE.log_density(start))
  wanted = np.where(log_density[:, 0] > log_density[:, 2], 0, 2)
  each = algebra.Learnt(None, None, {}, {}, jnp.eye(CLASSES)[wanted])
  np.testing.assert_allclose(edit(A | C, start, method).latents, edit(each, start, method).latents, atol=1e-5)
  away = edit(~B, start, method)
  np.testing.assert_allclose(away.latents, edit(A | C, start, method).latents, atol=1e-5)


def test_a_rule_guides_the_flow_and_the_map_refuses_it(latents):
  start, _ = latents
  moved = edit(Above(), start, "flow")
  assert Above().energy(moved.latents).mean() < Above().energy(start).mean()
  with pytest.raises(errors.InputError, match=r"edit\.method=map: .* rule"):
    edit(A & Above(), start, "map")
  with pytest.raises(errors.InputError, match="has no mixture"):
    samplers.edit(A, start, jnp.ones(LATENTS), EditSettings(method="map"))
