"""Phase 2: the step of the game, and the draws that it learns from."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lcgen.constraints import draws, game_phase
from tests.support.helpers import frozen_vae, tree_bytes
from tests.support.steps import batch_of, check_step, constant_rates, squares_context


def prepared(**changes):
  """The context of a config, its frozen generator, and the game for the labels."""
  config = constant_rates(**changes)
  context = squares_context(config)
  frozen = frozen_vae(context.generator.init(jax.random.key(0)))
  return context, frozen, game_phase.phase(context, config.actor_critic, draws.labels(context), frozen)


@pytest.fixture(scope="module")
def given():
  return prepared()


def test_game_step_is_pure_and_leaves_the_frozen_alone(given):
  context, frozen, phase = given
  check_step(context, phase, frozen)


def test_game_step_pairs_its_updates(given):
  """Both players move, each only by its own gradient; the average follows the actor."""
  context, frozen, phase = given
  state, game = phase.init(jax.random.key(0)), phase.run_steps.step.keywords["game"]
  still = dataclasses.replace(game, actor_weights={"prior": 0.0, "encoded": 1e-30, "distance": 0.0})
  idle_actor, _ = game_phase.actor_critic_step(state, frozen, batch_of(context), jax.random.key(1), game=still)
  moved, metrics = phase.run_steps.step(state, frozen, batch_of(context), jax.random.key(1))
  chex.assert_trees_all_close(moved.critic.params, idle_actor.critic.params, rtol=1e-5)  # the critic goes first
  assert tree_bytes(moved.actor.params) != tree_bytes(state.actor.params)
  expected = jax.tree.map(lambda old, new: old + 0.9 * (new - old), state.actor.params, moved.actor.params)
  chex.assert_trees_all_close(moved.actor_average, expected, rtol=1e-4, atol=1e-6)  # decay starts at (1 + 0) / (10 + 0)
  weighted = [weight * metrics[f"critic_{name}"] for name, weight in game.critic.weights.items() if weight]
  np.testing.assert_allclose(metrics["critic_loss"], sum(weighted), rtol=1e-5)


def test_critic_takes_several_updates_each_on_its_own_images(given):
  context, frozen, phase = given
  state = phase.init(jax.random.key(0))
  often = dataclasses.replace(phase.run_steps.step.keywords["game"], critic_steps=4)
  new_state, _ = game_phase.actor_critic_step(state, frozen, batch_of(context), jax.random.key(1), game=often)
  count = lambda player: {int(leaf) for leaf in jax.tree.leaves(player.opt_state) if leaf.ndim == 0}
  assert count(new_state.critic) == {4}
  assert count(new_state.actor) == {1}


def test_mismatched_labels_are_never_the_right_ones(given):
  context, frozen, _ = given
  labels = jnp.tile(jnp.arange(4), 500)
  images = {"image": jnp.zeros((2000, 8, 8, 1)), "label": labels}
  drawn = draws.draw_images(images, jax.random.key(0), frozen, generator=context.generator, classes=4)
  np.testing.assert_array_equal(drawn.labels.argmax(-1), labels)
  other = np.asarray(drawn.other_labels.argmax(-1))
  assert not np.any(other == labels)
  counts = np.bincount(4 * np.asarray(labels) + other, minlength=16).reshape(4, 4)
  assert counts[~np.eye(4, dtype=bool)].min() > 120  # of 500 / 3 expected


def test_paper_game_has_the_terms_of_eqs_2_and_3():
  context, frozen, phase = prepared(actor_critic__actor_weights__encoded=0.0)
  _, metrics = phase.run_steps.step(phase.init(jax.random.key(0)), frozen, batch_of(context), jax.random.key(1))
  assert {name for name in metrics if name.startswith("actor")} == {"actor_loss", "actor_prior", "actor_distance"}


def test_critic_batch_norm_is_trained_and_kept():
  context, frozen, phase = prepared(actor_critic__critic_batch_norm=True)
  state = phase.init(jax.random.key(0))
  new_state, _ = phase.run_steps.step(state, frozen, batch_of(context), jax.random.key(1))
  assert jax.tree.leaves(state.critic.batch_stats)
  assert tree_bytes(new_state.critic.batch_stats) != tree_bytes(state.critic.batch_stats)
