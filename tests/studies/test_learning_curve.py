import itertools
import json

import numpy as np
import pytest

from lcgen.api import build
from lcgen.constraints import learning
from lcgen.data import sources
from lcgen.evaluation import classifier_scores
from lcgen.studies import learning_curve
from lcgen.studies.study import Study
from tests.support.helpers import config_of, context_of, frozen_vae
from tests.support.results import scored

FACTS = sources.Facts("toy", (8, 8, 1), ("a", "b"), 40, 40, 40)
LABELS = np.random.default_rng(0).permutation(np.repeat([0, 1, 2, 5], [400, 3, 41, 20]))


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 1.0])
def test_labelled_rows_are_a_share_of_every_class(share):
  rows = learning_curve.labelled_rows(LABELS, share, seed=3)
  assert len(set(rows)) == len(rows)
  assert np.all(np.diff(rows) > 0)
  for label in (0, 1, 2, 5):
    count, wanted = np.sum(LABELS[rows] == label), share * np.sum(LABELS == label)
    assert count >= 1
    assert abs(count - max(1, wanted)) <= 0.5
  if share == 1:
    np.testing.assert_array_equal(rows, np.arange(len(LABELS)))


def test_labelled_rows_of_larger_shares_hold_those_of_smaller_ones():
  by_share = [set(learning_curve.labelled_rows(LABELS, share, seed=3)) for share in (0.01, 0.03, 0.1, 0.3, 1.0)]
  assert all(smaller < larger for smaller, larger in itertools.pairwise(by_share))


def test_labelled_rows_are_drawn_by_the_seed():
  chosen = [tuple(learning_curve.labelled_rows(LABELS, 0.1, seed)) for seed in (0, 0, 1, 2)]
  assert chosen[0] == chosen[1]
  assert len(set(chosen)) == 3


@pytest.fixture
def curve(monkeypatch):
  """Runs a curve without training: `curve(**config values) -> (what was found, what was asked for)`."""

  def _curve(**changes):
    known, asked = config_of("smoke", **changes), []
    context = context_of(known, FACTS)
    labels = np.arange(FACTS.train, dtype=np.int32) % 2
    split = sources.Split(np.zeros((FACTS.train, *FACTS.shape), np.uint8), labels)
    data = sources.Dataset("toy", FACTS.class_names, split, split, split)
    frozen = frozen_vae(None)

    class Learner:
      """Keeps the source of the labels."""

      def __init__(self, *arguments):
        del arguments

      def labels(self, source):
        asked.append({"source": source})
        return learning.Pair("an actor", "an energy")

    class Training:
      """Keeps what would be trained."""

      def __init__(self, context, trainer, settings, tools, folder, pool):
        asked[-1] |= {"settings": settings, "folder": folder, "pool": pool}

      def train(self, arms, frozen, accuracy):
        asked[-1] |= {"arms": arms, "frozen": frozen}
        return dict.fromkeys(arms)

    def test(self, model, classifiers, wanted):
      return scored({arm: {one.name: [len(asked) / 10] * 2 for one in wanted} for arm in classifiers})

    monkeypatch.setattr(learning_curve.learning, "Learner", Learner)
    monkeypatch.setattr(learning_curve.arm_training, "ArmTraining", Training)
    monkeypatch.setattr(classifier_scores.Scorer, "test", test)
    study = Study(context, None, data, frozen, build.sections(known))
    return learning_curve.run(study, known.learning_curve), asked, context

  return _curve


def test_a_point_is_trained_on_its_share_of_the_labels(curve):
  """Game, energy and arms take as many rows as there are images, all of them labelled ones."""
  found, asked, context = curve(learning_curve__shares=(0.1, 1.0), learning_curve__arms="clip")
  assert [(point["share"], point["labelled"]) for point in found["points"]] == [(0.1, 4), (1.0, 40)]
  labels = np.arange(40) % 2
  for share, one in zip((0.1, 1.0), asked, strict=True):
    rows = [learning_curve.labelled_rows(labels, share, seed) for seed in context.seeds]
    for own, pool in zip(rows, one["pool"], strict=True):
      np.testing.assert_array_equal(pool, np.resize(own, 40))
    np.testing.assert_array_equal(one["source"].pool, one["pool"])
    assert one["source"].name == f"learning_curve/{share:g}"
    assert one["folder"] == f"learning_curve/{share:g}/classifier"
    assert one["arms"] == ["none", "clip"]
    assert (one["frozen"].actor, one["frozen"].energy) == ({"params": "an actor"}, {"params": "an energy"})
    np.testing.assert_array_equal(one["frozen"].labelled.counts.sum(axis=1), [len(own) for own in rows])
  for place, point in enumerate(found["points"]):
    assert set(point) == {"share", "labelled", "arms", "test_sets", "robustness"}
    assert point["arms"]["clip"]["test"]["accuracy"] == [(place + 1) / 10] * 2


def test_a_run_on_shares_of_the_labels(run_aside):
  workdir, stdout = run_aside("learning_curve", twice=True)
  found, own = (json.loads((workdir / f"{name}.json").read_text()) for name in ("learning_curve", "results"))
  assert [(point["share"], point["labelled"]) for point in found["points"]] == [(0.2, 70), (1.0, 360)]
  for point in found["points"]:
    assert set(point["arms"]) == {"none", "latent_constraints"}
    assert list(point["test_sets"]) == ["test", "diagnostic/noise"]
  full, whole = found["points"][-1]["arms"], own["arms"]
  for arm, scores in full.items():  # with all labels they are the run's own
    assert scores["test"]["accuracy"] == whole[arm]["test"]["accuracy"]
    np.testing.assert_allclose(scores["test"]["nll"], whole[arm]["test"]["nll"], rtol=1e-6)
  assert found["points"][0]["arms"]["none"]["test"]["nll"] != full["none"]["test"]["nll"]
  assert found["roles"] == {"none": "baseline", "latent_constraints": "method"}
  assert (workdir / "learning_curve.md").read_text().count("over the number of labelled images") == 2
  assert (workdir / "learning_curve.md").read_text() in stdout
  assert (workdir / "figures" / "learning_curve.png").read_bytes().startswith(b"\x89PNG")
  assert "<h2>Fewer labels</h2>" in (workdir / "report.html").read_text()
