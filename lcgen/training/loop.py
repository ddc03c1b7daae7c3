"""The only training loop. It knows no model: a phase brings its steps, its first state and its constants."""

import dataclasses
import logging
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jax.sharding import Mesh

from lcgen.runtime import errors, files, memory, parallel
from lcgen.runtime.interruption import Interruption
from lcgen.training import checkpoint, progress
from lcgen.training.late_metrics import LateMetrics

_log = logging.getLogger(__name__)

Validate = Callable[[Any], Mapping[str, Any]]  # state -> {name: [S]}, nested as the phase's terms

INIT_STEP = 0  # its key makes the first parameters; training steps count from 1


@dataclasses.dataclass(frozen=True)
class Phase:
  """A task for the training loop, for all seeds at once.

  Attributes:
    name: e.g. "vae" or "realism/energy"; names its checkpoints and its metrics.
    kind: e.g. "vae" or "energy"; names its compiled chunk and tells reports how to draw its metrics.
    run_steps: `(state, frozen, data, rows [T, B], keys [T]) -> (state, metrics [T])`, T steps of one seed; `OneByOne`
      makes it from a single step.
    init: `key -> state`, for one seed.
    frozen: constants of the steps, with a leading seed axis, or None.
    keys: one key for each seed, `[S]`.
    batch_size: rows of a step.
    epoch_size: rows of an epoch.
    epochs: passes over them.
    stage: the stage of `run.py` that trains it.
    pool: the rows of the data that make an epoch of each seed, `[S, epoch_size]`; None for the first `epoch_size` rows.
    max_chunk: most steps per compiled call, if memory limits it.
  """

  name: str
  kind: str
  run_steps: Callable[..., tuple[Any, dict[str, Any]]]
  init: Callable[[jax.Array], Any]
  frozen: Any
  keys: jax.Array
  batch_size: int
  epoch_size: int
  epochs: int
  stage: str = "all"
  pool: np.ndarray | None = None
  max_chunk: int | None = None

  @property
  def steps_per_epoch(self) -> int:
    """Steps of an epoch, without an incomplete last batch."""
    return self.epoch_size // self.batch_size

  @property
  def steps(self) -> int:
    """All steps of the phase."""
    return self.steps_per_epoch * self.epochs


@dataclasses.dataclass(frozen=True)
class Pace:
  """Limits of the training loop: steps per compiled call, steps between checkpoints, restarts after NaN.

  Attributes:
    chunk_steps: most steps per compiled call.
    checkpoint_steps: steps between checkpoints.
    restores: most restarts of one seed with another key, after numbers that are not finite.
  """

  chunk_steps: int
  checkpoint_steps: int
  restores: int = 0


@dataclasses.dataclass(frozen=True)
class Session:
  """Everything around the steps of a phase: files, limits and signals.

  Attributes:
    directory: folder of the phase's checkpoints.
    metrics: file of the loss terms, written one chunk late.
    pace: limits of the loop.
    interruption: if requested, the phase ends after the running chunk, which is saved.
  """

  directory: epath.Path
  metrics: files.MetricsFile
  pace: Pace
  interruption: Interruption = dataclasses.field(default_factory=Interruption)


@dataclasses.dataclass
class Timing:
  """Times and steps of a phase, summed over interruptions.

  Attributes:
    compile_s: seconds that the chunks took to compile.
    train_s: all other seconds in the loop, with validation, logging and saving.
    steps: done.
    restarts: of each seed with another key, because its numbers were no longer finite.
  """

  compile_s: float = 0.0
  train_s: float = 0.0
  steps: int = 0
  restarts: list[int] = dataclasses.field(default_factory=list)

  def summary(self) -> dict[str, float]:
    """Gives the entry of `results.json`."""
    return dataclasses.asdict(self) | {"ms_per_step": 1e3 * self.train_s / max(self.steps, 1)}


def summed(parts: Collection[Timing]) -> Timing:
  """Adds up the times of several phases of the same seeds."""
  restarts = np.sum([part.restarts for part in parts], axis=0).tolist()
  return Timing(*(sum(getattr(part, name) for part in parts) for name in ("compile_s", "train_s", "steps")), restarts)


@dataclasses.dataclass(frozen=True)
class Chunk:
  """The results of one compiled call.

  Attributes:
    step: its last step.
    state: after that step; the next chunk reuses its memory.
    terms: loss terms of every step, a pytree of `[S, T]`.
    finite: whether the whole state is finite, `[S]`.
    compile_s: seconds of its compilation.
  """

  step: int
  state: Any
  terms: dict[str, Any]
  finite: jax.Array
  compile_s: float


@dataclasses.dataclass(frozen=True)
class OneByOne:
  """Makes `Phase.run_steps` from a single step.

  Attributes:
    step: `(state, frozen, batch, key) -> (state, metrics)`.
    prepare: turns rows of the data into a step's batch.
  """

  step: Callable[..., tuple[Any, dict[str, Any]]]
  prepare: Callable[[dict[str, jax.Array]], Any]

  def __call__(self, state, frozen, data, rows, keys):
    def body(state, inputs):
      picked, key = inputs
      return self.step(state, frozen, take(data, picked, self.prepare), key)

    return jax.lax.scan(body, state, (rows, keys))


def take(data: Mapping[str, jax.Array], rows: jax.Array, prepare: Callable[[Any], Any]) -> Any:
  """Takes the batch of these rows, `[B]`, and shards it over the devices that share it."""
  return parallel.shard_batch(prepare({name: array[rows] for name, array in data.items()}))


def epoch_order(seed: int, epoch: int, size: int) -> np.ndarray:
  """Draws the order of the training set in one epoch, `[size]`, from seed and epoch alone."""
  return np.random.Generator(np.random.Philox(key=[seed, epoch])).permutation(size)


def init(phase: Phase, mesh: Mesh) -> Any:
  """Makes the first state of a phase on the mesh, with a leading seed axis."""
  first = lambda key: phase.init(jax.random.fold_in(key, INIT_STEP))
  return jax.jit(parallel.over_seeds(first, mesh, (0,)), out_shardings=parallel.per_seed(mesh))(phase.keys)


def abstract_state(phase: Phase, mesh: Mesh) -> Any:
  """Gives the shapes and shardings of a phase's state without allocating it."""
  return checkpoint.abstract(jax.eval_shape(lambda: init(phase, mesh)), parallel.per_seed(mesh))


def chunk_lengths(steps_per_epoch: int, longest: int) -> list[int]:
  """Cuts an epoch into chunks of at most `longest` steps, equal if possible: each length is one compilation."""
  fewest = -(-steps_per_epoch // longest)
  chunks = next((n for n in range(fewest, 2 * fewest + 1) if steps_per_epoch % n == 0), fewest)
  return [steps_per_epoch // chunks + (i < steps_per_epoch % chunks) for i in range(chunks)]


def train(
  phase: Phase,
  data: Mapping[str, jax.Array],
  validate: Validate | None,
  *,
  seeds: Sequence[int],
  mesh: Mesh,
  session: Session,
) -> tuple[Any, Timing]:
  """Trains a phase from its last checkpoint to its end, and returns its state.

  Args:
    phase: what to train.
    data: arrays of at least `phase.epoch_size` rows on the mesh, shared by all seeds.
    validate: called with the state at the end of every epoch; its result is written with the metrics.
    seeds: of the run; they decide the order of the data.
    mesh: from `parallel.make_mesh`.
    session: its files, limits and signals.

  Raises:
    NonFiniteError: if a loss or a parameter is no longer finite and the pace allows no more restarts. The last good
      checkpoint stays.
    Interrupted: if a signal has requested it.
  """
  interruption = session.interruption
  with checkpoint.Checkpoints(session.directory) as checkpoints, interruption.deferred():
    state, timing = _last(phase, checkpoints, mesh)
    while timing.steps < phase.steps and not interruption.agreed():
      again = _with_restarts(phase, timing.restarts)
      run = chunks(again, data, state, timing.steps, seeds=seeds, mesh=mesh, longest=session.pace.chunk_steps)
      try:
        state, timing = _follow(again, run, timing, validate, checkpoints, seeds, session)
      except errors.NonFiniteError as error:
        restarts = [count + (place in error.places) for place, count in enumerate(timing.restarts)]
        if max(restarts) > session.pace.restores:
          raise
        _log.warning("%s; begun again from step %d with another key", error, checkpoints.latest or 0)
        state, timing = _last(_with_restarts(phase, restarts), checkpoints, mesh)
        timing.restarts = restarts
  return state, timing


def _last(phase: Phase, checkpoints: checkpoint.Checkpoints, mesh: Mesh) -> tuple[Any, Timing]:
  """Restores the last saved state, or makes the first one."""
  if checkpoints.latest is None:
    return init(phase, mesh), Timing(restarts=[0] * len(phase.keys))
  return checkpoints.restore(abstract_state(phase, mesh)), Timing(**checkpoints.record)


def _with_restarts(phase: Phase, restarts: Sequence[int]) -> Phase:
  """Gives each restarted seed another key; `restarts` counts the restarts of each, `[S]`."""
  counts = np.array(restarts, np.uint32)
  changed = jax.vmap(jax.random.fold_in)(phase.keys, counts)
  return dataclasses.replace(phase, keys=jnp.where(counts > 0, changed, phase.keys)) if counts.any() else phase


def _follow(
  phase: Phase,
  run: Iterator[Chunk],
  timing: Timing,
  validate: Validate | None,
  checkpoints: checkpoint.Checkpoints,
  seeds: Sequence[int],
  session: Session,
) -> tuple[Any, Timing]:
  """Validates, logs and saves while a phase trains, until its end or an interruption."""
  step = timing.steps
  session.metrics.truncate(phase.name, step)
  late = LateMetrics(phase, seeds, session.metrics)
  started, compiling = time.perf_counter(), 0.0
  with progress.progress(phase.name, phase.steps, step) as advance:
    for chunk in run:
      before, step = step, chunk.step
      compiling += chunk.compile_s
      validation = validate(chunk.state) if validate and step % phase.steps_per_epoch == 0 else {}
      late.push(chunk, validation)
      advance(step, late.latest)
      end = step == phase.steps or session.interruption.agreed()
      if end or step // session.pace.checkpoint_steps > before // session.pace.checkpoint_steps:
        late.flush()
        spent = time.perf_counter() - started
        timing = Timing(timing.compile_s + compiling, timing.train_s + spent - compiling, step, timing.restarts)
        started, compiling = time.perf_counter(), 0.0
        checkpoints.save(step, chunk.state, dataclasses.asdict(timing))
      if end:
        break
  return chunk.state, timing


def chunks(
  phase: Phase,
  data: Mapping[str, jax.Array],
  state: Any,
  step: int,
  *,
  seeds: Sequence[int],
  mesh: Mesh,
  longest: int,
) -> Iterator[Chunk]:
  """Trains from `step` to the phase's end, at most `longest` steps per call; each length is compiled once.

  Raises:
    InputError: if the steps do not fit a device's memory.
  """
  lengths = chunk_lengths(phase.steps_per_epoch, min(longest, phase.max_chunk or longest))
  compiled, orders = {}, None
  while step < phase.steps:
    epoch, position = divmod(step, phase.steps_per_epoch)
    count = _next_length(lengths, position)
    if position == 0 or orders is None:
      orders = _orders(phase, seeds, epoch)
    size = phase.batch_size
    rows = orders[:, position * size :][:, : count * size].reshape(len(seeds), count, size)
    arguments = (
      state,
      phase.frozen,
      data,
      phase.keys,
      parallel.put(rows, parallel.per_seed(mesh)),
      parallel.put(np.array(step, np.int32), parallel.replicated(mesh)),
    )
    before = time.perf_counter()
    if count not in compiled:
      compiled[count] = compilable(phase, mesh).lower(*arguments).compile()
      memory.check_memory(f"{phase.name}: {count} steps at once", memory.added_bytes(compiled[count]))
    compile_s = time.perf_counter() - before
    state, terms, finite = compiled[count](*arguments)
    step += count
    yield Chunk(step, state, terms, finite, compile_s)


def finished(phase: Phase, mesh: Mesh, directory: epath.Path) -> tuple[Any, Timing]:
  """Restores the state of a phase that is trained to its end.

  Raises:
    InputError: if it is not.
  """
  with checkpoint.Checkpoints(directory) as checkpoints:
    if checkpoints.latest is None or checkpoints.latest < phase.steps:
      raise errors.InputError(f"{phase.name} is not trained to its end in {directory}; run --stage={phase.stage} first")
    return checkpoints.restore(abstract_state(phase, mesh)), Timing(**checkpoints.record)


def compilable(phase: Phase, mesh: Mesh) -> Any:
  """Jits many steps: `(state, frozen, data, keys, rows [S, T, B], first) -> (state, terms, finite [S])`."""

  def chunk(state, frozen, data, key, rows, first):
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, first + 1 + jnp.arange(len(rows)))
    state, terms = phase.run_steps(state, frozen, data, rows, keys)
    return state, terms, _all_finite(state)

  # Named by its kind, so that phases that differ in nothing but their names share one compilation.
  chunk.__name__ = phase.kind
  # Without out_shardings the compiler may choose a sharding that the next call does not accept.
  mapped = parallel.over_seeds(chunk, mesh, (0, 0, None, 0, 0, None))
  return jax.jit(mapped, donate_argnums=0, out_shardings=parallel.per_seed(mesh))


def _orders(phase: Phase, seeds: Sequence[int], epoch: int) -> np.ndarray:
  """Gives the rows of the data in the order of one epoch, `[S, epoch_size]`."""
  orders = np.stack([epoch_order(seed, epoch, phase.epoch_size) for seed in seeds]).astype(np.int32)
  return orders if phase.pool is None else np.take_along_axis(phase.pool, orders, axis=1)


def _next_length(lengths: Sequence[int], position: int) -> int:
  """Counts the steps from this position of an epoch to the end of its chunk."""
  ends = np.cumsum(lengths)
  return int(ends[np.searchsorted(ends, position, side="right")] - position)


def _all_finite(tree: Any) -> jax.Array:
  return jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]).all()
