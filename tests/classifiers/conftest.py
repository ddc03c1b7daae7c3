"""A small world in which policies are tried: untrained networks, a batch, and other images by class."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lcgen.api import build
from lcgen.classifiers import labelled
from lcgen.constraints import mixture_phase
from lcgen.data import ranges
from tests.support.helpers import FACTS, config_of, context_of, squares, tree_bytes
from tests.support.untrained import init_of, tools_of

SIZE, CLASSES, KEYS, SHARE = 16, 4, 64, 0.25
LIMIT = ranges.MODEL_LIMIT
# Rows of the stored images by class; row 0 lies in no class, and stands where tables are filled up.
MEMBERS = ((4, 8, 12, 16), (5,), (6, 10, 14, 18, 22, 26), (7, 11))


@pytest.fixture(scope="module")
def world():
  """Networks that nobody trained, statistics that change something, a batch, and other images by class."""
  settings = config_of("smoke", sample__refine__steps=3, edit__steps=5, classifier__share=SHARE)
  context = context_of(settings, FACTS)
  tools = tools_of(settings, context)
  stored = squares(seed=1).images
  stored[0] = 255
  rows = np.zeros((CLASSES, 6), np.int32)
  for own, members in zip(rows, MEMBERS, strict=True):
    own[: len(members)] = members
  frozen = jax.jit(init_of(context, build.constraint(settings)))(jax.random.key(0)).replace(
    labelled=labelled.Labelled(jnp.asarray(rows), jnp.array([len(own) for own in MEMBERS]), jnp.asarray(stored)),
  )
  # Sure of classes, as after training.
  frozen = frozen.replace(energy=jax.tree.map(lambda leaf: 8 * leaf, frozen.energy))
  gain = np.random.default_rng(0).uniform(0.2, 1, frozen.decoder_gain.shape)
  frozen = frozen.replace(
    calibration=frozen.calibration**2, decoder_gain=jnp.asarray(gain, jnp.float32), decoder_error=jnp.array(0.3)
  )
  whole = mixture_phase.untrained(context, settings.mixture)
  means = jnp.asarray(np.random.default_rng(1).normal(size=whole.means.shape), jnp.float32)
  frozen = frozen.replace(mixture=jax.tree.map(lambda leaf: leaf[0], whole.replace(means=means)))
  batch = squares(SIZE)
  batch.images[3] = 255  # the end of the range
  images, labels = tools.prepare(jnp.asarray(batch.images)), jax.nn.one_hot(batch.labels, CLASSES)
  return types.SimpleNamespace(
    settings=settings,
    context=context,
    tools=tools,
    frozen=frozen,
    images=images,
    labels=labels,
    stored=stored,
    bytes=tree_bytes((images, labels, frozen)),
  )


def keys():
  return jax.random.split(jax.random.key(7), KEYS)


def over_keys(policy):
  """Not compiled as a whole: one operation after another is the same for all arms, and compiles once."""
  return jax.vmap(policy, (0, None, None, None))
