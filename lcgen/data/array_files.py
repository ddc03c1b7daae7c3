"""The user's own images in an `.npz` file."""

import logging
import zipfile
import zlib
from collections.abc import Collection, Mapping, Sequence

import numpy as np
from etils import epath

from lcgen.data import checks
from lcgen.data.dataset import Split, Stored
from lcgen.runtime import errors, memory, places

_log = logging.getLogger(__name__)

_VALIDATION = ("validation_", "valid_", "val_")  # prefixes of the arrays of validation images
_TEST = ("test_",)
_LEVELS = 255
_NPY_START = b"\x93NUMPY"
_ERRORS = (  # RuntimeError: encrypted; NotImplementedError: a compression that zipfile does not know
  OSError, ValueError, EOFError, AttributeError, RuntimeError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip


def read_npz(path: str) -> Stored:
  """Reads the arrays `images` and `labels` of an `.npz`.

  Test images may stand in `test_images` with `test_labels`, validation images in `val_images` with `val_labels`, and
  names of the classes in `class_names`. Images are `[N, H, W]` or `[N, H, W, C]`: uint8, or floats in [0, 1], which are
  rounded to 1/255. Without names the classes are the labels from 0 to the largest training label.

  Raises:
    InputError: if there is no such file, or it is no such `.npz`; names the file and the array.
  """
  given = f"data.path={path}"
  file = places.expanded(path, "data.path")
  if path and file.is_dir():
    raise errors.InputError(f"{given}: a folder; --config.data.source=folder reads folders of images")
  if not path or not file.is_file():
    raise errors.InputError(f"{given}: no such file; name an .npz with images and labels")
  arrays = _arrays(file)
  held_out, testing = _prefix(file, arrays, _VALIDATION), _prefix(file, arrays, _TEST)
  prefixes = ["", *filter(None, (held_out, testing))]
  known = [prefix + kind for prefix in prefixes for kind in ("images", "labels")]
  for name in known:
    if name not in arrays:
      raise errors.InputError(f"{file}: no array {name}; there are {', '.join(arrays) or 'none'}")
  if others := sorted(set(arrays) - {*known, "class_names"}):
    _log.warning("%s: nothing reads its arrays %s", file, ", ".join(others))
  parts = {prefix: _part(file, arrays, prefix) for prefix in prefixes}
  if "class_names" in arrays:
    class_names = _class_names(arrays["class_names"], f"{file}: class_names")
  else:
    class_names = tuple(map(str, range(checks.without_gaps(parts[""].labels, f"{file}: labels"))))
  shape = parts[""].images.shape
  for prefix, part in parts.items():
    if part.images.shape[1:] != shape[1:]:
      raise errors.InputError(
        f"{file}: {prefix}images are {list(part.images.shape)} and images {list(shape)}; make them one size"
      )
    parts[prefix] = Split(part.images, checks.of_classes(part.labels, len(class_names), f"{file}: {prefix}labels"))
  return Stored(class_names, parts[""], parts.get(testing), parts.get(held_out))


def _prefix(file: epath.Path, arrays: Collection[str], prefixes: Sequence[str]) -> str | None:
  """Returns the prefix of the arrays of a part; None if the file does not have the part."""
  found = [prefix for prefix in prefixes if {f"{prefix}images", f"{prefix}labels"} & set(arrays)]
  if len(found) > 1:
    raise errors.InputError(f"{file}: has {' and '.join(f'{prefix}images' for prefix in found)}; keep one of them")
  return found[0] if found else None


def read_images(file: epath.Path) -> np.ndarray:
  """Reads the array `images` of an `.npz` as uint8 `[N, H, W, C]`; raises an InputError if there is none."""
  images = _images(file, _arrays(file), "images")
  checks.brightness(images, f"{file}: images")
  return images


def _arrays(file: epath.Path) -> dict[str, np.ndarray]:
  try:
    with file.open("rb") as stream:
      if stream.read(len(_NPY_START)) == _NPY_START:
        raise errors.InputError(
          f"{file}: one array and not an .npz; numpy.savez(FILE, images=..., labels=...) makes one of images and labels"
        )
      stream.seek(0)
      with np.load(stream, allow_pickle=False) as content:
        size, free = sum(member.file_size for member in content.zip.infolist()), memory.available_memory()
        if free is not None and size > free:
          raise errors.InputError(f"{file}: {size:,} bytes unpacked, and {free:,} are free; make it smaller")
        return _read(content, size)
  except errors.InputError:
    raise
  except _ERRORS as error:
    raise errors.InputError(f"{file}: not an .npz that can be read ({error})") from error


def _read(content: Mapping[str, np.ndarray], size: int) -> dict[str, np.ndarray]:
  """Reads all arrays; a header that claims more than the `size` bytes of the file is an error of the file."""
  try:
    return dict(content)
  except MemoryError as error:
    np.empty(size, np.uint8)  # fails as well where the memory is too small
    raise ValueError(str(error)) from error


def _images(file: epath.Path, arrays: dict[str, np.ndarray], name: str) -> np.ndarray:
  if name not in arrays:
    raise errors.InputError(f"{file}: no array {name}; there are {', '.join(arrays) or 'none'}")
  images = arrays[name]
  if images.ndim == 3:
    images = images[..., None]
  if images.ndim != 4 or images.shape[3] not in (1, 3) or 0 in images.shape:
    raise errors.InputError(f"{file}: {name} are {list(images.shape)}, not [N, H, W] or [N, H, W, C], C 1 or 3")
  if np.issubdtype(images.dtype, np.floating):
    if not (images.min() >= 0 and images.max() <= 1):  # in this form NaNs fail too
      raise errors.InputError(f"{file}: {name} from {images.min()} to {images.max()}; floats must be in [0, 1]")
    images = np.round(images * _LEVELS).astype(np.uint8)
  if images.dtype != np.uint8:
    raise errors.InputError(f"{file}: {name} are {images.dtype}, not uint8 or floats in [0, 1]")
  return images


def _part(file: epath.Path, arrays: dict[str, np.ndarray], prefix: str) -> Split:
  """Reads the images of one part, with their labels in the type that they came in."""
  images = _images(file, arrays, f"{prefix}images")
  return Split(images, checks.whole_labels(arrays[f"{prefix}labels"], len(images), f"{file}: {prefix}labels"))


def _class_names(found: np.ndarray, what: str) -> tuple[str, ...]:
  if found.ndim != 1:
    raise errors.InputError(f"{what} are {list(found.shape)}; give a list with one name for each class")
  if found.dtype.kind == "S":
    try:
      return tuple(name.decode() for name in found.tolist())
    except UnicodeDecodeError as error:
      raise errors.InputError(f"{what} are bytes that are not UTF-8; give them as texts") from error
  if found.dtype.kind not in "Uiu":
    raise errors.InputError(f"{what} are {found.dtype}; give them as texts")
  return tuple(map(str, found.tolist()))
