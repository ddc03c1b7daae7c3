"""Picks the same share of every class: held-out images, and the images that a limit keeps."""

import numpy as np


def held_out(labels: np.ndarray, share: float, kept: int) -> np.ndarray:
  """Picks this share of every class, bool `[N]`.

  It picks at least one image of each class, unless the share is 0, and leaves at least `kept`. Every class must have
  `kept` + 1 images.
  """
  sizes = np.unique(labels, return_counts=True)[1]
  counts = [min(max(round(share * size), 1), size - kept) if share else 0 for size in sizes]
  return _picked(labels, counts)


def limited(labels: np.ndarray, limit: int, least: int) -> np.ndarray:
  """Picks exactly `limit` images, bool `[N]`: of each class its share, and at least `least`.

  Every class must have `least` images, and the limit must be at least `least` times the number of classes and at most
  N.
  """
  sizes = np.unique(labels, return_counts=True)[1]
  return _picked(labels, _proportional(sizes, limit, least))


def _proportional(sizes: np.ndarray, total: int, least: int) -> np.ndarray:
  """Shares `total` among classes by their sizes, by largest remainders; `[K]` -> `[K]`."""
  quotas = sizes * (total / sizes.sum())
  counts = np.maximum(np.floor(quotas).astype(int), least)
  while (missing := total - counts.sum()) != 0:
    step = 1 if missing > 0 else -1
    lacking = np.where((counts < sizes) if step > 0 else (counts > least), step * (quotas - counts), -np.inf)
    counts[np.argsort(-lacking, kind="stable")[: min(abs(missing), np.isfinite(lacking).sum())]] += step
  return counts


def _picked(labels: np.ndarray, counts: np.ndarray) -> np.ndarray:
  """Picks this many images of each class, bool `[N]`. All runs pick the same rows, so that they can be compared."""
  generator = np.random.default_rng(0)
  picked = np.zeros(len(labels), bool)
  for label, count in zip(np.unique(labels), counts, strict=True):
    rows = generator.permutation(np.flatnonzero(labels == label))
    picked[rows[:count]] = True
  return picked
