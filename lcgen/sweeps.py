"""Sweeps: many runs of one config file, told apart by a number, as an array of jobs starts them."""

import importlib.util
from collections.abc import Collection, Mapping
from typing import Any

from lcgen import config
from lcgen.runtime import errors


def applied(values: Mapping[str, Any], path: str, index: int | None, given: Collection[str]) -> dict[str, Any]:
  """A config's values at one point of the sweep that its file defines.

  The file's `sweep()` returns a list or an iterator of points such as `{"vae.epochs": 20, "seed": 3}`.

  Args:
    values: of the config, as its file and the command line have it; left as they are.
    path: of that file.
    index: which point, from 0; None for none.
    given: dotted keys that the command line has set, which win over the point.

  Raises:
    InputError: where the file has no sweep, the sweep has no such point, or that sets what the config does not have.
  """
  if index is None:
    return dict(values)
  point = _point(path, index)
  known = config.flat(values)
  for key, value in point.items():
    if key not in known:
      raise errors.InputError(f"--sweep_index={index}: {path} sets {key!r}, which the config does not have")
    if key not in given:
      values = _with(values, key, value)
  return dict(values)


def _point(path: str, index: int) -> Mapping[str, Any]:
  spec = importlib.util.spec_from_file_location("swept", path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  if not hasattr(module, "sweep"):
    raise errors.InputError(f"--sweep_index={index}: {path} has no sweep(); see configs/mnist5k.py for one")
  points = list(module.sweep())
  if not 0 <= index < len(points):
    raise errors.InputError(f"--sweep_index={index}: {path} has {len(points)} points, counted from 0")
  if not isinstance(points[index], Mapping):
    raise errors.InputError(f"--sweep_index={index}: {path} has {points[index]!r} there, not a dict of dotted keys")
  return points[index]


def _with(values: Mapping[str, Any], key: str, value: Any) -> dict[str, Any]:
  first, _, rest = key.partition(".")
  return {**values, first: _with(values[first], rest, value) if rest else value}
