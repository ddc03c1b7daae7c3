"""Checks the settings of JAX that come from the environment."""

import os

import jax

from lcgen.runtime import errors


def check() -> None:
  """Checks that JAX computes in float32 and has devices; starts its backends.

  Raises:
    InputError: if 64-bit types are on, whose numbers no checkpoint could hold, or the platform asked for is missing.
  """
  if jax.config.jax_enable_x64:
    raise errors.InputError(
      "JAX_ENABLE_X64: 64-bit types are on, and lcgen computes in float32; unset JAX_ENABLE_X64, or turn "
      "jax_enable_x64 off"
    )
  if jax.config.jax_disable_jit:
    raise errors.InputError(
      "JAX_DISABLE_JIT: compilation is off, and lcgen compiles every phase; unset JAX_DISABLE_JIT, or turn "
      "jax_disable_jit off"
    )
  try:
    jax.devices()
  except (RuntimeError, AssertionError) as error:  # JAX asserts where only a platform for accelerators is missing
    asked = jax.config.jax_platforms or os.environ.get("JAX_PLATFORMS", "")
    reason = str(error).partition(" (set JAX_PLATFORMS")[0] or "it finds no such device"
    raise errors.InputError(
      f"JAX_PLATFORMS={asked}: JAX cannot start ({reason}); unset it, or install JAX for that platform, "
      "as in pip install 'jax[cuda13]'"
    ) from error
