import jax.numpy as jnp
import numpy as np

from lcgen.generator import calibration

RNG = np.random.default_rng(0)


def fitted(decoded, data):
  everything = jnp.ones(len(decoded), bool)
  return calibration.fit(calibration.histogram(decoded, everything), calibration.histogram(data, everything))


def images(values):
  return jnp.asarray(values.reshape(-1, 10, 10, 1), jnp.float32)


def test_identical_distributions_need_no_map():
  values = images(RNG.integers(0, 256, 20_000) / 255)
  np.testing.assert_allclose(calibration.apply(fitted(values, values), values), values, atol=1e-5)


def test_decodes_get_the_distribution_of_the_data():
  """Data that are mostly exact black, decodes with a little grey instead: what VAEs do to digits."""
  ink = RNG.uniform(size=20_000) < 0.2
  data = np.where(ink, RNG.integers(30, 256, 20_000), 0) / 255
  decoded = np.where(ink, 0.1 + 0.7 * data, RNG.uniform(0, 0.08, 20_000))
  table = fitted(images(decoded), images(data))
  assert np.all(np.diff(table) >= 0)
  mapped = np.asarray(calibration.apply(table, images(decoded))).ravel()
  assert np.mean(mapped[~ink] == 0) > 0.98
  np.testing.assert_allclose(np.quantile(mapped, [0.85, 0.9, 0.95]), np.quantile(data, [0.85, 0.9, 0.95]), atol=0.02)


def test_masked_images_do_not_count():
  values = images(RNG.uniform(size=400))
  counts = calibration.histogram(values, jnp.array([True, False, True, False]))
  np.testing.assert_array_equal(counts, calibration.histogram(values[::2], jnp.ones(2, bool)))
  assert counts.sum() == 200
