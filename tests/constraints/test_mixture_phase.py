"""The mixture of a small model: fitted once for every seed, kept, and drawn from by constraints."""

import dataclasses
import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lcgen.constraints import algebra, mixture, mixture_fit, mixture_phase, samplers
from lcgen.constraints.settings import Mixture, MixtureSettings, SampleSettings
from lcgen.data import sources
from lcgen.generator import base
from lcgen.models import actor_critic
from lcgen.runtime import errors
from lcgen.training import checkpoint
from lcgen.training.trainer import Trainer
from tests.support.helpers import squares, tree_bytes
from tests.support.small_model import small_model

DATA = sources.Dataset("squares", tuple("0123"), squares(80), squares(16, seed=2), squares(20, seed=3))
SETTINGS = MixtureSettings(components=(1, 2))


@pytest.fixture(scope="module")
def model():
  return small_model()


def never():
  raise AssertionError("the data set is read")


@pytest.fixture(scope="module")
def world(model, tmp_path_factory):
  """A workdir with a mixture."""
  trainer = Trainer(model.context, tmp_path_factory.mktemp("mixture"), lambda: DATA.train)
  found = mixture_phase.learn(model.context, trainer, model.frozen, SETTINGS, lambda: DATA)
  return types.SimpleNamespace(model=model, trainer=trainer, mixture=found)


def test_it_is_fitted_once_and_found_again(world):
  again = mixture_phase.learn(world.model.context, world.trainer, world.model.frozen, SETTINGS, never)
  assert tree_bytes(again) == tree_bytes(world.mixture)
  with checkpoint.Checkpoints(world.trainer.directory(mixture_phase.NAME)) as saved:
    record = saved.record
  assert set(record) == {"components", "shrinkage", "pooling", "score"}
  assert all(len(values) == 2 for values in record.values())


def test_every_seed_has_the_mixture_of_its_own_encodings(world):
  context, frozen = world.model.context, world.model.frozen
  for place, seed in enumerate(context.seeds):
    encode = lambda split, place=place: context.generator.encode(
      jax.tree.map(lambda leaf: leaf[place], frozen.generator), context.prepare({"image": split.images})["image"]
    )
    train, held = (
      mixture_fit.Encodings(np.asarray(found.mean), np.asarray(found.scale), split.labels)
      for split in (DATA.train, DATA.validation)
      for found in [encode(split)]
    )
    expected, _ = mixture_fit.fit(train, held, 4, SETTINGS, [1], seed)
    own = jax.tree.map(lambda leaf, place=place: leaf[place], world.mixture)
    np.testing.assert_allclose(own.means, expected.means, atol=1e-4)
    np.testing.assert_allclose(own.variances, expected.variances, rtol=1e-3)
    np.testing.assert_allclose(own.log_shares, np.log(0.25), rtol=1e-5)


def test_validation_images_alone_choose_and_test_images_never(world, tmp_path):
  class Unseen(sources.Split):
    images = property(lambda self: pytest.fail("test images are read"))

  data = dataclasses.replace(DATA, test=object.__new__(Unseen))
  trainer = Trainer(world.model.context, tmp_path, lambda: DATA.train)
  found = mixture_phase.learn(world.model.context, trainer, world.model.frozen, SETTINGS, lambda: data)
  assert tree_bytes(found) == tree_bytes(world.mixture)


def test_a_pool_of_labelled_images_has_a_mixture_of_its_own(world, tmp_path):
  trainer = Trainer(world.model.context, tmp_path, lambda: DATA.train)
  rows = [np.array([0, 1, 2, 3]), np.array([4, 9, 14, 19])]
  learn = lambda name, read: mixture_phase.learn(
    world.model.context, trainer, world.model.frozen, SETTINGS, read, name, rows
  )
  found = learn("few/mixture", lambda: DATA)
  assert not np.allclose(found.means, world.mixture.means)
  assert tree_bytes(learn("few/mixture", never)) == tree_bytes(found)


def test_encodings_that_are_not_finite_are_refused(world, tmp_path):
  broken = world.model.frozen.replace(generator=jax.tree.map(lambda leaf: leaf * jnp.nan, world.model.frozen.generator))
  trainer = Trainer(world.model.context, tmp_path, lambda: DATA.train)
  with pytest.raises(errors.InputError, match="not finite"):
    mixture_phase.learn(world.model.context, trainer, broken, SETTINGS, lambda: DATA)
  assert not list(tmp_path.rglob("*_METADATA"))


def test_components_need_images_enough(world):
  context = world.model.context  # 80 images of 4 classes
  assert mixture_phase.candidates(context, MixtureSettings(components=(8, 1, 4))) == [1]
  many = dataclasses.replace(context, facts=dataclasses.replace(context.facts, train=480))
  assert mixture_phase.candidates(many, MixtureSettings(components=(8, 1, 4))) == [1, 4, 6]


def test_components_without_weight_are_left_out(world):
  context = dataclasses.replace(world.model.context, facts=dataclasses.replace(world.model.context.facts, train=10_000))
  every = mixture_phase.untrained(context, MixtureSettings(components=(1, 5)))
  assert every.means.shape == (2, 4, 5, 8)
  none = every.log_weights.at[..., 3:].set(-jnp.inf).at[0, :, 1:].set(-jnp.inf)
  few = mixture.trimmed(every.replace(log_weights=none))
  assert few.means.shape == (2, 4, 3, 8)
  key, labels = jax.random.key(0), jnp.arange(64) % 4
  draws = jax.random.normal(key, (64, 8))
  for seed in (0, 1):
    pick = lambda tree, seed=seed: jax.tree.map(lambda leaf: leaf[seed], tree)
    padded = pick(every.replace(log_weights=none)).sample(key, labels, draws)
    np.testing.assert_array_equal(padded, pick(few).sample(key, labels, draws))


def far(classes=4):
  """Classes that are points far from each other on the first latent, class 3 with half of all images."""
  means = 10.0 * jnp.arange(classes)[:, None, None] * jnp.eye(1, 4)[None]
  shares = jnp.array([1, 1, 1, 3]) / 6
  return mixture.Mixture(
    jnp.log(shares),
    jnp.zeros((classes, 1)),
    means,
    jnp.eye(4)[None, None].repeat(classes, 0),
    jnp.full(means.shape, 0.01),
  )


def learnt(condition, kind=""):
  """The constraint of a class, whose critic is undecided everywhere."""
  critic = types.SimpleNamespace(apply=lambda variables, z, condition: jnp.zeros(len(z)))
  return algebra.Learnt(critic, None, {}, {}, jnp.asarray(condition, jnp.float32), kind=kind)


PRIOR = functools.partial(base.prior, latent_dim=4)
A, B, C, D = (learnt(np.eye(4)[k]) for k in range(4))
RULE, REAL = learnt([0, 1], "rule"), learnt([1], "realism")
DRAWN = {  # wish: share of each class among its samples
  "a": (A, [1, 0, 0, 0]),
  "~a": (~A, [0, 1 / 5, 1 / 5, 3 / 5]),
  "a | d": (A | D, [1 / 4, 0, 0, 3 / 4]),
  "realism": (REAL, [1 / 6, 1 / 6, 1 / 6, 1 / 2]),
  "rule": (RULE, [1 / 6, 1 / 6, 1 / 6, 1 / 2]),
  "a & rule": (A & RULE, [1, 0, 0, 0]),
  "2 rule & ~(a | d)": (2 * RULE & ~(A | D), [0, 1 / 2, 1 / 2, 0]),
  "a & d": (A & D, [1 / 4, 0, 0, 3 / 4]),  # no image is both
  "one each": (learnt(np.eye(4)[np.arange(6000) % 4]), [1 / 4] * 4),
}


@pytest.mark.parametrize("name", DRAWN)
def test_samples_come_from_the_classes_that_a_constraint_allows(name):
  constraint, shares = DRAWN[name]
  latents = np.random.default_rng(0).normal(size=(6000, 4)).astype(np.float32)
  drawable = algebra.Drawable(constraint, far())
  moved = samplers.mixture(jax.random.key(0), drawable, latents, Mixture(rounds=1), prior=PRIOR)
  labels = np.round(np.asarray(moved.latents[:, 0]) / 10).astype(int)
  np.testing.assert_allclose(np.bincount(labels, minlength=4) / 6000, shares, atol=5 * np.sqrt(0.25 / 6000))
  np.testing.assert_array_equal(moved.start, latents)
  np.testing.assert_allclose(moved.latents[:, 1:], 0.1 * latents[:, 1:], atol=1e-5)
  if name == "one each":
    np.testing.assert_array_equal(labels, np.arange(6000) % 4)


def test_guidance_is_asked_of_what_classes_do_not_hold():
  for held in (A, ~A, A | D, 2 * A & REAL, algebra.Drawable(A, far())):
    assert held.guidance(jnp.zeros((2, 4))) is None
  rule = lambda weight: types.SimpleNamespace(apply=lambda variables, z, condition: weight * z[:, 0])
  thick = dataclasses.replace(RULE, critic=rule(1.0))
  z = jnp.asarray(np.random.default_rng(1).normal(size=(9, 4)), jnp.float32)
  energy = thick.energy(z)
  np.testing.assert_array_equal((A & thick).guidance(z), energy)
  np.testing.assert_array_equal((A & 3 * thick & REAL).guidance(z), 3 * energy)
  own = dataclasses.replace(A, critic=rule(2.0))
  np.testing.assert_allclose((own | thick).guidance(z), (own | thick).energy(z))
  np.testing.assert_array_equal(dataclasses.replace(~REAL, critic=rule(1.0)).guidance(z), jnp.logaddexp(0, z[:, 0]))


def test_a_constraint_without_a_mixture_is_refused():
  with pytest.raises(errors.InputError, match="sampler mixture: the constraint has no mixture"):
    samplers.mixture(jax.random.key(0), A, jnp.zeros((2, 4)), Mixture(), prior=PRIOR)


def test_a_drawable_constraint_answers_as_the_constraint_does():
  thick = dataclasses.replace(
    RULE,
    critic=types.SimpleNamespace(apply=lambda variables, z, condition: z @ jnp.arange(4.0)),
    actor=types.SimpleNamespace(apply=lambda variables, z, condition: 2 * z),
  )
  z = jnp.asarray(np.random.default_rng(2).normal(size=(9, 4)), jnp.float32)
  for one, other in ((thick, algebra.Drawable(thick, far())), (~thick, ~algebra.Drawable(thick, far()))):
    for name in ("energy", "holds", "logits", "propose", "guidance"):
      np.testing.assert_array_equal(getattr(one, name)(z), getattr(other, name)(z))


@pytest.mark.parametrize("name", [name for name in samplers.names() if not samplers.draws_from_mixture(name)])
def test_the_mixture_is_no_part_of_what_other_samplers_compute(name):
  """They compile to the same program, bit for bit, whether the constraint brings a mixture or not."""
  thick = dataclasses.replace(
    RULE,
    critic=actor_critic.Critic(hidden_dim=4, depth=1),
    actor=actor_critic.Actor(latent_dim=4, hidden_dim=4, depth=1),
  )
  key, z = jax.random.key(0), jnp.zeros((3, 4))
  init = lambda network: jax.eval_shape(network.init, key, z, jnp.zeros((3, 2)))
  thick = thick.replace(energy_variables=init(thick.critic), actor_variables=init(thick.actor))
  way = samplers.bind(SampleSettings(), lambda key, count: jax.random.normal(key, (count, 4)))[name]
  programs = [jax.jit(way).lower(key, given, z).as_text() for given in (thick, algebra.Drawable(thick, far()))]
  assert programs[0] == programs[1]
