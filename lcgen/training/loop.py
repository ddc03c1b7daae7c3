"""The only training loop. It knows no model: a phase brings its step, its state and what is frozen."""

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

from lcgen.reporting import report
from lcgen.runtime import errors, parallel
from lcgen.runtime.interruption import Interruption
from lcgen.training import checkpoint

_log = logging.getLogger(__name__)

Validate = Callable[[Any], Mapping[str, jax.Array]]  # state -> {name: [S]}

INIT_STEP = 0  # the key of step 0 makes the first parameters; training steps count from 1


@dataclasses.dataclass(frozen=True)
class Phase:
  """What the loop needs to know to train something, all repetitions at once.

  Attributes:
    name: e.g. "vae" or "judge"; names its checkpoints and its metrics.
    advance: `(state, frozen, data, rows [T, B], keys [T]) -> (state, metrics [T])`, T steps of one repetition; from
      `OneByOne` where nothing is gained by seeing many at once.
    init: `key -> state`, one repetition.
    frozen: what the steps only look at, with a leading seed axis, or None.
    keys: one key per repetition, `[S]`.
    rows: images per step.
    size: images per epoch.
    epochs: passes over them.
    stage: the stage of `run.py` that trains it.
    pool: which rows of the data make an epoch of each repetition, `[S, size]`; None for the first `size` rows.
    longest: most steps at once, where memory bounds it.
  """

  name: str
  advance: Callable[..., tuple[Any, dict[str, jax.Array]]]
  init: Callable[[jax.Array], Any]
  frozen: Any
  keys: jax.Array
  rows: int
  size: int
  epochs: int
  stage: str = "all"
  pool: np.ndarray | None = None
  longest: int | None = None

  @property
  def steps_per_epoch(self) -> int:
    """An incomplete last batch of an epoch is left out."""
    return self.size // self.rows

  @property
  def steps(self) -> int:
    """All steps of the phase."""
    return self.steps_per_epoch * self.epochs


@dataclasses.dataclass(frozen=True)
class Pace:
  """How often the loop comes back to the host, and how often it may begin again.

  Attributes:
    chunk_steps: steps per dispatch at most.
    checkpoint_steps: steps between checkpoints.
    restores: how often a repetition whose numbers are no longer finite is restored with another key.
  """

  chunk_steps: int
  checkpoint_steps: int
  restores: int = 0


@dataclasses.dataclass
class Timing:
  """What a phase took, summed over interruptions.

  Attributes:
    compile_s: seconds that the chunks took to compile.
    train_s: all other seconds in the loop, with validation, logging and saving.
    steps: done.
    restarts: how often each repetition was begun again with another key, because numbers were no longer finite.
  """

  compile_s: float = 0.0
  train_s: float = 0.0
  steps: int = 0
  restarts: list[int] = dataclasses.field(default_factory=list)

  def summary(self) -> dict[str, float]:
    """As `results.json` has it."""
    return dataclasses.asdict(self) | {"ms_per_step": 1e3 * self.train_s / max(self.steps, 1)}


def summed(parts: Collection[Timing]) -> Timing:
  """What several phases of the same repetitions took."""
  restarts = np.sum([part.restarts for part in parts], axis=0).tolist()
  return Timing(*(sum(getattr(part, name) for part in parts) for name in ("compile_s", "train_s", "steps")), restarts)


@dataclasses.dataclass(frozen=True)
class Chunk:
  """What some steps left.

  Attributes:
    step: the last of them.
    state: after it; given up to the chunk after it.
    terms: of every step, `[S, T]`.
    finite: whether all of the state is, `[S]`.
    compile_s: seconds of compiling it.
  """

  step: int
  state: Any
  terms: dict[str, jax.Array]
  finite: jax.Array
  compile_s: float


@dataclasses.dataclass(frozen=True)
class OneByOne:
  """`Phase.advance` of a single step.

  Attributes:
    step: `(state, frozen, batch, key) -> (state, metrics)`.
    prepare: turns rows of the data into a step's batch.
  """

  step: Callable[..., tuple[Any, dict[str, jax.Array]]]
  prepare: Callable[[dict[str, jax.Array]], Any]

  def __call__(self, state, frozen, data, rows, keys):
    def body(state, inputs):
      picked, key = inputs
      return self.step(state, frozen, take(data, picked, self.prepare), key)

    return jax.lax.scan(body, state, (rows, keys))


def take(data: Mapping[str, jax.Array], rows: jax.Array, prepare: Callable[[Any], Any]) -> Any:
  """The batch of these rows, `[B]`, spread over the devices that share it."""
  return parallel.shard_batch(prepare({name: array[rows] for name, array in data.items()}))


def epoch_order(seed: int, epoch: int, size: int) -> np.ndarray:
  """The order of the training set in one epoch, `[size]`: a function of seed and epoch alone."""
  return np.random.Generator(np.random.Philox(key=[seed, epoch])).permutation(size)


def init(phase: Phase, mesh: Mesh) -> Any:
  """The phase's first state, with a leading seed axis, on the mesh."""
  first = lambda key: phase.init(jax.random.fold_in(key, INIT_STEP))
  return jax.jit(parallel.over_seeds(first, mesh, (0,)), out_shardings=parallel.per_seed(mesh))(phase.keys)


def abstract_state(phase: Phase, mesh: Mesh) -> Any:
  """Shapes and shardings of the phase's state, nothing allocated."""
  return checkpoint.abstract(jax.eval_shape(lambda: init(phase, mesh)), parallel.per_seed(mesh))


def chunk_lengths(steps_per_epoch: int, longest: int) -> list[int]:
  """Cuts an epoch into chunks of at most `longest` steps, equal ones where possible: each length is one compilation."""
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
  pace: Pace,
  directory: epath.Path,
  metrics: report.MetricsFile,
  interruption: Interruption | None = None,
) -> tuple[Any, Timing]:
  """Trains a phase from where it was left to its end, and returns its state.

  Args:
    phase: what to train.
    data: arrays of at least `phase.size` rows on the mesh, shared by all repetitions.
    validate: called at the end of every epoch; what it returns is written with the metrics.
    seeds: the repetitions' seeds, for the order of the data.
    mesh: from `parallel.make_mesh`.
    pace: how often to come back to the host, and how often to begin again.
    directory: where the phase's checkpoints go.
    metrics: where the terms of the losses go, one chunk late.
    interruption: where it was requested the phase ends with the chunk that is running, and is saved.

  Raises:
    NonFiniteError: where a loss or a parameter is no longer finite, for the last time that `pace` allows; the last good
      checkpoint stays.
    Interrupted: where that was requested.
  """
  interruption = interruption or Interruption()
  with checkpoint.Checkpoints(directory) as checkpoints, interruption.deferred():
    state, timing = _last(phase, checkpoints, mesh)
    while timing.steps < phase.steps and not interruption.agreed():
      again = _with_restarts(phase, timing.restarts)
      run = chunks(again, data, state, timing.steps, seeds=seeds, mesh=mesh, longest=pace.chunk_steps)
      try:
        state, timing = _follow(again, run, timing, validate, pace, checkpoints, metrics, interruption)
      except errors.NonFiniteError as error:
        restarts = [count + (replica in error.replicas) for replica, count in enumerate(timing.restarts)]
        if max(restarts) > pace.restores:
          raise
        _log.warning("%s; begun again from step %d with another key", error, checkpoints.latest or 0)
        state, timing = _last(_with_restarts(phase, restarts), checkpoints, mesh)
        timing.restarts = restarts
  return state, timing


def _last(phase: Phase, checkpoints: checkpoint.Checkpoints, mesh: Mesh) -> tuple[Any, Timing]:
  """The state that was saved last, or the first one."""
  if checkpoints.latest is None:
    return init(phase, mesh), Timing(restarts=[0] * len(phase.keys))
  return checkpoints.restore(abstract_state(phase, mesh)), Timing(**checkpoints.record)


def _with_restarts(phase: Phase, restarts: Sequence[int]) -> Phase:
  """The phase with another key for every time that a repetition was begun again, `[S]`."""
  counts = np.array(restarts, np.uint32)
  changed = jax.vmap(jax.random.fold_in)(phase.keys, counts)
  return dataclasses.replace(phase, keys=jnp.where(counts > 0, changed, phase.keys)) if counts.any() else phase


def _follow(
  phase: Phase,
  run: Iterator[Chunk],
  timing: Timing,
  validate: Validate | None,
  pace: Pace,
  checkpoints: checkpoint.Checkpoints,
  metrics: report.MetricsFile,
  interruption: Interruption,
) -> tuple[Any, Timing]:
  """Validates, logs and saves while a phase trains, to its end or an interruption."""
  step = timing.steps
  metrics.truncate(phase.name, step)
  late = LateMetrics(phase.name, phase.steps_per_epoch, metrics)
  started, compiling = time.perf_counter(), 0.0
  with report.progress(phase.name, phase.steps, step) as advance:
    for chunk in run:
      before, step = step, chunk.step
      compiling += chunk.compile_s
      validation = validate(chunk.state) if validate and step % phase.steps_per_epoch == 0 else {}
      late.push(chunk, validation)
      advance(step, late.latest)
      end = step == phase.steps or interruption.agreed()
      if end or step // pace.checkpoint_steps > before // pace.checkpoint_steps:
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
  """Trains from `step` to the phase's end, at most `longest` steps at once; each length is compiled once.

  Raises:
    InputError: where the steps do not fit a device's memory.
  """
  lengths = chunk_lengths(phase.steps_per_epoch, min(longest, phase.longest or longest))
  compiled, orders = {}, None
  while step < phase.steps:
    epoch, position = divmod(step, phase.steps_per_epoch)
    count = _next_length(lengths, position)
    if position == 0 or orders is None:
      orders = _orders(phase, seeds, epoch)
    rows = orders[:, position * phase.rows :][:, : count * phase.rows].reshape(len(seeds), count, phase.rows)
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
      parallel.check_memory(f"{phase.name}: {count} steps at once", parallel.added_bytes(compiled[count]))
    compile_s = time.perf_counter() - before
    state, terms, finite = compiled[count](*arguments)
    step += count
    yield Chunk(step, state, terms, finite, compile_s)


def finished(phase: Phase, mesh: Mesh, directory: epath.Path) -> tuple[Any, Timing]:
  """The state of a phase that has been trained to its end.

  Raises:
    InputError: where it has not.
  """
  with checkpoint.Checkpoints(directory) as checkpoints:
    if checkpoints.latest is None or checkpoints.latest < phase.steps:
      raise errors.InputError(f"{phase.name} is not trained to its end in {directory}; run --stage={phase.stage} first")
    return checkpoints.restore(abstract_state(phase, mesh)), Timing(**checkpoints.record)


def compilable(phase: Phase, mesh: Mesh) -> Any:
  """Many steps, jitted: `(state, frozen, data, keys, rows [S, T, B], first) -> (state, terms, finite [S])`."""

  def chunk(state, frozen, data, key, rows, first):
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, first + 1 + jnp.arange(len(rows)))
    state, terms = phase.advance(state, frozen, data, rows, keys)
    return state, terms, _all_finite(state)

  # Named in the log of compilations; what differs in nothing else must be compiled once, on every share of the labels.
  chunk.__name__ = phase.name.rpartition("/")[2].partition("-")[0]
  # The compiler may shard what a step returns as it likes; the next chunk takes it as this one did.
  mapped = parallel.over_seeds(chunk, mesh, (0, 0, None, 0, 0, None))
  return jax.jit(mapped, donate_argnums=0, out_shardings=parallel.per_seed(mesh))


def _orders(phase: Phase, seeds: Sequence[int], epoch: int) -> np.ndarray:
  """The rows of the data in the order of one epoch, `[S, size]`."""
  orders = np.stack([epoch_order(seed, epoch, phase.size) for seed in seeds]).astype(np.int32)
  return orders if phase.pool is None else np.take_along_axis(phase.pool, orders, axis=1)


def _next_length(lengths: Sequence[int], position: int) -> int:
  """The length of the chunk that starts at this position of an epoch, or what is left of it."""
  ends = np.cumsum(lengths)
  return int(ends[np.searchsorted(ends, position, side="right")] - position)


def _all_finite(tree: Any) -> jax.Array:
  return jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]).all()


class LateMetrics:
  """Writes a chunk's metrics when the next chunk is already running, and finds what is not finite."""

  def __init__(self, phase: str, steps_per_epoch: int, metrics: report.MetricsFile):
    self._phase, self._steps_per_epoch, self._file = phase, steps_per_epoch, metrics
    self._pending = None
    self.latest: dict[str, Any] = {}

  def push(self, chunk: Chunk, validation: Mapping[str, jax.Array]) -> None:
    self.flush()
    self._pending = (chunk.step, chunk.terms, chunk.finite, validation)

  def flush(self) -> None:
    if self._pending is None:
      return
    step, terms, finite, validation = parallel.fetch(self._pending)
    self._pending = None
    self._check(step, terms, finite)
    record = {name: values.mean(axis=1).tolist() for name, values in terms.items()}
    record |= {name: np.asarray(values).tolist() for name, values in validation.items()}
    self.latest = {"phase": self._phase, "step": step, "epoch": step / self._steps_per_epoch} | record
    self._file.write(self.latest)

  def _check(self, step: int, terms: Mapping[str, np.ndarray], finite: np.ndarray) -> None:
    """Raises a NonFiniteError that names the first term that was not finite, or else the step."""
    bad = []
    for name, values in terms.items():  # [S, T]
      for replica, at in np.argwhere(~np.isfinite(values)):
        # Of terms that fail in the same step the total loss comes last: its parts say more.
        bad.append((at, name.endswith("loss"), name, replica, values[replica, at]))
    replicas = tuple(sorted({int(replica) for *_, replica, _ in bad} | set(np.flatnonzero(~finite).tolist())))
    if bad:
      at, _, name, replica, value = min(bad)
      failed = step - next(iter(terms.values())).shape[1] + at + 1
      raise errors.NonFiniteError(
        f"{self._phase}: {name} is {value} at step {failed} of repetition {replica}", replicas
      )
    if replicas:
      raise errors.NonFiniteError(
        f"{self._phase}: a parameter is no longer finite at step {step} of repetition {replicas[0]}", replicas
      )
