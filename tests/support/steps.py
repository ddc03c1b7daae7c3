"""One training step of a phase on `squares`: what it is given, and what all steps must keep."""

import jax
import jax.numpy as jnp
import numpy as np

from tests.support.helpers import FACTS, config_of, context_of, squares, tree_bytes


def constant_rates(**changes):
  """The smoke config with constant learning rates, some keys changed."""
  sections = ("vae", "actor_critic", "classifier", "evaluate__judge")
  return config_of("smoke", **{f"{section}__schedule": "constant" for section in sections}, **changes)


def squares_context(settings):
  """The context of a config on `squares`."""
  return context_of(settings, FACTS)


def batch_of(context, rows=32):
  """A prepared batch of `squares`."""
  data = squares()
  return context.prepare({"image": jnp.asarray(data.images[:rows]), "label": jnp.asarray(data.labels[:rows])})


def check_step(context, phase, frozen=None, draws=True):
  """A step is pure, depends on its key if it draws anything, moves its state, and leaves what is frozen alone."""
  state = phase.init(jax.random.key(0))
  before_state, before_frozen = tree_bytes(state), tree_bytes(frozen)
  images = batch_of(context, phase.batch_size)
  step = jax.jit(phase.run_steps.step)
  first, metrics = step(state, phase.frozen, images, jax.random.key(1))
  again, _ = step(state, phase.frozen, images, jax.random.key(1))
  other, _ = step(state, phase.frozen, images, jax.random.key(2))
  assert tree_bytes(first) == tree_bytes(again)
  assert tree_bytes(state) == before_state
  assert tree_bytes(frozen) == before_frozen
  assert tree_bytes(first) != before_state
  assert (tree_bytes(first) == tree_bytes(other)) == (not draws)
  assert all(np.isfinite(value) and value.shape == () for value in metrics.values())


def check_loss_falls(context, phase):
  """Sixty steps on the same images lower the loss by a fifth."""
  images, step = batch_of(context, phase.batch_size), jax.jit(phase.run_steps.step)
  state, metrics = step(phase.init(jax.random.key(0)), phase.frozen, images, jax.random.key(1))
  start = metrics["loss"]
  for index in range(60):
    state, metrics = step(state, phase.frozen, images, jax.random.key(index))
  assert metrics["loss"] < 0.8 * start


def in_training(function):
  """As training steps call it: on `[steps, runs]` keys and batches, the runs side by side."""
  step = lambda carry, inputs: (carry, jax.vmap(function)(*inputs))
  return jax.jit(lambda keys, *batches: jax.lax.scan(step, None, (keys, *batches))[1])
