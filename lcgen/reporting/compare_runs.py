"""Puts runs side by side, such as those of a sweep or a fork: python -m lcgen.compare RUN RUN ... [--out=DIR]

It reads `results.json` and `config.json` of finished workdirs; it needs no data and uses no accelerator.
"""

import argparse
import csv
import dataclasses
import functools
import io
import itertools
import json
import pathlib
import textwrap
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from etils import epath

from lcgen.reporting import figures, html, statistics, tables
from lcgen.runtime import errors, fields, files, places
from lcgen.runtime import results as stored
from lcgen.runtime.ending import Ending
from lcgen.runtime.results import BASELINE, METHOD

_ARMS_DRAWN = 6  # at most
_OF_RUNS = {  # scores that have no arm: path in the results, factor, digits
  "judge: accuracy, %": (("judge", "test", "accuracy"), 100, 1),
  "actor: conditional accuracy, %": (("samples", "actor", "conditional_accuracy"), 100, 1),
  "actor: diversity": (("samples", "actor", "diversity"), 1, 2),
  "actor: Fréchet distance": (("samples", "actor", "frechet_distance"), 1, 2),
  "refine: conditional accuracy, %": (("samples", "refine", "conditional_accuracy"), 100, 1),
  "refine: diversity": (("samples", "refine", "diversity"), 1, 2),
  "refine: Fréchet distance": (("samples", "refine", "frechet_distance"), 1, 2),
  "held-out images: Fréchet distance": (("samples", "real", "frechet_distance"), 1, 2),
  "decoded encodings: Fréchet distance": (("samples", "reconstructed", "frechet_distance"), 1, 2),
}


class Run(NamedTuple):
  """A finished run.

  Attributes:
    name: tells it from the runs beside it.
    settings: its config, flat, and under `about.` the device, versions and digests of data that it reports.
    seeds: of the run.
    roles: of its arms, in their order.
    scores: as `tables.scores` has them, by name.
    whole: scores that have no arm, by their path in the results, one value a seed.
    seconds: of training, without compilation; 0 if it reports none.
  """

  name: str
  settings: dict[str, Any]
  seeds: list[int]
  roles: dict[str, str]
  scores: dict[str, tables.Score]
  whole: dict[tuple[str, ...], list[float]]
  seconds: float

  @property
  def arms(self) -> list[str]:
    """Its arms."""
    return list(self.roles)


def names(paths: Sequence[pathlib.PurePath]) -> list[str]:
  """Shortens each path to the shortest tail that no other one has. Paths must be absolute and distinct."""

  def name(own: pathlib.PurePath) -> str:
    tails = (own.parts[start:] for start in reversed(range(len(own.parts))))
    alone = lambda tail: sum(path.parts[-len(tail) :] == tail for path in paths) == 1
    return pathlib.PurePath(*next(filter(alone, tails))).as_posix()

  return [name(path) for path in paths]


def read(folders: Sequence[str]) -> list[Run]:
  """Reads the runs of finished workdirs, of this version of lcgen or of a fork with other config keys.

  Raises:
    InputError: there are fewer than two, one is named twice or not finished, or they share no test set.
  """
  paths = [places.expanded(folder, "RUN").resolve() for folder in folders]
  if len(paths) < 2:
    raise errors.InputError(f"{', '.join(folders)}: one run cannot be compared; name two workdirs or more")
  for place, path in enumerate(paths):
    if path in paths[:place]:
      raise errors.InputError(f"{folders[place]}: this run is named twice; name every workdir once")
  runs = [_read_run(places.expanded(folder, "RUN"), name) for folder, name in zip(folders, names(paths), strict=True)]
  if not _shared(runs):
    wanted = "run --stage=evaluate on each with the same --config.evaluate.sets"
    raise errors.InputError(f"{', '.join(folders)}: there is no test set that all were scored on; {wanted}")
  return runs


def _read_run(folder: epath.Path, name: str) -> Run:
  results, values = stored.read(folder / "results.json"), files.read_json(folder / "config.json")
  try:
    scores = {score.name: score for score in tables.scores(results)}
    everything = dataclasses.asdict(results)
    lookup = lambda path: functools.reduce(lambda found, key: found.get(key, {}), path, everything)
    whole = {path: lookup(path) for path, *_ in _OF_RUNS.values() if lookup(path)}
    found = [*whole.values(), *itertools.chain(*(score.values.values() for score in scores.values()))]
    if {len(one) for one in found} != {len(results.seeds)} or not np.issubdtype(np.array(found).dtype, np.number):
      raise ValueError("a score is not one number a seed")
    seconds = sum(phase["train_s"] for phase in results.timing.values())
    settings = fields.flat(values) | fields.flat({"about": results.about})
    roles = {arm: results.roles[arm] for arm in results.arms}
    return Run(name, settings, results.seeds, roles, scores, whole, seconds)
  except (AttributeError, KeyError, TypeError, ValueError) as error:
    raise errors.InputError(
      f"{folder}: results.json or config.json is not what a run of this version of lcgen writes "
      f"({errors.reason(error)}); run --stage=evaluate on it again, or leave it out"
    ) from error


def _accuracies(run: Run) -> list[str]:
  return [score.name for score in run.scores.values() if score.kind in ("set", "mean")]


def _shared(runs: Sequence[Run]) -> list[str]:
  """Lists the names of the accuracies that all runs have."""
  return [name for name in _accuracies(runs[0]) if all(name in run.scores for run in runs)]


def score_table(runs: Sequence[Run]) -> tables.Table:
  """Tables accuracies: a row a run and arm, a column an accuracy that all runs have. The note names the others."""
  shared, owners = _shared(runs), {}
  rows = [
    [run.name, arm, str(len(run.seeds)), *(tables.percent(run.scores[name].values[arm]) for name in shared)]
    for run in runs
    for arm in run.arms
  ]
  for run in runs:
    for name in _accuracies(run):
      owners.setdefault(name, []).append(f"`{run.name}`")
  others = "; ".join(f"{name} ({', '.join(having)})" for name, having in owners.items() if name not in shared)
  note = f"Not shown, because not all runs have them: {others}." if others else ""
  caption = "Accuracy in %, mean ± standard deviation over n seeds."
  return tables.Table(caption, ["run", "arm", "n", *shared], rows, note)


def sample_table(runs: Sequence[Run]) -> tables.Table:
  """Tables the judge, the samples and the training time of each run."""
  rows = []
  for run in runs:
    scaled = [([scale * x for x in run.whole.get(path, ())], digits) for path, scale, digits in _OF_RUNS.values()]
    cells = [statistics.summary(values, digits) for values, digits in scaled]
    rows.append([run.name, *cells, statistics.number(run.seconds or None, ".0f")])
  return tables.Table(
    "Each run's judge, samples of all classes as that judge scores them, and training; mean ± standard deviation.",
    ["run", *_OF_RUNS, "training, s"],
    rows,
    "Training is that of all phases, arms and seeds together, without compilation; it depends on the device.",
  )


def difference_table(runs: Sequence[Run]) -> tables.Table | None:
  """Tables accuracies of every run less those of the first, for arms of both; None if there is no such arm."""
  first, shared = runs[0], _shared(runs)
  places, differences, reasons = [], [], {}
  for run in runs[1:]:
    differing = {"seeds": run.seeds != first.seeds, "test data": _test_data_differ([run, first])}
    unlike = " and ".join(name for name, holds in differing.items() if holds)
    reasons.setdefault(unlike, []).append(f"`{run.name}`")
    difference = statistics.unpaired if unlike else statistics.paired
    for arm in [arm for arm in run.arms if arm in first.arms]:
      places.append([run.name, arm])
      differences += [difference(run.scores[name].values[arm], first.scores[name].values[arm]) for name in shared]
  if not places:
    return None
  cells = iter(tables.compared(differences))
  rows = [[*place, *itertools.islice(cells, len(shared))] for place in places]
  ways = {unlike: f"other {unlike}, hence not paired; Welch's" for unlike in reasons}
  ways[""] = "same seeds and no sign of other test data, hence paired by seed; Student's"
  notes = [f"{', '.join(named)}: {ways[unlike]} 95 % interval." for unlike, named in reasons.items()]
  caption = f"Difference to `{first.name}` in points of accuracy, for arms of both."
  return tables.Table(caption, ["run", "arm", *shared], rows, " ".join([*notes, tables.STARS]))


def _test_data_differ(runs: Sequence[Run]) -> bool:
  return len({run.settings.get("about.data.test") for run in runs} - {None}) > 1


def config_table(runs: Sequence[Run]) -> tables.Table | None:
  """Tables the keys in which any two runs differ, a column a run; None if there is no such key."""

  def cell(run: Run, key: str) -> str:
    if key not in run.settings:
      return "–"
    text = json.dumps(files.strict(run.settings[key]), ensure_ascii=False, allow_nan=False)
    return f"`{text[1:17]}…`" if key.startswith("about.data.") else f"`{text}`"  # 16 digits of a digest

  keys = dict.fromkeys(key for run in runs for key in run.settings)
  rows = [[f"`{key}`", *(cell(run, key) for run in runs)] for key in keys]
  rows = [row for row in rows if len(set(row[1:])) > 1]
  caption = "Config keys that differ; those under `about.` are what a run reports of its machine and its data."
  return tables.Table(caption, ["key", *(run.name for run in runs)], rows) if rows else None


def long_form(runs: Sequence[Run]) -> str:
  """Writes every score as CSV, a line a seed, accuracies as shares of 1. Scores of a whole run have no arm.

  A score that is undefined is an empty cell.
  """
  buffer = io.StringIO()
  writer = csv.writer(buffer, lineterminator="\n")
  writer.writerow(["run", "arm", "score", "seed", "value"])
  for run in runs:
    found = [(arm, score.name, values) for score in run.scores.values() for arm, values in score.values.items()]
    for arm, name, values in [*found, *(("", " ".join(path), values) for path, values in run.whole.items())]:
      cells = [value if statistics.known(value) else "" for value in values]
      writer.writerows([run.name, arm, name, *pair] for pair in zip(run.seeds, cells, strict=True))
  return buffer.getvalue()


def arms_drawn(runs: Sequence[Run]) -> tuple[list[str], int]:
  """Gives the arms of the figure and the number of all: at most six that all runs have, baseline and samples first."""
  arms = list(dict.fromkeys(arm for run in runs for arm in run.arms))
  if len(arms) <= _ARMS_DRAWN:
    return arms, len(arms)
  of_all = [arm for arm in arms if all(arm in run.arms for run in runs)]
  roles = {arm: role for run in runs for arm, role in run.roles.items()}
  rank = lambda arm: (roles[arm] != BASELINE, roles[arm] != METHOD)
  return sorted(of_all or arms, key=rank)[:_ARMS_DRAWN], len(arms)


@figures.drawing()
def draw(runs: Sequence[Run]) -> bytes:
  """Draws means over seeds with standard deviations as PNG: a panel an accuracy, a line a run and arm."""
  (arms, of), shared = arms_drawn(runs), _shared(runs)
  # An arm's name stands on a line of its own, above its runs.
  lines = [(arm, run) for arm in arms for run in (None, *(n for n, run in enumerate(runs) if arm in run.arms))]
  labels = [arm if run is None else runs[run].name for arm, run in lines]
  widest = max(map(len, labels))
  size = lambda rows, columns: (3.6 * columns + 0.07 * widest, rows * (0.17 * len(lines) + 0.9) + 0.4)
  figure, grid = figures.panels(len(shared), 3, size)
  for panel, name in zip(grid, shared, strict=True):
    for line, (arm, run) in enumerate(lines):
      if run is not None:
        values = 100 * np.array(runs[run].scores[name].values[arm])  # [S]
        spread = values.std(ddof=1) if len(values) > 1 else None
        panel.errorbar(values.mean(), line, xerr=spread, fmt="o", markersize=4, capsize=2, color=f"C{run}")
    panel.set_title(textwrap.fill(name, 50), fontsize=9)
    panel.set_ylim(len(lines) - 0.4, -0.6)
    first = panel.get_subplotspec().is_first_col()
    panel.set_yticks(range(len(lines)), labels if first else [""] * len(lines))
    for label, (_, run) in zip(panel.get_yticklabels(), lines, strict=True):
      label.set_fontweight("bold" if run is None else "normal")
    panel.tick_params(labelsize=8)
    panel.grid(alpha=0.3)
  left_out = f"; {len(arms)} of {of} arms" if len(arms) < of else ""
  figure.suptitle(f"accuracy in %, mean ± standard deviation over seeds{left_out}", fontsize=10)
  return figures.png(figure)


def build(runs: Sequence[Run]) -> dict[str, bytes]:
  """Makes the files of a comparison, by name. The same runs give the same bytes."""
  png, differences, settings = draw(runs), difference_table(runs), config_table(runs)
  remarks = {
    "Warning: test data differ, see `about.data.test`; scores may differ for that alone.": _test_data_differ(runs),
    f"No other run has an arm of `{runs[0].name}`.": differences is None,
    "Neither configs nor versions nor devices differ.": settings is None,
  }
  remarks = [words for words, holds in remarks.items() if holds]
  found = {"Accuracies": score_table(runs), "Judges, samples and times": sample_table(runs)}
  found |= {"Differences to the first run": differences, "Configs": settings}
  found = {title: table for title, table in found.items() if table}
  alt = "Points with error bars: the accuracy of the arms of every run on each test set."
  sections = [html.Section("Figure", [html.figure(png, alt, "Mean and standard deviation over seeds.")])]
  for title, (caption, header, rows, note) in found.items():
    sections.append(html.Section(title, [html.table(header, rows, caption, note=note)]))
  summary = " ".join([f"Runs: {', '.join(f'`{run.name}`' for run in runs)}.", *remarks])
  text = "\n".join([*(f"{words}\n" for words in remarks), *map(tables.markdown, found.values())])
  return {
    "comparison.md": text.encode(errors="replace"),
    "comparison.csv": long_form(runs).encode(errors="replace"),
    "comparison.html": html.page("lcgen: runs side by side", summary, sections).encode(),
    "comparison.png": png,
  }


def main(argv: Sequence[str] | None = None) -> None:
  """Runs the command. Input that cannot be used ends it with a sentence and exit code 2."""
  parser = argparse.ArgumentParser(
    prog="python -m lcgen.compare",
    description="Puts finished runs side by side in a table and a figure, and names where their configs differ.",
  )
  parser.add_argument("runs", nargs="+", metavar="RUN", help="workdir of a finished run; the first is the baseline")
  parser.add_argument("--out", default="comparison", metavar="DIR", help="folder to write to (default: %(default)s)")
  flags = parser.parse_args(argv)
  try:
    out = places.expanded(flags.out, "--out")
    found = build(read(flags.runs))
  except errors.InputError as error:
    parser.error(str(error))
  try:
    out.mkdir(parents=True, exist_ok=True)
    for name, content in found.items():
      (out / name).write_bytes(content)
  except OSError as error:
    parser.error(f"--out={out}: cannot be written to ({error}); name another folder")
  print(f"{found['comparison.md'].decode()}\nFigure, page and CSV in {out}")


if __name__ == "__main__":
  Ending().run(main)
