import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lcgen import config
from lcgen.constraints import game_phase
from lcgen.data import sources
from lcgen.training.context import Phases
from tests.support.helpers import frozen_vae, load_config, squares, tree_bytes

FACTS = sources.Facts("squares", (8, 8, 1), ("0", "1", "2", "3"), 80, 16, 20)


@pytest.fixture(scope="module")
def phases():
  constant = {
    f"{section}__schedule": "constant" for section in ("vae", "actor_critic", "classifier", "evaluate__judge")
  }
  return Phases(config.checked(load_config("mnist5k", "smoke", **constant)), FACTS)


@pytest.fixture(scope="module")
def frozen(phases):
  variables = phases.vae().init(jax.random.key(0)).variables
  actor = phases.actor_critic(None).init(jax.random.key(1)).actor.params
  return frozen_vae(variables, actor={"params": actor})


def batch(phases, rows=32):
  data = squares()
  return phases.prepare({"image": jnp.asarray(data.images[:rows]), "label": jnp.asarray(data.labels[:rows])})


def phase_named(phases, frozen, name):
  return {
    "vae": phases.vae,
    "actor_critic": lambda: phases.actor_critic(frozen),
    "energy": lambda: phases.energy(frozen),
    "judge": phases.judge,
  }[name]()


@pytest.mark.parametrize("name", ["vae", "actor_critic", "energy", "judge"])
def test_steps_learn_are_pure_and_leave_the_frozen_alone(phases, frozen, name):
  phase = phase_named(phases, frozen, name)
  state = phase.init(jax.random.key(0))
  before_state, before_frozen = tree_bytes(state), tree_bytes(frozen)
  images = batch(phases, phase.rows)
  step = jax.jit(phase.advance.step)
  first, metrics = step(state, phase.frozen, images, jax.random.key(1))
  again, _ = step(state, phase.frozen, images, jax.random.key(1))
  other, _ = step(state, phase.frozen, images, jax.random.key(2))
  assert tree_bytes(first) == tree_bytes(again)
  assert tree_bytes(state) == before_state
  assert tree_bytes(frozen) == before_frozen
  assert tree_bytes(first) != before_state
  assert (tree_bytes(first) == tree_bytes(other)) == (name == "judge")  # the judge's step draws nothing
  assert all(np.isfinite(value) and value.shape == () for value in metrics.values())

  if name in ("actor_critic", "energy"):  # a game has no loss that must fall
    return
  start = metrics["loss"]
  for index in range(60):
    state, metrics = step(state, phase.frozen, images, jax.random.key(index))
  assert metrics["loss"] < 0.8 * start


def test_vae_step_updates_running_statistics(phases):
  phase = phases.vae()
  state = phase.init(jax.random.key(0))
  new_state, _ = phase.advance.step(state, None, batch(phases), jax.random.key(1))
  for before, after in zip(jax.tree.leaves(state.batch_stats), jax.tree.leaves(new_state.batch_stats), strict=True):
    assert not np.array_equal(before, after)


def test_actor_critic_step_pairs_its_updates(phases, frozen):
  """Both players move, each only by its own gradient; the average follows the actor."""
  phase = phases.actor_critic(frozen)
  state = phase.init(jax.random.key(0))
  still = phase.advance.step.keywords | {"actor_weights": {"prior": 0.0, "encoded": 1e-30, "distance": 0.0}}
  idle_actor, _ = game_phase.actor_critic_step(state, frozen, batch(phases), jax.random.key(1), **still)
  moved, metrics = phase.advance.step(state, frozen, batch(phases), jax.random.key(1))
  chex.assert_trees_all_close(moved.critic.params, idle_actor.critic.params, rtol=1e-5)  # the critic goes first
  assert tree_bytes(moved.actor.params) != tree_bytes(state.actor.params)
  expected = jax.tree.map(lambda old, new: old + 0.9 * (new - old), state.actor.params, moved.actor.params)
  chex.assert_trees_all_close(moved.actor_average, expected, rtol=1e-4, atol=1e-6)  # decay starts at (1 + 0) / (10 + 0)
  weighted = [
    weight * metrics[f"critic_{name}"]
    for name, weight in phase.advance.step.keywords["critic_weights"].items()
    if weight
  ]
  np.testing.assert_allclose(metrics["critic_loss"], sum(weighted), rtol=1e-5)


def test_critic_takes_several_updates_each_on_its_own_images(phases, frozen):
  phase = phases.actor_critic(frozen)
  state = phase.init(jax.random.key(0))
  options = phase.advance.step.keywords | {"critic_steps": 4}
  new_state, _ = game_phase.actor_critic_step(state, frozen, batch(phases), jax.random.key(1), **options)
  count = lambda player: {int(leaf) for leaf in jax.tree.leaves(player.opt_state) if leaf.ndim == 0}
  assert count(new_state.critic) == {4}
  assert count(new_state.actor) == {1}


def test_mismatched_labels_are_never_the_right_ones(phases, frozen):
  labels = jnp.tile(jnp.arange(4), 500)
  images = {"image": jnp.zeros((2000, 8, 8, 1)), "label": labels}
  draws = game_phase.draw_images(images, jax.random.key(0), frozen, model=phases.networks.vae, classes=4)
  other = np.asarray(draws.other.argmax(-1))
  assert not np.any(other == labels)
  counts = np.bincount(4 * np.asarray(labels) + other, minlength=16).reshape(4, 4)
  assert counts[~np.eye(4, dtype=bool)].min() > 120  # of 500 / 3 expected


def test_paper_game_has_the_terms_of_eqs_2_and_3(frozen):
  values = config.checked(load_config("mnist5k", "smoke", actor_critic__actor_weights__encoded=0.0))
  phase = Phases(values, FACTS).actor_critic(frozen)
  _, metrics = phase.advance.step(
    phase.init(jax.random.key(0)), frozen, batch(Phases(values, FACTS)), jax.random.key(1)
  )
  assert {name for name in metrics if name.startswith("actor")} == {"actor_loss", "actor_prior", "actor_distance"}


def test_critic_batch_norm_is_trained_and_kept():
  values = config.checked(load_config("mnist5k", "smoke", actor_critic__critic_batch_norm=True))
  phases = Phases(values, FACTS)
  variables = phases.vae().init(jax.random.key(0)).variables
  frozen = frozen_vae(variables)
  phase = phases.actor_critic(frozen)
  state = phase.init(jax.random.key(0))
  new_state, _ = phase.advance.step(state, frozen, batch(phases), jax.random.key(1))
  assert jax.tree.leaves(state.critic.batch_stats)
  assert tree_bytes(new_state.critic.batch_stats) != tree_bytes(state.critic.batch_stats)
