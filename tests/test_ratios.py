"""What is fast stays fast: times against each other in one run, in turns, with wide bounds."""

import jax
import pytest

from lcgen import benchmark
from lcgen.models import layers
from tests import measure_layers
from tests.test_benchmark import phases_of

CEILINGS = benchmark.Ceilings(1e12, 1e12)
ROUNDS = 2


def fastest(*functions):
  """The least that each returns, in turns."""
  return [min(own) for own in zip(*([function() for function in functions] for _ in range(ROUNDS)), strict=True)]


def milliseconds(name, **changes):
  """Of a step of one repetition inside the loop."""
  phases = phases_of(**{"benchmark__chunks": 4, "train__chunk_steps": 20} | changes)
  return lambda: benchmark.measure(phases, name, CEILINGS)["ms_per_step"]


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="the products are there for a CPU")
@pytest.mark.parametrize("function", [lambda *both: layers.conv(*both[:2], 1, both[2]), layers.conv_transpose])
def test_convolutions_are_faster_by_products(function):
  images, kernel = measure_layers.operands(batch=8, side=8, inputs=64, outputs=32)
  times = (
    lambda form=form: measure_layers.milliseconds(lambda x, k: function(x, k, form), images, kernel)
    for form in ("matmul", "native")
  )
  products, native = fastest(*times)
  assert products < 0.5 * native


def test_a_step_with_actor_samples_costs_little_more_than_one_without():
  paper = {"actor_critic__hidden_dim": 2048, "vae__latent_dim": 1024, "seeds": 1}
  samples, none = fastest(
    *(milliseconds("comparison", classifier__arms=arms, **paper) for arms in ("latent_constraints", "none"))
  )
  assert samples < 15 * none  # where every step reads the actor it is 70


def test_repetitions_at_once_cost_no_more_than_one_after_another():
  four, one = fastest(*(milliseconds("vae", seeds=seeds) for seeds in (4, 1)))
  assert four < 1.3 * one


def test_the_loop_takes_little_of_the_time():
  phases = phases_of(seeds=1, benchmark__chunks=6, train__chunk_steps=50)
  (share,) = fastest(lambda: benchmark.measure(phases, "vae", CEILINGS)["of_loop"])
  assert share < 0.2
