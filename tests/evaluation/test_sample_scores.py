"""Scores of samples and edits, and where a run keeps them."""

import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from lcgen.classifiers import judge_phase
from lcgen.constraints import algebra, samplers
from lcgen.evaluation import metrics, sample_scores
from lcgen.runtime import registry
from lcgen.training import loop
from tests.support.helpers import squares
from tests.support.runs import METHODS
from tests.support.small_model import small_model

SAMPLERS = METHODS
SHARES = ("conditional_accuracy", "accepted", "precision", "recall", "coverage")
OTHERS = ("diversity", "frechet_distance", "density", "novelty", "moved")
SCORES = {*SHARES, *OTHERS, "conditional_accuracy_by_class", "kernel_distance", "ms_per_sample"}
OF_REAL = {  # rows of real images, which come from no draw
  "real": {*SCORES, "images"} - {"accepted", "moved", "ms_per_sample"},
  "reconstructed": {*SCORES, "images"} - {"moved", "ms_per_sample"},
}


@pytest.fixture(scope="module")
def results(smoke):
  return json.loads((smoke / "results.json").read_text())


def test_the_judge_decides_on_labels():
  logits = jnp.array([[[0.0, 1.0, 0.5], [2.0, 1.0, 1.5]], [[-1.0, -2.0, -0.5], [0.0, 7.0, 0.0]]])
  for target, expected in enumerate(([[0, 1], [0, 0]], [[1, 0], [0, 1]], [[0, 0], [1, 0]])):
    verdicts = sample_scores.labels_by_judge(None, logits, target)
    assert isinstance(verdicts, np.ndarray)
    np.testing.assert_array_equal(verdicts, np.array(expected, bool))


@pytest.mark.parametrize("target", [0, 1])
def test_an_image_looks_like_a_class_from_90_percent_on(target):
  odds = np.log(0.9 / 0.1)
  logits = jnp.array([[[odds + 0.01, 0.0], [odds - 0.01, 0.0]], [[5.0, 5.0], [0.0, odds + 0.01]]])
  verdicts = sample_scores.looks_like_a_class(None, logits, target)
  np.testing.assert_array_equal(verdicts, [[True, False], [False, True]])


def test_every_method_has_every_score_of_every_seed(results):
  assert list(results["samples"]) == ["prior", *SAMPLERS, *OF_REAL]
  for method, scores in results["samples"].items():
    expected = OF_REAL.get(method, SCORES)
    assert set(scores) == expected | ({"classification_accuracy"} if method == "actor" else set())
    for name in {*SHARES, *OTHERS, "kernel_distance"} & expected:
      assert len(scores[name]) == 2, name
      assert np.isfinite(scores[name]).all(), name
    assert all(0 <= value <= 1 for name in expected.intersection(SHARES) for value in scores[name])
    assert all(value >= 0 for name in expected.intersection(OTHERS) for value in scores[name])
    by_class = np.array(scores["conditional_accuracy_by_class"])
    assert by_class.shape == (2, 10)
    assert set(np.ravel(by_class * 8)) <= set(range(9))  # of 8 samples
    np.testing.assert_allclose(scores["conditional_accuracy"], by_class.mean(axis=1))
    assert scores["diversity"][0] != scores["diversity"][1]
    if method in OF_REAL:  # as many images as there are samples
      assert sum(scores["images"].values()) == 10 * 8
      continue
    assert scores["ms_per_sample"] > 0
    assert (np.array(scores["moved"]) == 0).all() == (method == "prior")
  taught = results["samples"]["actor"]["classification_accuracy"]
  assert len(taught) == 2
  assert all(0 <= value <= 1 for value in taught)


def test_edits_are_scored_at_every_price(results):
  edits = results["edits"]
  assert set(edits) == {"distance_weight", "distance_weights", "success", "moved", "actor", "flow", "map", "anew"}
  weights = edits["distance_weights"]
  assert weights == sorted(set(weights))
  assert weights[0] == 0
  assert edits["distance_weight"] == 0.003
  assert {0.0, 0.003, 1.0} < set(weights)
  success, moved = np.array(edits["success"]), np.array(edits["moved"])
  assert success.shape == moved.shape == (len(weights), 2)
  assert ((0 <= success) & (success <= 1)).all()
  assert (moved[0] > moved[-1]).all()  # who pays for the way goes less far
  assert (moved > 0).all()
  assert all(set(edits[name]) == {"success", "moved"} for name in ("actor", "flow", "map"))
  for values in (*(v for name in ("actor", "flow", "map") for v in edits[name].values()), edits["anew"]):
    assert len(values) == 2
    assert min(values) >= 0


def test_the_table_has_a_row_for_each_method(results, smoke):
  lines = (smoke / "table.md").read_text().splitlines()
  (head,) = [place for place, line in enumerate(lines) if line.startswith("| method |")]
  assert lines[head].endswith("| ms per sample |")
  columns = lines[head].count("|")
  for line, (method, scores) in zip(lines[head + 2 :], results["samples"].items(), strict=False):
    assert line.startswith(f"| {method} | ")
    assert line.endswith(" | – | – |" if method in OF_REAL else f" | {scores['ms_per_sample']:.3f} |")
    assert line.count("|") == columns
    shown = [float(cell.split(" ± ")[0]) for cell in line.split("|")[2:4]]
    expected = [100 * np.mean(scores["conditional_accuracy"]), np.mean(scores["diversity"])]
    np.testing.assert_allclose(shown, expected, atol=0.051)
  assert lines[head + 5 + len(SAMPLERS)] == ""
  taught = 100 * np.mean(results["samples"]["actor"]["classification_accuracy"])
  assert any(
    re.match(rf"A classifier trained on actor samples alone is right on {taught:.1f} ", line) for line in lines
  )


@struct.dataclass
class Wish(algebra.Constraint):
  """Accepts everything or nothing; the actor goes a step along all axes."""

  step: jax.Array
  accepts: jax.Array

  def holds(self, latents):
    return jnp.broadcast_to(self.accepts, latents.shape[:1])

  def propose(self, latents):
    return latents + self.step


def wish(step, accepts):
  return Wish(jnp.full(2, step), jnp.full(2, accepts))


@pytest.fixture(scope="module")
def scorer():
  settings, context, frozen = small_model()
  judge = settings.evaluate.judge
  variables = loop.init(judge_phase.phase(context, judge), context.mesh).variables
  test, train = squares(count=40, seed=1), squares()
  validation = squares(count=12, seed=2)
  judged = sample_scores.Judged(judge_phase.network(context, judge), variables, test, train, validation)
  return sample_scores.SampleScorer(context, context.mesh, frozen, judged)


def scored(scorer, targets, like=None):
  """Scores of the actor's samples, of the prior's and of real images, 8 for each target."""
  actor = lambda key, constraint, latents: samplers.actor(key, constraint, latents, None)
  return scorer.all_samplers({"actor": actor}, targets, by_target, 8, like)


def by_target(images, logits, target):
  assert images.shape == (2, 8, 8, 8, 1)
  assert images.dtype == np.float32
  assert logits.shape == (2, 8, 4)
  return np.stack([np.arange(8) < 2 * target, np.arange(8) < 4])  # more of each target, and half in any case


def test_scores_are_means_over_targets(scorer):
  scores = scored(scorer, [wish(0.0, True), wish(0.5, False), wish(1.0, False)])
  for method in ("prior", "actor"):
    np.testing.assert_allclose(scores[method]["conditional_accuracy_by_class"], [[0, 0.25, 0.5], [0.5, 0.5, 0.5]])
    np.testing.assert_allclose(scores[method]["conditional_accuracy"], [0.25, 0.5])
    np.testing.assert_allclose(scores[method]["accepted"], [1 / 3, 1 / 3], rtol=1e-6)
  np.testing.assert_allclose(scores["actor"]["moved"], [0.5, 0.5], rtol=1e-6)
  np.testing.assert_array_equal(scores["prior"]["moved"], 0)


def compared(scorer, like=None):
  return scored(scorer, [wish(0.0, True)], like)["actor"]


def every_other(images):
  return np.arange(len(images)) % 2 == 0


def every(images):
  return np.ones(len(images), bool)


def none(images):
  return np.zeros(len(images), bool)


def test_a_rules_samples_are_compared_with_the_images_it_holds_for(scorer):
  some, all_of_them = compared(scorer, every_other), compared(scorer, every)
  assert some["novelty"] == all_of_them["novelty"]  # whatever they should be like, they are to be no copies
  for name in ("diversity", "frechet_distance", "kernel_distance"):
    assert not np.isclose(some[name], all_of_them[name]).any()


def test_realism_is_compared_with_all_images_as_one_class(scorer):
  np.testing.assert_allclose(compared(scorer)["diversity"], compared(scorer, every)["diversity"])


def test_a_rule_that_holds_for_no_test_image_has_no_score_to_compare(scorer):
  found = scored(scorer, [wish(0.0, True)], none)
  for name in ("actor", "real", "reconstructed"):
    assert np.isnan(found[name]["frechet_distance"]).all()
  assert np.isnan(found["real"]["conditional_accuracy"]).all()
  assert found["real"]["images"] == {"validation": 0, "train": 0}


def test_a_registered_metric_of_features_is_a_score_of_every_sampler(scorer):
  asked = []
  with registry.temporary(metrics.METRICS):

    @metrics.register("largest feature", digits=3)
    def largest(sets):
      asked.append(sets)
      return sets.samples.max() / sets.real.max()

    found = scored(scorer, [wish(0.0, True), wish(0.5, False)])
    words = {"title": "largest feature", "undefined": "its function returned no finite number"}
    assert metrics.about()["largest"] == words | {"scale": 1.0, "digits": 3, "of": "features", "shown": True}
  assert list(found) == ["prior", "actor", "real", "reconstructed"]
  for place, (name, scores) in enumerate(found.items()):
    own = asked[2 * place : 2 * place + 2]  # one set of features a seed
    assert scores["largest"] == [float(sets.samples.max() / sets.real.max()) for sets in own], name
    assert set(scores) == {"largest", *OF_REAL.get(name, SCORES)}
  for sets in asked:
    assert sets.samples.shape[0] == len(sets.targets) == 2 * 8
    assert (sets.classes, len(sets.real), len(sets.test)) == (2, 40, 40)
  # Each class has 3 validation images, and 5 training images, which are no copies of themselves.
  assert [len(sets.train) for sets in asked] == [80, 80, 80, 80, 70, 70, 80, 80]
  for sets in asked:
    np.testing.assert_array_equal(sets.targets, np.repeat([0, 1], 8))
  assert "largest" not in metrics.METRICS
  assert "largest" not in compared(scorer)


def test_an_image_that_is_not_finite_has_no_verdict():
  images = np.zeros((2, 3, 4, 4, 1), np.float32)
  images[1, 2, 0, 0, 0] = np.nan
  found = sample_scores._of_finite(jnp.asarray(images), np.ones((2, 3), bool))
  np.testing.assert_array_equal(found, [[1, 1, 1], [1, 1, np.nan]])
