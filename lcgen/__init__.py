"""Latent constraints: learn afterwards where in a VAE's latent space a wish holds, and sample there."""

from typing import TYPE_CHECKING

from lcgen.runtime.version import VERSION as __version__

if TYPE_CHECKING:
  from lcgen.api.load import Run, load

__all__ = ["Run", "__version__", "load"]


def __getattr__(name: str):
  # On first use: `lcgen.config` and --help must not wait for JAX.
  if name in ("Run", "load"):
    from lcgen.api import load as loading

    return getattr(loading, name)
  raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
