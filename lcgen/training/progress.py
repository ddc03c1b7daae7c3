"""Shows the progress of a phase: a bar on a terminal, a line every few seconds elsewhere."""

import contextlib
import logging
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

_log = logging.getLogger(__name__)


_LOG_SECONDS = 10.0  # between lines if there is no terminal


_TERMS = 3  # losses in a line


@contextlib.contextmanager
def progress(name: str, total: int, done: int) -> Iterator[Callable[[int, Mapping[str, Any]], None]]:
  """Shows a bar on a terminal, a line every few seconds elsewhere; yields `advance(step, latest record)`."""
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


def _bar() -> Any:
  from rich import console as rich_console
  from rich import progress as rich_progress

  columns = ("[bold]{task.description:30}", rich_progress.BarColumn(), rich_progress.MofNCompleteColumn())
  return rich_progress.Progress(
    *columns, rich_progress.TimeRemainingColumn(), "{task.fields[terms]}", console=rich_console.Console(stderr=True)
  )


def _terms(record: Mapping[str, Any]) -> str:
  """Formats the losses of a metrics record, as means over seeds."""
  found = _losses(record.get("terms", {}))
  losses = [f"{name} {sum(values) / len(values):.4f}" for name, values in found.items()]
  return "  ".join(losses[:_TERMS]) + (f"  and {len(losses) - _TERMS} more" if len(losses) > _TERMS else "")


def _losses(terms: Mapping[str, Any], prefix: str = "") -> dict[str, list[float]]:
  found = {}
  for name, value in terms.items():
    if isinstance(value, Mapping):
      found |= _losses(value, f"{prefix}{name}/")
    elif name.endswith("loss"):
      found[prefix + name] = value
  return found
