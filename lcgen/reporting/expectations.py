"""Holds a run's results against what its config expects of them."""

import json
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from etils import epath

from lcgen.runtime import errors

_EXPECTATION = re.compile(r"(?P<path>\S+(?: \S+)*) (?P<sign>[<>]) (?P<bound>-?\d+(?:\.\d+)?(?:e-?\d+)?)")


def known(expectation: str) -> bool:
  """Whether a text is one: a path in `results.json`, words joined by spaces, then < or > and a number."""
  return _EXPECTATION.fullmatch(expectation) is not None


def check(expectations: Sequence[str], workdir: epath.Path) -> None:
  """Prints each expectation with the mean over seeds that was found.

  Raises:
    InputError: where the workdir has no results, or nothing is expected.
    MissedError: where one is not met.
  """
  path = workdir / "results.json"
  if not path.exists():
    raise errors.InputError(f"--stage=verify: no results in {workdir}; run --stage=evaluate first")
  if not expectations:
    raise errors.InputError("--stage=verify: config.expected is empty; name what to expect, see configs/mnist5k.py")
  results, missed = json.loads(path.read_text()), 0
  for expectation in expectations:
    parts = _EXPECTATION.fullmatch(expectation)
    value = _found(results, parts["path"].split())
    bound, more = float(parts["bound"]), parts["sign"] == ">"
    met = value is not None and (value > bound if more else value < bound)
    missed += not met
    print(f"{'met   ' if met else 'MISSED'}  {expectation}  (found {'nothing' if value is None else f'{value:.4g}'})")
  if missed:
    raise errors.MissedError(f"--stage=verify: {missed} of {len(expectations)} expectations are not met in {workdir}")


def _found(results: Any, path: Sequence[str]) -> float | None:
  """The mean of what lies at a path; None where there is nothing, or no numbers."""
  for word in path:
    if not isinstance(results, dict) or word not in results:
      return None
    results = results[word]
  numbers = np.asarray(results) if isinstance(results, int | float | list) else np.array([])
  return float(numbers.mean()) if numbers.size and numbers.dtype.kind in "if" else None
