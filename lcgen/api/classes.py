"""Tells the names of classes from their indices: a text is a name, a whole number an index, as `classify` gives it."""

from collections.abc import Sequence

import numpy as np

from lcgen.runtime import registry


def indices(wanted: Sequence[int] | Sequence[str], names: Sequence[str]) -> np.ndarray:
  """Gives the indices of classes, int32 `[N]`.

  Args:
    wanted: names or indices of classes.
    names: names of the classes 0, 1, ...

  Raises:
    ValueError: if there is no such class.
  """
  if len({isinstance(label, str) for label in wanted}) > 1:
    raise ValueError(f"labels {wanted!r}: give names or indices, not both")
  labels, last = np.asarray(wanted), len(names) - 1
  if labels.ndim == 1 and labels.dtype.kind == "U":
    return _named(labels.tolist(), names)
  whole = labels.ndim == 1 and len(labels) > 0 and np.issubdtype(labels.dtype, np.integer)
  if not whole or not ((0 <= labels) & (labels <= last)).all():
    raise ValueError(f"labels {labels!r}: must be one or more names of classes, or whole numbers from 0 to {last}")
  return labels.astype(np.int32)


def _named(wanted: Sequence[str], names: Sequence[str]) -> np.ndarray:
  if unknown := [name for name in wanted if name not in names]:
    near = registry.nearest(unknown[0], names)
    raise ValueError(f"label {unknown[0]!r}: there is no class of this name{near}; there are {', '.join(names)}")
  return np.array([names.index(name) for name in wanted], np.int32)
