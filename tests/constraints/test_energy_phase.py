"""Phase 2: the step of the energy. `test_learning.py` follows its chains."""

import jax

from lcgen.constraints import draws, energy_phase
from tests.support.helpers import frozen_vae
from tests.support.steps import check_step, constant_rates, squares_context


def test_energy_step_is_pure_and_leaves_the_frozen_alone():
  config = constant_rates()
  context = squares_context(config)
  frozen = frozen_vae(context.generator.init(jax.random.key(0)))
  check_step(context, energy_phase.phase(context, config.energy, draws.labels(context), frozen), frozen)
