"""Corruptions that are generated on the device: shifted test sets for any data set.

A corruption is a pure function `(key, images, severity) -> images` that can be jitted and mapped. Images are float32
in [0, 1], `[B, H, W, C]` with C in {1, 3}. The severity counts from 1 and may be traced. Random numbers are drawn for
each image, as in the originals. `least_side` declares the least height and width, which are checked before training.

`CIFAR10_C` holds the 19 corruptions of CIFAR-10-C (Hendrycks and Dietterich 2019) in five severities. `MNIST_C` holds
the 15 of MNIST-C (Mu and Gilmer 2019, arXiv:1906.02337) in one severity. Names and parameters are the published ones.

The generated sets are not the published files: compare them with each other, not with published numbers. If a
corruption is only an equivalent of the published one, its docstring says how it differs.
"""

import functools
import importlib
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from lcgen.data.corruptions import cifar10_c, mnist_c
from lcgen.data.corruptions.cifar10_c import Corruption
from lcgen.data.corruptions.sizes import least_side, least_side_of
from lcgen.data.test_set_names import BENCHMARK, EXTRA, GROUPS, SEVERITIES
from lcgen.runtime import errors
from lcgen.runtime.registry import Registry

CIFAR10_C: dict[str, Corruption] = {function.__name__: function for function in cifar10_c.ALL}
MNIST_C: dict[str, Corruption] = {function.__name__: function for function in mnist_c.ALL}
REGISTERED: Registry[Corruption] = Registry("corruption")
_OUTSIDE = 0.5  # that noise may lead beyond [0, 1], where it is clipped; more is another value range
_LONGEST = 300  # characters of a user's error that are shown


def register(name: str, least: int = 1) -> Callable[[Corruption], Corruption]:
  """Returns a decorator that registers a corruption for `--config.evaluate.sets=custom/NAME`.

  Args:
    name: NAME, with a dot, as in `mine.fog`.
    least: least height and width of the images that it takes, as `least_side` declares them.
  """
  return lambda function: REGISTERED.add(name, least_side(least)(function))


def custom(path: str) -> Corruption:
  """Returns the corruption registered under this path, or else imports the function `module.function`.

  Raises:
    InputError: if it can be neither found nor imported.
  """
  if path in REGISTERED:
    return REGISTERED[path]
  module, _, name = path.rpartition(".")
  try:
    found = getattr(importlib.import_module(module), name, None)
  except Exception as error:  # a user's module may raise anything
    words = errors.reason(error, _LONGEST)
    raise errors.InputError(
      f"config.evaluate.sets: custom/{path}: {words}; the module must be importable: beside run.py, or on PYTHONPATH"
    ) from error
  if not callable(found):
    raise errors.InputError(f"config.evaluate.sets: custom/{path}: {module} has no function {name}")
  return found


def check_custom(path: str, shape: tuple[int, int, int]) -> None:
  """Checks a user's corruption on one image of shape `(H, W, C)`.

  Raises:
    InputError: if it cannot be found, traced or run, or does not return float32 images of the same shape in [0, 1].
  """
  function, given = custom(path), jax.ShapeDtypeStruct((1, *shape), jnp.float32)
  severities = jax.ShapeDtypeStruct((), jnp.int32)
  found = _tried(path, "traced", lambda: jax.eval_shape(function, jax.random.key(0), given, severities))
  is_array = isinstance(found, jax.ShapeDtypeStruct)
  returned = f"{found.dtype}{list(found.shape)}" if is_array else f"a {type(found).__name__}"
  if returned != f"float32{list(given.shape)}":
    raise errors.InputError(
      f"config.evaluate.sets: custom/{path} returns {returned} for float32{list(given.shape)}; return images as given"
    )
  grey = jnp.linspace(0.0, 1.0, math.prod(given.shape)).reshape(given.shape)
  for severity in (SEVERITIES[0], SEVERITIES[-1]):
    one = jnp.int32(severity)
    values = _tried(path, "run", functools.partial(function, jax.random.key(0), grey, one))
    low, high = float(values.min()), float(values.max())
    if not (-_OUTSIDE <= low and high <= 1 + _OUTSIDE):  # also if they are nan
      raise errors.InputError(
        f"config.evaluate.sets: custom/{path} returns values from {low:g} to {high:g} at severity {severity}; return "
        "values in [0, 1]"
      )


def _tried(path: str, how: str, call: Callable[[], Any]) -> Any:
  """Calls a user's function, and names it if that fails."""
  try:
    return call()
  except Exception as error:  # a user's function may raise anything
    words = errors.reason(error, _LONGEST)
    raise errors.InputError(
      f"config.evaluate.sets: custom/{path} cannot be {how} ({words}); write a JAX function of (key, images, severity)"
    ) from error


__all__ = [
  "BENCHMARK",
  "CIFAR10_C",
  "EXTRA",
  "GROUPS",
  "MNIST_C",
  "REGISTERED",
  "SEVERITIES",
  "Corruption",
  "check_custom",
  "custom",
  "least_side",
  "least_side_of",
  "register",
]
