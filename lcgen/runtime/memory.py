"""Memory of the devices: how much is free, and how much a compiled function needs."""

import pathlib

import jax

from lcgen.runtime import errors


def free_memory() -> int | None:
  """Gives the bytes free on the fullest local device, or for CPUs on the machine; None if unknown."""
  known = [stats for device in jax.local_devices() if (stats := device.memory_stats())]
  return min(stats["bytes_limit"] - stats["bytes_in_use"] for stats in known) if known else available_memory()


def available_memory() -> int | None:
  """Gives the bytes that Linux reports as available on this machine; None on other systems."""
  info = pathlib.Path("/proc/meminfo")
  lines = dict(line.split(":") for line in info.read_text().splitlines()) if info.exists() else {}
  return 1024 * int(lines["MemAvailable"].split()[0]) if "MemAvailable" in lines else None


def held_bytes(compiled: jax.stages.Compiled) -> int:
  """Gives the peak bytes on a device while a compiled function runs, with its arguments and results."""
  return compiled.memory_analysis().argument_size_in_bytes + added_bytes(compiled)


def added_bytes(compiled: jax.stages.Compiled) -> int:
  """Gives the peak bytes on a device while a compiled function runs, without its arguments."""
  memory = compiled.memory_analysis()
  return memory.temp_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes


def check_memory(what: str, needed: int) -> None:
  """Raises an InputError if fewer than `needed` bytes are free on a device."""
  free = free_memory()
  if free is not None and needed > free:
    raise errors.InputError(
      f"{what}: {needed:,} bytes are needed and {free:,} are free on a device; use more devices, fewer --config.seeds, "
      "smaller batches or networks, --config.data.train_limit or a smaller --config.train.chunk_steps"
    )
