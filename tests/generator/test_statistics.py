"""The statistics of a trained generator and the tables of labelled images, against NumPy."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lcgen.classifiers.labelled import by_class
from lcgen.data import sources
from lcgen.generator import base, calibration, statistics
from lcgen.generator.settings import VAESettings
from lcgen.models.posterior import Posterior
from tests.support.helpers import FACTS, config_of, context_of, squares

SIZE = 80


@pytest.fixture(scope="module")
def context():
  return context_of(config_of("smoke", evaluate__batch_size=12), FACTS)


@pytest.fixture(scope="module")
def variables(context):
  """The variables of an untrained VAE for both seeds."""
  return jax.jit(jax.vmap(context.generator.init))(jax.random.split(jax.random.key(0)))


def test_labelled_images_are_listed_by_class_and_seed():
  labels = np.array([2, 0, 0, 2, 1, 2, 2, 0, 2, 3])
  pools = [np.array([9, 5, 1, 0, 3, 2]), np.array([8, 6, 4, 3, 0])]  # no image of class 1; none of 0 and 3
  found = by_class(labels, 5, pools)
  expected = [
    [[row for row in pool if labels[row] == label] for label in range(5)] for pool in (own.tolist() for own in pools)
  ]
  np.testing.assert_array_equal(found.counts, [[len(rows) for rows in own] for own in expected])
  assert found.rows.shape == (2, 5, 4)
  for own, table in zip(expected, np.asarray(found.rows), strict=True):
    for rows, places in zip(own, table, strict=True):
      assert places.tolist() == rows + [0] * (4 - len(rows))
  assert (found.rows.dtype, found.counts.dtype, found.images) == (jnp.int32, jnp.int32, None)


def dataset():
  """Validation images that do not fill their last batch, nor do those for training."""
  return sources.Dataset("squares", tuple("0123"), squares(SIZE), squares(20, seed=2), squares(20, seed=3))


class Perfect(base.Generator):
  """Keeps images as they are, as latents."""

  calibrate = False

  def encode(self, variables, images):
    flat = images.reshape(len(images), -1)
    return Posterior(flat, jnp.full_like(flat, -jnp.inf))

  def decode(self, variables, latents):
    return latents.reshape(len(latents), *self.image_shape)


def test_a_perfect_decoder_errs_by_nothing_and_keeps_every_frequency(context):
  perfect = Perfect(VAESettings(latent_dim=64), (8, 8, 1), context.compute)
  own = dataclasses.replace(context, generator=perfect)
  found = statistics.find(own, {"of": jnp.zeros(2)}, dataset())
  np.testing.assert_allclose(found["decoder_gain"], np.ones((2, 8, 5)), rtol=1e-5)
  np.testing.assert_allclose(found["decoder_error"], np.zeros(2), atol=1e-6)
  np.testing.assert_array_equal(found["posterior_scale"], np.zeros((2, 64)))
  np.testing.assert_array_equal(found["calibration"], np.stack([calibration.identity()] * 2))


def test_statistics_are_those_of_the_vae(context, variables):
  data, model = dataset(), context.generator.model
  found = statistics.find(context, variables, data)
  assert {name: (values.shape, values.dtype) for name, values in found.items()} == {
    name: (shape.shape, shape.dtype) for name, shape in statistics.shapes(context).items()
  }

  for index, key in enumerate(context.keys("statistics")):
    own_variables = jax.tree.map(lambda leaf, index=index: leaf[index], variables)
    own = {name: np.asarray(values[index], np.float64) for name, values in found.items()}

    reconstruct = functools.partial(jax.jit(model.apply), own_variables)

    def encode(split, reconstruct=reconstruct, key=key):
      """Images, standard deviations and reconstructions before calibration, in float64, by batches of 12."""
      parts = []
      for start in range(0, len(split), 12):
        rows = np.arange(start, start + 12)  # the last batch is filled with images from the beginning
        images = context.prepare({"image": jnp.asarray(split.images[rows % len(split)])})["image"]
        output = reconstruct(images, key)
        keep = (rows < len(split)).sum()
        parts.append([np.asarray(part, np.float64)[:keep] for part in (images, output.posterior.scale, output.images)])
      return map(np.concatenate, zip(*parts, strict=True))

    images, scale, decoded = encode(data.train)
    np.testing.assert_allclose(own["posterior_scale"], scale.mean(axis=0), rtol=1e-5)
    counts = [
      calibration.histogram(jnp.asarray(values / 4 + 0.5, jnp.float32), jnp.ones(SIZE, bool))
      for values in (decoded, images)
    ]
    np.testing.assert_allclose(own["calibration"], calibration.fit(*counts), atol=1e-6)
    assert np.abs(own["calibration"] - np.linspace(0, 1, 256)).max() > 0.1

    images, _, decoded = encode(data.validation)
    decoded = 4 * np.interp(decoded / 4 + 0.5, np.linspace(0, 1, 256), own["calibration"]) - 2
    power = lambda values: (np.abs(np.fft.rfft2(values, axes=(1, 2))) ** 2).sum(axis=(0, 3))
    np.testing.assert_allclose(own["decoder_gain"], np.sqrt(power(decoded) / power(images)), rtol=1e-4)
    np.testing.assert_allclose(own["decoder_error"], np.sqrt(np.square(decoded - images).mean()), rtol=1e-5)
