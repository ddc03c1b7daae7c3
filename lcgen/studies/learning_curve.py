"""The learning curve: accuracy over the number of labelled images.

The generator is trained on all images. Everything after it is trained on the labelled ones alone.
"""

from typing import Any

import numpy as np

from lcgen.classifiers import arm_phase, arm_training
from lcgen.classifiers.arms import NONE, draws_from_mixture
from lcgen.classifiers.labelled import by_class
from lcgen.constraints import draws, learning, mixture_phase
from lcgen.data import test_sets
from lcgen.studies.settings import LearningCurveSettings
from lcgen.studies.study import Study


def labelled_rows(labels: np.ndarray, share: float, seed: int) -> np.ndarray:
  """Draws the rows of a share of every class, at least one of each; `[N]` -> `[n]`, sorted.

  For the same seed, a larger share contains every smaller one.
  """
  chosen = []
  for label in np.unique(labels):
    rows = np.flatnonzero(labels == label)
    order = np.random.Generator(np.random.Philox(key=[seed, int(label)])).permutation(rows)
    chosen.append(order[: max(1, round(share * len(rows)))])
  return np.sort(np.concatenate(chosen))


def run(study: Study, settings: LearningCurveSettings) -> dict[str, Any]:
  """Trains actor, energy and classifiers on each share of the labels, and scores the classifiers.

  Every share is trained for the same number of updates.

  Args:
    study: a run whose generator is trained.
    settings: settings of the curve.

  Returns:
    `points`: for each `share`, the number of `labelled` images and the scores as `Scorer.test` gives them.
  """
  context, scorer, sections = study.context, study.scorer(), study.sections
  wanted, labels = test_sets.expand(settings.sets), study.data.train.labels
  learner = learning.Learner(context, study.trainer, study.frozen, sections.constraint)
  model, tools = arm_phase.network(context, sections.classifier), study.tools(sections.classifier.share)
  points = []
  for share in settings.shares:
    rows = [labelled_rows(labels, share, seed) for seed in context.seeds]
    pool = np.stack([np.resize(own, len(labels)) for own in rows]).astype(np.int32)  # full length: as many updates
    name = f"learning_curve/{share:g}"
    pair = learner.labels(source=draws.labels(context, name, pool))
    known = study.frozen.replace(
      actor={"params": pair.actor}, energy={"params": pair.energy}, labelled=by_class(labels, context.classes, rows)
    )
    arms = list(dict.fromkeys((NONE, *settings.arms)))
    if any(map(draws_from_mixture, arms)):
      read, folder = lambda: study.data, f"{name}/{mixture_phase.NAME}"
      mixture_settings = sections.constraint.mixture
      known = known.replace(
        mixture=mixture_phase.learn(context, study.trainer, study.frozen, mixture_settings, read, folder, rows)
      )
    folder = f"{name}/classifier"
    training = arm_training.ArmTraining(context, study.trainer, sections.classifier, tools, folder, pool)
    classifiers = training.train(arms, known, scorer.validation_accuracy(model))
    scored = scorer.test(model, classifiers, wanted)
    points.append({"share": share, "labelled": len(rows[0])} | scored)
  return {"points": points}
