"""The user's own images: a folder with one folder a class, or an `.npz` file."""

import zipfile
import zlib
from collections.abc import Sequence
from concurrent import futures

import numpy as np
from etils import epath

from lcgen.data import ranges
from lcgen.runtime import errors, memory, parallel

_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
_MOST_SIDE = 4096  # pixels; a larger size comes from a broken file
_GREY_MODES = ("1", "L", "LA")
_NPZ_ERRORS = (  # RuntimeError: encrypted; NotImplementedError: a compression that zipfile does not know
  OSError, ValueError, EOFError, AttributeError, MemoryError, RuntimeError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip

Labelled = tuple[np.ndarray, np.ndarray]  # images uint8 [N, H, W, C], labels int32 [N]


def read_folder(path: str, side: int) -> tuple[tuple[str, ...], Labelled, Labelled | None]:
  """Reads images in `path/train/<class>/` and, if there is one, `path/test/<class>/`; or in `path/<class>/`.

  The set is grey if all images are grey, and otherwise in colour. Images that share one size keep it.

  Args:
    path: the folder.
    side: images of different sizes are resized to `side` x `side`; at 0 they are an error.

  Returns:
    Class names, training images, and test images or None.

  Raises:
    InputError: if there is no such folder, a class has no image, or a file is not an image; names the file.
  """
  root = epath.Path(path).expanduser()
  if not path or not root.is_dir():
    raise errors.InputError(f"data.path={path}: not a folder; name one that has a folder of images for each class")
  training = root / "train" if (root / "train").is_dir() else root
  class_names = _folders(training)
  if len(class_names) < 2:
    raise errors.InputError(
      f"data.path={path}: {training} has {len(class_names)} folders, and classes are at least two"
    )
  parts = [_files(training, class_names)]
  if training != root and (root / "test").is_dir():
    if unknown := sorted(set(_folders(root / "test")) - set(class_names)):
      raise errors.InputError(
        f"data.path={path}: {root / 'test' / unknown[0]} is a class that {training} does not have"
      )
    parts.append(_files(root / "test", class_names))
  images = _read_images([file for files, _ in parts for file in files], side)
  count = len(parts[0][0])
  testing = (images[count:], parts[1][1]) if len(parts) == 2 else None
  return class_names, (images[:count], parts[0][1]), testing


def read_images(path: str, side: int) -> np.ndarray:
  """Reads images without labels: the array `images` of an `.npz`, an image file, or all image files in a folder.

  Args:
    path: the file or folder.
    side: as for `read_folder`; an `.npz` ignores it.

  Returns:
    uint8 `[N, H, W, C]`, converted as by `read_npz` and `read_folder`.

  Raises:
    InputError: if there is no image, or one that cannot be read; names the file.
  """
  place = epath.Path(path).expanduser()
  if place.suffix.lower() == ".npz":
    return _npz_images(place, _npz_arrays(place), "images")
  files = [place] if place.is_file() else sorted(place.iterdir()) if place.is_dir() else []
  files = [file for file in files if file.suffix.lower() in _SUFFIXES]
  if not files:
    raise errors.InputError(f"{path}: no image ({', '.join(_SUFFIXES)}), folder of images or .npz with images")
  return _read_images(files, side)


def _folders(path: epath.Path) -> tuple[str, ...]:
  return tuple(sorted(entry.name for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith(".")))


def _files(path: epath.Path, class_names: Sequence[str]) -> tuple[list[epath.Path], np.ndarray]:
  """Lists the image files of all classes, by name within each class, with their labels, int32 `[N]`."""
  files, labels = [], []
  for label, name in enumerate(class_names):
    entries = (path / name).iterdir() if (path / name).is_dir() else ()
    found = sorted(entry for entry in entries if not entry.name.startswith("."))
    if not found:
      raise errors.InputError(f"{path / name}: no image of this class; add some, or remove the class everywhere")
    for file in found:
      if file.suffix.lower() not in _SUFFIXES:
        raise errors.InputError(f"{file}: not an image ({', '.join(_SUFFIXES)}); move it elsewhere")
    files += found
    labels += [label] * len(found)
  return files, np.array(labels, np.int32)


def _read_images(files: Sequence[epath.Path], side: int) -> np.ndarray:
  """Reads image files into one array, uint8 `[N, H, W, C]`."""
  from PIL import Image

  def header(file: epath.Path) -> tuple[str, tuple[int, int]]:
    try:
      with file.open("rb") as stream, Image.open(stream) as image:
        mode, size = image.mode, image.size
    except (*ranges.PILLOW_ERRORS, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
      raise errors.InputError(f"{file}: not an image that can be read ({error}); replace or remove it") from error
    if max(size) > _MOST_SIDE:
      raise errors.InputError(f"{file}: {size[0]}x{size[1]} pixels; sides go to {_MOST_SIDE} here, make it smaller")
    return mode, size

  with futures.ThreadPoolExecutor() as pool:
    headers = list(pool.map(header, files))
    for file, (mode, _) in zip(files, headers, strict=True):
      if mode[:1] in "IF":
        raise errors.InputError(f"{file}: more than 8 bits a value ({mode}); convert it to 8 bits")
    mode = "L" if all(mode in _GREY_MODES for mode, _ in headers) else "RGB"
    sizes = {size: file for file, (_, size) in zip(files, headers, strict=True)}
    if len(sizes) > 1 and not side:
      (first, first_file), (second, second_file) = list(sizes.items())[:2]
      raise errors.InputError(
        f"{first_file} is {first[0]}x{first[1]} and {second_file} is {second[0]}x{second[1]}; make all images one "
        "size, or set --config.data.image_size"
      )
    width, height = (side, side) if len(sizes) > 1 else next(iter(sizes))

    def read(file: epath.Path) -> np.ndarray:
      try:
        with file.open("rb") as stream, Image.open(stream) as image:
          pixels = image.convert(mode)
          if pixels.size != (width, height):
            pixels = pixels.resize((width, height), Image.Resampling.BILINEAR)
          return np.asarray(pixels).reshape(height, width, len(mode))
      except ranges.PILLOW_ERRORS as error:
        raise errors.InputError(f"{file}: broken ({error}); replace or remove it") from error

    def read_part(rows: range) -> dict[str, np.ndarray]:
      images = np.empty((len(rows), height, width, len(mode)), np.uint8)
      for place, pixels in enumerate(pool.map(read, files[rows.start : rows.stop])):
        images[place] = pixels
      return {"image": images}

    return parallel.read_in_parts(len(files), read_part)["image"]


def read_npz(path: str) -> tuple[tuple[str, ...], Labelled, Labelled | None]:
  """Reads the arrays `images` and `labels`; `test_images` with `test_labels`, and `class_names`, are optional.

  Images are `[N, H, W]` or `[N, H, W, C]`: uint8, or floats in [0, 1], which are rounded to 1/255. Without class names
  the classes are the labels from 0 to the largest training label.

  Returns:
    Class names, training images, and test images or None.

  Raises:
    InputError: if there is no such file, or it is no such `.npz`; names the file and the array.
  """
  file = epath.Path(path).expanduser()
  if not path or not file.is_file():
    raise errors.InputError(f"data.path={path}: no such file; name an .npz with images and labels")
  arrays = _npz_arrays(file)
  for name in ("images", "labels", *(("test_images", "test_labels") if "test_images" in arrays else ())):
    if name not in arrays:
      raise errors.InputError(f"{file}: no array {name}; there are {', '.join(arrays) or 'none'}")
  training = _npz_part(file, arrays, "")
  testing = _npz_part(file, arrays, "test_") if "test_images" in arrays else None
  count = int(training[1].max()) + 1
  class_names = tuple(str(name) for name in arrays.get("class_names", range(count)))
  if testing is not None and testing[0].shape[1:] != training[0].shape[1:]:
    raise errors.InputError(
      f"{file}: test_images are {list(testing[0].shape)} and images {list(training[0].shape)}; make them one size"
    )
  for labels, name in ((training[1], "labels"), *([(testing[1], "test_labels")] if testing else ())):
    if labels.max() >= len(class_names):
      raise errors.InputError(f"{file}: {name} go to {labels.max()}, and there are {len(class_names)} classes, from 0")
  return class_names, training, testing


def _npz_arrays(file: epath.Path) -> dict[str, np.ndarray]:
  try:
    with file.open("rb") as stream, np.load(stream, allow_pickle=False) as content:
      size, free = sum(member.file_size for member in content.zip.infolist()), memory.available_memory()
      if free is not None and size > free:
        raise errors.InputError(f"{file}: {size:,} bytes unpacked, and {free:,} are free; make it smaller")
      return {name: content[name] for name in content.files}
  except errors.InputError:
    raise
  except _NPZ_ERRORS as error:
    raise errors.InputError(f"{file}: not an .npz that can be read ({error})") from error


def _npz_images(file: epath.Path, arrays: dict[str, np.ndarray], name: str) -> np.ndarray:
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
    images = np.round(images * 255).astype(np.uint8)
  if images.dtype != np.uint8:
    raise errors.InputError(f"{file}: {name} are {images.dtype}, not uint8 or floats in [0, 1]")
  return images


def _npz_part(file: epath.Path, arrays: dict[str, np.ndarray], prefix: str) -> Labelled:
  images, labels = _npz_images(file, arrays, f"{prefix}images"), arrays[f"{prefix}labels"]
  if labels.shape != images.shape[:1] or not np.issubdtype(labels.dtype, np.integer):
    raise errors.InputError(
      f"{file}: {prefix}labels are {labels.dtype} {list(labels.shape)}, not {len(images)} integers"
    )
  if labels.min() < 0:
    raise errors.InputError(f"{file}: {prefix}labels go down to {labels.min()}; count classes from 0")
  return images, labels.astype(np.int32)
