"""The flow of a mixture: its velocity against the score of the density, its ends, its way back, and guidance."""

import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lcgen.constraints import algebra, samplers
from lcgen.constraints.mixture import Mixture
from lcgen.constraints.mixture_flow import flow
from lcgen.constraints.settings import Flow
from lcgen.generator import base

CLASSES, COMPONENTS, LATENTS = 3, 3, 4


def random_mixture(dtype=np.float32):
  rng = np.random.default_rng(0)
  roots = 0.4 * rng.normal(size=(CLASSES, COMPONENTS, LATENTS, LATENTS))
  variances, directions = np.linalg.eigh(roots @ np.swapaxes(roots, -1, -2) + 0.05 * np.eye(LATENTS))
  weights = rng.dirichlet(np.ones(COMPONENTS), CLASSES)
  weights[1] = 0.25, 0.75, 0
  means = rng.normal(size=(CLASSES, COMPONENTS, LATENTS))
  with np.errstate(divide="ignore"):
    parts = np.log(np.ones(CLASSES) / CLASSES), np.log(weights), means, directions, variances
  return Mixture(*(jnp.asarray(part, dtype) for part in parts))


def at_time(mixture, time):
  """The mixture of x = a z0 + b z1."""
  a, b = np.cos(np.pi / 2 * time), np.sin(np.pi / 2 * time)
  return mixture.replace(means=b * mixture.means, variances=a**2 + b**2 * mixture.variances)


@pytest.fixture(scope="module")
def mixture():
  return random_mixture()


LABELS = np.arange(60) % CLASSES
PRIOR = functools.partial(base.prior, latent_dim=LATENTS)
DRAWS = np.random.default_rng(1).normal(size=(60, LATENTS)).astype(np.float32)


@pytest.mark.parametrize("time", [0.1, 0.5, 0.9])
def test_the_velocity_follows_from_the_score_of_the_density(time):
  """E[z0 | x] = -a score (Tweedie's formula), and x = a z0 + b z1 gives E[z1 | x]; in float64."""
  with jax.enable_x64(True):
    mixture, x = random_mixture(np.float64), jnp.asarray(DRAWS, jnp.float64)
    own = lambda x: at_time(mixture, time).log_density(x)[jnp.arange(len(x)), LABELS].sum()
    score = jax.grad(own)(x)
    a, b = np.cos(np.pi / 2 * time), np.sin(np.pi / 2 * time)
    start = -a * score
    end = (x - a * start) / b
    velocity = flow(mixture, LABELS, 1).velocity(x, time)
    np.testing.assert_allclose(velocity, np.pi / 2 * (a * end - b * start), rtol=1e-9, atol=1e-9)


def test_at_its_ends_the_velocity_points_from_and_to_what_is_known(mixture):
  """At t = 0 nothing is known of z1 but its mean; at t = 1 nothing of z0."""
  own = flow(mixture, LABELS, 1)
  means = jnp.einsum("kc,kcl->kl", jnp.exp(mixture.log_weights), mixture.means)
  np.testing.assert_allclose(own.velocity(DRAWS, 0.0), np.pi / 2 * means[LABELS], rtol=1e-4, atol=1e-4)
  np.testing.assert_allclose(own.velocity(DRAWS, 1.0), 0, atol=1e-4)


def test_it_takes_noise_to_the_class_and_back(mixture):
  count = 6000
  draws = jax.random.normal(jax.random.key(0), (count, LATENTS))
  forth = jax.jit(lambda draws, labels: flow(mixture, labels, 40).forward(draws))
  back = jax.jit(lambda latents, labels: flow(mixture, labels, 40).backward(latents))
  sample = jax.jit(mixture.sample)
  for label in range(CLASSES):
    labels = jnp.full(count, label)
    found = forth(draws, labels)
    expected = sample(jax.random.key(1), labels, jax.random.normal(jax.random.key(2), (count, LATENTS)))
    spread = np.asarray(expected).std()
    np.testing.assert_allclose(found.mean(axis=0), expected.mean(axis=0), atol=7 * spread / np.sqrt(count))
    np.testing.assert_allclose(np.cov(found.T), np.cov(expected.T), atol=14 * spread**2 / np.sqrt(count))
    assert np.sqrt(np.square(back(found, labels) - draws).mean()) < 0.02


def test_few_steps_come_near_many(mixture):
  few, many = (flow(mixture, LABELS, steps).forward(DRAWS) for steps in (10, 80))
  assert np.sqrt(np.square(few - many).mean()) < 0.1
  assert np.sqrt(np.square(flow(mixture, LABELS, 20).forward(DRAWS) - many).mean()) < 0.03


class Above(algebra.Constraint):
  """A rule of one's own: the first latent is large."""

  def energy(self, latents):
    return jax.nn.softplus(4 * (1.5 - latents[:, 0]))

  def holds(self, latents):
    return latents[:, 0] > 1.5


def test_guidance_moves_samples_to_where_the_energy_is_low(mixture):
  energy = Above().energy
  ends = [flow(mixture, LABELS, 20, energy, weight).forward(DRAWS) for weight in (0.0, 0.5, 2.0)]
  np.testing.assert_allclose(ends[0], flow(mixture, LABELS, 20).forward(DRAWS), atol=1e-5)
  means = [float(energy(end).mean()) for end in ends]
  assert means[0] > means[1] > means[2]
  back = flow(mixture, LABELS, 20, energy, 2.0).backward(ends[0])
  np.testing.assert_allclose(back, flow(mixture, LABELS, 20).backward(ends[0]), atol=1e-5)


def test_the_sampler_guides_by_what_classes_do_not_hold(mixture):
  critic = types.SimpleNamespace(apply=lambda variables, z, condition: jnp.zeros(len(z)))
  label = algebra.Learnt(critic, None, {}, {}, jnp.eye(CLASSES)[1])
  draw = functools.partial(samplers.flow, jax.random.key(0), latents=DRAWS, prior=PRIOR)
  plain = draw(algebra.Drawable(label, mixture), settings=Flow(steps=20, rounds=1))
  np.testing.assert_allclose(plain.latents, flow(mixture, np.ones(60, int), 20).forward(DRAWS), atol=1e-5)
  np.testing.assert_array_equal(plain.start, DRAWS)
  wish = algebra.Drawable(label & Above(), mixture)
  guided = draw(wish, settings=Flow(steps=20, guidance=2.0, rounds=1))
  expected = flow(mixture, np.ones(60, int), 20, Above().energy, 2.0).forward(DRAWS)
  np.testing.assert_allclose(guided.latents, expected, atol=1e-5)
  assert guided.latents[:, 0].mean() > plain.latents[:, 0].mean() + 0.2
