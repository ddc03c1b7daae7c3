"""A data set in memory: uint8 images with labels, in three splits, and its facts."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Split:
  """Images, uint8 `[N, H, W, C]`, with their labels, int32 `[N]`.

  If several labels were drawn for each image, `targets` holds their shares, float32 `[N, K]`.
  """

  images: np.ndarray
  labels: np.ndarray
  targets: np.ndarray | None = None

  def __len__(self) -> int:
    return len(self.labels)

  def take(self, rows: np.ndarray) -> "Split":
    return Split(self.images[rows], self.labels[rows], None if self.targets is None else self.targets[rows])


@dataclasses.dataclass(frozen=True)
class Stored:
  """Labelled images as files have them, with the names of the labels 0, 1, ...; None for parts that are not there."""

  class_names: tuple[str, ...]
  training: Split
  testing: Split | None = None
  validation: Split | None = None


@dataclasses.dataclass(frozen=True)
class Facts:
  """Facts of a data set: stored shape `(H, W, C)`, class names, number of images in each split."""

  name: str
  shape: tuple[int, int, int]
  class_names: tuple[str, ...]
  train: int
  validation: int
  test: int


@dataclasses.dataclass(frozen=True)
class Dataset:
  """Three disjoint splits; validation is cut from the training images if the source has none."""

  name: str
  class_names: tuple[str, ...]
  train: Split
  validation: Split
  test: Split

  @property
  def facts(self) -> Facts:
    sizes = len(self.train), len(self.validation), len(self.test)
    return Facts(self.name, self.train.images.shape[1:], self.class_names, *sizes)
