"""The tables of a report, made from its results alone, and the forms they are written in."""

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from lcgen.classifiers import policies
from lcgen.data import test_sets
from lcgen.reporting import statistics

STARS = (
  "* the interval excludes 0; ** also after Holm's correction for all comparisons of the table. Without a mark no "
  "difference is shown, which does not show that there is none; differences that are all equal take six seeds for one."
)
MARKS = f"Differences are paired by seed, in points, with Student's 95 % interval. {STARS}"
_WIDE = 4  # more arms than this are rows, not columns

# Accuracies of the paper's Table 1, in %: its classifier without and with samples. One run each.
PAPER = {
  "mnist": {"test": (95, 94), "dirty_mnist": (41, 57)},
  "mnist5k": {"test": (95, 94)},
  "cifar10": {"test": (74, 75), "cifar10_corrupted": (65, 66)},
}


class Table(NamedTuple):
  """Cells as they are shown; the first column names the rows."""

  caption: str
  header: Sequence[str]
  rows: Sequence[Sequence[str]]
  note: str = ""

  def transposed(self, corner: str) -> "Table":
    """Rows as columns, under another name of the first column."""
    (_, *header), *rows = zip(self.header, *self.rows, strict=True)
    return self._replace(header=[corner, *header], rows=rows)


class Score(NamedTuple):
  """A row of numbers that arms are compared by.

  Attributes:
    name: what was scored.
    kind: `set`, `mean` (over a family), `group` (of a family), `relative` (to clean images) or `soft`.
    values: of each arm, one a seed.
  """

  name: str
  kind: str
  values: dict[str, list[float]]


def scores(results: Mapping[str, Any]) -> list[Score]:
  """What `table.md` compares arms by; single sets of a family of corruptions are left to `table.csv`."""
  by_arm = {arm: list(_scores_of(results, arm)) for arm in results["arms"]}
  return [
    Score(same[0][0], same[0][1], {arm: own[2] for arm, own in zip(by_arm, same, strict=True)})
    for same in zip(*by_arm.values(), strict=True)
  ]


def headlines(results: Mapping[str, Any]) -> list[Score]:
  """The accuracies among them that differences are told of: of single sets, and means over families."""
  return [score for score in scores(results) if score.kind in ("set", "mean")]


def _scores_of(results: Mapping[str, Any], arm: str) -> Iterator[tuple[str, str, list[float]]]:
  scored, families = results["arms"][arm], results["robustness"][arm]
  for name, known in results["test_sets"].items():
    family, _, part = name.partition("/")
    if family in families and part != test_sets.IDENTITY:
      continue
    origin = f", {known['origin']}" if known["origin"] == "published" else ""
    limit = f" (ceiling {100 * known['ceiling']:.1f})" if known.get("ceiling", 1) < 1 else ""
    yield f"{name}{origin}{limit}", "set", scored[name]["accuracy"]
    if part == "ambiguous":
      for score, words in {"nll": "NLL", "brier": "Brier score", "kl": "KL divergence"}.items():
        yield f"{name}: {words} to the drawn labels", "soft", scored[name][score]
  for score, words in {"nll": "NLL, nats", "brier": "Brier score", "ece": "expected calibration error"}.items():
    if test_sets.TEST in scored:
      yield f"{test_sets.TEST}: {words}", "soft", scored[test_sets.TEST][score]
  for family, summary in families.items():
    names = summary["by_corruption"]
    words = {"benchmark": "the benchmark's 15", "all": f"all {len(names)}", "selected": ", ".join(names)}
    for name, values in summary["means"].items():
      yield f"{family}: mean of {words[name]}", "mean", values
    for group, values in summary.get("by_group", {}).items():
      yield f"{family}: {group}", "group", values
    for name, values in summary.get("relative", {}).items():
      yield f"{family}: {words[name]}, relative to clean", "relative", values


def accuracies(results: Mapping[str, Any]) -> Table:
  """Mean and spread of every arm; arms are columns where they are few."""
  arms, data = list(results["arms"]), results["data"]
  wide = len(arms) > _WIDE
  rows = [
    [score.name, *(_words(score, values) for values in score.values.values())]
    for score in scores(results)
    if not wide or score.kind in ("set", "mean")
  ]
  caption = (
    f"Accuracy in % on {data['name']}, {spread(results)}; "
    f"{data['train']} training, {data['validation']} validation and {data['test']} test images."
  )
  table = Table(caption, ["test set", *arms], rows)
  return table.transposed("arm") if wide else table


def _words(score: Score, values: Sequence[float]) -> str:
  if score.kind == "soft":
    return statistics.summary(values, digits=3)
  return percent(values)


def gains(results: Mapping[str, Any]) -> Table | None:
  """Every arm's accuracy minus that of `none`; None where there is nothing to compare."""
  others = compared_arms(results)
  if not others:
    return None
  caption = f"Gain over `none` in points of accuracy, n = {len(results['seeds'])} seeds."
  table = gains_of({arm: arm for arm in others}, headlines(results), caption)
  return table if len(others) >= _WIDE else table.transposed("test set")


def compared_arms(results: Mapping[str, Any]) -> list[str]:
  """The arms that are held against `none`; empty where there is no such arm."""
  return [arm for arm in results["arms"] if arm != policies.NONE] if policies.NONE in results["arms"] else []


def gains_of(arms: Mapping[str, str], wanted: Sequence[Score], caption: str) -> Table:
  """A row an arm, a column a score: what it adds to `none`, corrected as one family.

  Args:
    arms: by the names that the rows have.
    wanted: the scores.
    caption: of the table.
  """
  cells = marked({
    (name, score.name): statistics.paired(score.values[arm], score.values[policies.NONE])
    for name, arm in arms.items()
    for score in wanted
  })  # fmt: skip
  rows = [[name, *(cells[name, score.name] for score in wanted)] for name in arms]
  return Table(caption, ["arm", *(score.name for score in wanted)], rows, MARKS)


def marked(differences: Mapping[Any, statistics.Difference]) -> dict[Any, str]:
  """`compared`, by the keys of the differences."""
  return dict(zip(differences, compared(list(differences.values())), strict=True))


def compared(differences: Sequence[statistics.Difference]) -> list[str]:
  """Differences of accuracies in points, marked as `MARKS` says, corrected as one family."""
  adjusted = statistics.holm([difference.p for difference in differences])
  return [
    statistics.difference_words(difference, scale=100) + _stars(difference, p)
    for difference, p in zip(differences, adjusted, strict=True)
  ]


def _stars(difference: statistics.Difference, adjusted: float | None) -> str:
  shown = ("gain", "loss")
  return "*" * sum(statistics.verdict(difference, p) in shown for p in (None, adjusted))


def in_short(results: Mapping[str, Any]) -> list[str]:
  """What the arms on samples are worth, in sentences that claim no more than their intervals."""
  arms, wanted, sentences = list(results["arms"]), headlines(results), []
  for arm in [arm for arm in compared_arms(results) if "latent_constraints" in arm]:
    found: dict[str, list[str]] = {}
    for score in wanted:
      difference = statistics.paired(score.values[arm], score.values[policies.NONE])
      verdict = statistics.verdict(difference)
      words = f"`{score.name}` {statistics.difference_words(difference, scale=100)}"
      rivals = [
        f"`{control}`"
        for control in arms
        if policies.is_control(control) and np.mean(score.values[control]) >= np.mean(score.values[arm])
      ]
      if verdict == "gain" and rivals:
        words += f" (no less by {', '.join(rivals)})"
      found.setdefault(verdict, []).append(words)
    told = {
      "gain": "A gain is shown on",
      "loss": "A loss is shown on",
      "no difference shown": "No difference is shown on",
      "one seed": "One seed shows nothing:",
    }
    parts = [f"{words} {', '.join(found[verdict])}." for verdict, words in told.items() if verdict in found]
    sentences.append(f"`{arm}` against `{policies.NONE}`, in points: {' '.join(parts)}")
  return sentences


def against_paper(results: Mapping[str, Any]) -> Table | None:
  """The paper's Table 1 beside this run; None where they share no test set or the run lacks one of the two arms."""
  pair, data = (policies.NONE, "latent_constraints"), results["data"]["name"]
  known = PAPER.get(data, {})
  if not set(pair) <= set(results["arms"]):
    return None
  shared = {}
  for name in known:
    if name in results["robustness"][pair[0]]:
      means = [results["robustness"][arm][name]["means"].get("all") for arm in pair]
    else:
      means = [results["arms"][arm].get(name, {}).get("accuracy") for arm in pair]
    if None not in means:
      shared[name] = means
  if not shared:
    return None
  cells = compared([statistics.paired(ours, plain) for plain, ours in shared.values()])
  rows = [
    [name, *map(str, known[name]), f"{known[name][1] - known[name][0]:+d}", *map(percent, means), cell]
    for (name, means), cell in zip(shared.items(), cells, strict=True)
  ]
  return Table(
    f"The paper's Table 1, accuracy in %, one run each, beside this run on {data}, {spread(results)}.",
    ["test set", *(f"paper, `{arm}`" for arm in pair), "paper, gain", *(f"`{arm}`" for arm in pair), "gain"],
    rows,
    MARKS,
  )


def methods(samples: Mapping[str, Mapping[str, Any]], first: str, caption: str) -> Table:
  """A row a method of sampling, the first column of scores under the given words."""
  columns = {
    "conditional_accuracy": (first, 100, 1),
    "diversity": ("diversity", 1, 2),
    "frechet_distance": ("Fréchet distance", 1, 2),
    "precision": ("precision", 1, 2),
    "recall": ("recall", 1, 2),
    "density": ("density", 1, 2),
    "coverage": ("coverage", 1, 2),
    "novelty": ("novelty", 1, 2),
    "moved": ("distance moved", 1, 2),
  }
  rows = []
  for method, scored in samples.items():
    cells = [
      statistics.summary([scale * value for value in scored[name]], digits=digits)
      for name, (_, scale, digits) in columns.items()
    ]
    rows.append([method, *cells, f"{scored['ms_per_sample']:.3f}"])
  return Table(caption, ["method", *(words for words, _, _ in columns.values()), "ms per sample"], rows)


def spread(results: Mapping[str, Any]) -> str:
  """What stands behind ±, in words."""
  seeds = len(results["seeds"])
  return f"mean ± standard deviation over {seeds} seeds" if seeds > 1 else "one seed, hence no spread"


def percent(values: Sequence[float]) -> str:
  return statistics.summary([100 * value for value in values], digits=1)


def markdown(table: Table) -> str:
  """The caption, the table and its note."""
  lines = [table.header, ["---"] * len(table.header), *table.rows]
  cell = lambda text: text.replace("|", r"\|")
  body = "\n".join("| " + " | ".join(map(cell, row)) + " |" for row in lines)
  return "\n\n".join(filter(None, (table.caption, body, table.note))) + "\n"


def latex(table: Table) -> str:
  """A `table` environment that needs no package."""
  line = lambda cells: "  " + " & ".join(map(_latex_text, cells)) + r" \\"
  return "\n".join(
    [
      r"\begin{table}",
      rf"\caption{{{_latex_text(' '.join(filter(None, (table.caption, table.note))))}}}",
      rf"\begin{{tabular}}{{l{'r' * (len(table.header) - 1)}}}",
      r"  \hline",
      line(table.header),
      r"  \hline",
      *map(line, table.rows),
      r"  \hline",
      r"\end{tabular}",
      r"\end{table}",
      "",
    ]
  )


def _latex_text(text: str) -> str:
  special = {"\\": r"\textbackslash{}", "±": r"$\pm$", "–": "--", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
  special |= {character: "\\" + character for character in "&%$#_{}"}
  escaped = "".join(special.get(character, character) for character in text)
  return re.sub(r"`([^`]*)`", r"\\texttt{\1}", escaped)


def comma_separated(results: Mapping[str, Any]) -> str:
  """Every score of every arm on every test set, a line each, with the difference to `none` where there is that arm."""
  columns = ["test set", "score", "arm", "n", "mean", "sd", "difference", "t low", "t high", "bootstrap low"]
  columns += ["bootstrap high", "p"]
  buffer = io.StringIO()
  writer = csv.writer(buffer, lineterminator="\n")
  writer.writerow(columns)
  others = compared_arms(results)
  for arm, scored in results["arms"].items():
    for name, values_by_score in scored.items():
      for score, values in values_by_score.items():
        spread = float(np.std(values, ddof=1)) if len(values) > 1 else None
        line = [name, score, arm, len(values), float(np.mean(values)), spread]
        if arm in others:
          difference = statistics.paired(values, results["arms"][policies.NONE][name][score])
          intervals = difference.t_interval or (None, None), difference.bootstrap_interval or (None, None)
          line += [difference.mean, *intervals[0], *intervals[1], difference.p]
        writer.writerow(["" if value is None else value for value in line + [""] * (len(columns) - len(line))])
  return buffer.getvalue()
