"""The user's own images: a folder with one folder a class."""

import os
import re
from collections.abc import Iterable, Sequence

import numpy as np
from etils import epath

from lcgen.data import array_files, checks, pictures
from lcgen.data.dataset import Split, Stored
from lcgen.runtime import errors, places

_PARTS = {  # names of the folders of each part, in any case
  "train": ("train", "training"),
  "validation": ("val", "valid", "validation"),
  "test": ("test", "testing"),
}
_UNREAD = (".gif", ".tif", ".tiff", ".heic", ".heif", ".avif", ".npy", ".npz")  # of images, but not read from folders


def read_folder(path: str, look: pictures.Look) -> Stored:
  """Reads images in `path/train/<class>/` and, if they are there, `path/val/<class>/` and `path/test/<class>/`.

  A folder without these parts has its classes in `path/<class>/`. Classes are in the order of their names, numbers by
  size.

  Raises:
    InputError: if there is no such folder, a class has no image, a file is not an image, or files lie where none are
      read; names them.
  """
  given = f"data.path={path}"
  root = places.expanded(path, "data.path")
  if path and root.is_file():
    raise errors.InputError(f"{given}: not a folder; --config.data.source=npz reads an .npz file")
  if not path or not root.is_dir():
    raise errors.InputError(f"{given}: not a folder; name one that has a folder of images for each class")
  parts = _parts(given, root)
  class_names = tuple(_classes(parts["train"]))
  if len(class_names) < 2:
    raise errors.InputError(
      f"{given}: {parts['train']} has {len(class_names)} folders of images, and classes are at least two"
    )
  listed = {}
  for part, folder in parts.items():
    classes = _classes(folder)
    if unknown := sorted(set(classes) - set(class_names)):
      raise errors.InputError(f"{given}: {classes[unknown[0]]} is a class that {parts['train']} does not have")
    listed[part] = _files([classes.get(name, folder / name) for name in class_names])
  images = pictures.read([file for files, _ in listed.values() for file in files], look)
  splits, start = {}, 0
  for part, (files, labels) in listed.items():
    splits[part] = Split(images[start : start + len(files)], labels)
    start += len(files)
  return Stored(class_names, splits["train"], splits.get("test"), splits.get("validation"))


def read_images(path: str, look: pictures.Look) -> np.ndarray:
  """Reads images without labels: the array `images` of an `.npz`, an image file, or all image files in a folder.

  Those of a folder are in the order of their names, numbers by size.

  Args:
    path: the file or folder.
    look: as for `read_folder`; it does not change the images of an `.npz`.

  Returns:
    uint8 `[N, H, W, C]`, converted as by `array_files.read_npz` and `read_folder`.

  Raises:
    InputError: if there is no image, or one that cannot be read; names the file.
  """
  place = places.expanded(path, "edit.images")
  if place.suffix.lower() in (".npz", ".npy"):
    return array_files.read_images(place)
  if place.is_dir():
    names = natural_order(entry.name for entry in _visible(place) if not entry.is_dir())
    if unread := [name for name in names if name.lower().endswith(_UNREAD)]:
      raise errors.InputError(f"{place / unread[0]}: not an image that is read here; convert it, or move it elsewhere")
    files = [place / name for name in names if name.lower().endswith(pictures.SUFFIXES)]
  else:
    files = [place] if place.is_file() and place.suffix.lower() in pictures.SUFFIXES else []
  if not files:
    raise errors.InputError(f"{path}: no image ({', '.join(pictures.SUFFIXES)}), folder of images or .npz with images")
  return pictures.read(files, look)


def natural_order(names: Iterable[str]) -> list[str]:
  """Sorts names with the numbers in them by size: 1, 2, 10."""

  def key(name: str) -> tuple[list[tuple[int, int, str]], str]:
    words = re.split(r"([0-9]+)", name)
    return [(0, int(word), "") if word.isdecimal() else (1, 0, word) for word in words if word], name

  return sorted(names, key=key)


def _parts(given: str, root: epath.Path) -> dict[str, epath.Path]:
  """Finds the folders of the parts; a folder without parts is the training part itself.

  Raises:
    InputError: if there are two folders of one part, or other folders of images beside them.
  """
  found: dict[str, epath.Path] = {}
  others = []
  for name in _folders(root):
    part = next((part for part, names in _PARTS.items() if name.lower() in names), None)
    if part is None:
      others.append(name)
    elif part in found:
      raise errors.InputError(f"{given}: has both {found[part].name} and {name}; keep one of them")
    else:
      found[part] = root / name
  a_class = others and set(found) == {"train"} and not any(entry.is_dir() for entry in found["train"].iterdir())
  if not found or a_class:  # a class may be called train
    return {"train": root}
  if "train" not in found:
    raise errors.InputError(f"{given}: has {' and '.join(one.name for one in found.values())}, and no folder train")
  if others:
    raise errors.InputError(
      f"{given}: {others[0]} lies beside {found['train'].name} and is no part of the data; there are train, val and "
      "test, move other folders elsewhere"
    )
  return {part: found[part] for part in _PARTS if part in found}


def _visible(folder: epath.Path) -> list[epath.Path]:
  """Lists what lies in a folder and is not hidden.

  Raises:
    InputError: if there is a link to something that does not exist.
  """
  found = [folder / name for name in sorted(entry.name for entry in folder.iterdir()) if not name.startswith(".")]
  for entry in found:
    if os.path.islink(entry) and not entry.exists():
      raise errors.InputError(f"{entry}: a link to something that is not there; mend or remove the link")
  return found


def _folders(path: epath.Path) -> tuple[str, ...]:
  """Lists the folders in a folder, in natural order.

  Raises:
    InputError: if images lie beside them.
  """
  entries = _visible(path)
  for entry in entries:
    if entry.suffix.lower() in (*pictures.SUFFIXES, *_UNREAD) and not entry.is_dir():
      raise errors.InputError(f"{entry}: lies in no folder of a class; move it into one, or elsewhere")
  return tuple(natural_order(entry.name for entry in entries if entry.is_dir()))


def _classes(path: epath.Path) -> dict[str, epath.Path]:
  """Lists the folders of classes by their names, in natural order.

  Raises:
    InputError: if two names look alike, because accents are written in one character here and in two there.
  """
  found: dict[str, epath.Path] = {}
  for folder in _folders(path):
    name = checks.composed(folder)
    if name in found:
      raise errors.InputError(
        f"{path}: has two folders called {name}, with accents written in one character and in two; join them"
      )
    found[name] = path / folder
  return {name: found[name] for name in natural_order(found)}


def _files(folders: Sequence[epath.Path]) -> tuple[list[epath.Path], np.ndarray]:
  """Lists the image files of all classes, by name within each class, with their labels, int32 `[N]`."""
  files, labels = [], []
  for label, folder in enumerate(folders):
    found = _images(folder) if folder.is_dir() else []
    if not found:
      raise errors.InputError(f"{folder}: no image of this class; add some, or remove the class everywhere")
    files += found
    labels += [label] * len(found)
  return files, np.array(labels, np.int32)


def _images(folder: epath.Path) -> list[epath.Path]:
  """Lists the image files in a folder; raises an InputError if something else is there."""
  found = _visible(folder)
  for file in found:
    if file.suffix.lower() not in pictures.SUFFIXES:
      raise errors.InputError(f"{file}: not an image ({', '.join(pictures.SUFFIXES)}); move it elsewhere")
  return found
