"""Digests of images and labels, by which a run knows its data again."""

import hashlib
from typing import Any

import numpy as np

from lcgen.data.dataset import Dataset, Split

SPLITS = ("train", "validation", "test")
_ROWS_BYTES = 64 * 2**20  # hashed at once, so that no second copy of a large set is needed


def of_dataset(data: Dataset) -> dict[str, Any]:
  """Gives the names of the classes, and the digests of each split by its name.

  SHA-256 takes about a second for each gigabyte of images.
  """
  return {"class_names": list(data.class_names)} | {name: of_split(getattr(data, name)) for name in SPLITS}


def of_split(split: Split) -> dict[str, str]:
  """Gives the digests of images and of labels; they depend on values, shapes, types and order."""
  found = {"images": _digest(split.images), "labels": _digest(split.labels)}
  return found if split.targets is None else found | {"targets": _digest(split.targets)}


def joined(split: Split) -> str:
  """Gives one digest of the bytes of images and labels, as `results.json` reports it."""
  return _digest(split.images, split.labels, described=False)


def _digest(*arrays: np.ndarray, described: bool = True) -> str:
  digest = hashlib.sha256()
  for array in arrays:
    if described:
      digest.update(f"{array.dtype}{array.shape}".encode())
    rows = max(1, _ROWS_BYTES * len(array) // max(array.nbytes, 1))
    for start in range(0, len(array), rows):
      digest.update(np.ascontiguousarray(array[start : start + rows]))
  return digest.hexdigest()
