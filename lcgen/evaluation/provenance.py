"""Facts that a reader needs to repeat or to question a result."""

import os
import platform
from importlib import metadata
from typing import Any

import jax

from lcgen.data import digests, ranges, sources
from lcgen.training.context import Context

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def about(context: Context, data: sources.Dataset) -> dict[str, Any]:
  """Gives devices, package versions, the generator's name, SHA-256 digests of the data, and value ranges."""
  device, limit = jax.devices()[0], context.generator.output_limit
  return {
    "device": f"{jax.device_count()} x {device.device_kind}, {os.cpu_count()} CPU cores",
    "versions": {"python": platform.python_version()} | {name: metadata.version(name) for name in _PACKAGES},
    "generator": context.generator.name,
    "data": {name: digests.joined(getattr(data, name)) for name in digests.SPLITS},
    "ranges": (
      f"stored 0 to 255, in the networks {-ranges.MODEL_LIMIT:g} to {ranges.MODEL_LIMIT:g}, "
      f"decoded {-limit:g} to {limit:g}"
    ),
  }
