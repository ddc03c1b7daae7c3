"""Metrics that are written one chunk late, so that the device never waits for the host."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from lcgen.runtime import errors, files, parallel


class LateMetrics:
  """Writes a chunk's metrics while the next chunk runs, and finds numbers that are not finite.

  Args:
    phase: a `loop.Phase`.
    seeds: of the run, for messages.
    metrics: the file that they are written to.

  Attributes:
    latest: the last record written.
  """

  def __init__(self, phase: Any, seeds: Sequence[int], metrics: files.MetricsFile):
    self._phase, self._seeds, self._file = phase, seeds, metrics
    self._pending = None
    self.latest: dict[str, Any] = {}

  def push(self, chunk: Any, validation: Mapping[str, jax.Array]) -> None:
    self.flush()
    self._pending = (chunk.step, chunk.terms, chunk.finite, validation)

  def flush(self) -> None:
    if self._pending is None:
      return
    step, terms, finite, validation = parallel.fetch(self._pending)
    self._pending = None
    self._check(step, terms, finite)
    means = jax.tree.map(lambda values: values.mean(axis=1), terms)
    found = jax.tree.map(lambda values: np.asarray(values).tolist(), _merged(means, validation))
    self.latest = {
      "phase": self._phase.name, "kind": self._phase.kind, "step": step, "epoch": step / self._phase.steps_per_epoch,
      "terms": found,
    }  # fmt: skip
    self._file.write(self.latest)

  def _check(self, step: int, terms: Mapping[str, Any], finite: np.ndarray) -> None:
    """Raises a NonFiniteError that names the first term that is not finite or, for a parameter, the step."""
    bad, name, count = [], self._phase.name, 0
    for path, values in jax.tree.leaves_with_path(terms):  # [S, T]
      term, count = jax.tree_util.keystr(path, simple=True, separator="/"), values.shape[1]
      for place, at in np.argwhere(~np.isfinite(values)):
        # Among terms that fail in one step the total loss sorts last, because its parts say more.
        bad.append((at, term.endswith("loss"), term, place, values[place, at]))
    places = tuple(sorted({int(place) for *_, place, _ in bad} | set(np.flatnonzero(~finite).tolist())))
    if bad:
      at, _, term, place, value = min(bad)
      failed = step - count + at + 1
      raise errors.NonFiniteError(f"{name}: {term} is {value} at step {failed} of seed {self._seeds[place]}", places)
    if places:
      words = f"{name}: a parameter is no longer finite at step {step} of seed {self._seeds[places[0]]}"
      raise errors.NonFiniteError(words, places)


def _merged(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
  """Merges nested mappings of the same structure."""
  both = {key: _merged(first[key], second[key]) for key in first if key in second}
  return {**first, **second, **both}
