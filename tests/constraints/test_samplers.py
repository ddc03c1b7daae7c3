import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct
from scipy import optimize as scipy_optimize

from lcgen.constraints import algebra, mixture, samplers
from lcgen.constraints.settings import Actor, EditSettings, Flow, Langevin, Mixture, Optimize, Refine, SampleSettings
from lcgen.generator import base

KEY = jax.random.key(0)
CENTRE = np.array([1.0, -2.0, 0.5])
LATENTS = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
ENDS = np.random.default_rng(1).normal(size=(2, 20, 16)).astype(np.float32)


@struct.dataclass
class Bowl(algebra.Constraint):
  """Quadratic about a centre; the actor goes half the way."""

  centre: jax.Array
  curvature: jax.Array

  def energy(self, latents):
    return (self.curvature[None] * jnp.square(latents - self.centre[None])).sum(axis=-1) / 2

  def holds(self, latents):
    return latents[:, 0] > 0

  def propose(self, latents):
    return (latents + self.centre[None]) / 2


def bowl(*curvature, centre=CENTRE):
  return Bowl(jnp.asarray(centre, jnp.float32), jnp.asarray(curvature, jnp.float32))


def adam(slope, z, steps, rate, decay1=0.9, decay2=0.999):
  """Kingma & Ba 2015, algorithm 1."""
  first = second = 0.0
  for step in range(1, steps + 1):
    gradient = slope(z)
    first = decay1 * first + (1 - decay1) * gradient
    second = decay2 * second + (1 - decay2) * gradient**2
    z = z - rate * first / (1 - decay1**step) / (np.sqrt(second / (1 - decay2**step)) + 1e-8)
  return z


def test_distance_is_the_root_mean_square_over_latents():
  expected = np.linalg.norm(LATENTS - CENTRE, axis=1) / np.sqrt(3)
  np.testing.assert_allclose(samplers.Moved(LATENTS, np.float32(CENTRE)[None]).distance, expected, rtol=1e-6)


def test_the_actor_proposes_once():
  moved = samplers.actor(None, bowl(1, 1, 1), LATENTS, Actor())
  np.testing.assert_allclose(moved.latents, (LATENTS + CENTRE) / 2, rtol=1e-6)


def test_optimize_is_adam_down_the_energy():
  curvature = np.array([1.0, 4.0, 0.3])
  expected = adam(lambda z: curvature * (z - CENTRE), LATENTS.astype(np.float64), 7, 0.2)
  moved = samplers.optimize(None, bowl(*curvature), LATENTS, Optimize(7, 0.2))
  np.testing.assert_allclose(moved.latents, expected, rtol=1e-4, atol=1e-5)
  far = samplers.optimize(KEY, bowl(*curvature), LATENTS, Optimize(600, 0.05))
  np.testing.assert_allclose(far.latents, np.tile(CENTRE, (6, 1)), atol=1e-3)


langevin = jax.jit(samplers.langevin, static_argnames="settings")


def test_langevin_without_noise_is_gradient_descent():
  curvature, z = np.array([1.0, 4.0, 0.3]), LATENTS.astype(np.float64)
  for steps in (1, 2, 3):
    z = z - 0.15 * curvature * (z - CENTRE)
    moved = langevin(KEY, bowl(*curvature), LATENTS, settings=Langevin(steps, 0.15, 0.0))
    np.testing.assert_allclose(moved.latents, z, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("steps", [2, 7, 200])
def test_langevins_noise_falls_from_step_to_step(steps):
  step, noise, curvature = 0.05, 0.2, np.array([0.0, 1.0, 9.0])
  start = jnp.zeros((20_000, 3))
  constraint = bowl(*curvature, centre=np.zeros(3))
  moved = np.asarray(langevin(KEY, constraint, start, settings=Langevin(steps, step, noise)).latents, np.float64)
  variance = np.zeros(3)
  for scale in np.linspace(noise, 0, steps):
    variance = (1 - step * curvature) ** 2 * variance + scale**2
  np.testing.assert_allclose(moved.var(axis=0), variance, rtol=0.05)  # five standard errors
  np.testing.assert_allclose(moved.mean(axis=0) / np.sqrt(variance), 0, atol=5 / np.sqrt(20_000))


def test_langevins_only_step_has_no_noise():
  moved = langevin(KEY, bowl(0, 0, 0), LATENTS, settings=Langevin(1, 0.1, 0.2))
  np.testing.assert_array_equal(moved.latents, LATENTS)


SEEN = []  # all latents that a watched constraint was asked about


@struct.dataclass
class Watched(algebra.Constraint):
  """Accepts by the first latent; the energy is the second, independent of it; the actor negates."""

  bound: float

  def energy(self, latents):
    return latents[:, 1]

  def holds(self, latents):
    jax.debug.callback(lambda z: SEEN.append(np.array(z)), latents, ordered=True)
    return latents[:, 0] > self.bound

  def propose(self, latents):
    return -latents


prior = functools.partial(base.prior, latent_dim=3)
refine = jax.jit(functools.partial(samplers.refine, KEY, prior=prior), static_argnames="settings")


def refined(bound, rounds, step_size=0.0, noise=0.0):
  """Returns what is kept of 400 latents, their first draws, and all attempts, `[rounds, 400, 3]`."""
  SEEN.clear()
  latents = prior(jax.random.key(7), 400)
  kept = refine(Watched(bound), latents, settings=Refine(2, step_size, noise, rounds))
  jax.effects_barrier()
  return jax.tree.map(np.asarray, kept), np.asarray(latents), np.stack(SEEN)


@pytest.mark.parametrize("bound", [0.5, 2.0, 1e9])
def test_refine_keeps_the_first_accepted_attempt_or_the_one_of_least_energy(bound):
  kept, latents, attempts = refined(bound, 8)
  assert len(attempts) == 8
  accepted = attempts[..., 0] > bound  # [rounds, 400]
  chosen = np.where(accepted.any(axis=0), accepted.argmax(axis=0), attempts[..., 1].argmin(axis=0))
  assert set(chosen) == set(range(8))
  np.testing.assert_array_equal(kept.latents, attempts[chosen, np.arange(400)])
  np.testing.assert_array_equal(kept.latents, -kept.start)  # the start of the attempt that is kept
  np.testing.assert_array_equal(attempts[0], -latents)


def test_refine_draws_again_from_the_prior():
  again = refined(1e9, 12)[2][1:]
  assert len(np.unique(again)) > 0.99 * again.size
  np.testing.assert_allclose(again.mean(axis=(0, 1)), 0, atol=5 / np.sqrt(11 * 400))
  np.testing.assert_allclose(again.std(axis=(0, 1)), 1, atol=5 / np.sqrt(2 * 11 * 400))


def test_refine_with_one_round_never_draws_again():
  kept, latents, attempts = refined(0.0, 1)
  assert len(attempts) == 1
  np.testing.assert_array_equal(kept.start, latents)
  first = kept.latents[:, 0] > 0
  more = refined(0.0, 30)[0].latents
  np.testing.assert_array_equal(more[first], kept.latents[first])
  assert np.all(more[:, 0] > 0)


def test_refine_stops_when_all_are_accepted():
  assert len(refined(-1e9, 50)[2]) == 1
  attempts = refined(0.0, 1000)[2]
  until = np.argmax(np.logical_or.accumulate(attempts[..., 0] > 0).all(axis=1)) + 1
  assert len(attempts) == until < 50


def test_refine_takes_langevin_steps_from_the_proposals():
  kept, latents, _ = refined(-1e9, 1, step_size=0.25)
  lowered = -latents - np.array([0, 0.5, 0])  # by two steps
  np.testing.assert_allclose(kept.latents, lowered, rtol=1e-5, atol=1e-6)
  noise = refined(-1e9, 1, step_size=0.25, noise=0.3)[0].latents - lowered
  np.testing.assert_allclose(noise.var(), 0.3**2, rtol=5 * np.sqrt(2 / noise.size))  # of the first of the two steps


SETTINGS = SampleSettings(
  optimize=Optimize(3, 0.1),
  langevin=Langevin(3, 0.1, 0.1),
  refine=Refine(3, 0.1, 0.1, rounds=1),
  mixture=Mixture(rounds=1),
  flow=Flow(rounds=1),
)
NEAR = mixture.Mixture(  # two components about the centre of the bowls
  jnp.zeros(1),
  jnp.log(jnp.full((1, 2), 0.5)),
  jnp.asarray(CENTRE, jnp.float32) + jnp.array([[[0.1], [-0.1]]]),
  jnp.eye(3)[None, None].repeat(2, 1),
  jnp.full((1, 2, 3), 0.01),
)


@pytest.mark.parametrize("name", samplers.names())
def test_methods_are_called_alike_and_compile(name):
  constraint = algebra.Drawable(bowl(1, 1, 1) & 2.0 * bowl(1, 2, 3), NEAR)
  way = jax.jit(samplers.bind(SETTINGS, prior)[name])
  moved, again, other = (way(jax.random.key(seed), constraint, LATENTS) for seed in (0, 0, 1))
  np.testing.assert_array_equal(moved.latents, again.latents)
  assert np.all(moved.latents == other.latents) == (name in ("actor", "optimize", "flow"))
  np.testing.assert_array_equal(moved.start, LATENTS)
  assert np.all(constraint.energy(moved.latents) < constraint.energy(moved.start))


@pytest.mark.parametrize("name", ["mixture", "flow"])
def test_samplers_of_the_mixture_draw_again_for_what_critics_refuse(name):
  """The mixture has a component where the constraint holds and one where it does not."""
  held = NEAR.replace(means=jnp.asarray(CENTRE, jnp.float32)[None, None] + jnp.array([[[0.0], [-9.0]]]))
  constraint = algebra.Drawable(bowl(0, 0, 0), held)

  def drawn(rounds):
    settings = dataclasses.replace(SETTINGS, **{name: dataclasses.replace(getattr(SETTINGS, name), rounds=rounds)})
    moved = samplers.bind(settings, prior)[name](jax.random.key(0), constraint, LATENTS)
    return moved, np.asarray(constraint.holds(moved.latents))

  (first, accepted), (again, later) = drawn(1), drawn(12)
  assert 0 < accepted.mean() < 0.9
  assert later.all()
  np.testing.assert_array_equal(again.latents[accepted], first.latents[accepted])
  np.testing.assert_array_equal(again.start[accepted], LATENTS[accepted])
  assert not (again.start[~accepted] == LATENTS[~accepted]).all()


SCALE = np.float32([0.5, 1.0, 2.0])
edit = jax.jit(samplers.edit, static_argnames="settings")
ADAM = EditSettings(steps=800, learning_rate=0.03)


def edited(weight):
  return edit(bowl(1, 1, 1), LATENTS, SCALE, settings=ADAM, distance_weight=weight)


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_edit_finds_the_least_energy_plus_distance(weight):
  """Each latent on its own, as both terms are sums over them; convex at these weights."""

  def objective(z, start, centre, scale):
    return (z - centre) ** 2 / 2 + weight / 3 * np.log1p((z - start) ** 2) / scale**2

  moved = np.asarray(edited(weight).latents)
  for row, column in np.ndindex(*LATENTS.shape):
    terms = LATENTS[row, column], CENTRE[column], SCALE[column]
    least = scipy_optimize.minimize_scalar(objective, args=terms).x
    np.testing.assert_allclose(moved[row, column], least, atol=2e-3)


def test_the_weight_of_edits_is_by_default_that_of_the_settings():
  by_settings = edit(bowl(1, 1, 1), LATENTS, SCALE, settings=dataclasses.replace(ADAM, distance_weight=0.3))
  np.testing.assert_allclose(by_settings.latents, edited(0.3).latents, rtol=1e-5, atol=1e-6)


def test_edit_stays_closer_the_more_distance_costs():
  distances = np.stack([edited(weight).distance for weight in (0.0, 0.1, 0.5, 2.0, 10.0, 1e4)])
  np.testing.assert_allclose(distances[0], np.linalg.norm(LATENTS - CENTRE, axis=1) / np.sqrt(3), atol=2e-3)
  assert np.all(np.diff(distances, axis=0) < 0)
  assert np.all(distances[-1] < 0.01)
  together = edited(jnp.asarray([0.0, 0.1, 0.5, 2.0, 10.0, 1e4]))  # a weight for each latent
  np.testing.assert_array_equal(together.start, LATENTS)
  np.testing.assert_allclose(together.distance, distances.diagonal(), atol=1e-5)


def interpolated(a, b, count):
  return np.asarray(samplers.interpolate(jnp.asarray(a), jnp.asarray(b), count), np.float64)


def test_interpolation_is_along_the_great_circle():
  a, b = ENDS
  between = interpolated(a, b, 9)
  np.testing.assert_allclose(between[:, [0, -1]], np.stack([a, b], axis=1), atol=1e-6)
  lengths = np.linalg.norm(between, axis=-1)
  np.testing.assert_allclose(lengths, np.linspace(lengths[:, 0], lengths[:, -1], 9, axis=1), rtol=1e-5)
  units = between / lengths[..., None]
  steps = np.arccos((units[:, 1:] * units[:, :-1]).sum(axis=-1))
  whole = np.arccos((units[:, 0] * units[:, -1]).sum(axis=-1, keepdims=True))
  np.testing.assert_allclose(steps, np.tile(whole / 8, 8), rtol=1e-4)  # they add up: all are in one plane
  np.testing.assert_allclose(interpolated(a, b, 2), between[:, [0, -1]], atol=1e-6)


@pytest.mark.parametrize("factor", [1.0, 2.5, 1e-3, 0.0, -1.0, -2.0])
def test_interpolation_of_parallel_latents_is_finite_and_a_straight_line(factor):
  a = ENDS[0]
  between = interpolated(a, np.float32(factor) * a, 9)
  assert np.isfinite(between).all()
  np.testing.assert_allclose(between[:, [0, -1]], np.stack([a, factor * a], axis=1), atol=1e-5)
  if factor > 0:  # zero and opposite directions leave the way open
    shares = np.linspace(0, 1, 9)[None, :, None]
    np.testing.assert_allclose(between, (1 - shares + shares * factor) * a[:, None], atol=2e-3)
  np.testing.assert_array_equal(interpolated(0 * a, 0 * a, 9), np.zeros((20, 9, 16)))
