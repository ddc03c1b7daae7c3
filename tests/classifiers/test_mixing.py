"""mixup and cutmix: what is mixed, by how much, and the labels that it gets."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from lcgen.classifiers import transforms
from tests.support.steps import in_training

KEY = jax.random.key(0)


def mixtures(mix, images, draws, **settings):
  """Images and labels of many draws; labels have one class an image, and so tell who was mixed."""
  keys = jnp.tile(jax.random.split(KEY, draws), (2, 1))
  mapped = in_training(lambda key: mix(key, images, jnp.eye(len(images)), **settings))
  results = [np.asarray(values, np.float64) for values in mapped(keys)]
  for first, second in results:
    np.testing.assert_array_equal(first, second)
  return [first for first, _ in results]


def test_mixup_mixes_images_as_labels():
  alpha = 0.4
  images = jax.random.normal(KEY, (12, 5, 4, 3))
  mixed, labels = mixtures(transforms.mixup, images, 500, alpha=alpha)
  np.testing.assert_allclose(labels.sum(axis=-1), 1, atol=1e-6)
  np.testing.assert_allclose(labels.sum(axis=-2), 1, atol=1e-5)  # a permutation
  np.testing.assert_allclose(mixed, np.einsum("nbk,khwc->nbhwc", labels, images), atol=1e-5)
  own = np.diagonal(labels, axis1=1, axis2=2)
  share = own.min(axis=-1)  # an image that the permutation leaves in its place keeps 1
  assert np.all((np.abs(own - share[:, None]) < 1e-6) | (np.abs(own - 1) < 1e-6))
  assert scipy.stats.kstest(share, scipy.stats.beta(alpha, alpha).cdf).pvalue > 0.01


def test_cutmix_mixes_labels_by_the_pixels_of_one_box():
  height, width, count, draws, alpha = 12, 9, 7, 1000, 0.7
  names = np.arange(count, dtype=np.float32)
  images = jnp.broadcast_to(names.reshape(-1, 1, 1, 1), (count, height, width, 3))
  mixed, labels = mixtures(transforms.cutmix, images, draws, alpha=alpha, probability=1)
  np.testing.assert_allclose(labels.sum(axis=-1), 1, atol=1e-6)
  np.testing.assert_allclose(labels, (mixed[..., None] == names).mean(axis=(2, 3, 4)), atol=1e-6)
  taken = mixed != np.asarray(images)  # [draws, B, H, W, C]
  box = taken.any(axis=(1, 4))
  moved = taken.any(axis=(2, 3, 4), keepdims=True)  # the others got their own pixels
  np.testing.assert_array_equal(taken.all(axis=-1, keepdims=True), moved & box[:, None, ..., None])
  np.testing.assert_array_equal(box, box.any(axis=2, keepdims=True) & box.any(axis=1, keepdims=True))

  rng = np.random.default_rng(0)
  sides = np.sqrt(1 - rng.beta(alpha, alpha, draws))
  area = 1
  for size in (height, width):  # as the authors' `rand_bbox`
    half = (sides * size).astype(int) // 2
    centre = rng.integers(size, size=draws)
    area = area * ((centre + half).clip(0, size) - (centre - half).clip(0, size))
  assert scipy.stats.ks_2samp(box.sum(axis=(1, 2)), area).pvalue > 0.01


def test_cutmix_mixes_a_share_of_the_batches():
  images = jax.random.normal(KEY, (5, 12, 12, 1))
  mixed, labels = mixtures(transforms.cutmix, images, 3000, alpha=50.0, probability=0.3)  # no box of no pixel
  changed = (mixed != np.asarray(images)).any(axis=(1, 2, 3, 4))
  np.testing.assert_array_equal(np.abs(labels - np.eye(5)).max(axis=(1, 2)) < 1e-6, ~changed)
  moved = 1 - 1 / 120  # of the permutations of five
  assert scipy.stats.binomtest(int(changed.sum()), 3000, 0.3 * moved).pvalue > 0.01


@pytest.mark.parametrize(
  "mix", [transforms.mixup, functools.partial(transforms.cutmix, probability=0.5)], ids=["mixup", "cutmix"]
)
def test_labels_must_be_distributions(mix):
  images = jnp.zeros((2, 8, 8, 1))
  with pytest.raises(ValueError, match="distribution"):
    mix(KEY, images, jnp.zeros(2, jnp.int32), alpha=1.0)
  with pytest.raises(ValueError, match=r"^alpha="):
    mix(KEY, images, jnp.eye(2), alpha=-1.0)
