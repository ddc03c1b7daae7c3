"""Checks a run's results against the expectations of its config."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from etils import epath

from lcgen.runtime import errors, expectation, results


def check(expected: Sequence[str], workdir: epath.Path) -> None:
  """Prints each expectation with the mean over seeds that was found.

  Args:
    expected: texts that `expectation.known` accepts.
    workdir: of an evaluated run.

  Raises:
    InputError: the workdir has no results, or nothing is expected.
    MissedError: an expectation is not met.
  """
  path = workdir / "results.json"
  if not path.exists():
    raise errors.InputError(f"--stage=verify: no results in {workdir}; run --stage=evaluate first")
  if not expected:
    raise errors.InputError("--stage=verify: config.expected is empty; name what to expect, see configs/mnist5k.py")
  found, missed = dataclasses.asdict(results.read(path)), 0
  for text in expected:
    wanted = expectation.parse(text)
    value = _mean(found, wanted.path)
    met = value is not None and (value > wanted.bound if wanted.more else value < wanted.bound)
    missed += not met
    print(f"{'met   ' if met else 'MISSED'}  {text}  (found {_words(value)})")
  if missed:
    raise errors.MissedError(f"--stage=verify: {missed} of {len(expected)} expectations are not met in {workdir}")


def _words(value: float | None) -> str:
  if value is None:
    return "nothing"
  return f"{value:.4g}" if math.isfinite(value) else "an undefined score"


def _mean(found: Any, path: Sequence[str]) -> float | None:
  """Averages the numbers at a path; None if there are none."""
  for word in path:
    if not isinstance(found, dict) or word not in found:
      return None
    found = found[word]
  numbers = np.asarray(found) if isinstance(found, int | float | list) else np.array([])
  return float(numbers.mean()) if numbers.size and numbers.dtype.kind in "if" else None
