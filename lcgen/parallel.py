"""Devices: the mesh `("seed", "data")`, what lies where on it, and the map over repetitions.

Repetitions are spread over devices first; the batch is sharded over the devices left to each repetition.
"""

import math
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from lcgen import errors

SEED, DATA = "seed", "data"


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
    timeout: seconds that a process waits for the others.

  Raises:
    InputError: where the others do not come in time, or there is no cluster; says who waited for whom.
  """
  if not multihost and coordinator is None:
    return
  try:
    jax.distributed.initialize(coordinator, processes, process, initialization_timeout=timeout)
  except (RuntimeError, ValueError) as error:
    who = "this process" if process is None else f"process {process} of {processes}"
    raise errors.InputError(
      f"--multihost: {who} has waited up to {timeout} s for {coordinator or 'a coordinator to be detected'} "
      f"({str(error).strip().splitlines()[0]}); start all processes, and see --coordinator, --num_processes and "
      "--process_id"
    ) from error


def described(seeds: int) -> str:
  """Process, devices and mesh, in a line."""
  mesh = make_mesh(seeds)
  shape = " x ".join(f"{size} {name}" for name, size in mesh.shape.items())
  return (
    f"process {jax.process_index()} of {jax.process_count()}, {jax.local_device_count()} of {jax.device_count()} "
    f"devices ({jax.devices()[0].device_kind}), mesh {shape}"
  )


def make_mesh(seeds: int, devices: Sequence[jax.Device] | None = None) -> Mesh:
  """All devices of all hosts, or those given; the seed axis is the largest that divides repetitions and devices."""
  devices = jax.devices() if devices is None else devices
  across = math.gcd(seeds, len(devices))
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
  return compiled.memory_analysis().argument_size_in_bytes + _added_bytes(compiled)


def check_memory(what: str, compiled: jax.stages.Compiled) -> None:
  """Raises an InputError where a compiled function needs more, beside its arguments, than is free on a device."""
  needed, free = _added_bytes(compiled), free_memory()
  if free is not None and needed > free:
    raise errors.InputError(
      f"{what}: {needed:,} bytes are needed beside the data and the states, and {free:,} are free on a device; use "
      "more devices, fewer --config.seeds, smaller batches or networks, or a smaller --config.train.chunk_steps"
    )


def _added_bytes(compiled: jax.stages.Compiled) -> int:
  memory = compiled.memory_analysis()
  return memory.temp_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes


def fetch(tree: Any) -> Any:
  """Arrays on the mesh as NumPy arrays, whole, in every process."""
  if jax.process_count() == 1:
    return jax.device_get(tree)
  return multihost_utils.process_allgather(tree, tiled=True)


def local(tree: Any, mesh: Mesh) -> Any:
  """Arrays with a leading seed axis on a mesh of this process's own devices; as they are where there is one process."""
  return tree if jax.process_count() == 1 else jax.device_put(fetch(tree), per_seed(mesh))


def barrier(name: str) -> None:
  """Waits until all processes have come here."""
  if jax.process_count() > 1:
    multihost_utils.sync_global_devices(name)


def anywhere(flag: bool) -> bool:
  """Whether the flag is up in any process."""
  if jax.process_count() == 1:
    return flag
  return bool(multihost_utils.process_allgather(np.array(flag)).any())


def per_seed(mesh: Mesh) -> NamedSharding:
  """The sharding of arrays with a leading seed axis."""
  return NamedSharding(mesh, PartitionSpec(SEED))


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
