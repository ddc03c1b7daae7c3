"""Makes the tables of a report from its results alone, and writes them as Markdown, LaTeX or CSV."""

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from lcgen.reporting import statistics
from lcgen.runtime.results import REAL, RECONSTRUCTED, ArmScores, Results, RuleResults

TEST = "test"  # name of the test images as they are
STARS = (
  "* the interval excludes 0; ** also after Holm's correction for all comparisons of the table. No mark: no "
  "significant difference (this does not prove equality). If every seed gives the same difference, at least six seeds "
  "are needed for a mark."
)
MARKS = f"Differences are paired by seed, in points, with Student's 95 % interval. {STARS}"
_WIDE = 4  # more arms than this are rows, not columns

# Accuracies of the paper's Table 1, in %: its classifier without and with samples. One run each.
_PAPER_ARMS = ("none", "latent_constraints")
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
    """Swaps rows and columns; `corner` is the new name of the first column."""
    (_, *header), *rows = zip(self.header, *self.rows, strict=True)
    return self._replace(header=[corner, *header], rows=rows)


class Score(NamedTuple):
  """A row of numbers that arms are compared by.

  Attributes:
    name: of the row.
    kind: `set`, `mean` (over a family), `group` (of a family), `relative` (to clean images) or `soft`.
    values: of each arm, one a seed.
    scale: factor of the numbers that tables show.
    digits: that tables show.
  """

  name: str
  kind: str
  values: dict[str, list[float]]
  scale: float = 100.0
  digits: int = 1


def scores(results: ArmScores) -> list[Score]:
  """Lists the scores that `table.md` compares arms by. Single corruptions of a family are left to `table.csv`."""
  by_arm = {arm: list(_scores_of(results, arm)) for arm in results.arms}
  return [
    same[0]._replace(values={arm: own.values[arm] for arm, own in zip(by_arm, same, strict=True)})
    for same in zip(*by_arm.values(), strict=True)
  ]


def headlines(results: ArmScores) -> list[Score]:
  """Lists the accuracies that differences are told of: those of single sets, and means over families."""
  return [score for score in scores(results) if score.kind in ("set", "mean")]


def _scores_of(results: ArmScores, arm: str) -> Iterator[Score]:
  scored, families = results.arms[arm], results.robustness[arm]
  soft = lambda name, values, scale=1.0, digits=3: Score(name, "soft", {arm: values}, scale, digits)
  for name, facts in results.test_sets.items():
    if facts.family in families and facts.part in families[facts.family]["by_corruption"]:
      continue
    uncertain = facts.ceiling is not None and facts.ceiling < 1
    origin = f", {facts.origin}" if facts.origin == "published" else ""
    limit = f" (ceiling {100 * facts.ceiling:.1f})" if uncertain else ""
    yield Score(f"{name}{origin}{limit}", "set", {arm: scored[name]["accuracy"]})
    if uncertain and facts.part:
      for score, words in {"nll": "NLL", "brier": "Brier score", "kl": "KL divergence"}.items():
        yield soft(f"{name}: {words} to the drawn labels", scored[name][score])
  if TEST in scored:
    for score, words in {"nll": "NLL, nats", "brier": "Brier score", "ece": "expected calibration error"}.items():
      yield soft(f"{TEST}: {words}", scored[TEST][score])
    for name, metric in shown_metrics(results, "logits").items():
      if name in scored[TEST]:
        yield soft(f"{TEST}: {metric['title']}", scored[TEST][name], metric["scale"], metric["digits"])
  for family, summary in families.items():
    names = summary["by_corruption"]
    words = {"benchmark": "the benchmark's 15", "all": f"all {len(names)}", "selected": ", ".join(names)}
    for name, values in summary["means"].items():
      yield Score(f"{family}: mean of {words[name]}", "mean", {arm: values})
    for group, values in summary.get("by_group", {}).items():
      yield Score(f"{family}: {group}", "group", {arm: values})
    for name, values in summary.get("relative", {}).items():
      yield Score(f"{family}: {words[name]}, relative to clean", "relative", {arm: values})


def shown_metrics(results: ArmScores | RuleResults, of: str) -> dict[str, Mapping[str, Any]]:
  """Gives the metrics of "features" or of "logits" that tables show, in their order."""
  return {name: metric for name, metric in results.metrics.items() if metric["of"] == of and metric["shown"]}


def accuracies(results: Results) -> Table:
  """Tables mean and spread of every arm. Arms are columns if they are few."""
  arms, data = list(results.arms), results.data
  wide = len(arms) > _WIDE
  rows = [
    [score.name, *(_cell(values, score.scale, score.digits) for values in score.values.values())]
    for score in scores(results)
    if not wide or score.kind in ("set", "mean")
  ]
  caption = (
    f"Accuracy in % on {data['name']}, {spread(results.seeds)}; "
    f"{data['train']} training, {data['validation']} validation and {data['test']} test images."
  )
  table = Table(caption, ["test set", *arms], rows)
  return table.transposed("arm") if wide else table


def _cell(values: Sequence[float], scale: float, digits: int) -> str:
  return statistics.summary([scale * value for value in values], digits=digits)


def gains(results: Results) -> Table | None:
  """Tables every arm's accuracy minus that of the baseline; None if there is nothing to compare."""
  others = compared_arms(results)
  if not others:
    return None
  caption = f"Gain over `{results.baseline}` in points of accuracy, n = {len(results.seeds)} seeds."
  table = gains_of({arm: arm for arm in others}, headlines(results), results.baseline, caption)
  return table if len(others) >= _WIDE else table.transposed("test set")


def compared_arms(results: ArmScores) -> list[str]:
  """Lists the arms that are compared with the baseline; empty if there is no baseline."""
  return [arm for arm in results.arms if arm != results.baseline] if results.baseline else []


def gains_of(arms: Mapping[str, str], wanted: Sequence[Score], baseline: str, caption: str) -> Table:
  """Tables the gain of each arm over the baseline, corrected as one family: a row an arm, a column a score.

  Args:
    arms: by the names that the rows have.
    wanted: the scores.
    baseline: an arm.
    caption: of the table.
  """
  cells = marked({
    (name, score.name): statistics.paired(score.values[arm], score.values[baseline])
    for name, arm in arms.items()
    for score in wanted
  })  # fmt: skip
  rows = [[name, *(cells[name, score.name] for score in wanted)] for name in arms]
  return Table(caption, ["arm", *(score.name for score in wanted)], rows, MARKS)


def marked(differences: Mapping[Any, statistics.Difference]) -> dict[Any, str]:
  """Writes differences as `compared` does, by their keys."""
  return dict(zip(differences, compared(list(differences.values())), strict=True))


def compared(differences: Sequence[statistics.Difference]) -> list[str]:
  """Writes differences of accuracies in points, marked as `MARKS` says and corrected as one family."""
  adjusted = statistics.holm([difference.p for difference in differences])
  return [
    statistics.difference_words(difference, scale=100) + _stars(difference, p)
    for difference, p in zip(differences, adjusted, strict=True)
  ]


def _stars(difference: statistics.Difference, adjusted: float | None) -> str:
  shown = ("gain", "loss")
  return "*" * sum(statistics.verdict(difference, p) in shown for p in (None, adjusted))


def against_paper(results: Results) -> Table | None:
  """Puts the paper's Table 1 beside this run; None if they share no test set or the run lacks one of the two arms."""
  pair, data = _PAPER_ARMS, results.data["name"]
  known = PAPER.get(data, {})
  if not set(pair) <= set(results.arms):
    return None
  shared = {}
  for name in known:
    if name in results.robustness[pair[0]]:
      means = [results.robustness[arm][name]["means"].get("all") for arm in pair]
    else:
      means = [results.arms[arm].get(name, {}).get("accuracy") for arm in pair]
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
    f"The paper's Table 1, accuracy in %, one run each, beside this run on {data}, {spread(results.seeds)}.",
    ["test set", *(f"paper, `{arm}`" for arm in pair), "paper, gain", *(f"`{arm}`" for arm in pair), "gain"],
    rows,
    MARKS,
  )


def samples(results: Results | RuleResults, first: str, caption: str) -> Table:
  """Tables the scores of samples, a row a sampler, with `first` as the title of the first column of scores."""
  columns = {"conditional_accuracy": (first, 100, 1)}
  for name, metric in shown_metrics(results, "features").items():
    columns[name] = metric["title"], metric["scale"], metric["digits"]
  columns["moved"] = "distance moved", 1, 2
  rows = []
  for sampler, scored in results.samples.items():
    cells = [_cell(scored[name], *form) if name in scored else "–" for name, (_, *form) in columns.items()]
    rows.append([sampler, *cells, statistics.number(scored.get("ms_per_sample"), ".3f")])
  header = ["method", *(title for title, *_ in columns.values()), "ms per sample"]
  return Table(caption, header, rows, _reference_words(results.samples))


def _reference_words(samples: Mapping[str, Mapping[str, Any]]) -> str:
  """Explains the rows of real images; "" for older results, which have none."""
  sentences = []
  if REAL in samples:
    words = {"train": "training"}
    images = [f"{count} {words.get(split, split)}" for split, count in samples[REAL]["images"].items() if count]
    sentences.append(
      f"`{REAL}`: real images that are not among those compared with ({' and '.join(images) or 'none'} images), scored "
      "as if they were samples. A perfect sampler would score so: distances of so few images are not 0."
    )
  if RECONSTRUCTED in samples:
    sentences.append(
      f"`{RECONSTRUCTED}`: {samples[RECONSTRUCTED]['images']['test']} test images, encoded and decoded: what the "
      "generator can show at best. They are copies of images compared with, so that their distance can be below "
      f"`{REAL}`."
    )
  return " ".join(sentences)


def spread(seeds: Sequence[int]) -> str:
  """Says in words which spread stands behind ±."""
  return f"mean ± standard deviation over {len(seeds)} seeds" if len(seeds) > 1 else "one seed, hence no spread"


def percent(values: Sequence[float]) -> str:
  """Writes mean and spread of shares of 1 in %."""
  return _cell(values, 100, 1)


def markdown(table: Table) -> str:
  """Writes the caption, the table and its note."""
  lines = [table.header, ["---"] * len(table.header), *table.rows]
  cell = lambda text: text.replace("|", r"\|")
  body = "\n".join("| " + " | ".join(map(cell, row)) + " |" for row in lines)
  return "\n\n".join(filter(None, (table.caption, body, table.note))) + "\n"


def latex(table: Table) -> str:
  """Writes a `table` environment that needs no package."""
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


def samples_csv(results: Results) -> str:
  """Writes every score of every row of samples as CSV, a line a seed; a score that is undefined is an empty cell."""
  buffer = io.StringIO()
  writer = csv.writer(buffer, lineterminator="\n")
  writer.writerow(["method", "score", "seed", "value"])
  for method, scored in results.samples.items():
    for score, values in scored.items():
      if isinstance(values, list) and not any(isinstance(value, list) for value in values):
        cells = [value if statistics.known(value) else "" for value in values]
        writer.writerows([method, score, *pair] for pair in zip(results.seeds, cells, strict=True))
  return buffer.getvalue()


def comma_separated(results: ArmScores) -> str:
  """Writes every score of every arm on every test set, a line each, with its difference to the baseline."""
  columns = ["test set", "score", "arm", "n", "mean", "sd", "difference", "t low", "t high", "bootstrap low"]
  columns += ["bootstrap high", "p"]
  buffer = io.StringIO()
  writer = csv.writer(buffer, lineterminator="\n")
  writer.writerow(columns)
  others = compared_arms(results)
  for arm, scored in results.arms.items():
    for name, values_by_score in scored.items():
      for score, values in values_by_score.items():
        sd = float(np.std(values, ddof=1)) if len(values) > 1 else None
        line = [name, score, arm, len(values), float(np.mean(values)), sd]
        if arm in others:
          difference = statistics.paired(values, results.arms[results.baseline][name][score])
          intervals = difference.t_interval or (None, None), difference.bootstrap_interval or (None, None)
          line += [difference.mean, *intervals[0], *intervals[1], difference.p]
        cells = ["" if isinstance(value, float | None) and not statistics.known(value) else value for value in line]
        writer.writerow(cells + [""] * (len(columns) - len(line)))
  return buffer.getvalue()
