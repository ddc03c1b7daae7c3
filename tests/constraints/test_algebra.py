import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import struct

from lcgen.constraints import algebra
from lcgen.models import actor_critic


class Reads(nn.Module):
  """A critic whose logit of class k is latent k."""

  def __call__(self, latents, conditions):
    return (latents[:, : conditions.shape[1]] * conditions).sum(axis=-1)


class Steps(nn.Module):
  """An actor that doubles latents and adds the condition, so that the order of moves shows."""

  def __call__(self, latents, conditions):
    return 2 * latents + conditions


@struct.dataclass
class Bowl(algebra.Constraint):
  """A constraint of one's own: quadratic about a centre."""

  centre: jax.Array

  def energy(self, latents):
    return jnp.square(latents - self.centre[None]).sum(axis=-1)


def learnt(condition):
  return algebra.Learnt(Reads(), Steps(), {}, {}, jnp.asarray(condition, jnp.float32))


def networks(seed):
  """A critic and an actor, small, with weights large enough for logits of both signs."""
  rng = np.random.default_rng(seed)
  critic, actor = actor_critic.Critic(hidden_dim=8, depth=2), actor_critic.Actor(latent_dim=3, hidden_dim=8, depth=2)
  shapes = [jax.eval_shape(net.init, jax.random.key(0), jnp.ones((1, 3)), jnp.ones((1, 4))) for net in (critic, actor)]
  variables = [jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), leaf.dtype), tree) for tree in shapes]
  return algebra.Learnt(critic, actor, *variables, jnp.eye(4)[1])


A, B, C, D = (learnt(np.eye(4)[k]) for k in range(4))
ONE = learnt([1.0])  # a single condition: no other class
BORDERS = [  # at which logits a class counts as certain: log(0.95 / 0.05) = 2.944 above a single other
  [3.0, 0.06, -100, -100],
  [3.0, 0.05, -100, -100],
  [-1.0, -100, -100, -100],
  [0.001, -100, -100, -100],
  [-100.0, -100, -100, -100],
  [100.0, 100, 100, 100],
  [-100.0, 100, 0, 30],
]
LATENTS = np.concatenate([BORDERS, 6 * np.random.default_rng(0).normal(size=(60, 4))]).astype(np.float32)
DRAWN = LATENTS[len(BORDERS) :]
ENERGIES = np.logaddexp(0, -LATENTS.astype(np.float64))  # [B, 4], of each class
E0, E1, E2, _ = ENERGIES.T
CERTAINTY = np.exp(LATENTS - np.logaddexp.reduce(LATENTS.astype(np.float64), axis=1, keepdims=True))
ACCEPTED = (LATENTS > 0) & (CERTAINTY >= 0.95)  # [B, 4]
POSITIVE = LATENTS[:, 0] > 0

COMPOSITES = {  # name: constraint, energy, holds
  "a": (A, E0, ACCEPTED[:, 0]),
  "a & b & c": (A & B & C, E0 + E1 + E2, ACCEPTED[:, :3].all(1)),
  "a & (b & c)": (A & (B & C), E0 + E1 + E2, ACCEPTED[:, :3].all(1)),
  "a | b | c": (A | B | C, -np.logaddexp.reduce(-ENERGIES[:, :3], axis=1), ACCEPTED[:, :3].any(1)),
  "a | (b | c)": (A | (B | C), -np.logaddexp.reduce(-ENERGIES[:, :3], axis=1), ACCEPTED[:, :3].any(1)),
  "b & one": (B & ONE, E0 + E1, ACCEPTED[:, 1] & POSITIVE),
  "b & one | c": (B & ONE | C, -np.logaddexp(-E0 - E1, -E2), ACCEPTED[:, 1] & POSITIVE | ACCEPTED[:, 2]),
  "~c": (~C, -np.logaddexp.reduce(-ENERGIES[:, [0, 1, 3]], axis=1), ACCEPTED[:, [0, 1, 3]].any(1)),
  "3 a": (3 * A, 3 * E0, ACCEPTED[:, 0]),
  "~(3 (~one | ~one))": (~(3 * (~ONE | ~ONE)), 6 * E0, POSITIVE),
  "2 a | b": (2 * A | B, -np.logaddexp(-2 * E0, -E1), ACCEPTED[:, 0] | ACCEPTED[:, 1]),
  "~one": (~ONE, np.logaddexp(0, LATENTS[:, 0]), ~POSITIVE),
  "~~one": (~~ONE, E0, POSITIVE),
}
of_composites = pytest.mark.parametrize("name", COMPOSITES)


@of_composites
def test_energies_add_as_logarithms_of_probabilities_do(name):
  constraint, energy, _ = COMPOSITES[name]
  np.testing.assert_allclose(constraint.energy(LATENTS), energy, rtol=1e-5, atol=1e-6)


@of_composites
def test_constraints_hold_as_their_parts_do(name):
  constraint, _, holds = COMPOSITES[name]
  actual = constraint.holds(LATENTS)
  assert actual.dtype == bool
  np.testing.assert_array_equal(actual, holds)


@of_composites
def test_gradients_are_those_of_the_energies_and_finite_where_logits_are_large(name):
  constraint = COMPOSITES[name][0]
  gradient = jax.grad(lambda z: constraint.energy(z).sum())
  assert np.isfinite(gradient(LATENTS)).all()
  z, step = jnp.asarray(DRAWN), jnp.eye(4)[0][None] * 0.05
  slope = (constraint.energy(z + step) - constraint.energy(z - step)) / 0.1
  np.testing.assert_allclose(gradient(z)[:, 0], slope, atol=3e-3)


def test_a_class_must_be_likely_and_certain_among_the_conditions_of_the_critic():
  assert A.holds(LATENTS[: len(BORDERS)]).tolist() == [False, True, False, True, False, False, False]


def test_a_learnt_energy_is_minus_log_probability_of_its_networks():
  constraint, latents = networks(0), DRAWN[:, :3]
  conditions = np.tile(np.eye(4, dtype=np.float32)[1], (len(latents), 1))
  logits = constraint.critic.apply(constraint.energy_variables, latents, conditions)
  assert logits.min() < -1 < 1 < logits.max()
  np.testing.assert_allclose(constraint.energy(latents), np.logaddexp(0, -np.float64(logits)), rtol=1e-5, atol=1e-6)
  np.testing.assert_array_equal(constraint.logits(latents)[:, 0], logits)
  moved = constraint.actor.apply(constraint.actor_variables, latents, conditions)
  np.testing.assert_array_equal(constraint.propose(latents), moved)


def test_chains_of_the_same_operator_are_flat():
  assert (A & B & C).parts == (A | B | C).parts == (A, B, C)


@pytest.mark.parametrize("classes", [1, 2, 4])
def test_a_double_negation_holds_where_the_constraint_does(classes):
  constraint = learnt(np.eye(classes)[0])
  np.testing.assert_array_equal((~~constraint).holds(LATENTS), constraint.holds(LATENTS))
  np.testing.assert_array_equal((~~(constraint & constraint)).holds(LATENTS), constraint.holds(LATENTS))


@pytest.mark.parametrize("classes", [1, 2, 4])
def test_a_double_negation_has_the_energy_of_the_constraint(classes):
  constraint = learnt(np.eye(classes)[0])
  np.testing.assert_allclose((~~constraint).energy(LATENTS), constraint.energy(LATENTS), rtol=1e-5, atol=1e-6)
  np.testing.assert_array_equal((~~constraint).logits(LATENTS), constraint.logits(LATENTS))


@pytest.mark.parametrize("constraint", [A, A | B, A & 2 * C, learnt(np.eye(2)[0])])
def test_a_negation_is_no_complement(constraint):
  """No latent fulfils both, and those of which the critics are uncertain fulfil neither."""
  holds, negation = constraint.holds(LATENTS), (~constraint).holds(LATENTS)
  assert not (holds & negation).any()
  assert not (holds | negation).all()
  assert not (constraint.holds(LATENTS * 0) | (~constraint).holds(LATENTS * 0)).any()
  assert "not the complement" in algebra.__doc__
  np.testing.assert_array_equal((~ONE).holds(LATENTS), ~ONE.holds(LATENTS))


def test_the_energy_of_a_union_goes_down_to_minus_the_logarithm_of_its_parts():
  certain = np.full((1, 4), 50, np.float32)
  for union, parts in ((A | B, 2), (A | B | C | D, 4)):
    np.testing.assert_allclose(union.energy(certain), -np.log(parts), rtol=1e-5)
    assert (union.energy(LATENTS) >= -np.log(parts) - 1e-5).all()
  assert ((A & B).energy(LATENTS) >= 0).all()
  assert "below 0" in algebra.__doc__


@pytest.mark.parametrize(("a", "b"), [(A, B), (ONE, learnt([0.5])), (A, ONE), (A | ONE, B & C)])
def test_de_morgan(a, b):
  for one, other in ((~(a & b), ~a | ~b), (~(a | b), ~a & ~b)):
    np.testing.assert_allclose(one.energy(LATENTS), other.energy(LATENTS), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(one.holds(LATENTS), other.holds(LATENTS))


@pytest.mark.parametrize("make", [lambda a: a, lambda a: ~a, lambda a: 2 * (a & A) | ~a])
def test_latents_can_have_a_condition_each(make):
  classes = np.arange(len(LATENTS)) % 4
  together = make(learnt(np.eye(4)[classes]))
  for name in ("energy", "holds", "logits", "propose"):
    actual = np.asarray(getattr(together, name)(LATENTS))
    for label in range(4):
      alone = getattr(make(learnt(np.eye(4)[label])), name)(LATENTS)
      np.testing.assert_array_equal(actual[classes == label], alone[classes == label])


def test_all_actors_propose_in_order():
  a, b = np.eye(4, dtype=np.float32)[:2]
  np.testing.assert_allclose((A & B).propose(LATENTS), 4 * LATENTS + 2 * a + b, rtol=1e-5, atol=1e-5)
  np.testing.assert_allclose((B & A).propose(LATENTS), 4 * LATENTS + 2 * b + a, rtol=1e-5, atol=1e-5)


def test_the_actor_of_the_part_of_least_energy_proposes():
  energies = np.logaddexp(0, -DRAWN.astype(np.float64))
  to = lambda part: 2 * DRAWN + np.eye(4, dtype=np.float32)[part]
  np.testing.assert_array_equal((A | B | C | D).propose(DRAWN), to(energies.argmin(axis=1)))
  weighted, plain = (weight * energies[:, 0] > energies[:, 1] for weight in (20, 1))
  assert np.any(weighted != plain)
  np.testing.assert_array_equal((20 * A | B).propose(DRAWN), to(weighted.astype(int)))


def test_without_another_class_a_negation_proposes_nothing():
  np.testing.assert_array_equal((~ONE).propose(LATENTS), LATENTS)
  np.testing.assert_array_equal((~~ONE).propose(LATENTS), ONE.propose(LATENTS))


def test_weights_scale_energies_and_nothing_else():
  for constraint in (A, A & B, A | ~C):
    for weighted in (7.5 * constraint, constraint * np.float32(7.5)):
      np.testing.assert_allclose(weighted.energy(LATENTS), 7.5 * np.float64(constraint.energy(LATENTS)), rtol=1e-6)
      for name in ("holds", "logits", "propose"):
        np.testing.assert_array_equal(getattr(weighted, name)(LATENTS), getattr(constraint, name)(LATENTS))


@pytest.mark.parametrize("weight", [0, 0.0, -1, -1e-9, float("nan"), -float("inf"), float("inf")])
def test_weights_are_finite_and_above_zero(weight):
  for times in (lambda: weight * A, lambda: A * weight):
    with pytest.raises(ValueError, match="must be a finite number above 0"):
      times()


def test_every_critic_says_its_logit_in_order():
  constraint = D & (B | 2 * A) & ~ONE
  np.testing.assert_array_equal(constraint.logits(LATENTS), LATENTS[:, [3, 1, 0, 0]] * np.float32([1, 1, 1, -1]))
  assert (A & ~B).logits(LATENTS).shape == (len(LATENTS), 4)
  np.testing.assert_array_equal(np.sort((~B).logits(LATENTS)), np.sort(LATENTS[:, [0, 2, 3]]))


def test_ones_own_constraint_composes():
  a, b = Bowl(jnp.zeros(4)), Bowl(jnp.ones(4))
  z = DRAWN.astype(np.float64)
  energies = (z**2).sum(1), ((z - 1) ** 2).sum(1)
  np.testing.assert_allclose((a & 2 * b).energy(DRAWN), energies[0] + 2 * energies[1], rtol=1e-5)
  np.testing.assert_allclose((a | b).energy(DRAWN), -np.logaddexp(-energies[0], -energies[1]), rtol=1e-5)
  for use in (lambda: ~a, lambda: (a & b).holds(LATENTS), lambda: (a | b).propose(LATENTS)):
    with pytest.raises(NotImplementedError):
      use()


def test_constraints_compile_once_for_each_structure():
  traced = []

  @functools.partial(jax.jit, static_argnums=0)
  def ask(name, constraint, latents):
    traced.append(name)
    return getattr(constraint, name)(latents)

  for name in ("energy", "holds", "logits", "propose"):
    for one, other in ((A, B), (C, D), (B, A)):
      constraint = 2 * one & ~other
      np.testing.assert_allclose(ask(name, constraint, LATENTS), getattr(constraint, name)(LATENTS), rtol=1e-5)
  assert traced == ["energy", "holds", "logits", "propose"]
  for constraint in (3 * A & ~B, 2 * A | ~B, 2 * A & B):
    ask("energy", constraint, LATENTS)
  assert traced[4:] == ["energy"] * 3


def test_constraints_of_all_seeds_go_through_vmap():
  @jax.jit
  def answers(constraint, z):
    return constraint.energy(z), constraint.holds(z), constraint.logits(z), constraint.propose(z)

  latents = DRAWN[:, :3].reshape(2, 30, 3)
  of_seeds = [0.5 * networks(seed) | ~networks(seed + 2) for seed in (0, 1)]
  stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *of_seeds)
  together = jax.vmap(answers)(stacked, latents)
  for index, own in enumerate(of_seeds):
    for actual, alone in zip(together, answers(own, latents[index]), strict=True):
      np.testing.assert_allclose(actual[index], alone, rtol=1e-5, atol=1e-5)
  assert not np.allclose(together[0][0], together[0][1])


@pytest.mark.parametrize("join", [lambda a, b: a and b, lambda a, b: a or b, lambda a, b: not a])
def test_python_s_own_words_do_not_join_constraints(join):
  with pytest.raises(TypeError, match=r"join constraints by &, \| and ~"):
    join(learnt([1, 0]), learnt([0, 1]))
