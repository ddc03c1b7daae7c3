import itertools

import jax
import jax.numpy as jnp
import numpy as np
import prdc
import pytest
import scipy.linalg
import scipy.spatial

from lcgen.evaluation import distances, metrics
from lcgen.runtime import errors

OPTIMIZED = True  # long sums are as exact as users have them
DIMENSIONS = 64
BLOCKED = [distances.kernel_distance, distances.neighbourhood_scores, distances.nearest_distances]


def judged(seed, count, shift=0.0):
  """Features as a judge has them: correlated, of magnitude 1, cut off at 0; `[count, 64]`, float32."""
  weights = np.random.default_rng(99).normal(size=(32, DIMENSIONS)) / 4
  hidden = np.random.default_rng(seed).normal(size=(count, 32))
  return np.maximum(hidden @ weights + 0.5 + shift, 0).astype(np.float32)


def spoiled(features):
  """The same features between masked rows of nan, and the mask."""
  count = len(features) + 30
  mask = np.zeros(count, bool)
  mask[np.random.default_rng(0).choice(count, len(features), replace=False)] = True
  filled = np.full((count, features.shape[1]), np.nan, features.dtype)
  filled[mask] = features
  return filled, mask


def unmasked(features):
  return np.ones(len(features), bool)


def moments(features):
  return distances.moments(features, unmasked(features))


def assert_same(actual, expected, **tolerance):
  tolerance = {"rtol": 1e-5, "atol": 1e-6} | tolerance
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **tolerance), actual, expected)


def moments_float64(features):
  features = features.astype(np.float64)
  return distances.Moments(len(features), features.mean(axis=0), np.cov(features.T) * (len(features) - 1))


def frechet_float64(a, b):
  a, b = a.astype(np.float64), b.astype(np.float64)
  cov_a, cov_b = np.cov(a.T), np.cov(b.T)
  root = scipy.linalg.sqrtm(cov_a @ cov_b).real
  return np.sum((a.mean(axis=0) - b.mean(axis=0)) ** 2) + np.trace(cov_a + cov_b - 2 * root)


def kernel_float64(a, b):
  a, b = a.astype(np.float64), b.astype(np.float64)
  kernel = lambda x, y: (x @ y.T / x.shape[1] + 1) ** 3
  of_pairs = lambda values: (values.sum() - np.trace(values)) / (len(values) * (len(values) - 1))
  return of_pairs(kernel(a, a)) + of_pairs(kernel(b, b)) - 2 * kernel(a, b).mean()


def test_moments_are_those_of_the_unmasked_rows():
  features = judged(0, 300)
  assert_same(distances.moments(*spoiled(features)), moments_float64(features), atol=1e-3)


def test_merged_batches_are_one():
  features = judged(0, 1000) + 3
  mask = np.random.default_rng(1).random(1000) < 0.7
  mask[200:250] = False
  bounds = [0, 0, 0, 200, 250, 251, 900, 1000, 1000]
  parts = [distances.moments(features[i:j], mask[i:j]) for i, j in itertools.pairwise(bounds)]
  assert [int(part.count) == 0 for part in parts] == [True, True, False, True, False, False, False, True]
  merged = parts[0]
  for part in parts[1:]:
    merged = merged.merge(part)
  assert_same(merged, moments_float64(features[mask]), atol=1e-3)
  backwards = parts[-1]
  for part in parts[-2::-1]:
    backwards = backwards.merge(part)
  assert_same(merged, backwards, atol=1e-3)


@pytest.mark.parametrize(("count", "shift"), [(1000, 0.0), (1000, 0.1), (700, 1.0)])
def test_frechet_distance_against_the_matrix_root(count, shift):
  a, b = judged(0, 1000), judged(1, count, shift)
  actual = distances.frechet_distance(moments(a), moments(b))
  assert isinstance(actual, float)
  assert actual == pytest.approx(frechet_float64(a, b), rel=1e-4)
  assert distances.frechet_distance(moments(b), moments(a)) == pytest.approx(actual, rel=1e-4)


def test_frechet_distance_of_diagonal_gaussians():
  rng = np.random.default_rng(0)
  means, scales = rng.normal(size=(2, 8)), rng.uniform(0.1, 2, size=(2, 8))
  a, b = (distances.Moments(n, means[i], np.diag(scales[i] ** 2) * (n - 1)) for i, n in enumerate((50, 2)))
  expected = np.sum((means[0] - means[1]) ** 2) + np.sum((scales[0] - scales[1]) ** 2)
  assert distances.frechet_distance(a, b) == pytest.approx(expected, rel=1e-9)


def test_frechet_distance_within_a_subspace():
  """Rotated into more dimensions, where the covariances are singular, the distance is the same."""
  rng = np.random.default_rng(0)
  a, b = rng.normal(size=(500, 8)), rng.normal(size=(400, 8)) * 1.3 + 0.2
  rotation, _ = np.linalg.qr(rng.normal(size=(DIMENSIONS, 8)))
  rotated = [moments((features @ rotation.T).astype(np.float32)) for features in (a, b)]
  assert distances.frechet_distance(*rotated) == pytest.approx(frechet_float64(a, b), rel=1e-4)
  fewer_rows_than_dimensions = judged(0, 20)
  assert distances.frechet_distance(moments(fewer_rows_than_dimensions), moments(judged(1, 30))) > 0.1


def test_frechet_distance_is_zero_to_itself_and_nan_without_covariance():
  features = judged(0, 1000)
  whole = moments(features)
  assert 0 <= distances.frechet_distance(whole, whole) < 1e-9
  assert 0 <= distances.frechet_distance(whole, moments(features[::-1])) < 1e-4
  assert np.isnan(distances.frechet_distance(whole, moments(features[:1])))
  assert np.isnan(distances.frechet_distance(moments(features * np.float32(np.nan)), whole))


@pytest.mark.parametrize(("shift", "offset"), [(0.0, 0), (0.02, 0), (0.3, 0), (0.02, 3)])
def test_kernel_distance_against_float64(shift, offset):
  """The offset makes it a small difference of large kernels."""
  for seed in range(3):
    a, b = judged(2 * seed, 1000) + offset, judged(2 * seed + 1, 900, shift) + offset
    actual = distances.kernel_distance(a, b, unmasked(a), unmasked(b))
    np.testing.assert_allclose(actual, kernel_float64(a, b), rtol=1e-4, atol=5e-6)


def test_kernel_distance_of_one_row_is_undefined():
  a = judged(0, 10)
  assert np.isnan(distances.kernel_distance(a, a, np.arange(10) < 1, unmasked(a)))


@pytest.mark.parametrize(
  ("real_count", "sample_count", "k", "shifts"), [(1000, 900, 5, (0.0, 0.1, 0.3)), (40, 120, 1, (0.05,))]
)
def test_neighbourhood_scores_are_those_of_prdc(real_count, sample_count, k, shifts):
  for seed, shift in enumerate(shifts):
    real, samples = judged(seed, real_count), judged(seed + 100, sample_count, shift)
    actual = distances.neighbourhood_scores(real, samples, unmasked(real), unmasked(samples), k=k)
    assert_same(actual, prdc.compute_prdc(real, samples, k), atol=1e-5)


def test_what_is_on_a_ball_is_not_in_it():
  """On a grid many distances are equal, and many rows."""
  real, samples = (np.random.default_rng(i).integers(0, 3, (120, 5)).astype(np.float32) for i in range(2))
  for others in (samples, real):
    actual = distances.neighbourhood_scores(real, others, unmasked(real), unmasked(others), k=4)
    assert_same(actual, prdc.compute_prdc(real, others, 4), atol=1e-5)


def test_a_copied_set_has_full_scores():
  real = judged(0, 20)
  scores = distances.neighbourhood_scores(real, real[::-1], unmasked(real), unmasked(real))
  assert_same(scores, dict.fromkeys(["precision", "recall", "density", "coverage"], 1.0))


def test_neighbourhood_scores_are_undefined_without_neighbours_or_with_nan():
  real = judged(0, 20)
  bad = real.copy()
  bad[3, 4] = np.nan
  five, six = np.arange(20) < 5, np.arange(20) < 6
  for samples, mask in ((real, five), (bad, six)):
    for sets in ((real, samples, six, mask), (samples, real, mask, six)):
      assert all(np.isnan(score) for score in distances.neighbourhood_scores(*sets).values())
  assert all(np.isfinite(score) for score in distances.neighbourhood_scores(real, real, six, six).values())


def test_nearest_distances_against_scipy():
  samples, references = judged(0, 300), judged(1, 500)
  samples[7] = references[11]
  actual = distances.nearest_distances(samples, references, unmasked(references))
  expected = scipy.spatial.distance.cdist(samples.astype(np.float64), references.astype(np.float64)).min(axis=1)
  assert_same(actual, expected)
  assert actual[7] == 0


def test_within_class_spread_is_that_of_the_unmasked_rows():
  features, labels = judged(0, 100), np.random.default_rng(0).integers(0, 3, 100)
  filled, mask = spoiled(features)
  placed = np.zeros(len(mask), int)
  placed[mask] = labels
  expected = distances.within_class_spread(features, labels, 3)
  assert_same(distances.within_class_spread(filled, jnp.asarray(placed), 3, mask), expected)
  offsets = [features[labels == k] - features[labels == k].mean(axis=0) for k in range(3)]
  assert_same(expected, np.sqrt(np.square(np.concatenate(offsets)).sum(axis=1).mean()))


def arguments(metric, a, b, a_mask, b_mask):
  return (a, b, b_mask) if metric is distances.nearest_distances else (a, b, a_mask, b_mask)


@pytest.mark.parametrize("metric", BLOCKED)
def test_masked_rows_are_dropped(metric):
  a, b = judged(0, 80), judged(1, 90, 0.1)
  (full_a, a_mask), (full_b, b_mask) = spoiled(a), spoiled(b)
  actual = metric(*arguments(metric, full_a, full_b, a_mask, b_mask))
  actual = actual[a_mask] if metric is distances.nearest_distances else actual
  assert_same(actual, metric(*arguments(metric, a, b, unmasked(a), unmasked(b))))


@pytest.mark.parametrize("metric", BLOCKED)
def test_blocks_change_nothing(metric):
  a, b = judged(0, 80), judged(1, 90, 0.1)
  sets = arguments(metric, a, b, unmasked(a), unmasked(b))
  assert_same(metric(*sets, block=7), metric(*sets))


@pytest.mark.parametrize("metric", BLOCKED)
def test_memory_is_that_of_a_block(metric):
  count = 3000
  features, mask = jax.ShapeDtypeStruct((count, DIMENSIONS), jnp.float32), jax.ShapeDtypeStruct((count,), bool)
  compiled = metric.lower(*arguments(metric, features, features, mask, mask)).compile()
  assert compiled.memory_analysis().temp_size_in_bytes < 4 * count**2 / 2


@pytest.mark.parametrize("metric", BLOCKED)
def test_sets_of_several_seeds_at_once(metric):
  a, b = np.stack([judged(0, 80), judged(1, 80)]), np.stack([judged(2, 90), judged(3, 90)])
  sets = arguments(metric, a, b, np.arange(160).reshape(2, 80) < 150, np.arange(180).reshape(2, 90) < 160)
  each = [metric(*(part[seed] for part in sets)) for seed in range(2)]
  assert_same(jax.jit(jax.vmap(metric))(*sets), jax.tree.map(lambda *values: np.stack(values), *each))


def test_moments_of_several_seeds_at_once():
  features = np.stack([judged(seed, 100) for seed in range(3)])
  mask = np.arange(300).reshape(3, 100) < 250
  halves = [jax.vmap(distances.moments)(features[:, part], mask[:, part]) for part in (slice(40), slice(40, None))]
  merged = jax.jit(jax.vmap(distances.Moments.merge))(*halves)
  each = [moments_float64(features[seed][mask[seed]]) for seed in range(3)]
  assert_same(merged, jax.tree.map(lambda *values: np.stack(values), *each), atol=1e-3)


def test_masked_rows_are_not_counted():
  logits = jnp.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
  labels, mask = jnp.array([0, 1, 1]), jnp.array([True, True, False])
  assert metrics.count_correct(logits, labels, mask) == 1
  unmasked = metrics.soft_scores(logits[:2], labels[:2], jnp.eye(2), mask[:2])
  masked = metrics.soft_scores(logits, labels, jax.nn.one_hot(labels, 2), mask)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), masked, unmasked)


def test_within_class_spread():
  rng = np.random.default_rng(0)
  features, labels = rng.normal(size=(30, 4)), rng.integers(0, 3, 30)
  squares = [((features[labels == k] - features[labels == k].mean(axis=0)) ** 2).sum(axis=1) for k in range(3)]
  expected = np.sqrt(np.concatenate(squares).mean())
  actual = distances.within_class_spread(jnp.asarray(features), jnp.asarray(labels), 3)
  np.testing.assert_allclose(actual, expected, rtol=1e-5)
  collapsed = distances.within_class_spread(jnp.asarray(labels[:, None] * 1.0), jnp.asarray(labels), 3)
  np.testing.assert_allclose(collapsed, 0, atol=1e-6)


@pytest.mark.parametrize(
  ("name", "of"),
  [("novelty", metrics.FEATURES), ("moved", metrics.FEATURES), ("nll", metrics.LOGITS), ("gaps", metrics.LOGITS)],
)
def test_a_metric_takes_no_name_of_another_score(name, of):
  def function(*sets):
    return 0.0

  function.__name__ = name
  before = metrics.METRICS.names()
  with pytest.raises(errors.InputError, match=f"metric '{name}': there is one of this name already"):
    metrics.register("mine", of=of)(function)
  assert metrics.METRICS.names() == before


def sets_of(samples, real, train):
  """Sets of features of four classes in turn."""
  targets, labels = (jnp.arange(len(part)) % 4 for part in (samples, real))
  samples, real, train = map(jnp.asarray, (samples, real, train))
  return metrics.FeatureSets(samples, targets, real, labels, 4, real, train)


def alike(count):
  """One image of each class again and again; their features differ by rounding."""
  noise = 1 + 1e-7 * np.random.default_rng(0).normal(size=(count, DIMENSIONS))
  return (judged(5, 4)[np.arange(count) % 4] * noise).astype(np.float32)


ALL = {"diversity", "frechet_distance", "kernel_distance", "precision", "recall", "density", "coverage", "novelty"}


@pytest.mark.parametrize(
  ("sets", "expected"),
  [
    ((judged(0, 60), judged(1, 60), judged(2, 60)), set()),
    ((judged(0, 60), alike(60), judged(2, 60)), {"diversity", *ALL & {"precision", "recall", "density", "coverage"}}),
    ((alike(60), judged(1, 60), judged(2, 60)), set()),  # samples that collapse have no diversity, which is a score
    ((judged(0, 60), judged(1, 60), judged(1, 60)), {"novelty"}),  # all test images are training images
    ((alike(60), alike(60), alike(60)), ALL - {"frechet_distance", "kernel_distance"}),
    ((judged(0, 60), judged(1, 60)[:1] * np.float32(np.nan), judged(2, 60)), ALL),
    ((judged(0, 60)[:1], judged(1, 60), judged(2, 60)), ALL - {"diversity", "novelty"}),
  ],
)
def test_nothing_over_nothing_is_undefined(sets, expected):
  found = {name: float(metric.function(sets_of(*sets))) for name, metric in metrics.registered("features").items()}
  assert set(found) == ALL
  assert {name for name, value in found.items() if not np.isfinite(value)} == expected
  assert all(np.isnan(found[name]) for name in expected)
  assert all(metrics.about()[name]["undefined"] for name in expected)
