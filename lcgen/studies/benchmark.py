"""How fast every phase trains on this device, inside the real loop, and what bounds it; on random images."""

import dataclasses
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from lcgen.constraints import learning, samplers
from lcgen.data import sources, test_sets
from lcgen.evaluation import classifier_scores, evaluate, sample_scores
from lcgen.reporting import report, tables
from lcgen.runtime import parallel
from lcgen.studies import dry_run
from lcgen.training import loop
from lcgen.training.context import Phases

Rates = dict[str, dict[str, float]]  # {what: {"images_per_s", "compile_s"}}

_UNSTEADY = 1  # chunks before the loop runs steadily
_REPEATS = 5  # of what the ceilings are measured by, the best of which counts
_COPIED_BYTES = 2**28
_SIDES = {"cpu": 2048}  # of the matrices whose product is timed
_SIDE = 8192  # on accelerators
_NEAR = 0.5  # of a ceiling: what comes this close is bound by it


@dataclasses.dataclass(frozen=True)
class Ceilings:
  """What this device was measured to do at best: FLOP/s of a large matrix product, bytes/s of a large copy."""

  flops_per_s: float
  bytes_per_s: float


def run(phases: Phases) -> dict[str, Any]:
  """What `benchmark.json` holds: the device, its ceilings, and every phase with one repetition and with several.

  Args:
    phases: of a config; its sizes and its section `benchmark` count.
  """
  section, ceilings = phases.config["benchmark"], measure_ceilings()
  trained = [name for name in section["phases"] if name in dry_run.NAMES]
  found = {name: measure(phases, name, ceilings) for name in trained}
  curve = {name: _curve(phases, name) for name in trained}
  timed = {"sampling": measure_sampling, "evaluation": measure_evaluation}
  others = {name: measure_rates(phases) for name, measure_rates in timed.items() if name in section["phases"]}
  shown = [phase_table(found, ceilings)] if trained else []
  shown += [curve_table(curve)] if trained and section["curve"] else []
  shown += [image_table(others)] if others else []
  return {
    "device": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
    "seeds": len(phases.seeds),
    "ceilings": dataclasses.asdict(ceilings),
    "phases": found,
    "curve": curve,
    **others,
    "tables": [table._asdict() for table in shown],
  }


def measure(phases: Phases, name: str, ceilings: Ceilings) -> dict[str, Any]:
  """One phase: times inside the loop per step and repetition, and what a step costs in FLOPs, bytes and memory."""
  mesh = phases.mesh
  phase, data = prepare(phases, name, mesh)
  seconds, compile_s = loop_seconds(phases, phase, data, mesh)
  each = [1e3 * second / len(phases.seeds) for second in seconds]
  bare = [1e3 * second / len(phases.seeds) for second in bare_seconds(phases, phase, data, mesh)]
  median, cost = statistics.median(each), step_cost(phase, data)
  flops, traffic = cost["flops"] / median * 1e3, cost["bytes"] / median * 1e3
  return {
    "ms_per_step": median,
    "ms_spread": max(each) - min(each),
    "of_loop": 1 - min(bare) / min(each),
    "compile_s": compile_s,
    "images_per_s": phase.rows / median * 1e3,
    "flops_per_step": cost["flops"],
    "bytes_per_step": cost["bytes"],
    "flops_per_s": flops,
    "bytes_per_s": traffic,
    "of_flops": flops / ceilings.flops_per_s,
    "of_bytes": traffic / ceilings.bytes_per_s,
    "peak_bytes": cost["peak_bytes"],
    "bound": _bound(flops / ceilings.flops_per_s, traffic / ceilings.bytes_per_s),
  }


def prepare(phases: Phases, name: str, mesh: jax.sharding.Mesh) -> tuple[loop.Phase, dict[str, jax.Array]]:
  """A phase with what it needs to run, untrained, and random images for as many steps as a chunk may have."""
  size = phases.config["train"]["chunk_steps"] * dry_run.phase(phases, name, None).rows
  split = random_images(phases, size)
  rows = jax.device_put({"image": split.images, "label": split.labels}, parallel.replicated(mesh))
  phase = dry_run.phase(phases, name, dry_run.frozen(phases, mesh, split.labels))
  return dataclasses.replace(phase, size=size), rows


def random_images(phases: Phases, size: int) -> sources.Split:
  """Of the data set's shape, their labels in turn."""
  facts = phases.facts
  images = np.random.default_rng(0).integers(0, 256, (size, *facts.shape), np.uint8)
  return sources.Split(images, np.arange(size, dtype=np.int32) % len(facts.class_names))


def loop_seconds(
  phases: Phases, phase: loop.Phase, data: Mapping[str, jax.Array], mesh: jax.sharding.Mesh
) -> tuple[list[float], float]:
  """Seconds a step, of each chunk of the steady loop, and the seconds of compilation."""
  longest = phases.config["train"]["chunk_steps"]
  phase = dataclasses.replace(phase, epochs=_UNSTEADY + phases.config["benchmark"]["chunks"])
  steps, ends, compile_s = [], [], 0.0
  with tempfile.TemporaryDirectory() as folder:
    late = loop.LateMetrics(phase.name, longest, report.MetricsFile(epath.Path(folder) / "metrics.jsonl"))
    state = loop.init(phase, mesh)
    for chunk in loop.chunks(phase, data, state, 0, seeds=phases.seeds, mesh=mesh, longest=longest):
      late.push(chunk, {})  # waits for the chunk before
      steps.append(chunk.step)
      ends.append(time.perf_counter())
      compile_s += chunk.compile_s
    late.flush()
    ends.append(time.perf_counter())
  return list(np.diff(ends)[_UNSTEADY:] / np.diff(steps)), compile_s


def bare_seconds(
  phases: Phases, phase: loop.Phase, data: Mapping[str, jax.Array], mesh: jax.sharding.Mesh
) -> list[float]:
  """Seconds a step where the compiled steps follow each other with nothing between them."""
  longest = min(phases.config["train"]["chunk_steps"], phase.longest or phase.size)
  rows = np.arange(longest * phase.rows, dtype=np.int32).reshape(1, longest, phase.rows)
  state = loop.init(phase, mesh)
  rest = (
    phase.frozen,
    data,
    phase.keys,
    jax.device_put(np.repeat(rows, len(phases.seeds), axis=0), parallel.per_seed(mesh)),
    jax.device_put(np.int32(0), parallel.replicated(mesh)),
  )
  compiled = loop.compilable(phase, mesh).lower(state, *rest).compile()
  seconds = []
  for _ in range(_UNSTEADY + phases.config["benchmark"]["chunks"]):
    started = time.perf_counter()
    state, *others = compiled(state, *rest)
    jax.block_until_ready(others)
    seconds.append(time.perf_counter() - started)
  return [second / longest for second in seconds[_UNSTEADY:]]


def step_cost(phase: loop.Phase, data: Mapping[str, jax.Array]) -> dict[str, float]:
  """What the compiler says of one step of one repetition: FLOPs, bytes read and written, most bytes held at once."""
  one = lambda tree: jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), tree)
  key = jax.ShapeDtypeStruct((), phase.keys.dtype)
  state, frozen = jax.eval_shape(phase.init, key), one(phase.frozen)
  rows, keys = jax.ShapeDtypeStruct((1, phase.rows), jnp.int32), jax.ShapeDtypeStruct((1,), key.dtype)
  compiled = jax.jit(phase.advance, donate_argnums=0).lower(state, frozen, data, rows, keys).compile()
  cost = compiled.cost_analysis()
  return {"flops": cost["flops"], "bytes": cost["bytes accessed"], "peak_bytes": parallel.held_bytes(compiled)}


def measure_sampling(phases: Phases) -> Rates:
  """Images a second by each method, drawn, decoded and looked at by the critics as in an evaluation.

  The networks are untrained: they refuse all, so that `refine` takes all its rounds.
  """
  mesh, classes, found = phases.mesh, len(phases.facts.class_names), {}
  frozen = dry_run.frozen(phases, mesh, np.arange(classes))
  pair = learning.Pair(frozen.actor["params"], frozen.energy["params"])
  arguments = frozen, learning.constraint(phases, pair, jnp.eye(classes)[0]), phases.keys("evaluate")
  for name, way in samplers.with_settings(phases.config["sample"]).items():
    draw = jax.jit(parallel.over_seeds(sample_scores.drawing(phases, way), mesh, (0, 0, 0)))
    seconds = [_seconds(lambda draw=draw: draw(*arguments)) for _ in range(_REPEATS + 1)]
    count = len(phases.seeds) * phases.config["evaluate"]["samples_per_class"]
    found[name] = {"images_per_s": count / min(seconds), "compile_s": seconds[0] - min(seconds)}
  return found


def measure_evaluation(phases: Phases) -> Rates:
  """Images a second of the 95 sets of `generated_cifar10_c`, a batch each, made and scored by the arms' classifiers."""
  mesh, arms = phases.mesh, phases.config["classifier"]["arms"]
  split = random_images(phases, phases.config["evaluate"]["batch_size"])
  data = sources.Dataset(phases.facts.name, phases.facts.class_names, split, split, split)
  states = loop.init(phases.classifiers("comparison", arms, None), mesh)
  classifiers = {arm: state.variables for arm, state in states.items()}
  score = classifier_scores.Scorer(phases, mesh, data).scores(phases.networks.classifier, classifiers)
  wanted = test_sets.expand(["generated_cifar10_c"])
  options = {"classes": len(data.class_names), "size": len(split), "sharding": parallel.replicated(mesh)}
  seconds = [_seconds(lambda: evaluate.scores(score, wanted, lambda _: split, **options)) for _ in range(2)]
  return {
    "generated_cifar10_c": {"images_per_s": len(wanted) * len(split) / seconds[1], "compile_s": seconds[0] - seconds[1]}
  }


def measure_ceilings() -> Ceilings:
  """The best of a few large matrix products in float32, and of a few large copies."""
  side = _SIDES.get(jax.default_backend(), _SIDE)
  matrix, block = jnp.ones((side, side)), jnp.ones(_COPIED_BYTES // 4)
  return Ceilings(
    2 * side**3 / _best_seconds(jax.jit(lambda a: a @ a / side), matrix),
    2 * _COPIED_BYTES / _best_seconds(jax.jit(lambda a: a + 1, donate_argnums=0), block),
  )


def _best_seconds(function: Callable[[jax.Array], jax.Array], value: jax.Array) -> float:
  """Of one call; each takes what the last returned, so that nothing is allocated anew."""
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


def _curve(phases: Phases, name: str) -> list[dict[str, float]]:
  """Milliseconds of a step of all repetitions at once, for each of their numbers; to where one takes too long."""
  section, points = phases.config["benchmark"], []
  for seeds in section["curve"]:
    several = Phases(phases.config | {"seeds": seeds}, phases.facts)
    mesh = several.mesh
    started = time.perf_counter()
    seconds, _ = loop_seconds(several, *prepare(several, name, mesh), mesh)
    points.append({"seeds": seeds, "ms_per_step": 1e3 * statistics.median(seconds)})
    if time.perf_counter() - started > section["seconds"]:
      break
  return points


def _bound(of_flops: float, of_bytes: float) -> str:
  """What keeps a step from being faster."""
  if max(of_flops, of_bytes) < _NEAR:
    return "neither"
  return "arithmetic" if of_flops > of_bytes else "memory"


def phase_table(found: Mapping[str, Mapping[str, Any]], ceilings: Ceilings) -> tables.Table:
  """A row a phase."""
  header = ["phase", "ms a step", "images/s", "compilation, s", "GFLOP/s", "GB/s", "loop, %", "peak, MiB", "bound by"]
  rows = [
    [
      name,
      f"{one['ms_per_step']:.3g} ± {one['ms_spread'] / 2:.2g}",
      f"{one['images_per_s']:,.0f}",
      f"{one['compile_s']:.1f}",
      f"{one['flops_per_s'] / 1e9:,.1f} ({100 * one['of_flops']:.0f} %)",
      f"{one['bytes_per_s'] / 1e9:,.1f} ({100 * one['of_bytes']:.0f} %)",
      f"{100 * one['of_loop']:.1f}",
      f"{one['peak_bytes'] / 2**20:,.0f}",
      one["bound"],
    ]
    for name, one in found.items()
  ]
  return tables.Table(
    "Training steps inside the loop, a repetition.",
    header,
    rows,
    f"Time: median and half the spread. FLOPs and bytes are the compiler's count, in brackets their share of what this "
    f"device was measured to do: {ceilings.flops_per_s / 1e9:,.0f} GFLOP/s in a matrix product, "
    f"{ceilings.bytes_per_s / 1e9:,.1f} GB/s in a copy; above 100 % comes from caches. Loop: the share of the time "
    "that it takes beside the compiled steps, fastest against fastest.",
  )


def curve_table(curve: Mapping[str, Sequence[Mapping[str, float]]]) -> tables.Table:
  """A row a phase, a column a number of repetitions."""
  counts = sorted({point["seeds"] for points in curve.values() for point in points})
  rows = []
  for name, points in curve.items():
    known = {point["seeds"]: point["ms_per_step"] for point in points}
    rows.append([name, *(f"{known[count]:.3g}" if count in known else "–" for count in counts)])
  return tables.Table(
    "Milliseconds a step of several repetitions at once, by their number.", ["phase", *map(str, counts)], rows, ""
  )


def image_table(found: Mapping[str, Rates]) -> tables.Table:
  """A row a method of sampling, and one for the evaluation."""
  rows = [
    [name, f"{one['images_per_s']:,.0f}", f"{one['compile_s']:.1f}"]
    for rates in found.values()
    for name, one in rates.items()
  ]
  note = (
    "Samples are drawn, decoded and looked at by the critics; untrained ones refuse all, so that refine takes all its "
    "rounds. The 95 sets of generated_cifar10_c are made, a batch each, and scored by the classifiers of all arms."
  )
  return tables.Table("Images a second, all repetitions.", ["", "images/s", "compilation, s"], rows, note)
