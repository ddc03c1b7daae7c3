"""A model of `squares` that is small enough to learn constraints on in a test."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from lcgen.config import Config
from lcgen.generator import trained
from lcgen.generator.frozen import Frozen
from lcgen.training.context import Context
from tests.support.helpers import FACTS, config_of, context_of, frozen_vae

EXEMPLARS = 256


class SmallModel(NamedTuple):
  """A config, its context on `squares`, and an untrained VAE for both seeds."""

  config: Config
  context: Context
  frozen: Frozen


def small_model():
  """Builds it; rules have `EXEMPLARS` exemplars."""
  few = {"rule__exemplars": EXEMPLARS, "sample__langevin__steps": 3, "train__checkpoint_steps": 4}
  quick = {f"{name}__critic_weights__r1": 0.0 for name in ("actor_critic", "energy")}  # slow to compile
  config = config_of("smoke", **few, **quick)
  context = context_of(config, FACTS)
  statistics = jax.tree.map(lambda leaf: jnp.stack([leaf] * 2), frozen_vae(None))
  return SmallModel(config, context, statistics.replace(generator=trained.init(context)))
