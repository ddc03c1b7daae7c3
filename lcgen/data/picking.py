"""Picks rows that stand for a whole set, whatever order it is stored in."""

import numpy as np


def pick(labels: np.ndarray, count: int) -> np.ndarray:
  """Picks `count` rows with the same share of every class; labels `[N]` -> rows `[min(count, N)]`, rising.

  Stored images are often sorted by class, so that their first rows do not stand for all. Rows are lined up by class,
  in a class as they are stored, and picked at equal distances. The same labels give the same rows in every run. A set
  of at most `count` rows is picked whole.

  Args:
    labels: class of each row; all equal if there are none.
    count: number of rows.
  """
  if len(labels) <= count:
    return np.arange(len(labels))
  by_class = np.argsort(labels, kind="stable")
  return np.sort(by_class[np.linspace(0, len(labels) - 1, count).astype(int)])
