"""The built-in generators; importing this module registers them."""

from lcgen.generator import pca, vae_phase
from lcgen.generator.base import Generator
from lcgen.generator.registration import build, register

__all__ = ["Generator", "build", "pca", "register", "vae_phase"]
