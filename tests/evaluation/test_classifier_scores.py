import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lcgen import config
from lcgen.data import sources, test_sets
from lcgen.evaluation import classifier_scores
from lcgen.models import losses
from lcgen.runtime import parallel
from lcgen.training.context import Phases
from tests.support.helpers import load_config

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
  """A scorer of a toy data set, the set, and the phases of its config."""
  splits = {"train": drawn(40, 0), "validation": drawn(validation, 1), "test": test or drawn(61, 2)}
  data = sources.Dataset("squares", tuple("abcd"), **splits)
  values = config.checked(load_config("mnist5k", "smoke", seeds=SEEDS, evaluate__batch_size=batch_size))
  phases = Phases(values, data.facts)
  return classifier_scores.Scorer(phases, parallel.make_mesh(SEEDS), data), data, phases


def weights(seed, scale=0.1):
  """Of every repetition, `[S, H W C, K]`."""
  return np.random.default_rng(seed).normal(0, scale, (SEEDS, SIDE**2, CLASSES)).astype(np.float32)


def expected(unit, labels, own):
  """Scores of one repetition on images in [0, 1], in float64."""
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
  scorer, data, _ = make(batch_size)
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
  assert found["test_sets"] == {
    "test": {"origin": "own", "images": 61},
    "diagnostic/normalised_twice": {"origin": "generated", "images": 61},
  }
  assert found["robustness"] == {"none": {}, "clip": {}}


def test_classifiers_stay_in_their_order():
  scorer, _, _ = make()
  found = scorer.test(
    Linear(), {name: jnp.asarray(weights(0)) for name in ("none", "clip")}, test_sets.expand(["test"])
  )
  assert list(found["arms"]) == list(found["robustness"]) == ["none", "clip"]


def test_calibration_error_by_hand():
  """Eight answers at a confidence of 0.7, of which six are right, and two at 0.9, of which one is."""
  confidence, right = np.array([0.7] * 8 + [0.9] * 2), np.array([1] * 6 + [0] * 2 + [1, 0])
  images = np.zeros((10, SIDE, SIDE, 1), np.uint8)
  images[:, 0, 0, 0], images[:, 0, 1, 0] = 255 * (confidence == 0.9), 255 * right
  scorer, _, _ = make(test=sources.Split(images, np.zeros(10, np.int32)))

  def logits(factor, seen):
    """Of what the first two pixels say."""
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
  scorer, _, _ = make()
  wanted = test_sets.expand(["test", "generated_cifar10_c/brightness"])
  found = scorer.test(Linear(), {"arm": jnp.asarray(weights(0))}, wanted)
  scores, summary = found["arms"]["arm"], found["robustness"]["arm"]["generated_cifar10_c"]
  mean = np.mean([scores[f"generated_cifar10_c/brightness_{k}"]["accuracy"] for k in range(1, 6)], axis=0)
  np.testing.assert_allclose(summary["means"]["selected"], mean)
  np.testing.assert_allclose(summary["relative"]["selected"], mean / scores["test"]["accuracy"])


@pytest.mark.parametrize("batch_size", [8, 23, 1000])  # 23 validation images
def test_validation_accuracy_counts_every_image_once(batch_size):
  scorer, data, _ = make(batch_size)
  own = weights(2)
  found = scorer.validation_accuracy(Linear())(types.SimpleNamespace(variables=jnp.asarray(own)))
  rows = [expected(data.validation.images / 255, data.validation.labels, one)["accuracy"] for one in own]
  assert 0 < min(rows) < max(rows) < 1
  np.testing.assert_allclose(found, rows, rtol=1e-6)


def test_validation_loss_is_the_training_objective_with_the_same_noise_every_time():
  scorer, data, phases = make(validation=8)
  model, keys = phases.networks.vae, phases.keys("evaluate")
  init = jax.jit(lambda key: model.init(key, phases.networks.example["image"], key))
  each = [init(key) for key in keys]
  variables = jax.tree.map(lambda *leaves: jnp.stack(leaves), *each)
  loss = scorer.validation_loss()
  found = loss(types.SimpleNamespace(variables=variables))
  np.testing.assert_array_equal(found, loss(types.SimpleNamespace(variables=variables)))
  images = jnp.asarray((data.validation.images / 255 - 0.5) / 0.25, jnp.float32)
  for value, own, key in zip(found, each, keys, strict=True):
    objective, _ = losses.weighted_elbo(images, model.apply(own, images, key), phases.config["vae"]["kl_weight"])
    np.testing.assert_allclose(value, objective.mean(), rtol=1e-5)
