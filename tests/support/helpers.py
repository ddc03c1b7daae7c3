"""Small things that several test files build on."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np

from lcgen import config
from lcgen.api import build
from lcgen.data import sources
from lcgen.generator.frozen import Frozen

DIGITS = sources.Facts("digits", (28, 28, 1), tuple("0123456789"), 3600, 400, 1000)
FACTS = sources.Facts("squares", (8, 8, 1), ("0", "1", "2", "3"), 80, 16, 20)  # of `squares`


def load_config(name, variant="", **overrides):
  """A config file's values as `run.py` would read them; overrides by dotted keys in `__` form: vae__epochs=3."""
  values = importlib.import_module(f"configs.{name}").get_config(*([variant] if variant else []))
  for key, value in overrides.items():
    *sections, last = key.split("__")
    section = values
    for part in sections:
      section = section[part]
    section[last] = value
  return values.to_dict()


def config_of(*variant, **changes):
  """The config of `configs/mnist5k.py`, a variant of it, with some keys changed."""
  return config.parse(load_config("mnist5k", *variant, **changes))


def context_of(settings, facts=DIGITS):
  """The context of a config, without the images."""
  return build.context(settings, facts)


def tree_bytes(tree):
  """All leaves, byte for byte."""
  return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree)]


def frozen_vae(variables, latents=8, side=8, **more):
  """A generator's variables with statistics that change nothing."""
  gain, identity = jnp.ones((side, side // 2 + 1)), jnp.linspace(0, 1, 256)
  return Frozen(variables, jnp.ones(latents), identity, gain, jnp.zeros(()), **more)


def squares(count=80, classes=4, side=8, seed=0):
  """A toy data set: class k is bright in quadrant k."""
  rng = np.random.default_rng(seed)
  labels = np.arange(count) % classes
  images = rng.integers(0, 60, (count, side, side, 1))
  half = side // 2
  for row, label in enumerate(labels):
    y, x = divmod(label, 2)
    images[row, y * half : (y + 1) * half, x * half : (x + 1) * half] += 150
  return sources.Split(images.astype(np.uint8), labels.astype(np.int32))
