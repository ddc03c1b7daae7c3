"""What a run tells: its progress, its metrics file, its results and their table."""

import contextlib
import io
import json
import logging
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from etils import epath
from rich import console as rich_console
from rich import progress as rich_progress

from lcgen import errors, figures, statistics, test_sets

_log = logging.getLogger(__name__)

_LOG_SECONDS = 10.0  # between lines where there is no terminal


def write_json(path: epath.Path, content: Any) -> None:
  """Writes JSON whole or not at all."""
  write_text(path, json.dumps(content, indent=1) + "\n")


def write_text(path: epath.Path, text: str) -> None:
  """Writes a text whole or not at all."""
  _replace(path, text.encode())


def write_arrays(path: epath.Path, arrays: Mapping[str, np.ndarray]) -> None:
  """Writes a compressed `.npz` whole or not at all."""
  buffer = io.BytesIO()
  np.savez_compressed(buffer, **arrays)
  _replace(path, buffer.getvalue())


def _replace(path: epath.Path, content: bytes) -> None:
  if jax.process_index() != 0:
    return
  path.parent.mkdir(parents=True, exist_ok=True)
  unfinished = path.with_name(path.name + ".unfinished")
  unfinished.write_bytes(content)
  unfinished.replace(path)


class MetricsFile:
  """`metrics.jsonl`: one JSON object a line, `{"phase", "step", "epoch", term: [one a seed], ...}`."""

  def __init__(self, path: epath.Path):
    self._path = path

  def write(self, record: Mapping[str, Any]) -> None:
    if jax.process_index() == 0:
      with self._path.open("a") as file:
        file.write(json.dumps(record) + "\n")

  def read(self) -> list[dict[str, Any]]:
    """All records; a line that a killed run left unfinished is passed over."""
    lines = self._path.read_text().splitlines(keepends=True) if self._path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]

  def truncate(self, phase: str, step: int) -> None:
    """Forgets what a killed run wrote of this phase after `step`, the step it is resumed from."""
    kept = [record for record in self.read() if record["phase"] != phase or record["step"] <= step]
    write_text(self._path, "".join(json.dumps(record) + "\n" for record in kept))


@contextlib.contextmanager
def progress(name: str, total: int, done: int) -> Iterator[Callable[[int, Mapping[str, Any]], None]]:
  """A progress bar on a terminal, a line every few seconds elsewhere; yields `advance(step, latest metrics)`."""
  if sys.stderr.isatty():
    with _bar() as bar:
      task = bar.add_task(name, total=total, completed=done, terms="")
      yield lambda step, latest: bar.update(task, completed=step, terms=_terms(latest))
    return

  started = last = time.monotonic()

  def advance(step: int, latest: Mapping[str, Any]) -> None:
    nonlocal last
    now = time.monotonic()
    if step < total and now - last < _LOG_SECONDS:
      return
    last = now
    rate = (step - done) / (now - started)
    _log.info(
      "%-30s %6d/%d  %6.1f steps/s  %4.0f s left  %s", name, step, total, rate, (total - step) / rate, _terms(latest)
    )

  yield advance


def _bar() -> rich_progress.Progress:
  columns = ("[bold]{task.description:30}", rich_progress.BarColumn(), rich_progress.MofNCompleteColumn())
  return rich_progress.Progress(
    *columns, rich_progress.TimeRemainingColumn(), "{task.fields[terms]}", console=rich_console.Console(stderr=True)
  )


def _terms(record: Mapping[str, Any]) -> str:
  """The losses of a metrics record, meaned over seeds."""
  losses = {name: values for name, values in record.items() if name.endswith("loss")}
  return "  ".join(f"{name} {sum(values) / len(values):.4f}" for name, values in losses.items())


def results_table(results: Mapping[str, Any]) -> str:
  """The paper's Table 1 for this run, in Markdown: mean and standard deviation over seeds, a column an arm."""
  arms, data = results["arms"], results["data"]
  rows = [["test set", *arms], ["---"] * (len(arms) + 1)]
  for same_row in zip(*(_rows(results, arm) for arm in arms), strict=True):
    rows.append([same_row[0][0], *(text for _, text in same_row)])
  edits = results["edits"]
  usual = edits["distance_weights"].index(edits["distance_weight"])
  lines = [
    f"Accuracy in % on {data['name']}, {_spread(results)}; "
    f"{data['train']} training, {data['validation']} validation and {data['test']} test images.",
    "",
    *_lines(rows),
    "",
    "Samples of all classes by each method, scored by a judge that is right on "
    f"{_percent(results['judge']['test']['accuracy'])} % of the test images.",
    "",
    *_lines(_method_rows(results["samples"], "conditional accuracy, %")),
    "",
    "A classifier trained on actor samples alone is right on "
    f"{_percent(results['samples']['actor']['classification_accuracy'])} % of the test images.",
    f"Of test images edited to another class (distance weight {edits['distance_weight']:g}) the judge gives "
    f"{_percent(edits['success'][usual])} % the requested class; they moved "
    f"{statistics.summary(edits['moved'][usual], digits=2)}, samples drawn anew lie "
    f"{statistics.summary(edits['anew'], digits=2)} away.",
  ]
  return "\n".join(lines) + "\n"


def rule_table(results: Mapping[str, Any]) -> str:
  """What samples for a rule, or for realism, are worth, in Markdown."""
  bound = f" ({results['bound']} {results['value']:.4g})" if "bound" in results else ""
  first = "rule holds, %" if "bound" in results else "judge is 90 % sure of a class, %"
  lines = [
    f"Samples for {results['name']}{bound}, {_spread(results)}.",
    "",
    *_lines(_method_rows(results["samples"], first)),
  ]
  return "\n".join(lines) + "\n"


def _spread(results: Mapping[str, Any]) -> str:
  seeds = len(results["seeds"])
  return f"mean ± standard deviation over {seeds} seeds" if seeds > 1 else "one seed, hence no spread"


def _lines(rows: Sequence[Sequence[str]]) -> list[str]:
  return ["| " + " | ".join(row) + " |" for row in rows]


def _method_rows(samples: Mapping[str, Mapping[str, Any]], first: str) -> list[list[str]]:
  """A row a method, the first column of scores under the given words."""
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
  rows = [["method", *(words for words, _, _ in columns.values()), "ms per sample"], ["---"] * (len(columns) + 2)]
  for method, scores in samples.items():
    cells = [
      statistics.summary([scale * value for value in scores[name]], digits=digits)
      for name, (_, scale, digits) in columns.items()
    ]
    rows.append([method, *cells, f"{scores['ms_per_sample']:.3f}"])
  return rows


def _rows(results: Mapping[str, Any], arm: str) -> Iterator[tuple[str, str]]:
  """The table's rows for one arm: what was scored, and the score.

  Of a family of corruptions only the means; `results.json` has every set.
  """
  scores, families = results["arms"][arm], results["robustness"][arm]
  for name, known in results["test_sets"].items():
    family, _, part = name.partition("/")
    if family in families and part != test_sets.IDENTITY:
      continue
    origin = "" if known["origin"] == "own" else f", {known['origin']}"
    limit = f" (ceiling {100 * known['ceiling']:.1f})" if known.get("ceiling", 1) < 1 else ""
    yield f"{name}{origin}{limit}", _percent(scores[name]["accuracy"])
    if part == "ambiguous":
      for score, words in {"nll": "NLL", "brier": "Brier score", "kl": "KL divergence"}.items():
        yield f"{name}: {words} to the drawn labels", statistics.summary(scores[name][score], digits=3)
  for family, summary in families.items():
    names = summary["by_corruption"]
    words = {"benchmark": "the benchmark's 15", "all": f"all {len(names)}", "selected": ", ".join(names)}
    for name, values in summary["means"].items():
      yield f"{family}: mean of {words[name]}", _percent(values)
    for group, values in summary.get("by_group", {}).items():
      yield f"{family}: {group}", _percent(values)
    for name, values in summary.get("relative", {}).items():
      yield f"{family}: {words[name]}, relative to clean", _percent(values)


def _percent(values: Sequence[float]) -> str:
  return statistics.summary([100 * value for value in values], digits=1)


def build(workdir: epath.Path) -> None:
  """Makes `table.md` and the figures from what the evaluation left, and prints the table.

  Raises:
    InputError: where there are no results.
  """
  path = workdir / "results.json"
  if not path.exists():
    raise errors.InputError(f"--stage=report: no results in {workdir}; run --stage=evaluate first")
  if jax.process_index() != 0:
    return
  results = json.loads(path.read_text())
  table = results_table(results)
  write_text(workdir / "table.md", table)
  with (workdir / "samples.npz").open("rb") as file, np.load(file) as samples:
    records = MetricsFile(workdir / "metrics.jsonl").read()
    figures.draw_all(workdir / "figures", records, samples, results["data"]["class_names"], results["edits"])
  print(f"\n{table}\nFigures in {workdir / 'figures'}")


def build_rule(directory: epath.Path) -> None:
  """Makes `table.md` and the figures of a rule from its results, and prints the table."""
  if jax.process_index() != 0:
    return
  table = rule_table(json.loads((directory / "results.json").read_text()))
  write_text(directory / "table.md", table)
  with (directory / "samples.npz").open("rb") as file, np.load(file) as samples:
    figures.draw_samples(directory, samples)
  print(f"\n{table}\nFigures in {directory}")
