"""Says in sentences what arms, samples and edits are worth. The sentences claim no more than their intervals."""

from collections.abc import Mapping, Sequence

import numpy as np

from lcgen.reporting import statistics, tables
from lcgen.runtime.results import CONTROL, METHOD, ArmScores, Results

_PREFERRED = ("all", "benchmark", "selected")  # means of a family, the widest first


def overview(results: ArmScores) -> list[str]:
  """Compares the first arm on samples with the best control, on the test images and on corrupted ones.

  Returns:
    At most two sentences; none without a baseline or without an arm on samples.
  """
  methods, controls = results.of_role(METHOD), results.of_role(CONTROL)
  if not (results.baseline and methods):
    return []
  sentences = []
  for place, values in _places(results).items():
    gain = lambda arm, values=values: statistics.paired(values[arm], values[results.baseline])
    sentence = f"{place}, samples (`{methods[0]}`) {_worth(gain(methods[0]), 'gain', 'lose', 'show')}"
    if controls:
      known = [arm for arm in controls if statistics.known(gain(arm).mean)]
      best = max(known or controls, key=lambda arm: gain(arm).mean)
      name = f"the best of {len(controls)} controls, `{best}`," if len(controls) > 1 else f"the control `{best}`"
      sentence += f"; {name} {_worth(gain(best), 'gains', 'loses', 'shows')}"
    sentences.append(f"{sentence}.")
  return sentences


def _places(results: ArmScores) -> dict[str, Mapping[str, Sequence[float]]]:
  """Gives the accuracies of each arm, one a seed, on the test images, and on the mean over families of corruptions."""
  places = {}
  if all(tables.TEST in scored for scored in results.arms.values()):
    places["On the test images"] = {arm: scored[tables.TEST]["accuracy"] for arm, scored in results.arms.items()}
  families = list(next(iter(results.robustness.values()), {}))
  if families:
    words = f"mean of {len(families)} families" if len(families) > 1 else families[0]
    places[f"On corrupted images ({words})"] = {
      arm: np.mean([_mean(summaries[family]["means"]) for family in families], axis=0).tolist()
      for arm, summaries in results.robustness.items()
    }
  return places


def _mean(means: Mapping[str, list[float]]) -> list[float]:
  return next(means[name] for name in _PREFERRED if name in means)


def _worth(difference: statistics.Difference, gain: str, loss: str, neither: str) -> str:
  """Writes a difference in points with the verb that its interval allows."""
  verdict = statistics.verdict(difference)
  if verdict == "one seed":
    return f"{neither} {100 * difference.mean:+z.1f} points with one seed, which proves nothing"
  if verdict == "undefined":
    return f"{neither} no difference that can be told, because a score is missing"
  low, high = (100 * end for end in difference.t_interval)
  digits = statistics.digits_of((low, high), 1)
  if verdict == "no difference shown":
    interval = statistics.interval_words((low, high), digits)
    return f"{neither} no significant difference ({100 * difference.mean:+z.{digits}f} points {interval})"
  if verdict == "loss":
    low, high = -high, -low
  verb = gain if verdict == "gain" else loss
  return f"{verb} {100 * abs(difference.mean):.{digits}f} points {statistics.interval_words((low, high), digits)}"


def in_short(results: ArmScores) -> list[str]:
  """Says of each arm on samples where its gains, losses and neither are shown, and which controls do no worse."""
  baseline, wanted, sentences = results.baseline, tables.headlines(results), []
  for arm in results.of_role(METHOD) if baseline else ():
    found: dict[str, list[str]] = {}
    for score in wanted:
      difference = statistics.paired(score.values[arm], score.values[baseline])
      verdict = statistics.verdict(difference)
      words = f"`{score.name}` {statistics.difference_words(difference, scale=100)}"
      rivals = [
        f"`{control}`"
        for control in results.of_role(CONTROL)
        if np.mean(score.values[control]) >= np.mean(score.values[arm])
      ]
      if verdict == "gain" and rivals:
        words += f" (no less by {', '.join(rivals)})"
      found.setdefault(verdict, []).append(words)
    told = {
      "gain": "A gain is shown on",
      "loss": "A loss is shown on",
      "no difference shown": "No difference is shown on",
      "one seed": "One seed shows nothing:",
      "undefined": "A score is missing on",
    }
    parts = [f"{words} {', '.join(found[verdict])}." for verdict, words in told.items() if verdict in found]
    sentences.append(f"`{arm}` against `{baseline}`, in points: {' '.join(parts)}")
  return sentences


def samples_table(results: Results) -> tables.Table:
  """Tables the scores of samples of all classes, with the judge's accuracy in the caption."""
  right = tables.percent(results.judge[tables.TEST]["accuracy"])
  caption = (
    f"Samples of all classes by each method, scored by a judge that is right on {right} % of the test images; "
    f"{tables.spread(results.seeds)}."
  )
  return tables.samples(results, "conditional accuracy, %", caption)


def edits_words(results: Results) -> str:
  """Says what a classifier learns from samples alone, and how often edits succeed."""
  sentences = [
    f"A classifier trained on {sampler} samples alone is right on {tables.percent(scores['classification_accuracy'])} "
    "% of the test images."
    for sampler, scores in results.samples.items()
    if "classification_accuracy" in scores
  ]
  if edits := results.edits:
    usual = edits["distance_weights"].index(edits["distance_weight"])
    sentences.append(
      f"The judge gives {tables.percent(edits['success'][usual])} % of test images that are edited to another class "
      f"(distance weight {edits['distance_weight']:g}) that class. "
      f"Edits move {statistics.summary(edits['moved'][usual], digits=2)}; samples drawn anew lie "
      f"{statistics.summary(edits['anew'], digits=2)} away."
    )
    sentences += [
      f"Edits by the {method} of the mixture succeed in {tables.percent(edits[method]['success'])} %, and move "
      f"{statistics.summary(edits[method]['moved'], digits=2)}."
      for method in ("flow", "map")
      if method in edits
    ]
  return " ".join(sentences)
