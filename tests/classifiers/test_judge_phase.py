"""The judge: its step."""

from lcgen.classifiers import judge_phase
from tests.support.steps import check_loss_falls, check_step, constant_rates, squares_context


def test_judge_step_is_pure_draws_nothing_and_learns():
  config = constant_rates()
  context = squares_context(config)
  phase = judge_phase.phase(context, config.evaluate.judge)
  check_step(context, phase, draws=False)
  check_loss_falls(context, phase)
