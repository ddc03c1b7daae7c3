"""Checks the scores of the VAE between the epochs of its training."""

import types

import jax
import jax.numpy as jnp
import numpy as np

from lcgen.models import losses
from tests.support.helpers import FACTS, config_of, context_of, squares


def test_validation_loss_is_the_training_objective_with_the_same_noise_every_time():
  context, validation = context_of(config_of("smoke"), FACTS), squares(8)
  generator, keys = context.generator, context.keys("evaluate")
  init = jax.jit(generator.init)
  each = [init(key) for key in keys]
  variables = jax.tree.map(lambda *leaves: jnp.stack(leaves), *each)
  score = generator.validate(context, validation)
  loss = lambda variables: score(types.SimpleNamespace(variables=variables))["validation_loss"]
  found = loss(variables)
  np.testing.assert_array_equal(found, loss(variables))
  images = jnp.asarray((validation.images / 255 - 0.5) / 0.25, jnp.float32)
  for value, own, key in zip(found, each, keys, strict=True):
    objective, _ = losses.weighted_elbo(images, generator.model.apply(own, images, key), generator.settings.kl_weight)
    np.testing.assert_allclose(value, objective.mean(), rtol=1e-5)
