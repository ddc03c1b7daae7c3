"""Times every phase inside the real loop on random images, and finds the ceiling that bounds it."""

import dataclasses
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from lcgen.classifiers import arm_phase
from lcgen.constraints import algebra, learning, mixture_phase, samplers
from lcgen.data import sources, test_sets
from lcgen.evaluation import classifier_scores, sample_scores
from lcgen.runtime import files, memory, parallel
from lcgen.studies import dry_run
from lcgen.studies.settings import BenchmarkSettings, Sections
from lcgen.training import loop
from lcgen.training.context import Context

Rates = dict[str, dict[str, float]]  # {sampler or family of test sets: {"images_per_s", "compile_s"}}

_UNSTEADY = 1  # first chunks, which are not counted because the loop is not steady yet
_REPEATS = 5  # timed calls of ceilings and samplers, beside the call that compiles; the fastest counts
_COPIED_BYTES = 2**28
_CPU_SIDE, _SIDE = 2048, 8192  # rows of the square matrices that are multiplied on CPUs and on accelerators
_NEAR = 0.5  # a step that reaches this share of a ceiling counts as bound by it


@dataclasses.dataclass(frozen=True)
class Ceilings:
  """The highest rates measured on this device: FLOP/s of a large matrix product, bytes/s of a large copy."""

  flops_per_s: float
  bytes_per_s: float


@dataclasses.dataclass(frozen=True)
class Bench:
  """The run to measure: its context, the settings of its phases, and those of the benchmark."""

  context: Context
  sections: Sections
  settings: BenchmarkSettings

  @property
  def longest(self) -> int:
    """Largest number of steps in a chunk."""
    return self.context.train.chunk_steps


def run(bench: Bench) -> dict[str, Any]:
  """Measures the device's ceilings and every phase, with the run's seeds and with other numbers of seeds."""
  settings, ceilings = bench.settings, measure_ceilings()
  trained = [name for name in settings.phases if name in dry_run.NAMES]
  found = {name: measure(bench, name, ceilings) for name in trained}
  curve = {name: _curve(bench, name) for name in trained}
  timed = {"sampling": measure_sampling, "evaluation": measure_evaluation}
  others = {name: measure_rates(bench) for name, measure_rates in timed.items() if name in settings.phases}
  return {
    "device": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
    "seeds": len(bench.context.seeds),
    "ceilings": dataclasses.asdict(ceilings),
    "phases": found,
    "curve": curve,
    **others,
  }


def measure(bench: Bench, name: str, ceilings: Ceilings) -> dict[str, Any]:
  """Measures one phase: time per step and seed inside the loop, and FLOPs, bytes and memory of one step of one seed."""
  phase, data = prepare(bench, name)
  seeds = len(bench.context.seeds)
  seconds, compile_s = loop_seconds(bench, phase, data)
  each = [1e3 * second / seeds for second in seconds]
  bare = [1e3 * second / seeds for second in bare_seconds(bench, phase, data)]
  median, cost = statistics.median(each), step_cost(phase, data)
  flops, traffic = cost["flops"] / median * 1e3, cost["bytes"] / median * 1e3
  return {
    "ms_per_step": median,
    "ms_spread": max(each) - min(each),
    "of_loop": 1 - min(bare) / min(each),
    "compile_s": compile_s,
    "images_per_s": phase.batch_size / median * 1e3,
    "flops_per_step": cost["flops"],
    "bytes_per_step": cost["bytes"],
    "flops_per_s": flops,
    "bytes_per_s": traffic,
    "of_flops": flops / ceilings.flops_per_s,
    "of_bytes": traffic / ceilings.bytes_per_s,
    "peak_bytes": cost["peak_bytes"],
    "bound": _bound(flops / ceilings.flops_per_s, traffic / ceilings.bytes_per_s),
  }


def prepare(bench: Bench, name: str) -> tuple[loop.Phase, dict[str, jax.Array]]:
  """Makes an untrained phase with its constants, and random images for the longest chunk."""
  context, sections = bench.context, bench.sections
  size = bench.longest * dry_run.phase(context, sections, name, None).batch_size
  split = random_images(context, size)
  rows = jax.device_put({"image": split.images, "label": split.labels}, parallel.replicated(context.mesh))
  phase = dry_run.phase(context, sections, name, dry_run.frozen(context, sections, split.labels))
  return dataclasses.replace(phase, epoch_size=size), rows


def random_images(context: Context, size: int) -> sources.Split:
  """Makes random images of the data set's shape; their labels go round the classes."""
  facts = context.facts
  images = np.random.default_rng(0).integers(0, 256, (size, *facts.shape), np.uint8)
  return sources.Split(images, np.arange(size, dtype=np.int32) % len(facts.class_names))


def loop_seconds(bench: Bench, phase: loop.Phase, data: Mapping[str, jax.Array]) -> tuple[list[float], float]:
  """Measures the seconds per step of each chunk once the loop is steady, and the seconds of compilation."""
  context = bench.context
  phase = dataclasses.replace(phase, epochs=_UNSTEADY + bench.settings.chunks)
  steps, ends, compile_s = [], [], 0.0
  with tempfile.TemporaryDirectory() as folder:
    late = loop.LateMetrics(phase, context.seeds, files.MetricsFile(epath.Path(folder) / "metrics.jsonl"))
    state = loop.init(phase, context.mesh)
    run = loop.chunks(phase, data, state, 0, seeds=context.seeds, mesh=context.mesh, longest=bench.longest)
    for chunk in run:
      late.push(chunk, {})  # waits for the previous chunk
      steps.append(chunk.step)
      ends.append(time.perf_counter())
      compile_s += chunk.compile_s
    late.flush()
    ends.append(time.perf_counter())
  return list(np.diff(ends)[_UNSTEADY:] / np.diff(steps)), compile_s


def bare_seconds(bench: Bench, phase: loop.Phase, data: Mapping[str, jax.Array]) -> list[float]:
  """Measures the seconds per step of the compiled chunk called again and again, without the loop around it."""
  mesh, seeds = bench.context.mesh, len(bench.context.seeds)
  longest = min(bench.longest, phase.max_chunk or phase.epoch_size)
  rows = np.arange(longest * phase.batch_size, dtype=np.int32).reshape(1, longest, phase.batch_size)
  state = loop.init(phase, mesh)
  rest = (
    phase.frozen,
    data,
    phase.keys,
    jax.device_put(np.repeat(rows, seeds, axis=0), parallel.per_seed(mesh)),
    jax.device_put(np.int32(0), parallel.replicated(mesh)),
  )
  compiled = loop.compilable(phase, mesh).lower(state, *rest).compile()
  seconds = []
  for _ in range(_UNSTEADY + bench.settings.chunks):
    started = time.perf_counter()
    state, *others = compiled(state, *rest)
    jax.block_until_ready(others)
    seconds.append(time.perf_counter() - started)
  return [second / longest for second in seconds[_UNSTEADY:]]


def step_cost(phase: loop.Phase, data: Mapping[str, jax.Array]) -> dict[str, float]:
  """Asks the compiler for the cost of one step of one seed: FLOPs, bytes accessed, and peak bytes held."""
  one = lambda tree: jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), tree)
  key = jax.ShapeDtypeStruct((), phase.keys.dtype)
  state, frozen = jax.eval_shape(phase.init, key), one(phase.frozen)
  rows, keys = jax.ShapeDtypeStruct((1, phase.batch_size), jnp.int32), jax.ShapeDtypeStruct((1,), key.dtype)
  compiled = jax.jit(phase.run_steps, donate_argnums=0).lower(state, frozen, data, rows, keys).compile()
  cost = compiled.cost_analysis()
  return {"flops": cost["flops"], "bytes": cost["bytes accessed"], "peak_bytes": memory.held_bytes(compiled)}


def measure_sampling(bench: Bench) -> Rates:
  """Measures the images per second of each sampler, drawn, decoded and seen by the critics as in an evaluation.

  The untrained critics accept nothing, so that `refine` takes all its rounds.
  """
  context, sections = bench.context, bench.sections
  count, found = sections.evaluate.samples_per_class, {}
  frozen = dry_run.frozen(context, sections, np.arange(context.classes))
  pair = learning.Pair(frozen.actor["params"], frozen.energy["params"])
  target = learning.constraint(context, sections.constraint, pair, jnp.eye(context.classes)[0])
  density = jax.device_put(
    mixture_phase.untrained(context, sections.constraint.mixture), parallel.per_seed(context.mesh)
  )
  arguments = frozen, algebra.Drawable(target, density), context.keys("evaluate")
  for name, way in samplers.bind(sections.sample, context.generator.prior).items():
    draw = context.over_seeds(sample_scores.drawing(context, way, count), 0, 0, 0)
    seconds = [_seconds(lambda draw=draw: draw(*arguments)) for _ in range(_REPEATS + 1)]
    total = len(context.seeds) * count
    found[name] = {"images_per_s": total / min(seconds), "compile_s": seconds[0] - min(seconds)}
  return found


def measure_evaluation(bench: Bench) -> Rates:
  """Measures the images per second at which all arms are scored on `generated_cifar10_c`, one batch a set."""
  context, settings = bench.context, bench.sections.classifier
  split = random_images(context, context.batch_size)
  data = sources.Dataset(context.facts.name, context.facts.class_names, split, split, split)
  states = loop.init(arm_phase.phase(context, settings, None, None, arms=settings.arms), context.mesh)
  classifiers = {arm: state.variables for arm, state in states.items()}
  score = classifier_scores.Scorer(context, data).scores(arm_phase.network(context, settings), classifiers)
  wanted = test_sets.expand(["generated_cifar10_c"])
  cut = classifier_scores.Batching(context.classes, len(split), parallel.replicated(context.mesh))
  seconds = [_seconds(lambda: classifier_scores.score_all(score, wanted, lambda _: split, cut)) for _ in range(2)]
  return {
    "generated_cifar10_c": {"images_per_s": len(wanted) * len(split) / seconds[1], "compile_s": seconds[0] - seconds[1]}
  }


def measure_ceilings() -> Ceilings:
  """Measures the fastest of a few large float32 matrix products and of a few large copies."""
  side = _CPU_SIDE if parallel.on_cpu() else _SIDE
  matrix, block = jnp.ones((side, side)), jnp.ones(_COPIED_BYTES // 4)
  return Ceilings(
    2 * side**3 / _best_seconds(jax.jit(lambda a: a @ a / side), matrix),
    2 * _COPIED_BYTES / _best_seconds(jax.jit(lambda a: a + 1, donate_argnums=0), block),
  )


def _best_seconds(function: Callable[[jax.Array], jax.Array], value: jax.Array) -> float:
  """Measures the seconds of the fastest call; each call takes the result of the last."""
  seconds = []
  for _ in range(_REPEATS + 1):  # the first compiles
    started = time.perf_counter()
    value = function(value).block_until_ready()
    seconds.append(time.perf_counter() - started)
  return min(seconds)


def _seconds(function: Callable[[], Any]) -> float:
  started = time.perf_counter()
  jax.block_until_ready(function())
  return time.perf_counter() - started


def _curve(bench: Bench, name: str) -> list[dict[str, float]]:
  """Measures the milliseconds per step of several seeds together, by their number, until one takes too long."""
  points = []
  for seeds in bench.settings.curve:
    first = bench.context.seeds.start
    several = dataclasses.replace(bench, context=dataclasses.replace(bench.context, seeds=range(first, first + seeds)))
    started = time.perf_counter()
    seconds, _ = loop_seconds(several, *prepare(several, name))
    points.append({"seeds": seeds, "ms_per_step": 1e3 * statistics.median(seconds)})
    if time.perf_counter() - started > bench.settings.seconds:
      break
  return points


def _bound(of_flops: float, of_bytes: float) -> str:
  """Names the ceiling that bounds a step: "arithmetic", "memory" or "neither"."""
  if max(of_flops, of_bytes) < _NEAR:
    return "neither"
  return "arithmetic" if of_flops > of_bytes else "memory"
