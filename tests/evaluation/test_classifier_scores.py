"""Scores of classifiers on test sets: exact sums whatever the batches, and the same for every kind of set."""

import types

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lcgen.data import ranges, sources, test_sets
from lcgen.evaluation import classifier_scores, metrics
from lcgen.runtime import registry
from tests.support.helpers import config_of, context_of, squares

SEEDS, CLASSES, SIDE = 2, 4, 8


class Linear:
  """A network whose logits are weighted sums of the pixels, `[B, H, W, C]` -> `[B, K]`."""

  def apply(self, weights, images):
    return images.reshape(len(images), -1) @ weights


def drawn(count, seed):
  """Images that say nothing of their labels."""
  rng = np.random.default_rng(seed)
  images, labels = rng.integers(0, 256, (count, SIDE, SIDE, 1)), rng.integers(0, CLASSES, count)
  return sources.Split(images.astype(np.uint8), labels.astype(np.int32))


def make(batch_size=8, validation=23, test=None):
  """A scorer of a toy data set, and the set."""
  splits = {"train": drawn(40, 0), "validation": drawn(validation, 1), "test": test or drawn(61, 2)}
  data = sources.Dataset("squares", tuple("abcd"), **splits)
  settings = config_of("smoke", seeds=SEEDS, evaluate__batch_size=batch_size)
  return classifier_scores.Scorer(context_of(settings, data.facts), data), data


def weights(seed, scale=0.1):
  """Weights of every seed, `[S, H W C, K]`."""
  return np.random.default_rng(seed).normal(0, scale, (SEEDS, SIDE**2, CLASSES)).astype(np.float32)


def expected(unit, labels, own):
  """Scores of one seed on images in [0, 1], in float64."""
  logits = ((unit - 0.5) / 0.25).reshape(len(labels), -1) @ own.astype(np.float64)
  shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
  correct, confidence = logits.argmax(axis=1) == labels, shares.max(axis=1)
  bins = np.minimum(np.floor(15 * confidence), 14)
  gaps = [np.mean(bins == k) * abs(np.mean((correct - confidence)[bins == k])) for k in np.unique(bins)]
  assert len(gaps) > 5
  return {
    "accuracy": correct.mean(),
    "nll": -np.log(shares[np.arange(len(labels)), labels]).mean(),
    "brier": ((shares - np.eye(CLASSES)[labels]) ** 2).sum(axis=1).mean(),
    "ece": sum(gaps),
  }


@pytest.mark.parametrize("batch_size", [7, 61, 1000])  # 61 test images
def test_scores_of_two_classifiers_against_numpy(batch_size):
  scorer, data = make(batch_size)
  classifiers = {"none": weights(0), "clip": weights(1, scale=0.2)}
  wanted = test_sets.expand(["test", "diagnostic/normalised_twice"])
  found = scorer.test(Linear(), jax.tree.map(jnp.asarray, classifiers), wanted)
  unit = data.test.images / 255
  images = {"test": unit, "diagnostic/normalised_twice": (unit - 0.1307) / 0.3081}
  for name, own in classifiers.items():
    assert list(found["arms"][name]) == list(images)
    for one, values in images.items():
      rows = [expected(values, data.test.labels, own[seed]) for seed in range(SEEDS)]
      scores = found["arms"][name][one]
      assert set(scores) == set(rows[0])
      for score, by_seed in scores.items():
        np.testing.assert_allclose(by_seed, [row[score] for row in rows], rtol=2e-5, err_msg=f"{name} {one} {score}")
  of_set = lambda family, part, origin: {
    "family": family, "part": part, "severity": 0, "origin": origin, "images": 61
  }  # fmt: skip
  assert found["test_sets"] == {
    "test": of_set("test", "", "own"),
    "diagnostic/normalised_twice": of_set("diagnostic", "normalised_twice", "generated"),
  }
  assert found["robustness"] == {"none": {}, "clip": {}}


def test_classifiers_stay_in_their_order():
  scorer, _ = make()
  found = scorer.test(
    Linear(), {name: jnp.asarray(weights(0)) for name in ("none", "clip")}, test_sets.expand(["test"])
  )
  assert list(found["arms"]) == list(found["robustness"]) == ["none", "clip"]


def test_calibration_error_by_hand():
  """Eight answers at a confidence of 0.7, of which six are right, and two at 0.9, of which one is."""
  confidence, right = np.array([0.7] * 8 + [0.9] * 2), np.array([1] * 6 + [0] * 2 + [1, 0])
  images = np.zeros((10, SIDE, SIDE, 1), np.uint8)
  images[:, 0, 0, 0], images[:, 0, 1, 0] = 255 * (confidence == 0.9), 255 * right
  scorer, _ = make(test=sources.Split(images, np.zeros(10, np.int32)))

  def logits(factor, seen):
    """Reads confidence and answer off the first two pixels."""
    sure = jnp.where(seen[:, 0, 0, 0] > 0, 0.9, 0.7)[:, None]
    answer = jax.nn.one_hot(jnp.where(seen[:, 0, 1, 0] > 0, 0, 1), CLASSES)
    return factor * jnp.log(answer * sure + (1 - answer) * (1 - sure) / (CLASSES - 1))

  found = scorer.test(types.SimpleNamespace(apply=logits), {"sure": jnp.ones(SEEDS)}, test_sets.expand(["test"]))
  scores = found["arms"]["sure"]["test"]
  np.testing.assert_allclose(scores["accuracy"], [0.7] * 2)
  np.testing.assert_allclose(scores["ece"], [0.8 * (6 / 8 - 0.7) + 0.2 * (0.9 - 1 / 2)] * 2, rtol=1e-5)
  nll = -np.log(np.where(right, confidence, (1 - confidence) / 3)).mean()
  np.testing.assert_allclose(scores["nll"], [nll] * 2, rtol=1e-5)


def test_families_of_corruptions_are_summarized():
  scorer, _ = make(12)
  wanted = test_sets.expand(["test", "generated_cifar10_c/brightness"])
  found = scorer.test(Linear(), {"arm": jnp.asarray(weights(0))}, wanted)
  scores, summary = found["arms"]["arm"], found["robustness"]["arm"]["generated_cifar10_c"]
  mean = np.mean([scores[f"generated_cifar10_c/brightness_{k}"]["accuracy"] for k in range(1, 6)], axis=0)
  np.testing.assert_allclose(summary["means"]["selected"], mean)
  np.testing.assert_allclose(summary["relative"]["selected"], mean / scores["test"]["accuracy"])


@pytest.mark.parametrize("batch_size", [8, 23, 1000])  # 23 validation images
def test_validation_accuracy_counts_every_image_once(batch_size):
  scorer, data = make(batch_size)
  own = weights(2)
  found = scorer.validation_accuracy(Linear())(types.SimpleNamespace(variables=jnp.asarray(own)))
  rows = [expected(data.validation.images / 255, data.validation.labels, one)["accuracy"] for one in own]
  assert 0 < min(rows) < max(rows) < 1
  np.testing.assert_allclose(found, rows, rtol=1e-6)


def top_left(batch):
  """A fake classifier's answer: the stored value of the top left pixel // 64."""
  return jnp.floor(ranges.to_unit(batch["image"])[:, 0, 0, 0] * 255 / 64 + 1e-3).astype(jnp.int32)


def score(batch):
  """Scores of two seeds: the first answers `top_left`, the second class 0; both are sure of it."""
  answers = jnp.stack([top_left(batch), jnp.zeros_like(batch["label"])])
  logits = 20.0 * jax.nn.one_hot(answers, 4)
  each = [metrics.soft_scores(row, batch["label"], batch["target"], batch["mask"]) for row in logits]
  return jax.tree.map(lambda *values: jnp.stack(values), *each)


def cut(size):
  return classifier_scores.Batching(classes=CLASSES, size=size, sharding=jax.devices()[0])


def scores(names, split, size=10, function=score):
  wanted = test_sets.expand(names)
  return classifier_scores.score_all(lambda batch: {"fake": function(batch)}, wanted, lambda _: split, cut(size))


@pytest.mark.parametrize("size", [1, 7, 20, 33])
def test_accuracy_is_exact_whatever_the_batch_size(size):
  split = squares(20)
  results, facts = scores(["test"], split, size)
  expected = np.mean(split.images[:, 0, 0, 0] // 64 == split.labels)
  np.testing.assert_allclose(results["fake"]["test"]["accuracy"], [expected, 0.25])
  assert facts == {"test": {"family": "test", "part": "", "severity": 0, "origin": "own", "images": 20}}


def test_generated_sets_do_not_depend_on_the_batch_size():
  names, split = ["generated_cifar10_c/gaussian_noise", "generated_cifar10_c/fog"], squares(12)
  (first, _), (second, _) = (scores(names, split, size) for size in (5, 12))
  assert first == second
  one = test_sets.TestSet("generated_cifar10_c", "gaussian_noise", 3)
  small, large = (
    np.concatenate([batch["image"].values for batch in classifier_scores.changed_batches(one, split, cut(size))])[:12]
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
  results, _ = scores(names, soft_split(23), 12, counted)
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
  results, facts = classifier_scores.score_all(lambda batch: {"known": known(batch)}, [one], lambda _: split, cut(8))
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
  results, facts = classifier_scores.score_all(
    lambda batch: {"fake": score(batch)},
    test_sets.expand(["dirty_mnist"]),
    lambda one: halves[one.part],
    cut(8),
  )
  whole, first, second = (results["fake"][f"dirty_mnist{part}"] for part in ("", "/mnist", "/ambiguous"))
  for name in ("accuracy", "nll", "brier"):
    np.testing.assert_allclose(whole[name], (np.array(first[name]) + 3 * np.array(second[name])) / 4)
  assert facts["dirty_mnist"]["images"] == 40
  assert facts["dirty_mnist"]["ceiling"] == pytest.approx((1 + 3 * facts["dirty_mnist/ambiguous"]["ceiling"]) / 4)


def test_a_registered_metric_of_logits_is_a_score_of_every_test_set():
  with registry.temporary(metrics.METRICS):

    @metrics.register("right class at rank 2", scale=100, digits=1, of=metrics.LOGITS)
    def second(logits, labels):
      return jnp.argsort(logits, axis=-1)[:, -2] == labels

    scorer, data = make(7)
    own = weights(0)
    found = scorer.test(Linear(), {"arm": jnp.asarray(own)}, test_sets.expand(["test", "diagnostic"]))
    assert metrics.about()["second"] == {
      "title": "right class at rank 2", "scale": 100, "digits": 1, "of": "logits", "shown": True,
      "undefined": "its function returned no finite number",
    }  # fmt: skip
  assert "second" not in metrics.METRICS
  logits = [((data.test.images / 255 - 0.5) / 0.25).reshape(len(data.test), -1) @ one for one in own]
  expected = [np.mean(np.argsort(values, axis=1)[:, -2] == data.test.labels) for values in logits]
  assert 0 < min(expected) < 1
  for by_set in found["arms"]["arm"].values():
    assert set(by_set) == {"accuracy", "nll", "brier", "ece", "second"}
  np.testing.assert_allclose(found["arms"]["arm"]["test"]["second"], expected, rtol=1e-6)
  assert (
    "second"
    not in make()[0].test(Linear(), {"arm": jnp.asarray(own)}, test_sets.expand(["test"]))["arms"]["arm"]["test"]
  )
