import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lcgen import corruptions

IMAGES = jax.random.uniform(jax.random.key(0), (6, 14, 12, 3)) ** 2


def strokes():
  """Slanted bars of different lengths, in colour, on black: what a shift, a turn or coarser pixels harm."""
  y, x = jnp.meshgrid(jnp.arange(28.0) - 13.5, jnp.arange(24.0) - 11.5, indexing="ij")
  bar = lambda length: jnp.exp(-((x - 0.3 * y) ** 2) / 4) * (jnp.abs(y) < length)
  return jnp.stack([bar(length) for length in (4, 6, 8, 10)])[..., None] * jnp.array([1.0, 0.6, 0.3])[None, None, None]


@pytest.mark.parametrize("name", corruptions.CORRUPTIONS)
def test_deterministic_in_range_and_harder_with_severity(name):
  corrupt, images, harm = jax.jit(corruptions.CORRUPTIONS[name]), strokes(), []
  for severity in corruptions.SEVERITIES:
    result = corrupt(jax.random.key(1), images, severity)
    assert result.shape == images.shape
    assert result.min() >= 0
    assert result.max() <= 1 + 1e-6
    np.testing.assert_array_equal(result, corrupt(jax.random.key(1), images, severity))
    harm.append(float(jnp.square(result - images).mean()))
  assert harm[0] > 0
  assert harm == sorted(harm)


def test_noises_have_their_parameters():
  grey = jnp.full((100, 20, 20, 1), 0.5)
  noisy = corruptions.gaussian_noise(jax.random.key(0), grey, 3)
  assert float(noisy.std()) == pytest.approx(0.08, rel=0.02)
  hit = corruptions.impulse_noise(jax.random.key(0), grey, 5)
  assert float((hit == 0).mean()) == pytest.approx(0.035, rel=0.1)
  assert float((hit == 1).mean()) == pytest.approx(0.035, rel=0.1)


def test_contrast_and_brightness_do_what_they_say():
  darker = corruptions.contrast(None, IMAGES, 5)
  mean = IMAGES.mean(axis=(1, 2), keepdims=True)
  np.testing.assert_allclose(darker - mean, 0.15 * (IMAGES - mean), atol=1e-6)
  brighter = corruptions.brightness(None, IMAGES, 2)
  np.testing.assert_allclose(brighter.max(-1), np.minimum(IMAGES.max(-1) + 0.1, 1), atol=1e-6)
  ratio = lambda images: images[..., 0] / images[..., 1]
  np.testing.assert_allclose(ratio(brighter), ratio(IMAGES), rtol=1e-3)  # the hue stays
  np.testing.assert_allclose(corruptions.brightness(None, jnp.zeros((1, 2, 2, 1)), 5), jnp.full((1, 2, 2, 1), 0.3))


def test_translation_moves_whole_pixels_along_a_diagonal():
  dot = jnp.zeros((40, 15, 15, 1)).at[:, 7, 7].set(1.0)
  moved = np.asarray(corruptions.translation(jax.random.key(0), dot, 3))
  places = {tuple(np.argwhere(image[..., 0] == 1)[0]) for image in moved}
  assert places == {(4, 4), (4, 10), (10, 4), (10, 10)}
  np.testing.assert_allclose(moved.sum(axis=(1, 2, 3)), 1)


def test_rotation_turns_about_the_centre():
  dot = jnp.zeros((20, 21, 21, 1)).at[:, 10, 18].set(1.0)
  turned = np.asarray(corruptions.rotation(jax.random.key(0), dot, 3))[..., 0]
  rows, columns = np.arange(21)[:, None], np.arange(21)[None, :]
  for image in turned:
    y, x = (image * rows).sum() / image.sum() - 10, (image * columns).sum() / image.sum() - 10
    assert np.hypot(y, x) == pytest.approx(8, abs=0.1)
    assert abs(np.arctan2(y, x)) == pytest.approx(0.4, abs=0.03)
  assert 0 < sum(image[:10].sum() > 0.5 for image in turned) < 20  # to both sides


def test_pixelate_averages_boxes():
  result = corruptions.pixelate(None, jnp.asarray(IMAGES[:, :12]), 5)  # 12 pixels to int(12 x 0.65) = 7
  assert len(np.unique(np.asarray(result[0, :, 0, 0]))) == 7
  constant = jnp.full((1, 9, 9, 1), 0.3)
  np.testing.assert_allclose(corruptions.pixelate(None, constant, 4), constant, rtol=1e-5)


def test_blur_keeps_the_mean_and_spreads_a_dot():
  dot = jnp.zeros((1, 15, 15, 1)).at[:, 7, 7].set(1.0)
  blurred = np.asarray(corruptions.gaussian_blur(None, dot, 5))[0, ..., 0]
  assert blurred.sum() == pytest.approx(1, rel=1e-4)
  variance = (blurred.sum(axis=0) * (np.arange(15) - 7) ** 2).sum()
  assert variance == pytest.approx(1.0, rel=0.01)  # sigma 1
