"""Checks of labelled images that every source passes: types, ranges and meaning of pixels, labels and class names."""

import logging
import unicodedata
from collections.abc import Sequence

import numpy as np

from lcgen.runtime import errors

_log = logging.getLogger(__name__)

_DIM = 64  # images with no value as bright as this are suspect
_MOST_NAMES = 5  # in a message


def brightness(images: np.ndarray, what: str) -> None:
  """Checks that stored images do not hold the values 0 and 1 alone, of 0 to 255.

  Args:
    images: uint8, of any shape.
    what: their name for messages.

  Raises:
    InputError: if they do. Such images are meant as black and white, and would be read as black and nearly black.
  """
  if int(images.max(initial=0)) == 1:
    raise errors.InputError(
      f"{what}: every value is 0 or 1, of 0 to 255, which is all but black; scale them, so that white is 255 (1.0 in "
      "floats)"
    )


def log_dim(images: np.ndarray, what: str) -> None:
  """Logs that stored images are dark; their values may have another range than 0 to 255."""
  if (most := int(images.max(initial=0))) < _DIM:
    _log.warning("%s: no value is above %d, of 0 to 255, so all images are dark", what, most)


def whole_labels(labels: np.ndarray, count: int, what: str) -> np.ndarray:
  """Checks that labels are whole numbers from 0, one for each of `count` images. They keep their type.

  Raises:
    InputError: if they are not.
  """
  if labels.shape != (count,) or not np.issubdtype(labels.dtype, np.integer):
    raise errors.InputError(f"{what} are {labels.dtype} {list(labels.shape)}, not {count} whole numbers")
  if labels.min() < 0:
    raise errors.InputError(f"{what} go down to {labels.min()}; count classes from 0")
  return labels


def of_classes(labels: np.ndarray, classes: int, what: str) -> np.ndarray:
  """Returns labels as int32, after it has checked in the type that they came in that they are below `classes`.

  Raises:
    InputError: if one is not.
  """
  if labels.max() >= classes:
    raise errors.InputError(f"{what} go to {labels.max()}, and there are {classes} classes, counted from 0")
  return labels.astype(np.int32)


def without_gaps(labels: np.ndarray, what: str) -> int:
  """Counts the classes of labels that have no names, and so must be 0, 1, 2, ...

  Raises:
    InputError: if a number between is missing; before anything is made for each number.
  """
  found = np.unique(labels)
  if int(found[-1]) != len(found) - 1:
    gap = int(np.argmax(found != np.arange(len(found), dtype=found.dtype)))
    raise errors.InputError(
      f"{what} go to {found[-1]}, with no training image of class {gap}; count classes from 0 without gaps"
    )
  return len(found)


def names(class_names: Sequence[str], what: str) -> tuple[str, ...]:
  """Returns class names in Unicode's composed form, after it has checked that each can be told from the others.

  File names from a Mac have letters such as é in two characters, which look like the one that keyboards give.

  Raises:
    InputError: if there are fewer than two, or one is no text, empty, padded with spaces, unprintable, or there twice.
  """
  found = tuple(composed(name) if isinstance(name, str) else name for name in class_names)
  if len(found) < 2:
    raise errors.InputError(
      f"{what}: has {len(found)} class{'es' * (len(found) != 1)}, and a classifier needs two or more"
    )
  for place, name in enumerate(found):
    if not isinstance(name, str) or not name.isprintable() or name != name.strip() or not name:
      raise errors.InputError(
        f"{what}: class {place} is called {name!r}; name it in printable letters, without spaces at its ends"
      )
    if name in found[:place]:
      raise errors.InputError(
        f"{what}: classes {found.index(name)} and {place} are both called {name}; name them apart"
      )
  return found


def composed(name: str) -> str:
  """Returns a name in Unicode's composed form, in which names that look alike are alike."""
  return unicodedata.normalize("NFC", name)


def every_class(labels: np.ndarray, class_names: Sequence[str], what: str) -> None:
  """Raises an InputError that names the classes without an image; `what` is as in "pets: no training image"."""
  absent = np.flatnonzero(np.bincount(labels, minlength=len(class_names)) == 0)
  if absent.size:
    raise errors.InputError(f"{what} of {_listed(absent, class_names)}; add some, or leave the class out everywhere")


def enough(labels: np.ndarray, class_names: Sequence[str], parts: Sequence[str], what: str) -> None:
  """Raises an InputError that names the classes with fewer images than there are parts to split them into."""
  few = np.flatnonzero(np.bincount(labels, minlength=len(class_names)) < len(parts))
  if few.size:
    raise errors.InputError(
      f"{what}: fewer than {len(parts)} images of {_listed(few, class_names)}, and {joined(parts)} take one of every "
      "class; add some, or leave the class out"
    )


def _listed(labels: np.ndarray, class_names: Sequence[str]) -> str:
  shown = ", ".join(f"{class_names[label]} (label {label})" for label in labels[:_MOST_NAMES])
  more = f" and {len(labels) - _MOST_NAMES} more" if len(labels) > _MOST_NAMES else ""
  return f"class {shown}{more}"


def joined(words: Sequence[str]) -> str:
  """Joins words for a sentence: "a, b and c"."""
  *first, last = words
  return f"{', '.join(first)} and {last}" if first else last
