"""Registers generators by name, and builds the one that a config names."""

from collections.abc import Callable
from typing import Any

from lcgen.generator.base import Generator
from lcgen.generator.settings import GENERATORS
from lcgen.runtime.registry import Registry

_CLASSES: Registry[type] = Registry("generator")


def register(name: str, settings: type) -> Callable[[type], type]:
  """Registers a generator class under a name, so that `--config.generator=NAME` chooses it.

  Args:
    name: of the generator and of the config's section with its settings.
    settings: a frozen dataclass with at least `latent_dim`.
  """
  if name not in GENERATORS:
    GENERATORS.add(name, settings)

  def decorate(generator: type) -> type:
    generator.name = name
    return _CLASSES.add(name, generator)

  return decorate


def build(name: str, settings: Any, image_shape: tuple[int, int, int], compute: Any) -> Generator:
  """Builds a registered generator for images of a shape."""
  return _CLASSES[name](settings, image_shape, compute)
