"""Reads image files as a viewer shows them: turned upright, transparent parts on a background, fitted to one size."""

import functools
import logging
from collections.abc import Sequence
from concurrent import futures
from typing import NamedTuple

import numpy as np
from etils import epath
from PIL import ExifTags, Image, ImageColor, UnidentifiedImageError

from lcgen.data import ranges
from lcgen.runtime import errors, memory, parallel

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
PILLOW_ERRORS = (*ranges.PILLOW_ERRORS, Image.DecompressionBombError, Image.DecompressionBombWarning)

_log = logging.getLogger(__name__)

_MOST_SIDE = 4096  # pixels; a larger size comes from a broken file
_GREY_MODES = ("1", "L", "LA")
_STILL_FORMATS = ("MPO",)  # further frames of a JPEG from a phone are depth maps and the like, which no viewer shows
_LATE_TAGS = (b"eXIf", b"Raw profile type", b"com.adobe.xmp")  # in a PNG, where they may follow the pixels
_PNG_START = b"\x89PNG\r\n\x1a\n"
_UPRIGHT = {  # what turns an image upright, by its EXIF orientation
  2: Image.Transpose.FLIP_LEFT_RIGHT,
  3: Image.Transpose.ROTATE_180,
  4: Image.Transpose.FLIP_TOP_BOTTOM,
  5: Image.Transpose.TRANSPOSE,
  6: Image.Transpose.ROTATE_270,
  7: Image.Transpose.TRANSVERSE,
  8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS = (5, 6, 7, 8)  # orientations that exchange width and height


class Look(NamedTuple):
  """How images are shown, as in the config's section `data`.

  Attributes:
    side: images of different sizes are fitted to `side` x `side`; at 0 they are an error.
    fit: "pad" with the background, "crop" to the middle, or "stretch", to give an image another shape.
    background: colour behind transparent parts and around padded images.
  """

  side: int = 0
  fit: str = "pad"
  background: str = "white"


class _Header(NamedTuple):
  mode: str
  size: tuple[int, int]  # width and height, upright
  orientation: int  # of EXIF
  transparent: bool


def read(files: Sequence[epath.Path], look: Look) -> np.ndarray:
  """Reads image files into one array, uint8 `[N, H, W, C]`.

  The images are grey if all files are grey, and otherwise in colour. Images that share one size keep it.

  Raises:
    InputError: if a file is not a still image of 8 bits a value, or sizes differ and `look` has no side; names it.
  """
  with futures.ThreadPoolExecutor() as pool:
    headers = list(pool.map(_header, files))
    mode = _mode(headers, look)
    width, height = _size(files, headers, look)

    _check_memory(files, width * height * len(mode))

    def read_part(rows: range) -> dict[str, np.ndarray]:
      images = np.empty((len(rows), height, width, len(mode)), np.uint8)
      part = slice(rows.start, rows.stop)
      pixels = functools.partial(_pixels, mode=mode, size=(width, height), look=look)
      for place, found in enumerate(pool.map(pixels, files[part], headers[part])):
        images[place] = found
      return {"image": images}

    return parallel.read_in_parts(len(files), read_part)["image"]


def to_shape(images: np.ndarray, height: int, width: int, look: Look) -> np.ndarray:
  """Pads or crops images to the shape of `height` x `width`, without a change of scale; "stretch" leaves them.

  Args:
    images: uint8, or floats in [0, 1], `[N, H, W, C]`.
    height: height that the images are resized to later.
    width: the same for the width.
    look: says how.
  """
  high, wide, channels = images.shape[1:]
  if look.fit == "stretch" or high * width == wide * height:
    return images
  choose = max if look.fit == "pad" else min
  new_high = choose(high, max(1, round(wide * height / width)))
  new_wide = choose(wide, max(1, round(high * width / height)))
  _log.info("images of %dx%d pixels are made %dx%d: %s", wide, high, new_wide, new_high, _in_words(look))
  top, left = abs(new_high - high) // 2, abs(new_wide - wide) // 2
  if look.fit == "crop":
    return images[:, top : top + new_high, left : left + new_wide]
  colour = np.asarray(Image.new("L" if channels == 1 else "RGB", (1, 1), look.background)).reshape(channels)
  canvas = np.empty((len(images), new_high, new_wide, channels), images.dtype)
  canvas[:] = colour if images.dtype == np.uint8 else colour / 255
  canvas[:, top : top + high, left : left + wide] = images
  return canvas


def _header(file: epath.Path) -> _Header:
  """Reads what decides how an image is shown; its pixels are decoded only where this may stand after them."""
  try:
    with file.open("rb") as stream:
      is_png = stream.read(len(_PNG_START)) == _PNG_START
      tagged = not is_png or any(map(stream.read().__contains__, _LATE_TAGS))
      stream.seek(0)
      with Image.open(stream) as image:
        frames = 1 if image.format in _STILL_FORMATS else getattr(image, "n_frames", 1)
        transparent, mode, size = image.has_transparency_data, image.mode, image.size
        orientation = _orientation(image) if tagged else 1
  except PILLOW_ERRORS as error:
    reason = "its format is not known" if isinstance(error, UnidentifiedImageError) else error
    raise errors.InputError(f"{file}: not an image that can be read ({reason}); replace or remove it") from error
  if frames > 1:
    raise errors.InputError(f"{file}: an animation of {frames} frames; save those that you want as single images")
  if max(size) > _MOST_SIDE:
    raise errors.InputError(f"{file}: {size[0]}x{size[1]} pixels; sides go to {_MOST_SIDE} here, make it smaller")
  if mode[:1] in "IF":
    raise errors.InputError(f"{file}: more than 8 bits a value ({mode}); convert it to 8 bits")
  return _Header(mode, size[::-1] if orientation in _SIDEWAYS else size, orientation, transparent)


def _orientation(image: Image.Image) -> int:
  """Returns the EXIF orientation, 1 to 8; 1 without EXIF data, or if they are broken."""
  try:
    return int(image.getexif().get(ExifTags.Base.Orientation, 1))
  except Exception:  # Pillow raises nearly anything for broken EXIF data; viewers ignore them
    return 1


def _mode(headers: Sequence[_Header], look: Look) -> str:
  """Returns Pillow's mode of all images: "L" if all are grey, and the background if it is seen, else "RGB"."""
  grey = all(header.mode in _GREY_MODES for header in headers)
  behind = any(header.transparent for header in headers) and len(set(ImageColor.getrgb(look.background))) > 1
  return "L" if grey and not behind else "RGB"


def _size(files: Sequence[epath.Path], headers: Sequence[_Header], look: Look) -> tuple[int, int]:
  """Returns width and height of all images, and logs how many change their shape."""
  sizes = {header.size: file for file, header in zip(files, headers, strict=True)}
  if len(sizes) == 1:
    return headers[0].size
  if not look.side:
    (first, first_file), (second, second_file) = list(sizes.items())[:2]
    raise errors.InputError(
      f"{first_file} is {first[0]}x{first[1]} and {second_file} is {second[0]}x{second[1]}; make all images one "
      "size, or set --config.data.image_size"
    )
  if changed := sum(width != height for width, height in (header.size for header in headers)):
    side, words = look.side, _in_words(look)
    _log.info("%d of %d images are not square and are made %dx%d: %s", changed, len(files), side, side, words)
  return look.side, look.side


def _check_memory(files: Sequence[epath.Path], size: int) -> None:
  """Raises an InputError if all images, of `size` bytes each, do not fit the free memory: Linux would kill the run."""
  needed, free = len(files) * size, memory.available_memory()
  if free is not None and needed > free:
    raise errors.InputError(
      f"{files[0].parent}: with the others {len(files)} images, which take {needed:,} bytes, and {free:,} are free; "
      "make the images smaller, or leave some out"
    )


def _pixels(file: epath.Path, header: _Header, mode: str, size: tuple[int, int], look: Look) -> np.ndarray:
  """Reads an image as it is shown, in a mode and a size, uint8 `[H, W, C]`."""
  try:
    with file.open("rb") as stream, Image.open(stream) as image:
      shown = image
      if header.transparent:
        shown = Image.alpha_composite(Image.new("RGBA", image.size, look.background), image.convert("RGBA"))
      shown = shown.convert(mode)
      if header.orientation in _UPRIGHT:
        shown = shown.transpose(_UPRIGHT[header.orientation])
      return np.asarray(_fitted(shown, size, look)).reshape(size[1], size[0], len(mode))
  except PILLOW_ERRORS as error:
    raise errors.InputError(f"{file}: broken ({error}); replace or remove it") from error


def _fitted(image: Image.Image, size: tuple[int, int], look: Look) -> Image.Image:
  """Resizes an image to width and height; pads or crops it first if it has another shape."""
  if image.size == size:
    return image
  resized = functools.partial(image.resize, resample=Image.Resampling.BILINEAR)
  if look.fit == "stretch":
    return resized(size)
  scales = [new / old for new, old in zip(size, image.size, strict=True)]
  if look.fit == "crop":
    kept = [min(old, new / max(scales)) for new, old in zip(size, image.size, strict=True)]
    left, top = ((old - part) / 2 for old, part in zip(image.size, kept, strict=True))
    return resized(size, box=(left, top, min(left + kept[0], image.width), min(top + kept[1], image.height)))
  inner = tuple(min(new, max(1, round(old * min(scales)))) for new, old in zip(size, image.size, strict=True))
  canvas = Image.new(image.mode, size, look.background)
  canvas.paste(resized(inner), ((size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2))
  return canvas


def _in_words(look: Look) -> str:
  words = {"pad": f"padded with {look.background}", "crop": "cropped to the middle", "stretch": "stretched"}
  return f"{words[look.fit]} (config.data.fit={look.fit})"
