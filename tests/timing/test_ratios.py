"""Compares times in one run, in turns, with wide bounds: fast things stay fast."""

import jax
import pytest

from benchmarks import measure_layers
from lcgen.models import layers
from lcgen.studies import benchmark
from tests.support.benches import bench_of

pytestmark = pytest.mark.timing  # nothing else may run beside these
ROUNDS = 5


def fastest(*functions):
  """The least that each returns, in turns."""
  return [min(own) for own in zip(*([function() for function in functions] for _ in range(ROUNDS)), strict=True)]


def seconds(name, **changes):
  """Times the fastest step of one seed inside the loop."""
  bench = bench_of(**{"benchmark__chunks": 4, "train__chunk_steps": 20} | changes)
  phase, data = benchmark.prepare(bench, name)
  return lambda: min(benchmark.loop_seconds(bench, phase, data)[0]) / len(bench.context.seeds)


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


def test_samples_of_many_steps_at_once_cost_less_than_step_by_step():
  paper = {"actor_critic__hidden_dim": 2048, "vae__latent_dim": 1024, "seeds": 1}
  many, single = fastest(
    *(seconds("classifier", train__chunk_steps=steps, benchmark__chunks=10, **paper) for steps in (50, 1))
  )
  assert many < 0.7 * single  # all at once or not makes no difference: 1


def test_seeds_at_once_cost_no_more_than_one_after_another():
  four, one = fastest(*(seconds("vae", seeds=seeds) for seeds in (4, 1)))
  assert four < 1.3 * one


def test_the_loop_takes_little_of_the_time():
  bench = bench_of(seeds=1, benchmark__chunks=6, train__chunk_steps=50)
  phase, data = benchmark.prepare(bench, "vae")
  inside, bare = fastest(
    lambda: min(benchmark.loop_seconds(bench, phase, data)[0]),
    lambda: min(benchmark.bare_seconds(bench, phase, data)),
  )
  assert inside < 1.2 * bare
