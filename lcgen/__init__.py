"""Latent constraints: learn afterwards where in a VAE's latent space a wish holds, and sample there."""

__version__ = "0.1.0"

from lcgen.api.run import Run, load

__all__ = ["Run", "load"]
