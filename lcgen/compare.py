"""Puts runs side by side, such as those of a sweep or a fork: python -m lcgen.compare RUN RUN ... [--out=DIR]

It reads what finished workdirs hold, `results.json` and `config.json`; no data and no accelerator is needed.
"""

import argparse
import csv
import functools
import io
import itertools
import json
import math
import pathlib
import textwrap
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from etils import epath
from matplotlib import figure
from scipy import stats

from lcgen import augment, config, errors, html, statistics, tables, test_sets

_MOST_ARMS = 6  # in the figure
_ABSENT = "–"
_JUDGED = ("judge", test_sets.TEST, "accuracy")
_MEASURES = {
  "conditional_accuracy": ("conditional accuracy, %", 100, 1),
  "diversity": ("diversity", 1, 2),
  "frechet_distance": ("Fréchet distance", 1, 2),
}
# Scores of a run as a whole: words, the path in its results, factor and digits.
_WHOLE = [("judge: accuracy, %", _JUDGED, 100, 1)] + [
  (f"{method}: {words}", ("samples", method, name), scale, digits)
  for method in ("actor", "refine")
  for name, (words, scale, digits) in _MEASURES.items()
]
_STARS = tables.MARKS[tables.MARKS.index("* the interval") :]  # without the words on pairing, which may not hold here


class Run(NamedTuple):
  """A finished workdir.

  Attributes:
    name: among the runs that it is compared with.
    settings: its flat config, and under `about.` the device, versions and digests of the data that it reports.
    results: of `results.json`.
    scores: of `tables.scores`, by their names.
    test_data: digest of its test images and labels, None where it reports none.
  """

  name: str
  settings: dict[str, Any]
  results: dict[str, Any]
  scores: dict[str, tables.Score]
  test_data: str | None

  def of_whole(self, path: Sequence[str]) -> list[float]:
    """A score of the run as a whole, one value a seed; empty where there is none."""
    return list(functools.reduce(lambda found, key: found.get(key, {}), path, self.results))


def names(paths: Sequence[pathlib.PurePath]) -> list[str]:
  """Of each path the shortest tail that no other one ends with; they must be absolute and distinct."""

  def name(own: pathlib.PurePath) -> str:
    tails = (own.parts[-length:] for length in range(1, len(own.parts) + 1))
    shared = lambda tail: sum(path.parts[-len(tail) :] == tail for path in paths) > 1
    return pathlib.PurePath(*next(tail for tail in tails if not shared(tail))).as_posix()

  return [name(path) for path in paths]


def read(folders: Sequence[str]) -> list[Run]:
  """The runs of two or more finished workdirs, of this version of lcgen or of a fork with other config keys.

  Raises:
    InputError: where there are fewer than two, one is named twice or not finished, or they share no score.
  """
  paths = [epath.Path(folder).resolve() for folder in folders]
  if len(paths) < 2:
    raise errors.InputError(f"{' '.join(folders) or 'no run'}: nothing to compare it with; name two or more workdirs")
  for place, path in enumerate(paths):
    if path in paths[:place]:
      raise errors.InputError(f"{folders[place]}: named twice; name every run once")
  runs = [_read_run(epath.Path(folder), name) for folder, name in zip(folders, names(paths), strict=True)]
  if not _common(runs):
    raise errors.InputError(
      f"{', '.join(folders)}: there is no test set that all were scored on; run --stage=evaluate with the same "
      "--config.evaluate.sets on each"
    )
  return runs


def _read_run(folder: epath.Path, name: str) -> Run:
  results, settings = (_read_json(folder / file) for file in ("results.json", "config.json"))
  try:
    about = results.get("about", {})
    scores = {score.name: score for score in tables.scores(results)}
    run = Run(name, config.flat(settings | {"about": about}), results, scores, about.get("data", {}).get("test"))
    by_arm = [values for score in scores.values() for values in score.values.values()]
    found = by_arm + [values for _, path, *_ in _WHOLE if (values := run.of_whole(path))]
    if {len(values) for values in found} != {len(results["seeds"])}:
      raise ValueError("not one value a seed")
    if not all(map(math.isfinite, itertools.chain(*found))):
      raise ValueError("values that are not finite")
  except (AttributeError, KeyError, TypeError, ValueError) as error:
    raise errors.InputError(
      f"{folder}: its results.json or config.json is not of a kind that can be compared ({error!r}); "
      "run --stage=evaluate on it again with this version of lcgen"
    ) from error
  return run


def _read_json(path: epath.Path) -> Any:
  if not path.exists():
    raise errors.InputError(f"{path.parent}: there is no {path.name} in it; name the workdir of a finished run")
  try:
    return json.loads(path.read_text())
  except (OSError, ValueError) as error:
    raise errors.InputError(f"{path}: cannot be read ({error}); run --stage=evaluate on that workdir again") from error


def _common(runs: Sequence[Run]) -> list[str]:
  """Names of the accuracies that all runs have."""
  return [
    score.name
    for score in runs[0].scores.values()
    if score.kind in ("set", "mean") and all(score.name in run.scores for run in runs)
  ]


def unpaired(ours: Sequence[float], baseline: Sequence[float], confidence: float = 0.95) -> statistics.Difference:
  """The difference of the means of two independent samples, by Welch (1947), who lets their variances differ.

  Where neither sample has a spread, up to rounding, nothing tells how certain the difference is: its interval is then
  that point, and p is 1.

  Args:
    ours: finite values, `[n]`.
    baseline: finite values, `[m]`.
    confidence: of the interval, in (0, 1).

  Returns:
    The difference with the smaller of n and m, and without what pairs alone have. Of one value there is no interval.
  """
  ours, baseline = np.asarray(ours, np.float64), np.asarray(baseline, np.float64)
  n, mean = min(len(ours), len(baseline)), float(ours.mean() - baseline.mean())
  difference = functools.partial(statistics.Difference, n=n, sd=None, bootstrap_interval=None)
  if n == 1:
    return difference(mean=mean, t_interval=None, p=None)
  rounding = 1e-12 * max(np.abs(ours).max(), np.abs(baseline).max())
  if max(np.ptp(ours), np.ptp(baseline)) <= rounding:
    mean = 0.0 if abs(mean) <= rounding else mean
    return difference(mean=mean, t_interval=(mean, mean), p=1.0)
  with warnings.catch_warnings():
    warnings.simplefilter("ignore", RuntimeWarning)  # SciPy's, where one of the two has no spread, which does no harm
    test = stats.ttest_ind(ours, baseline, equal_var=False)
    low, high = test.confidence_interval(confidence)
  return difference(mean=mean, t_interval=(float(low), float(high)), p=float(test.pvalue))


def score_table(runs: Sequence[Run]) -> tables.Table:
  """A row a run and arm, a column an accuracy that all runs have; the note names the others."""
  wanted = _common(runs)
  rows = [
    [run.name, arm, str(len(run.results["seeds"])), *(tables.percent(run.scores[name].values[arm]) for name in wanted)]
    for run in runs
    for arm in run.results["arms"]
  ]
  having: dict[str, list[str]] = {}
  for run in runs:
    for score in run.scores.values():
      if score.kind in ("set", "mean") and score.name not in wanted:
        having.setdefault(score.name, []).append(f"`{run.name}`")
  others = "; ".join(f"{name} ({', '.join(owners)})" for name, owners in having.items())
  return tables.Table(
    "Accuracy in %, mean ± standard deviation over n seeds.",
    ["run", "arm", "n", *wanted],
    rows,
    f"Scores that some runs lack: {others}." if others else "",
  )


def sample_table(runs: Sequence[Run]) -> tables.Table:
  """A row a run: its judge, its samples and its time."""
  rows = []
  for run in runs:
    found = [([scale * value for value in run.of_whole(path)], digits) for _, path, scale, digits in _WHOLE]
    cells = [statistics.summary(values, digits) if values else _ABSENT for values, digits in found]
    times = [phase["train_s"] for phase in run.results.get("timing", {}).values()]
    rows.append([run.name, *cells, f"{sum(times):.0f}" if times else _ABSENT])
  return tables.Table(
    "Judge, samples and time of each run, mean ± standard deviation over its seeds.",
    ["run", *(words for words, *_ in _WHOLE), "training, s"],
    rows,
    "Training is that of all phases, arms and seeds together, without compilation; it depends on the device.",
  )


def difference_table(runs: Sequence[Run]) -> tables.Table | None:
  """Every run's accuracies minus those of the first, for arms of both; None where there are no such arms."""
  first, *others = runs
  wanted, places, differences, alike = _common(runs), [], [], {}
  for run in others:
    alike.setdefault(_unlike(run, first), []).append(f"`{run.name}`")
    compare = unpaired if _unlike(run, first) else statistics.paired
    for arm in (arm for arm in first.results["arms"] if arm in run.results["arms"]):
      places.append([run.name, arm])
      differences += [compare(run.scores[name].values[arm], first.scores[name].values[arm]) for name in wanted]
  if not places:
    return None
  cells = tables.compared(differences)  # corrected as one family
  rows = [[*place, *cells[row * len(wanted) :][: len(wanted)]] for row, place in enumerate(places)]
  reasons = [
    f"{', '.join(owners)}: not paired, because of {unlike}; Welch's 95 % interval."
    if unlike
    else f"{', '.join(owners)}: paired by seed, for seeds are the same and test data not known to differ; Student's "
    "95 % interval."
    for unlike, owners in alike.items()
  ]
  caption = f"Difference to `{first.name}` in points of accuracy, for arms of both."
  return tables.Table(caption, ["run", "arm", *wanted], rows, " ".join([*reasons, _STARS]))


def _unlike(run: Run, first: Run) -> str:
  """Why two runs cannot be paired by seed; empty where they can."""
  seeds = "other seeds" if run.results["seeds"] != first.results["seeds"] else ""
  return " and ".join(filter(None, (seeds, "other test data" if _other_test_data([run, first]) else "")))


def _other_test_data(runs: Sequence[Run]) -> bool:
  return len({run.test_data for run in runs} - {None}) > 1


def config_table(runs: Sequence[Run]) -> tables.Table | None:
  """A row a key in which any two runs differ, a column a run; None where there is no such key."""
  keys = dict.fromkeys(key for run in runs for key in run.settings)
  rows = [[f"`{key}`", *(_shown(run.settings, key) for run in runs)] for key in keys]
  rows = [row for row in rows if len(set(row[1:])) > 1]
  caption = "What was set or found differently; `about.` is what a run reports of its machine and its data."
  return tables.Table(caption, ["key", *(run.name for run in runs)], rows) if rows else None


def _shown(settings: Mapping[str, Any], key: str) -> str:
  if key not in settings:
    return _ABSENT
  text = json.dumps(settings[key], ensure_ascii=False)
  return f"`{text[1:17]}…`" if key.startswith("about.data.") else f"`{text}`"  # sixteen digits of a digest do


def long_form(runs: Sequence[Run]) -> str:
  """Every score as CSV, a line a seed, accuracies as shares of 1; of a run as a whole where no arm is given."""
  buffer = io.StringIO()
  writer = csv.writer(buffer, lineterminator="\n")
  writer.writerow(["run", "arm", "score", "seed", "value"])
  for run in runs:
    found = [(arm, score.name, values) for score in run.scores.values() for arm, values in score.values.items()]
    found += [("", " ".join(path), values) for _, path, *_ in _WHOLE if (values := run.of_whole(path))]
    for arm, name, values in found:
      writer.writerows([run.name, arm, name, *pair] for pair in zip(run.results["seeds"], values, strict=True))
  return buffer.getvalue()


def draw(runs: Sequence[Run]) -> bytes:
  """A panel an accuracy, a line a run and arm: the mean over seeds, and their standard deviation as a bar; a PNG."""
  scores, every, arms = _common(runs), _arms(runs), _arms_drawn(runs)
  lines = [(arm, of) for arm in arms for of in (None, *(n for n, run in enumerate(runs) if arm in run.results["arms"]))]
  labels = [arm if of is None else runs[of].name for arm, of in lines]  # an arm's own line is its heading
  columns = min(len(scores), 3)
  rows = -(-len(scores) // columns)
  size = (3.6 * columns + 0.07 * max(map(len, labels)), rows * (0.17 * len(lines) + 0.9) + 0.4)
  drawing = figure.Figure(size, layout="constrained")
  panels = drawing.subplots(rows, columns, squeeze=False)
  for panel, name in zip(panels.flat, scores, strict=False):
    for number, run in enumerate(runs):
      own = {line: run.scores[name].values[arm] for line, (arm, of) in enumerate(lines) if of == number}
      if own:
        values = 100 * np.array(list(own.values()))  # [arms, S]
        spread = values.std(axis=1, ddof=1) if values.shape[1] > 1 else None
        style = {"fmt": "o", "markersize": 4, "capsize": 2, "color": f"C{number}"}
        panel.errorbar(values.mean(axis=1), list(own), xerr=spread, **style)
    panel.set_title(textwrap.fill(name, 45), fontsize=9)
    shown = labels if panel in panels[:, 0] else [""] * len(lines)
    panel.set_yticks(range(len(lines)), shown, fontsize=8, parse_math=False)
    for label, (_, of) in zip(panel.get_yticklabels(), lines, strict=True):
      label.set_fontweight("bold" if of is None else "normal")
    panel.set_ylim(len(lines) - 0.4, -0.6)
    panel.tick_params(axis="x", labelsize=8)
    panel.grid(alpha=0.3)
  for panel in panels.flat[len(scores) :]:
    panel.remove()
  drawing.suptitle("accuracy in %, mean ± standard deviation over seeds" + _left_out(every, arms), fontsize=10)
  buffer = io.BytesIO()
  drawing.savefig(buffer, format="png", dpi=110)
  return buffer.getvalue()


def _arms(runs: Sequence[Run]) -> list[str]:
  return list(dict.fromkeys(arm for run in runs for arm in run.results["arms"]))
