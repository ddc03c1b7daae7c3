"""Memory of the devices: how much is free, and how much a compiled function needs."""

import contextlib
import pathlib

import jax

from lcgen.runtime import errors


def free_memory() -> int | None:
  """Gives the bytes free on the fullest local device, or for CPUs on the machine; None if unknown."""
  known = [stats for device in jax.local_devices() if (stats := device.memory_stats())]
  return min(stats["bytes_limit"] - stats["bytes_in_use"] for stats in known) if known else available_memory()


def available_memory(root: pathlib.Path = pathlib.Path("/")) -> int | None:
  """Gives the bytes that Linux reports as available to this process; None on other systems.

  A container or a job of SLURM often has less than the machine.

  Args:
    root: of the file system.
  """
  info = root / "proc/meminfo"
  lines = dict(line.split(":") for line in info.read_text().splitlines()) if info.exists() else {}
  known = [1024 * int(lines["MemAvailable"].split()[0])] if "MemAvailable" in lines else []
  return min(known + _left_to_groups(root), default=None)


def _left_to_groups(root: pathlib.Path) -> list[int]:
  """Gives the bytes left to each control group around this process that has a limit."""
  own = root / "proc/self/cgroup"
  lines = [line.split(":", 2) for line in own.read_text().splitlines()] if own.exists() else []
  left = []
  for _, controllers, path in lines:
    old = "memory" in controllers.split(",")  # version 1 has a tree for each controller
    if not old and controllers:
      continue
    top = root / "sys/fs/cgroup" / ("memory" if old else "")
    names = ("memory.limit_in_bytes", "memory.usage_in_bytes") if old else ("memory.max", "memory.current")
    group = top / path.lstrip("/")  # is not there if the container sees its own group as the top
    for folder in (group, *(parent for parent in group.parents if parent.is_relative_to(top))):
      with contextlib.suppress(OSError, ValueError):  # no such file, or no limit: "max"
        limit, used = (int((folder / name).read_text()) for name in names)
        left.append(max(0, limit - used + _reclaimable(folder / "memory.stat", "total_" if old else "")))
  return left


def _reclaimable(file: pathlib.Path, prefix: str) -> int:
  """Gives the bytes of cached files, which Linux frees when they are needed."""
  known = dict(line.split() for line in file.read_text().splitlines())
  return int(known.get(f"{prefix}inactive_file", 0)) + int(known.get(f"{prefix}active_file", 0))


def held_bytes(compiled: jax.stages.Compiled) -> int:
  """Gives the peak bytes on a device while a compiled function runs, with its arguments and results."""
  return compiled.memory_analysis().argument_size_in_bytes + added_bytes(compiled)


def added_bytes(compiled: jax.stages.Compiled) -> int:
  """Gives the peak bytes on a device while a compiled function runs, without its arguments."""
  memory = compiled.memory_analysis()
  return memory.temp_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes


_LARGE_RUN = (
  "use more devices, fewer --config.seeds, smaller batches or networks, --config.data.train_limit or a smaller "
  "--config.train.chunk_steps"
)


def check_memory(what: str, needed: int, way_out: str = _LARGE_RUN) -> None:
  """Raises an InputError with a way out if fewer than `needed` bytes are free on a device."""
  free = free_memory()
  if free is not None and needed > free:
    raise errors.InputError(f"{what}: {needed:,} bytes are needed and {free:,} are free on a device; {way_out}")
