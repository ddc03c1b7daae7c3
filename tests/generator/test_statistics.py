"""What is found once of a trained VAE and of labelled images, against NumPy."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lcgen import config
from lcgen.data import sources
from lcgen.generator import calibration
from lcgen.generator import statistics as vae_statistics
from lcgen.models import vae
from lcgen.runtime import parallel
from lcgen.training.context import Phases
from tests.constraints.test_steps import FACTS
from tests.support.helpers import load_config, squares

SIZE = 80


@pytest.fixture(scope="module")
def phases():
  return Phases(config.checked(load_config("mnist5k", "smoke", evaluate__batch_size=12)), FACTS)


@pytest.fixture(scope="module")
def variables(phases):
  """Those of a VAE that nobody trained, both repetitions."""
  return jax.jit(jax.vmap(lambda key: phases.vae().init(key).variables))(jax.random.split(jax.random.key(0)))


def test_labelled_images_are_listed_by_class_and_repetition():
  labels = np.array([2, 0, 0, 2, 1, 2, 2, 0, 2, 3])
  pools = [np.array([9, 5, 1, 0, 3, 2]), np.array([8, 6, 4, 3, 0])]  # no image of class 1; none of 0 and 3
  found = vae_statistics.labelled(labels, 5, pools)
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


class Perfect(nn.Module):
  """Keeps images as they are, as latents."""

  image_shape: tuple[int, int, int] = (8, 8, 1)
  latent_dim: int = 64

  def encode(self, images):
    flat = images.reshape(len(images), -1)
    return vae.Posterior(flat, jnp.full_like(flat, -jnp.inf))

  def decode(self, latents):
    return latents.reshape(len(latents), *self.image_shape)

  def __call__(self, images, key):
    latents = self.encode(images).sample(key)
    return vae.VAEOutput(self.decode(latents), self.encode(images), latents)


def test_a_perfect_decoder_errs_by_nothing_and_keeps_every_frequency(phases):
  perfect = Phases(phases.config | {"vae": phases.config["vae"] | {"calibrate": False}}, FACTS)
  perfect.networks = dataclasses.replace(perfect.networks, vae=Perfect())
  found = vae_statistics.find(perfect, parallel.make_mesh(2), {"params": {"of": jnp.zeros(2)}}, dataset())
  np.testing.assert_allclose(found["decoder_gain"], np.ones((2, 8, 5)), rtol=1e-5)
  np.testing.assert_allclose(found["decoder_error"], np.zeros(2), atol=1e-6)
  np.testing.assert_array_equal(found["posterior_scale"], np.zeros((2, 64)))
  np.testing.assert_array_equal(found["calibration"], np.stack([calibration.identity()] * 2))


def test_statistics_are_those_of_the_vae(phases, variables):
  data, model = dataset(), phases.networks.vae
  found = vae_statistics.find(phases, parallel.make_mesh(2), variables, data)
  assert {name: (values.shape, values.dtype) for name, values in found.items()} == {
    name: (shape.shape, shape.dtype) for name, shape in phases.statistics().items()
  }

  for index, key in enumerate(phases.keys("statistics")):
    own_variables = jax.tree.map(lambda leaf, index=index: leaf[index], variables)
    own = {name: np.asarray(values[index], np.float64) for name, values in found.items()}

    reconstruct = functools.partial(jax.jit(model.apply), own_variables)

    def encode(split, reconstruct=reconstruct, key=key):
      """Images, standard deviations and reconstructions before calibration, in float64, by batches of 12."""
      parts = []
      for start in range(0, len(split), 12):
        rows = np.arange(start, start + 12)  # the last batch is filled with images from the beginning
        images = phases.prepare({"image": jnp.asarray(split.images[rows % len(split)])})["image"]
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
