"""Corruptions that are generated on the device: shifted test sets for any data set.

A corruption is a pure function `(key, images, severity) -> images` that can be jitted and mapped. Images are float32
in [0, 1], `[B, H, W, C]`, with at least 8 pixels a side and C in {1, 3}. The severity counts from 1 and may be traced.
Random numbers are drawn for each image, as in the originals.

`CIFAR10_C` holds the 19 corruptions of CIFAR-10-C (Hendrycks and Dietterich 2019) in five severities. `MNIST_C` holds
the 15 of MNIST-C (Mu and Gilmer 2019, arXiv:1906.02337) in one severity. Names and parameters are the published ones.

The generated sets are not the published files: compare them with each other, not with published numbers. If a
corruption is only an equivalent of the published one, its docstring says how it differs.
"""

import importlib
import math

import jax
import jax.numpy as jnp

from lcgen.data.corruptions import cifar10_c, mnist_c
from lcgen.data.corruptions.cifar10_c import Corruption
from lcgen.data.test_set_names import BENCHMARK, EXTRA, GROUPS, SEVERITIES
from lcgen.runtime import errors
from lcgen.runtime.registry import Registry

CIFAR10_C: dict[str, Corruption] = {function.__name__: function for function in cifar10_c.ALL}
MNIST_C: dict[str, Corruption] = {function.__name__: function for function in mnist_c.ALL}
REGISTERED: Registry[Corruption] = Registry("corruption")
_OUTSIDE = 0.5  # that noise may lead beyond [0, 1], where it is clipped; more is another value range
_LONGEST = 300  # characters of a user's error that are shown


def register(name: str):
  """Returns a decorator that registers a corruption for `--config.evaluate.sets=custom/NAME`.

  NAME must contain a dot, as in `mine.fog`.
  """
  return REGISTERED.register(name)


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
    InputError: if it cannot be found or traced, or does not return float32 images of the same shape in [0, 1].
  """
  function, given = custom(path), jax.ShapeDtypeStruct((1, *shape), jnp.float32)
  try:
    found = jax.eval_shape(function, jax.random.key(0), given, jax.ShapeDtypeStruct((), jnp.int32))
  except Exception as error:  # a user's function may raise anything
    words = errors.reason(error, _LONGEST)
    raise errors.InputError(
      f"config.evaluate.sets: custom/{path} cannot be traced ({words}); write a JAX function of (key, images, severity)"
    ) from error
  is_array = isinstance(found, jax.ShapeDtypeStruct)
  returned = f"{found.dtype}{list(found.shape)}" if is_array else f"a {type(found).__name__}"
  if returned != f"float32{list(given.shape)}":
    raise errors.InputError(
      f"config.evaluate.sets: custom/{path} returns {returned} for float32{list(given.shape)}; return images as given"
    )
  grey = jnp.linspace(0.0, 1.0, math.prod(given.shape)).reshape(given.shape)
  for severity in (SEVERITIES[0], SEVERITIES[-1]):
    values = function(jax.random.key(0), grey, jnp.int32(severity))
    low, high = float(values.min()), float(values.max())
    if not (-_OUTSIDE <= low and high <= 1 + _OUTSIDE):  # also if they are nan
      raise errors.InputError(
        f"config.evaluate.sets: custom/{path} returns values from {low:g} to {high:g} at severity {severity}; return "
        "values in [0, 1]"
      )


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
  "register",
]
