"""Devices: the mesh `("seed", "data")`, what lies where on it, and the map over repetitions.

Repetitions are spread over devices first; the batch is sharded over the devices left to each repetition.
"""

import functools
import math
import os
import pathlib
import re
import socket
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from lcgen.runtime import errors

SEED, DATA = "seed", "data"
_LATER = 30  # seconds by which JAX, which aborts, is more patient
_EXCHANGED_BYTES = 64 * 2**20  # on a device, while processes tell each other what they have read
_SHARE_OF_DATA = 0.25  # of a device's free memory: more than this is spread over several


def initialize(
  multihost: bool,
  coordinator: str | None = None,
  processes: int | None = None,
  process: int | None = None,
  timeout: int = 300,
) -> None:
  """Joins a cluster if asked to; must come before any computation.

  Args:
    multihost: join what JAX detects: SLURM, a TPU pod, Open MPI.
    coordinator: address and port of process 0, where nothing can be detected.
    processes: how many there are.
    process: which one this is.
    timeout: seconds that a process waits for the others; then it ends with exit code 2, and says who waited for whom.

  Raises:
    InputError: where there is no cluster, or no place in it.
  """
  if not multihost and coordinator is None:
    return
  # Programs of several processes on CPUs that overlap may wait for each other for ever.
  jax.config.update("jax_cpu_enable_async_dispatch", False)
  patience = threading.Timer(timeout, _give_up, (coordinator, processes, process, timeout))
  patience.start()
  try:
    jax.distributed.initialize(coordinator, processes, process, initialization_timeout=timeout + _LATER)
  except (RuntimeError, ValueError) as error:
    raise errors.InputError(
      f"--multihost: {str(error).strip().splitlines()[0]} Where JAX detects no cluster give --coordinator, "
      "--num_processes and --process_id"
    ) from error
  finally:
    patience.cancel()


def _give_up(coordinator: str | None, processes: int | None, process: int | None, timeout: int) -> None:
  """Ends the process; JAX itself would abort it, and say nothing of who waited for whom."""
  environment = os.environ
  who, count = process or environment.get("SLURM_PROCID", 0), processes or environment.get("SLURM_NTASKS", "several")
  where = coordinator or environment.get("JAX_COORDINATOR_ADDRESS") or environment.get("SLURM_STEP_NODELIST", "others")
  print(
    f"run.py: --multihost: process {who} of {count}, on {socket.gethostname()}, has waited {timeout} s for the others "
    f"at {where}; start all of them within --initialization_timeout",
    file=sys.stderr,
    flush=True,
  )
  os._exit(2)


def described(mesh: Mesh) -> str:
  """Process, devices and mesh, in a line."""
  shape = " x ".join(f"{size} {name}" for name, size in mesh.shape.items())
  return (
    f"process {jax.process_index()} of {jax.process_count()}, {jax.local_device_count()} of {jax.device_count()} "
    f"devices ({jax.devices()[0].device_kind}), mesh {shape}"
  )


def make_mesh(seeds: int, devices: Sequence[jax.Device] | None = None, seed_axis: int = 0) -> Mesh:
  """The devices that train.

  Args:
    seeds: number of repetitions.
    devices: those given; None for all of all hosts.
    seed_axis: devices along the seed axis; 0 for the largest number that divides repetitions and devices.

  Raises:
    InputError: where repetitions or devices cannot be spread over `seed_axis`.
  """
  devices = jax.devices() if devices is None else devices
  if seed_axis and (seeds % seed_axis or len(devices) % seed_axis):
    raise errors.InputError(
      f"config.train.seed_axis={seed_axis}: must divide the {seeds} repetitions and the {len(devices)} devices; 0 does"
    )
  across = seed_axis or math.gcd(seeds, len(devices))
  shape, types = (across, len(devices) // across), (AxisType.Auto, AxisType.Auto)
  return jax.make_mesh(shape, (SEED, DATA), axis_types=types, devices=devices)


def free_memory() -> int | None:
  """Bytes free on the fullest local device, for a CPU on its machine; None where nobody says."""
  known = [stats for device in jax.local_devices() if (stats := device.memory_stats())]
  return min(stats["bytes_limit"] - stats["bytes_in_use"] for stats in known) if known else available_memory()


def available_memory() -> int | None:
  """Bytes that Linux says are available on this machine; None elsewhere."""
  info = pathlib.Path("/proc/meminfo")
  lines = dict(line.split(":") for line in info.read_text().splitlines()) if info.exists() else {}
  return 1024 * int(lines["MemAvailable"].split()[0]) if "MemAvailable" in lines else None


def held_bytes(compiled: jax.stages.Compiled) -> int:
  """Most bytes on a device while a compiled function runs, its arguments and results included."""
  return compiled.memory_analysis().argument_size_in_bytes + added_bytes(compiled)


def added_bytes(compiled: jax.stages.Compiled) -> int:
  """Most bytes on a device while a compiled function runs, beside its arguments."""
  memory = compiled.memory_analysis()
  return memory.temp_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes


def check_memory(what: str, needed: int) -> None:
  """Raises an InputError where `needed` bytes are not free on a device."""
  free = free_memory()
  if free is not None and needed > free:
    raise errors.InputError(
      f"{what}: {needed:,} bytes are needed and {free:,} are free on a device; use more devices, fewer --config.seeds, "
      "smaller batches or networks, --config.data.train_limit or a smaller --config.train.chunk_steps"
    )


def put(tree: Any, sharding: jax.sharding.Sharding | jax.Device | None) -> Any:
  """`jax.device_put` of host arrays; on a mesh of several processes each gives its own devices what they hold."""
  if isinstance(sharding, jax.sharding.Sharding) and not sharding.is_fully_addressable:
    place = lambda array: jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])
    return jax.tree.map(place, jax.device_get(tree))
  return jax.device_put(tree, sharding)


def fetch(tree: Any) -> Any:
  """Arrays on a mesh as NumPy arrays, whole, in every process; all of them must ask for it."""
  leaves, structure = jax.tree.flatten(tree)
  away = {
    place: leaf for place, leaf in enumerate(leaves) if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable
  }
  if away:
    mesh = next(iter(away.values())).sharding.mesh
    for place, copy in _copies(away, replicated(mesh)).items():
      leaves[place] = copy.addressable_data(0)
  return jax.device_get(jax.tree.unflatten(structure, leaves))


@functools.partial(jax.jit, static_argnums=1)
def _copies(arrays: Any, sharding: NamedSharding) -> Any:
  return jax.lax.with_sharding_constraint(arrays, sharding)


def local_mesh(mesh: Mesh, seeds: int) -> Mesh:
  """A mesh of this process's own devices; the same one where there are no others."""
  return mesh if jax.process_count() == 1 else make_mesh(seeds, jax.local_devices())


def local(tree: Any, mesh: Mesh) -> Any:
  """Arrays with a leading seed axis on such a mesh; as they are where there is one process."""
  return tree if jax.process_count() == 1 else jax.device_put(fetch(tree), per_seed(mesh))


def barrier() -> None:
  """Waits until all processes have come here."""
  _from_all(np.array(0))


def anywhere(flag: bool) -> bool:
  """Whether the flag is up in any process."""
  return bool(_from_all(np.array(flag)).any())


def of_first(number: int) -> int:
  """The number that the first process has."""
  return int(_from_all(np.array(number, np.int32))[0])


def _from_all(array: np.ndarray) -> np.ndarray:
  """The array that every process has, `[...]` of the same shape and type, in their order: `[P, ...]`."""
  if jax.process_count() == 1:
    return array[None]
  first = {device.process_index: device for device in reversed(jax.devices())}
  mesh = Mesh(np.array([first[process] for process in sorted(first)]), (DATA,))
  spread = NamedSharding(mesh, PartitionSpec(DATA))
  return fetch(jax.make_array_from_callback((len(first), *array.shape), spread, lambda _: array[None]))


def read_in_parts(count: int, read: Callable[[range], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
  """Rows that are whole in every process, after each has read its part of them.

  Args:
    count: of all rows.
    read: some of the rows, as arrays whose shapes `[N, ...]` and types are alike in all parts.

  Raises:
    InputError: where a process cannot read its part; in all of them.
  """
  processes, own, failure = jax.process_count(), jax.process_index(), None
  if processes == 1 or count < processes:
    return read(range(count))
  ends = [count * place // processes for place in range(processes + 1)]
  try:
    part = read(range(ends[own], ends[own + 1]))
  except errors.InputError as error:
    failure = error
  if anywhere(failure is not None):
    raise failure or errors.InputError("another process cannot read its part of the data; its log says why")
  return {name: _joined(array, np.diff(ends)) for name, array in part.items()}


def _joined(part: np.ndarray, counts: Sequence[int]) -> np.ndarray:
  """The rows of all processes, of which each has `counts`."""
  content = np.ascontiguousarray(part).reshape(len(part), -1).view(np.uint8)  # JAX would change wide types
  width = content.shape[1]
  content = np.pad(content, ((0, max(counts) - len(content)), (0, 0)))
  rows = max(1, _EXCHANGED_BYTES // (width * len(counts)))
  blocks = [_from_all(content[start : start + rows]) for start in range(0, len(content), rows)]
  each = np.concatenate(blocks, axis=1)  # [P, N, bytes]
  whole = np.concatenate([rows[:count] for rows, count in zip(each, counts, strict=True)])
  return whole.view(part.dtype).reshape(-1, *part.shape[1:])


def is_of_lost(error: BaseException) -> bool:
  """Whether an error may come of a process that is gone: XLA's own, which begin with a status as in `UNKNOWN: `."""
  own = isinstance(error, jax.errors.JaxRuntimeError | ValueError) and re.match(r"[A-Z_]+: ", str(error))
  return bool(own) and jax.process_count() > 1


def per_seed(mesh: Mesh) -> NamedSharding:
  """The sharding of arrays with a leading seed axis."""
  return NamedSharding(mesh, PartitionSpec(SEED))


def over_data(mesh: Mesh, placement: str, size: int) -> NamedSharding:
  """The sharding of the training images.

  Args:
    mesh: from `make_mesh`.
    placement: "replicated", on every device whole; "sharded", spread over those that share a batch; or "auto".
    size: bytes of all of them.
  """
  if placement == "auto":
    free = free_memory()
    # The processes see other free memories, and must do the same.
    placement = "sharded" if anywhere(free is not None and size > _SHARE_OF_DATA * free) else "replicated"
  return NamedSharding(mesh, PartitionSpec(DATA)) if placement == "sharded" else replicated(mesh)


def parts(sharding: NamedSharding) -> int:
  """In how many parts the rows of an array are spread."""
  return math.prod(sharding.mesh.shape[axis] for axis in sharding.spec if axis)


def put_rows(array: np.ndarray, sharding: NamedSharding) -> jax.Array:
  """Rows, `[N, ...]`, on a mesh; zeros follow the last one where the parts would not be equal."""
  if missing := -len(array) % parts(sharding):
    array = np.concatenate([array, np.zeros_like(array, shape=(missing, *array.shape[1:]))])
  return put(array, sharding)


def replicated(mesh: Mesh) -> NamedSharding:
  """The sharding of arrays that every device holds whole."""
  return NamedSharding(mesh, PartitionSpec())


def shard_batch(batch: Any) -> Any:
  """Spreads a batch's leading axis over the data axis, inside a function that `over_seeds` maps."""
  if jax.sharding.get_abstract_mesh().shape.get(DATA, 1) == 1:
    return batch
  return jax.lax.with_sharding_constraint(batch, PartitionSpec(DATA))


def over_arms(function: Callable[..., Any]) -> Callable[..., Any]:
  """Maps a function over the leading axis of all its arguments, as `over_seeds` does on one device."""
  if jax.default_backend() != "cpu":
    return jax.vmap(function)
  return lambda *args: jax.lax.map(lambda parts: function(*parts), args)


def over_seeds(
  function: Callable[..., Any], mesh: Mesh, in_axes: Sequence[int | None], vectorize: bool | None = None
) -> Callable[..., Any]:
  """Maps a function of one repetition over the leading seed axis of its arguments.

  Each device group maps over the repetitions it holds: by `vmap` on accelerators, which fills them; one after
  another on a CPU, where `vmap` was measured 1.1 to 2.4 times slower.

  Args:
    function: takes and returns pytrees of one repetition.
    mesh: from `make_mesh`.
    in_axes: for each argument 0 (has a seed axis) or None (is shared), as for `jax.vmap`.
    vectorize: `vmap` or one after another; None chooses by the backend.
  """
  if vectorize is None:
    vectorize = mesh.devices.flat[0].platform != "cpu"
  mapped = [index for index, axis in enumerate(in_axes) if axis == 0]

  def local(*args):
    if vectorize:
      return jax.vmap(function, tuple(in_axes))(*args)

    def one(parts):
      filled = list(args)
      for index, part in zip(mapped, parts, strict=True):
        filled[index] = part
      return function(*filled)

    return jax.lax.map(one, tuple(args[index] for index in mapped))

  local.__name__ = getattr(function, "__name__", "local")  # what a log of compilations calls it
  specs = tuple(PartitionSpec(SEED) if axis == 0 else PartitionSpec() for axis in in_axes)
  return jax.shard_map(
    local, mesh=mesh, in_specs=specs, out_specs=PartitionSpec(SEED), axis_names={SEED}, check_vma=False
  )
