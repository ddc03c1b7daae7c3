"""Turns on JAX's persistent compilation cache."""

import hashlib
import pathlib
import platform

import jax
from etils import epath


def keep(folder: epath.Path) -> None:
  """Keeps all that JAX compiles in `folder`, unless `JAX_COMPILATION_CACHE_DIR` names another."""
  if jax.config.jax_compilation_cache_dir is None:
    jax.config.update("jax_compilation_cache_dir", str(folder / _processor()))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def _processor() -> str:
  """Names the type of processor; machines that share a folder may differ in it, and so in their programs."""
  info = pathlib.Path("/proc/cpuinfo")
  lines = info.read_text().splitlines() if info.exists() else []
  features = sorted({line for line in lines if line.startswith(("flags", "Features"))})
  return f"{platform.machine()}-{hashlib.sha256(repr(features).encode()).hexdigest()[:8]}"
