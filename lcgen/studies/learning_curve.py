"""Accuracy over the number of labelled images: the VAE knows all images, all that is trained after it the labelled."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from lcgen.classifiers import arm_training, policies
from lcgen.constraints import learning
from lcgen.data import sources, test_sets
from lcgen.evaluation.classifier_scores import Scorer
from lcgen.generator import statistics as vae_statistics
from lcgen.reporting import statistics, tables
from lcgen.training import train_state as states
from lcgen.training.context import Phases
from lcgen.training.trainer import Trainer


def labelled_rows(labels: np.ndarray, share: float, seed: int) -> np.ndarray:
  """A share of the images of every class, at least one of each, drawn by the seed; `[N]` -> `[n]`, sorted.

  A smaller share of the same seed is part of a larger one.
  """
  chosen = []
  for label in np.unique(labels):
    rows = np.flatnonzero(labels == label)
    order = np.random.Generator(np.random.Philox(key=[seed, int(label)])).permutation(rows)
    chosen.append(order[: max(1, round(share * len(rows)))])
  return np.sort(np.concatenate(chosen))


def run(phases: Phases, trainer: Trainer, data: sources.Dataset, frozen: states.Frozen) -> dict[str, Any]:
  """Trains actor, critic and classifiers on each share of the labels; what `learning_curve.json` holds.

  Every share gets as many updates as all labels do.

  Args:
    phases: of the workdir's config.
    trainer: of the workdir.
    data: the data set.
    frozen: the trained VAE.
  """
  section, scorer = phases.config["learning_curve"], Scorer(phases, trainer.mesh, data)
  wanted = test_sets.expand(section["sets"])
  labels, classes = data.train.labels, len(data.class_names)
  learner = learning.Learner(phases, trainer, frozen)
  points = []
  for share in section["shares"]:
    rows = [labelled_rows(labels, share, seed) for seed in phases.seeds]
    pool = np.stack([np.resize(own, len(labels)) for own in rows]).astype(np.int32)  # repeated to the full length
    name = f"learning_curve/{share:g}"
    pair = learner.labels(source=phases.labels(name, pool))
    known = frozen.replace(
      actor={"params": pair.actor},
      energy={"params": pair.energy},
      labelled=vae_statistics.labelled(labels, classes, rows),
    )
    arms = list(dict.fromkeys((policies.NONE, *section["arms"])))
    classifiers = arm_training.Comparison(phases, trainer, f"{name}/classifier", pool).train(arms, known, scorer)
    scored = scorer.test(phases.networks.classifier, classifiers, wanted)
    points.append({"share": share, "labelled": len(rows[0])} | scored)
  return {"tables": [table._asdict() for table in curve_tables(points)], "points": points}


def curve_tables(points: list[Mapping[str, Any]]) -> list[tables.Table]:
  """For each score a table: a row a number of labels, the accuracy of `none` and what every other arm adds to it."""
  found = []
  for same in zip(*map(tables.headlines, points), strict=True):
    others = [arm for arm in same[0].values if arm != policies.NONE]
    seeds = len(same[0].values[policies.NONE])
    differences = [
      statistics.paired(score.values[arm], score.values[policies.NONE]) for score in same for arm in others
    ]
    cells = np.array(tables.compared(differences), object).reshape(len(same), len(others))
    rows = [
      [str(point["labelled"]), tables.percent(score.values[policies.NONE]), *line]
      for point, score, line in zip(points, same, cells, strict=True)
    ]
    found.append(
      tables.Table(
        f"{same[0].name}: accuracy in % of `{policies.NONE}`, and the gain of the other arms over it, "
        f"over the number of labelled images, n = {seeds} seeds.",
        ["labelled images", policies.NONE, *others],
        rows,
        tables.MARKS,
      )
    )
  return found
