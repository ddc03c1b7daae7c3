import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lcgen.data import ranges, sources, test_sets
from lcgen.evaluation import evaluate, metrics
from lcgen.reporting import statistics
from tests.support.helpers import squares


def top_left(batch):
  """A fake classifier's answer: the stored value of the top left pixel // 64."""
  return jnp.floor(ranges.to_unit(batch["image"])[:, 0, 0, 0] * 255 / 64 + 1e-3).astype(jnp.int32)


def score(batch):
  """Two repetitions: the first answers `top_left`, the second class 0; both are sure of it."""
  answers = jnp.stack([top_left(batch), jnp.zeros_like(batch["label"])])
  logits = 20.0 * jax.nn.one_hot(answers, 4)
  each = [metrics.soft_scores(row, batch["label"], batch["target"], batch["mask"]) for row in logits]
  return jax.tree.map(lambda *values: jnp.stack(values), *each)


def scores(names, split, size=10, function=score):
  device = jax.devices()[0]
  wanted = test_sets.expand(names)
  return evaluate.scores(
    lambda batch: {"fake": function(batch)}, wanted, lambda _: split, classes=4, size=size, sharding=device
  )


@pytest.mark.parametrize("size", [1, 7, 20, 33])
def test_accuracy_is_exact_whatever_the_batch_size(size):
  split = squares(20)
  results, facts = scores(["test"], split, size)
  expected = np.mean(split.images[:, 0, 0, 0] // 64 == split.labels)
  np.testing.assert_allclose(results["fake"]["test"]["accuracy"], [expected, 0.25])
  assert facts == {"test": {"origin": "own", "images": 20}}
  batches = evaluate.batches(split, size, jax.devices()[0])
  assert {batch["image"].shape[0] for batch in batches} == {size}
  assert sum(int(batch["mask"].sum()) for batch in batches) == 20


def test_generated_sets_do_not_depend_on_the_batch_size():
  names, split = ["generated_cifar10_c/gaussian_noise", "generated_cifar10_c/fog"], squares(12)
  (first, _), (second, _) = (scores(names, split, size) for size in (5, 12))
  assert first == second
  one = test_sets.TestSet("generated_cifar10_c", "gaussian_noise", 3)
  small, large = (
    np.concatenate([batch["image"].values for batch in evaluate.changed_batches(one, split, 4, size, None)])[:12]
    for size in (5, 12)
  )
  np.testing.assert_array_equal(small, large)
  noise = large - split.images / np.float32(255)
  assert not np.array_equal(noise[0], noise[4])  # each image has its own


def test_the_mean_of_generated_sets():
  names = ["test", "generated_cifar10_c/contrast", "generated_mnist_c/rotate"]
  results = scores(names, squares(12), 12)[0]["fake"]
  generated = [f"generated_cifar10_c/contrast_{severity}" for severity in range(1, 6)] + ["generated_mnist_c/rotate"]
  assert set(results) == {"test", *generated, "corrupted"}
  mean = np.mean([results[name]["accuracy"] for name in generated], axis=0)
  np.testing.assert_allclose(results["corrupted"]["accuracy"], mean)


def test_one_compilation_scores_all_sets():
  counted = jax.jit(chex.assert_max_traces(score, n=1))
  names = ["test", "generated_cifar10_c/gaussian_noise", "generated_mnist_c/rotate", "dirty_mnist"]
  results, _ = scores(names, soft_split(23), 10, counted)
  assert len(results["fake"]) == 1 + 5 + 1 + 3 + 1


def soft_split(count=30, seed=0):
  """Images with ten drawn labels each, of which one counts as the label."""
  split, rng = squares(count), np.random.default_rng(seed)
  counts = rng.multinomial(10, [0.4, 0.3, 0.2, 0.1], count)
  labels = np.array([rng.choice(4, p=row / 10) for row in counts], np.int32)
  return sources.Split(split.images, labels, (counts / 10).astype(np.float32))


def test_soft_scores_and_the_ceiling_against_numpy():
  split, rng = soft_split(), np.random.default_rng(1)
  logits = rng.normal(size=(30, 4))
  shares = split.targets.astype(np.float64)

  def known(batch):
    distance = jnp.abs(ranges.to_unit(batch["image"])[:, None] - jnp.asarray(split.images / 255.0)[None])
    rows = distance.max(axis=(2, 3, 4)) < 1e-5
    chosen = jnp.asarray(logits, jnp.float32)[rows.argmax(1)]
    return jax.tree.map(
      lambda value: value[None], metrics.soft_scores(chosen, batch["label"], batch["target"], batch["mask"])
    )

  one = test_sets.TestSet("test")
  results, facts = evaluate.scores(
    lambda batch: {"known": known(batch)}, [one], lambda _: split, classes=4, size=8, sharding=jax.devices()[0]
  )
  probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
  with np.errstate(divide="ignore", invalid="ignore"):
    entropy = -np.nansum(np.where(shares > 0, shares * np.log(shares), 0), axis=1)
    kl = np.where(shares > 0, shares * np.log(shares / probabilities), 0).sum(axis=1)
  expected = {
    "accuracy": np.mean(logits.argmax(axis=1) == split.labels),
    "nll": -(shares * np.log(probabilities)).sum(axis=1).mean(),
    "brier": ((probabilities - shares) ** 2).sum(axis=1).mean(),
    "kl": kl.mean(),
  }
  for name, value in expected.items():
    np.testing.assert_allclose(results["known"]["test"][name], [value], rtol=1e-5, err_msg=name)
  np.testing.assert_allclose(facts["test"]["label_entropy"], entropy.mean(), rtol=1e-6)
  assert facts["test"]["ceiling"] == pytest.approx(shares.max(axis=1).mean())


def test_halves_are_joined_by_their_images():
  certain = squares(10)
  certain = sources.Split(certain.images, certain.labels, np.eye(4, dtype=np.float32)[certain.labels])
  halves = {"mnist": certain, "ambiguous": soft_split(30)}
  results, facts = evaluate.scores(
    lambda batch: {"fake": score(batch)},
    test_sets.expand(["dirty_mnist"]),
    lambda one: halves[one.part],
    classes=4,
    size=8,
    sharding=jax.devices()[0],
  )
  whole, first, second = (results["fake"][f"dirty_mnist{part}"] for part in ("", "/mnist", "/ambiguous"))
  for name in ("accuracy", "nll", "brier"):
    np.testing.assert_allclose(whole[name], (np.array(first[name]) + 3 * np.array(second[name])) / 4)
  assert facts["dirty_mnist"]["images"] == 40
  assert facts["dirty_mnist"]["ceiling"] == pytest.approx((1 + 3 * facts["dirty_mnist/ambiguous"]["ceiling"]) / 4)


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
