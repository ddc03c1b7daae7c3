"""Phase 1: the step of the VAE."""

import jax
import numpy as np
import pytest

from tests.support.steps import batch_of, check_loss_falls, check_step, constant_rates, squares_context


@pytest.fixture(scope="module")
def context():
  return squares_context(constant_rates())


def test_vae_step_is_pure_and_learns(context):
  phase = context.generator.phase(context)
  check_step(context, phase)
  check_loss_falls(context, phase)


def test_vae_step_updates_running_statistics(context):
  phase = context.generator.phase(context)
  state = phase.init(jax.random.key(0))
  new_state, _ = phase.run_steps.step(state, None, batch_of(context), jax.random.key(1))
  for before, after in zip(jax.tree.leaves(state.batch_stats), jax.tree.leaves(new_state.batch_stats), strict=True):
    assert not np.array_equal(before, after)
