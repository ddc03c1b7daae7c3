"""Checks the arguments of a run's methods in Python."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lcgen.constraints import samplers
from lcgen.runtime import errors, fields


def method_and_count(how: str | int | None, method: str | None, count: int | None) -> tuple[str | None, int | None]:
  """Returns the method and the count, of which `how` may be one.

  Raises:
    ValueError: if `how` is one that is given already.
  """
  if how is None:
    return "refine" if method is None else method, count
  if is_whole(how):
    method, count, taken = "refine" if method is None else method, how, count
  else:
    method, taken = how, method
  if taken is not None:
    raise ValueError(f"{how!r} and {taken!r}: give the method once, and the count once")
  return method, count


def latents(given: Any, size: int) -> jax.Array:
  """Returns latents as float32, `[N, size]`.

  Raises:
    ValueError: if they are none, have another size, or are not finite in float32.
  """
  given = np.asarray(given)
  if given.ndim != 2 or given.shape[1] != size or not len(given):
    raise ValueError(f"latents of shape {given.shape}: must be [N, {size}], one or more")
  if not np.issubdtype(given.dtype, np.number) or np.iscomplexobj(given):
    raise ValueError(f"latents are {given.dtype}: pass real numbers")
  if not (np.abs(given) <= fields.LARGEST).all():
    raise ValueError("latents hold NaN, infinity or more than float32 has: decode finite ones")
  return jnp.asarray(given, jnp.float32)


def is_whole(value: Any) -> bool:
  """Tells whether a value is a whole number; True and False are none."""
  return isinstance(value, int | np.integer) and not isinstance(value, bool)


def check_finite(moved: samplers.Moved, what: str, section: str) -> None:
  """Checks that samples can be decoded.

  Args:
    moved: the samples.
    what: made them, for the message.
    section: of the config, whose settings made them.

  Raises:
    InputError: if some have moved farther than float32 can tell.
  """
  if lost := int((~jnp.isfinite(moved.distance)).sum()):
    raise errors.InputError(
      f"{what}: {lost} of {len(moved.latents)} samples are lost in infinity; make config.{section} or the "
      "weights of the wish smaller"
    )
