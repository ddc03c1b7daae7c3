"""Made-up results of classifiers, typed as reports read them."""

import dataclasses

import numpy as np

from lcgen.classifiers.arms import known, role
from lcgen.data import test_sets
from lcgen.evaluation import metrics, robustness
from lcgen.reporting import tables
from lcgen.runtime.results import AUGMENTATION, REAL, RECONSTRUCTED, ArmScores, Results, TestSetFacts

ARMS = ("none", "latent_constraints", "clip", "flip_crop+latent_constraints:share=0.5", "shuffled", "augmix")
SETS = ("test", *(f"generated_cifar10_c/contrast_{severity}" for severity in range(1, 6)), "generated_mnist_c/stripe")
KNOWN = {one.name: one for one in test_sets.expand(list(test_sets.FAMILIES))}
_ARM = "latent_constraints:share=0.5"
FEW = {  # the least that `results.json` can hold
  "schema": 1,
  "seeds": [0, 1],
  "data": {"name": "mnist5k", "shape": [28, 28, 1], "class_names": ["0", "1"]},
  "judge": {"test": {"accuracy": [0.95, 0.97]}},
  "samples": {"prior": {"diversity": [1.0, None]}, "actor": {"ms_per_sample": 0.0625, "accepted": True}},
  "arms": {_ARM: {"generated_mnist_c/fog": {"accuracy": [0.25, 0.75]}}},
  "roles": {_ARM: "method"},
  "test_sets": {},
  "robustness": {},
}


def of_real(scores):
  """Rows of real images beside samplers with these scores, as `SampleScorer.all_samplers` gives them."""
  drawn = ("accepted", "moved", "ms_per_sample", "classification_accuracy")
  shared = {name: values for name, values in scores.items() if name not in drawn}
  return {
    REAL: shared | {"images": {"validation": 40, "train": 60}},
    RECONSTRUCTED: shared | {"images": {"test": 100}},
  }


def scored(by_arm):
  """Gives what `Scorer.test` returns, from `{arm: {test set: [accuracy of each seed]}}`; NLL is 1 - accuracy."""
  arms, summaries = {}, {}
  for arm, accuracies in by_arm.items():
    arms[arm] = {one: _scores(one, values) for one, values in accuracies.items()}
    summaries[arm] = robustness.summarize({KNOWN[one]: np.array(accuracies[one]) for one in accuracies if one in KNOWN})
    generated = [accuracies[one] for one in accuracies if one.partition("/")[0] in test_sets.GENERATED]
    if generated:
      arms[arm]["corrupted"] = {"accuracy": np.mean(generated, axis=0).tolist()}
  facts = {one: _facts(one) for one in next(iter(by_arm.values()))}
  return {"arms": arms, "test_sets": facts, "robustness": summaries}


def study(by_arm):
  """Gives what a study's file adds to the scores of these arms."""
  seeds = len(next(iter(next(iter(by_arm.values())).values())))
  return {"schema": 1, "seeds": list(range(seeds)), "roles": roles(by_arm)}


def roles(arms):
  """The role of each arm; an augmentation if no policy has its name."""
  return {arm: role(arm) if known(arm) else AUGMENTATION for arm in arms}


def typed(by_arm):
  """`scored` as reports take it."""
  return ArmScores(**_arm_scores(by_arm))


def results(by_arm, name="mnist5k", **more):
  """The results of a run with these accuracies and nothing else, but for what `more` has."""
  data = {"name": name, "train": 3600, "validation": 400, "test": 1000}
  return Results(**_arm_scores(by_arm), metrics=metrics.about(), data=data | more.pop("data", {}), **more)


def drawn(arms=ARMS, sets=SETS, seeds=4, effect=0.02, noise=0.004):
  """Accuracies of arms whose true gains over the first go from 0 upwards."""
  rng = np.random.default_rng(0)
  base = {one: rng.normal(0.7, 0.02, seeds) for one in sets}
  by_arm = {arm: {one: base[one] + rng.normal(k * effect, noise, seeds) for one in sets} for k, arm in enumerate(arms)}
  return {arm: {one: values.tolist() for one, values in own.items()} for arm, own in by_arm.items()}


def compared(given):
  """Pairs the accuracies of each arm with those of `none`, for every score of a table of gains."""
  wanted = [score for score in tables.scores(results(given)) if score.kind in ("set", "mean")]
  return {
    (arm, score.name): (np.array(values), np.array(score.values["none"]))
    for score in wanted
    for arm, values in score.values.items()
    if arm != "none"
  }


def _arm_scores(by_arm):
  found, more = scored(by_arm), study(by_arm)
  found["test_sets"] = {one: TestSetFacts(**facts) for one, facts in found["test_sets"].items()}
  return found | {"seeds": more["seeds"], "roles": more["roles"]}


def _facts(name):
  drawn_labels = {"ceiling": 0.855, "label_entropy": 0.4} if "ambiguous" in name else {}
  if name not in KNOWN:  # a whole set that consists of parts
    return {"family": name, "part": "", "severity": 0, "origin": "published", "images": 1000}
  return dataclasses.asdict(KNOWN[name]) | {"origin": KNOWN[name].origin, "images": 1000} | drawn_labels


def _scores(name, accuracy):
  rest = {
    score: [scale * (1 - value) for value in accuracy] for score, scale in {"nll": 1, "brier": 2, "kl": 3}.items()
  }
  if "ambiguous" not in name:
    del rest["kl"]
  return {"accuracy": list(accuracy), **rest, "ece": [0.1 * value for value in accuracy]}
