import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
import scipy.stats

from lcgen.data import corruptions
from lcgen.data.corruptions import fields
from tests.support.scenes import CIFAR10_C, KEY, MNIST_C, scenes

ALL = [*((corruptions.CIFAR10_C, name) for name in corruptions.CIFAR10_C)]
ALL += [*((corruptions.MNIST_C, name) for name in corruptions.MNIST_C)]
NAMES = [f"{'cifar10_c' if table is corruptions.CIFAR10_C else 'mnist_c'}-{name}" for table, name in ALL]
FIXED = {"defocus_blur", "zoom_blur", "brightness", "contrast", "pixelate", "jpeg_compression", "gaussian_blur"}
FIXED |= {"saturate", "scale", "stripe", "canny_edges"}  # nothing is drawn


def per_image(corruption):
  return jax.vmap(lambda key, image, severity: corruption(key, image[None], severity)[0], in_axes=(0, 0, None))


def within(images):
  return images.dtype == jnp.float32 and float(images.min()) >= 0 and float(images.max()) <= 1


def test_names_and_groups():
  assert len(corruptions.CIFAR10_C) == 19
  assert len(corruptions.MNIST_C) == 15
  assert sum(corruptions.GROUPS.values(), ()) == tuple(corruptions.CIFAR10_C)
  assert corruptions.BENCHMARK + corruptions.EXTRA == tuple(corruptions.CIFAR10_C)
  assert len(corruptions.BENCHMARK) == 15


@pytest.mark.parametrize(("table", "name"), ALL, ids=NAMES)
def test_every_image_has_its_own_result(table, name):
  """One key an image: a result depends on that key, the image and the severity alone, and stays a unit image."""
  images, keys = scenes(), jax.random.split(KEY, 4)
  images[1] = images[0]
  corrupt = jax.jit(per_image(table[name]))
  for severity in corruptions.SEVERITIES if table is corruptions.CIFAR10_C else (1,):
    result = corrupt(keys, images, severity)
    assert result.shape == images.shape
    assert within(result)
    assert not np.array_equal(result, images)
    np.testing.assert_array_equal(result, corrupt(keys, images, severity))
    same = np.array_equal(result[0], result[1])
    assert same == (name in FIXED) or name == "glass_blur"
  order = np.array([2, 0, 3, 1])
  np.testing.assert_array_equal(corrupt(keys[order], images[order], severity), np.asarray(result)[order])
  if table is corruptions.MNIST_C:
    return  # built from the same parts
  alone = CIFAR10_C[name](keys[2], images[2:3], severity)[0]
  wrong = np.abs(np.asarray(alone) - result[2]) > 1e-4
  assert wrong.mean() < 0.02  # a value on the edge of being rounded, or of a threshold, may fall to either side


@pytest.mark.parametrize(("table", "name"), ALL, ids=NAMES)
def test_a_batch_of_grey_images_of_the_least_size_with_one_key(table, name):
  side, severity = table[name].least_side, 5 if table is corruptions.CIFAR10_C else 1
  images = scenes(20, side, side + 5, 1)
  images[1:] = images[0]
  result = jax.jit(table[name])(KEY, images, severity)
  assert result.shape == images.shape
  assert within(result)
  assert not np.array_equal(result, images) or name == "saturate"  # which leaves grey as it is
  if name not in FIXED:
    assert len(np.unique(np.asarray(result).reshape(20, -1), axis=0)) > 1  # drawn for each image


# Those whose published parameters do not grow steadily, or whose effect is not a change of values, are left out:
# glass_blur, snow, frost, elastic_transform, spatter and saturate.
@pytest.mark.parametrize(
  "name",
  [
    n
    for n in corruptions.CIFAR10_C
    if n not in ("glass_blur", "snow", "frost", "elastic_transform", "spatter", "saturate")
  ],
)
def test_harm_grows_with_severity(name):
  """Mean squared change of detailed images; for the coarse ones, of noise, which no grid favours."""
  images = np.random.default_rng(1).random((64, 32, 32, 1)).astype(np.float32)
  if name in ("fog", "brightness", "jpeg_compression"):
    images = scenes(64, 32, 32, 3) * 0.7
  corrupt = CIFAR10_C[name]
  harm = [float(jnp.square(corrupt(KEY, images, severity) - images).mean()) for severity in corruptions.SEVERITIES]
  assert harm[0] > 0
  assert harm == sorted(harm)


def test_noises_have_their_parameters():
  grey = jnp.full((100, 20, 20, 3), 0.5)
  for severity, sigma in enumerate((0.04, 0.06, 0.08, 0.09, 0.10), start=1):
    noisy = CIFAR10_C["gaussian_noise"](KEY, grey, severity)
    assert float(noisy.std()) == pytest.approx(sigma, rel=0.02)
  for severity, sigma in enumerate((0.06, 0.1, 0.12, 0.16, 0.2), start=1):
    assert float(CIFAR10_C["speckle_noise"](KEY, grey, severity).std()) == pytest.approx(sigma / 2, rel=0.02)
  for severity, photons in enumerate((500, 250, 100, 75, 50), start=1):
    noisy = CIFAR10_C["shot_noise"](KEY, grey, severity)
    assert float(noisy.mean()) == pytest.approx(0.5, abs=0.002)
    assert float(noisy.std()) == pytest.approx(np.sqrt(0.5 / photons), rel=0.02)
  for severity, share in enumerate((0.01, 0.02, 0.03, 0.05, 0.07), start=1):
    hit = CIFAR10_C["impulse_noise"](KEY, grey, severity)
    assert float((hit == 0).mean()) == pytest.approx(share / 2, rel=0.1)
    assert float((hit == 1).mean()) == pytest.approx(share / 2, rel=0.1)
  assert float((MNIST_C["impulse_noise"](KEY, grey, 1) == 1).mean()) == pytest.approx(0.085, rel=0.05)


def test_noise_is_independent_between_images_and_pixels():
  keys = jax.random.split(KEY, 200)
  noise = np.asarray(jax.vmap(lambda key: fields.normal(key, (16, 16, 3)))(keys)).reshape(200, -1)
  size = noise.size
  assert abs(noise.mean()) < 4 / np.sqrt(size)
  assert abs(noise.std() - 1) < 4 / np.sqrt(2 * size)
  between = np.corrcoef(noise)[np.triu_indices(200, 1)]
  assert np.abs(between).max() < 6 / np.sqrt(noise.shape[1])
  assert between.std() == pytest.approx(1 / np.sqrt(noise.shape[1]), rel=0.05)
  for lag in (1, 3, noise.shape[1] // 2):  # neighbours, channels, the two halves of one word
    assert abs((noise[:, lag:] * noise[:, :-lag]).mean()) < 5 / np.sqrt(size)


def test_quantiles_of_the_normal_distribution():
  probability = (np.arange(65536) + 0.5) / 65536
  found = fields.normal_quantile(jnp.asarray(probability, jnp.float32))
  np.testing.assert_allclose(found, scipy.stats.norm.ppf(probability), atol=2e-4)


@pytest.mark.parametrize("mean", [0.0, 0.02, 0.7, 3.0, 3.99, 4.01, 6.0, 20.0, 500.0])
def test_poisson_distribution(mean, monkeypatch):
  """All 65,536 numbers that can be drawn, in place of random ones."""
  drawn = (np.arange(65536) + 0.5) / 65536
  halves = jnp.split(jnp.asarray(drawn, jnp.float32), 2)
  monkeypatch.setattr(fields, "_uniform_halves", lambda key, count: halves)
  counts = np.asarray(jax.jit(fields.poisson)(KEY, jnp.full(65536, mean, jnp.float32)))
  values = np.arange(counts.max() + 1)
  cumulative = np.searchsorted(np.sort(counts), values, side="right") / 65536
  np.testing.assert_allclose(cumulative, scipy.stats.poisson.cdf(values, mean), atol=5e-4 if mean > 4 else 3e-5)
