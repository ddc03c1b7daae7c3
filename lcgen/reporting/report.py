"""What a run tells: its progress, its metrics file, its results and their table."""

import contextlib
import io
import json
import logging
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from etils import epath
from rich import console as rich_console
from rich import progress as rich_progress

from lcgen.reporting import figures, page, tables
from lcgen.runtime import errors

_log = logging.getLogger(__name__)

_LOG_SECONDS = 10.0  # between lines where there is no terminal
_TERMS = 3  # losses in a line


def write_json(path: epath.Path, content: Any) -> None:
  """Writes JSON whole or not at all."""
  write_text(path, json.dumps(content, indent=1) + "\n")


def write_text(path: epath.Path, text: str) -> None:
  """Writes a text whole or not at all."""
  write_bytes(path, text.encode())


def write_arrays(path: epath.Path, arrays: Mapping[str, np.ndarray]) -> None:
  """Writes a compressed `.npz` whole or not at all."""
  buffer = io.BytesIO()
  np.savez_compressed(buffer, **arrays)
  write_bytes(path, buffer.getvalue())


def write_bytes(path: epath.Path, content: bytes) -> None:
  """Writes a file whole or not at all; of several processes the first one does."""
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
  losses = [f"{name} {sum(values) / len(values):.4f}" for name, values in record.items() if name.endswith("loss")]
  return "  ".join(losses[:_TERMS]) + (f"  and {len(losses) - _TERMS} more" if len(losses) > _TERMS else "")


def results_table(results: Mapping[str, Any]) -> str:
  """What `table.md` holds and a run prints at its end."""
  found = [tables.accuracies(results), tables.gains(results), page.samples_table(results)]
  return "\n".join([*(tables.markdown(table) for table in found if table), page.edits_words(results)]) + "\n"


def rule_table(results: Mapping[str, Any]) -> str:
  """What samples for a rule, or for realism, are worth, in Markdown."""
  bound = f" ({results['bound']} {results['value']:.4g})" if "bound" in results else ""
  first = "rule holds, %" if "bound" in results else "judge is 90 % sure of a class, %"
  caption = f"Samples for {results['name']}{bound}, {tables.spread(results)}."
  return tables.markdown(tables.methods(results["samples"], first, caption))


def build_tables(workdir: epath.Path, name: str) -> None:
  """Makes `<name>.md` from `<name>.json`, and prints it."""
  if jax.process_index() != 0:
    return
  found = json.loads((workdir / f"{name}.json").read_text())
  text = "\n".join(tables.markdown(tables.Table(**table)) for table in found["tables"])
  write_text(workdir / f"{name}.md", text)
  print(f"\n{text}")


def build(workdir: epath.Path, quiet: bool = False) -> None:
  """Makes tables, figures and `report.html` from what the evaluation left, and prints the table unless `quiet`.

  Raises:
    InputError: where there are no results.
  """
  path = workdir / "results.json"
  if not path.exists():
    raise errors.InputError(f"--stage=report: no results in {workdir}; run --stage=evaluate first")
  if not (workdir / "config.json").exists():
    raise errors.InputError(f"--stage=report: no config.json in {workdir}; put back the one it was trained with")
  if jax.process_index() != 0:
    return
  results = json.loads(path.read_text())
  table, found = results_table(results), (tables.accuracies(results), tables.gains(results))
  write_text(workdir / "table.md", table)
  write_text(workdir / "table.csv", tables.comma_separated(results))
  write_text(workdir / "table.tex", "\n".join(tables.latex(one) for one in found if one))
  with (workdir / "samples.npz").open("rb") as file, np.load(file) as samples:
    records = MetricsFile(workdir / "metrics.jsonl").read()
    figures.draw_all(workdir / "figures", records, samples, results)
  curve = workdir / "learning_curve.json"
  if curve.exists():
    figures.draw_learning_curve(workdir / "figures" / "learning_curve.png", json.loads(curve.read_text())["points"])
  write_text(workdir / "report.html", page.build(workdir, results))
  print(("" if quiet else f"\n{table}\n") + f"Figures in {workdir / 'figures'}, all of it in {workdir / 'report.html'}")


def build_rule(directory: epath.Path) -> None:
  """Makes `table.md` and the figures of a rule from its results, and prints the table."""
  if jax.process_index() != 0:
    return
  table = rule_table(json.loads((directory / "results.json").read_text()))
  write_text(directory / "table.md", table)
  with (directory / "samples.npz").open("rb") as file, np.load(file) as samples:
    figures.draw_samples(directory, samples)
  print(f"\n{table}\nFigures in {directory}")
