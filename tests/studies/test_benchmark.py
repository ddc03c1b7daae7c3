"""Checks a step's cost by the compiler's own count, and that nothing is lost around it; no absolute times."""

import dataclasses
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lcgen.cli import preflight
from lcgen.constraints import samplers
from lcgen.reporting import study_tables
from lcgen.runtime import errors, memory
from lcgen.studies import benchmark, dry_run, inspection
from lcgen.training import loop
from tests.support.benches import bench_of
from tests.support.helpers import DIGITS, config_of
from tests.support.runs import SMOKE

FIELDS = {field.name for field in dataclasses.fields(benchmark.Ceilings)}


SMALL = {"benchmark__chunks": 2, "benchmark__curve": (1, 2), "train__chunk_steps": 3}


@pytest.fixture(scope="module")
def small():
  return bench_of("smoke", **SMALL)


def size_of(tree):
  return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize(
  "name",
  [name if name in ("vae", "comparison") else pytest.param(name, marks=pytest.mark.slow) for name in dry_run.NAMES],
)
def test_every_phase_can_be_timed(small, name):
  found = benchmark.measure(small, name, benchmark.Ceilings(1e9, 1e9))
  assert all(value > 0 for key, value in found.items() if key not in ("bound", "ms_spread", "of_loop"))
  assert found["images_per_s"] == pytest.approx(
    benchmark.prepare(small, name)[0].batch_size / found["ms_per_step"] * 1e3
  )
  assert found["of_flops"] == pytest.approx(found["flops_per_step"] / found["ms_per_step"] * 1e3 / 1e9)


@pytest.mark.slow
def test_a_benchmark_without_a_curve_has_one_table(small):
  settings = dataclasses.replace(small.settings, phases=("judge",), curve=())
  found = benchmark.run(dataclasses.replace(small, settings=settings))
  assert len(study_tables.tables_of("benchmark", found)) == 1
  assert found["curve"] == {"judge": []}


def test_the_command_needs_no_data_and_trains_nothing(run, tmp_path):
  flags = (SMOKE, "--config.data.source=tfds", "--config.data.name=mnist", f"--config.data.dir={tmp_path / 'nothing'}")
  flags += ("--stage=benchmark",)
  sizes = ("--config.benchmark.phases=judge,sampling", "--config.benchmark.curve=(1,2)")
  sizes += ("--config.train.chunk_steps=2", "--config.benchmark.seconds=600")  # a busy machine takes its time
  code, stdout, stderr = run(*flags, *sizes, f"--workdir={tmp_path / 'run'}")
  assert code == 0, stderr
  found = json.loads((tmp_path / "run" / "benchmark.json").read_text())
  assert {path.name for path in (tmp_path / "run").iterdir()} == {"benchmark.json", "benchmark.md"}
  assert (tmp_path / "run" / "benchmark.md").read_text() in stdout
  assert set(found["phases"]) == set(found["curve"]) == {"judge"}
  assert set(found["ceilings"]) == FIELDS
  assert [point["seeds"] for point in found["curve"]["judge"]] == [1, 2]
  assert set(found["sampling"]) == set(samplers.names())
  assert len(study_tables.tables_of("benchmark", found)) == 3


@pytest.mark.slow
def test_the_generated_sets_can_be_timed(small):
  found = benchmark.measure_evaluation(small)["generated_cifar10_c"]
  assert all(value > 0 for value in found.values())


def test_steps_that_do_not_fit_are_not_begun(small, monkeypatch):
  phase, data = benchmark.prepare(small, "judge")
  seeds, mesh = small.context.seeds, small.context.mesh
  state = loop.init(phase, mesh)
  chunks = lambda: loop.chunks(phase, data, state, 0, seeds=seeds, mesh=mesh, longest=3)
  monkeypatch.setattr(memory, "free_memory", lambda: 1000)
  with pytest.raises(errors.InputError, match=r"judge: 3 steps at once: [\d,]+ bytes are needed .* 1,000 are free"):
    next(chunks())
  monkeypatch.setattr(memory, "free_memory", lambda: 2**40)
  assert next(chunks()).step == 3


@pytest.mark.parametrize("name", ["vae", "comparison"])
def test_the_memory_of_a_phase_is_known_before_it_runs(small, name):
  phase, _ = benchmark.prepare(small, name)
  known = dry_run.peak_bytes(small.context, small.sections, name)
  held = size_of(
    (jax.eval_shape(lambda: loop.init(phase, small.context.mesh)), phase.frozen if name == "comparison" else ())
  )
  assert held + DIGITS.train * 28 * 28 < known < 20 * held


def test_a_phase_that_does_not_fit_is_named_by_inspect(small, monkeypatch):
  found = {"memory_bytes": {name: dry_run.peak_bytes(small.context, small.sections, name) for name in ("vae", "judge")}}
  monkeypatch.setattr(memory, "free_memory", lambda: 1000)
  with pytest.raises(errors.InputError, match=r"the phase \w+: [\d,]+ bytes are needed and 1,000 are free"):
    inspection.check_memory(found)
  with pytest.raises(errors.InputError, match=r"the data .* bytes are needed and 1,000 are free"):
    preflight.check_fit(config_of("smoke", **SMALL), small.context)


@pytest.mark.parametrize(("name", "network"), [("vae", "vae"), ("classifier", "classifier")])
def test_a_step_multiplies_what_its_equations_ask_for(name, network):
  """A linear layer's products forward, for its weights and for its inputs, and little beside them."""
  bench = bench_of(vae__latent_dim=256, vae__hidden_dim=512, classifier__hidden_dim=1024, actor_critic__depth=1)
  phase, data = benchmark.prepare(bench, name)
  shapes = inspection.parameter_shapes(bench.context, bench.sections)[network]
  weights = sum(math.prod(shape) for shape in shapes.values())
  products = 6 * phase.batch_size * weights
  assert 0.8 * products < benchmark.step_cost(phase, data)["flops"] < 1.3 * products + 2e7


def test_a_vae_step_moves_its_parameters_no_more_often_than_its_equations_ask_for():
  """Passes over parameters: products read them twice and write gradients (3); either moment is read with the gradient
  and written (6); the update reads them with both moments and writes them (4); they are kept until then (2)."""
  sizes = {"vae__latent_dim": 256, "vae__hidden_dim": 1024, "vae__batch_size": 2, "train__chunk_steps": 1}
  phase, data = benchmark.prepare(bench_of(**sizes), "vae")
  state = jax.eval_shape(phase.init, jax.random.key(0))
  assert benchmark.step_cost(phase, data)["bytes"] < 15.5 * size_of(state.params)


def test_samples_of_many_steps_cost_the_actors_parameters_once():
  phase, data = benchmark.prepare(bench_of(actor_critic__hidden_dim=512, vae__hidden_dim=512), "classifier")
  one = lambda tree: jax.tree.map(lambda leaf: leaf[0], tree)
  policy = phase.run_steps.keywords["comparison"].arms[dry_run.ARM].policy

  def bytes_of(steps):
    images = jax.ShapeDtypeStruct((steps, phase.batch_size, 28, 28, 1), jnp.float32)
    labels = jax.ShapeDtypeStruct((steps, phase.batch_size, 10), jnp.float32)
    keys = jax.ShapeDtypeStruct((steps,), phase.keys.dtype)
    frozen = jax.eval_shape(one, phase.frozen)
    frozen = frozen.replace(labelled=frozen.labelled.replace(images=data["image"]))
    many = jax.jit(jax.vmap(policy, (0, 0, 0, None)))
    return many.lower(keys, images, labels, frozen).compile().cost_analysis()["bytes accessed"]

  assert bytes_of(32) / 32 < 0.2 * bytes_of(1)


@pytest.mark.parametrize("name", dry_run.NAMES)
def test_no_second_copy_of_a_state(small, name):
  phase, data = benchmark.prepare(small, name)
  mesh = small.context.mesh
  state = loop.init(phase, mesh)
  rows = np.zeros((len(small.context.seeds), 3, phase.batch_size), np.int32)
  compiled = loop.compilable(phase, mesh).lower(state, phase.frozen, data, phase.keys, rows, np.int32(0)).compile()
  assert compiled.memory_analysis().alias_size_in_bytes >= size_of(state)


def test_the_loop_traces_a_step_once_and_copies_nothing_unasked(small):
  traced = []
  phase, data = benchmark.prepare(small, "vae")
  seeds, mesh, inner = small.context.seeds, small.context.mesh, phase.run_steps

  def run_steps(*arguments):
    traced.append(1)
    return inner(*arguments)

  phase = dataclasses.replace(phase, run_steps=run_steps, epochs=4)
  state = loop.init(phase, mesh)
  with jax.transfer_guard("disallow"):
    for chunk in loop.chunks(phase, data, state, 0, seeds=seeds, mesh=mesh, longest=3):
      jax.device_get(chunk.terms)
  assert chunk.step == 12
  assert len(traced) == 1
