import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lcgen import evaluate, metrics, statistics
from tests.helpers import squares


def answer_first_pixel(batch):
  """A fake classifier of two repetitions: the first answers the top left pixel's value // 64, the second class 0."""
  answers = jnp.stack([batch["image"][:, 0, 0, 0] // 64, jnp.zeros_like(batch["label"])])
  return ((answers == batch["label"][None]) & batch["mask"][None]).sum(axis=1)


@pytest.mark.parametrize("size", [1, 7, 20, 33])
def test_accuracy_is_exact_whatever_the_batch_size(size):
  split = squares(20)
  batches = evaluate.batches(split, size, jax.devices()[0])
  assert {batch["image"].shape[0] for batch in batches} == {size}
  scores = evaluate.accuracies({"fake": answer_first_pixel}, batches, (evaluate.TEST,))
  expected = np.mean(split.images[:, 0, 0, 0] // 64 == split.labels)
  np.testing.assert_allclose(scores["fake"]["test"]["accuracy"], [expected, 0.25])


def test_sets_are_named_once_each_and_meaned():
  batches = evaluate.batches(squares(12), 5, jax.devices()[0])
  names = [name for name, _ in evaluate.test_sets(batches, ("test", "contrast", "rotation"))]
  assert names == ["test"] + [f"{name}_{level}" for name in ("contrast", "rotation") for level in range(1, 6)]
  scores = evaluate.accuracies({"fake": answer_first_pixel}, batches, ("test", "contrast"))["fake"]
  mean = np.mean([scores[f"contrast_{level}"]["accuracy"] for level in range(1, 6)], axis=0)
  np.testing.assert_allclose(scores["corrupted"]["accuracy"], mean)
  everything = [name for name, _ in evaluate.test_sets(batches, ("corruptions",))]
  assert len(everything) == len(set(everything)) == 40


def test_corrupted_sets_are_uint8_and_repeat():
  batches = evaluate.batches(squares(12), 6, jax.devices()[0])
  first, second = (dict(evaluate.test_sets(batches, ("gaussian_noise",))) for _ in range(2))
  for name, parts in first.items():
    for part, again, clean in zip(parts, second[name], batches, strict=True):
      assert part["image"].dtype == jnp.uint8
      np.testing.assert_array_equal(part["image"], again["image"])
      assert not np.array_equal(part["image"], clean["image"])
  noise = [
    np.asarray(part["image"], int) - np.asarray(clean["image"], int) for part, clean in zip(parts, batches, strict=True)
  ]
  assert not np.array_equal(*noise)  # each batch has its own


def test_masked_rows_are_not_counted():
  logits = jnp.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
  count = metrics.count_correct(logits, jnp.array([0, 1, 1]), jnp.array([True, True, False]))
  assert count == 1


def test_within_class_spread():
  rng = np.random.default_rng(0)
  features, labels = rng.normal(size=(30, 4)), rng.integers(0, 3, 30)
  distances = [((features[labels == k] - features[labels == k].mean(axis=0)) ** 2).sum(axis=1) for k in range(3)]
  expected = np.sqrt(np.concatenate(distances).mean())
  actual = metrics.within_class_spread(jnp.asarray(features), jnp.asarray(labels), 3)
  np.testing.assert_allclose(actual, expected, rtol=1e-5)
  collapsed = metrics.within_class_spread(jnp.asarray(labels[:, None] * 1.0), jnp.asarray(labels), 3)
  np.testing.assert_allclose(collapsed, 0, atol=1e-6)


def test_summary_is_mean_and_sample_deviation():
  values = [1.0, 2.0, 4.0]
  assert statistics.summary(values, digits=3) == f"{np.mean(values):.3f} ± {np.std(values, ddof=1):.3f}"
  assert statistics.summary([0.5], digits=1) == "0.5"
