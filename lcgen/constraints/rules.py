"""Built-in rules: plain functions of decoded images, which can be learnt as constraints on latents.

A rule takes decoded images in [0, 1], NumPy float32 `[N, H, W, C]`, and returns `[N]`: verdicts (bool) or scores (a
real number each). It judges every image on its own and need not be differentiable. It runs on the host, on a few
thousand images at a time. Any such function in any module is a rule; here are some for digits and some for colours.

The rules for digits expect bright strokes on black. They average colour images over the channels. The rules for colours
need the three channels red, green, blue. All results are finite for images in [0, 1].
"""

import numpy as np
from scipy import ndimage

from lcgen.runtime import errors

HOLE_LEVELS = (0.25, 0.5)  # of the image's maximum
HOLE_PIXELS = 3  # fewer are noise


def ink(images: np.ndarray) -> np.ndarray:
  """Computes the mean brightness over pixels and channels, 0 (black) to 1 (white)."""
  return images.mean(axis=(1, 2, 3), dtype=np.float64)


def stroke_width(images: np.ndarray) -> np.ndarray:
  """Computes the mean width of the strokes in pixels: that of the straight bar with the ink's area and perimeter.

  Both are averages over the thresholds from 1/4 to 3/4 of the image's maximum, so soft edges count in part. The
  perimeter is the total variation, by the coarea formula. Outside the image all is black. A bar l long and w wide has
  area l w and perimeter 2 (l + w), which is solved for w. A blob more compact than any bar has the width of the square
  of its area. A closed ring, without ends, comes out about w^2 / circumference too wide. A line thinner than 1.5 comes
  out as 1 to 1.8.

  Returns:
    `[N]`; 0 for an image all black.
  """
  grey = _grey(images)
  part = grey / np.maximum(grey.max(axis=(1, 2), keepdims=True), np.finfo(np.float32).tiny)
  part = np.pad(np.clip(2 * part - 0.5, 0, 1), ((0, 0), (1, 1), (1, 1)))
  # Differences along the diagonals of each 2 x 2 block see single lines, and measure edges at 45 degrees exactly.
  falling = part[:, 1:, 1:] - part[:, :-1, :-1]
  rising = part[:, :-1, 1:] - part[:, 1:, :-1]
  perimeter = np.sqrt((np.square(falling) + np.square(rising)) / 2).sum(axis=(1, 2), dtype=np.float64)
  area = part.sum(axis=(1, 2), dtype=np.float64)
  half = perimeter / 4  # (l + w) / 2
  return np.where(half**2 > area, half - np.sqrt(np.maximum(half**2 - area, 0)), np.sqrt(area))


def slant(images: np.ndarray) -> np.ndarray:
  """Computes the shear of the strokes in degrees, -90 to 90: positive if they lean right, like italics.

  It is the angle with tangent -mu11 / mu02, central moments of the brightness (rows count downwards), as in the usual
  deskewing of digits. Pixels are squares rather than points, so that a single row of them does not lean. It is 0 for an
  image all black.
  """
  grey = _grey(images)
  rows, columns = (np.arange(size, dtype=np.float64) for size in grey.shape[1:])
  mass = grey.sum(axis=2, dtype=np.float64)
  total = mass.sum(axis=1, keepdims=True)
  above = (mass * rows).sum(axis=1, keepdims=True) / np.where(total > 0, total, 1) - rows
  minus_mu11 = (above * (grey * (columns - columns.mean())).sum(axis=2)).sum(axis=1)
  mu02 = ((np.square(above) + 1 / 12) * mass).sum(axis=1)
  return np.rad2deg(np.arctan2(minus_mu11, mu02))


def symmetry(images: np.ndarray) -> np.ndarray:
  """Computes the left-right symmetry: the share of the brightness that coincides with its mirror image, 0 to 1.

  It is 1 - sum |x - mirrored| / sum (x + mirrored). The axis is the column of the centre of mass, to half a pixel, so
  that the position in the frame does not count. Outside the image all is black. An image all black has symmetry 1.
  """
  grey = _grey(images)
  width = grey.shape[2]
  mass = grey.sum(axis=1, dtype=np.float64)
  total = mass.sum(axis=1)
  safe = np.where(total > 0, total, 1)
  twice_axis = np.rint(2 * (mass * np.arange(width)).sum(axis=1) / safe).astype(np.int64)
  sources = twice_axis[:, None] - np.arange(width)
  inside = (sources >= 0) & (sources < width)
  mirrored = np.take_along_axis(grey, np.where(inside, sources, 0)[:, None, :], axis=2) * inside[:, None, :]
  common = np.minimum(grey, mirrored).sum(axis=(1, 2), dtype=np.float64)
  return np.where(total > 0, np.minimum(common / safe, 1), 1)  # rounding can leave a little more than 1


def holes(images: np.ndarray) -> np.ndarray:
  """Counts the holes that the strokes enclose: 1 in a 0, 2 in an 8, none in a 1.

  A hole is a 4-connected part of the background, of at least 3 pixels, that is not connected to the border. Strokes
  that meet at corners close it. The result is the larger count of two levels, 1/4 and 1/2 of the image's maximum. The
  lower level bridges faint gaps; the higher one opens small loops that blur has filled.

  Returns:
    `[N]`, int64; 0 for an image all black or all white.
  """
  grey = _grey(images)
  peak = grey.max(axis=(1, 2), keepdims=True)
  return np.max([_enclosed(grey > level * peak) for level in HOLE_LEVELS], axis=0)


def _enclosed(strokes: np.ndarray) -> np.ndarray:
  """Counts the holes of at least `HOLE_PIXELS` in bool images; `[N, H, W]` -> `[N]`."""
  count = len(strokes)
  background = ~np.pad(strokes, ((0, 0), (1, 1), (1, 1)))
  within_an_image = ndimage.generate_binary_structure(3, 1)
  within_an_image[[0, 2]] = False
  labels, parts = ndimage.label(background, within_an_image)
  owner = np.empty(parts + 1, np.int64)
  owner[labels] = np.arange(count)[:, None, None]
  sizes = np.bincount(labels.ravel(), minlength=parts + 1)
  large = sizes[1:] >= HOLE_PIXELS  # label 0 is the strokes
  return np.bincount(owner[1:][large], minlength=count) - 1  # the padding makes the outside one part


def dominant_hue(images: np.ndarray) -> np.ndarray:
  """Computes the hue of the mean colour in degrees, [0, 360): red 0, green 120, blue 240; 0 if all is grey or black.

  It is the angle of (R - (G + B) / 2, sqrt(3) / 2 (G - B)), summed over the pixels. This is their circular mean hue,
  weighted by chroma. Opposite hues cancel, and brightness does not count.
  """
  return _hue_and_chroma(_mean_colour(images, "dominant_hue"))[0]


def red(images: np.ndarray) -> np.ndarray:
  """Tells whether the dominant hue is within 60 degrees of 0, in [300, 60), and the image not grey."""
  return _has_hue(images, 0, "red")


def green(images: np.ndarray) -> np.ndarray:
  """Tells whether the dominant hue is within 60 degrees of 120, in [60, 180), and the image not grey."""
  return _has_hue(images, 1, "green")


def blue(images: np.ndarray) -> np.ndarray:
  """Tells whether the dominant hue is within 60 degrees of 240, in [180, 300), and the image not grey."""
  return _has_hue(images, 2, "blue")


def colourfulness(images: np.ndarray) -> np.ndarray:
  """Computes the metric M3 of Hasler & Süsstrunk 2003 on values in [0, 1]; theirs, on 0 to 255, is 255 times as large.

  It is the spread plus 0.3 x the mean of the opponent colours R - G and (R + G) / 2 - B. Each is the root of the sum of
  squares over both. It is 0 for an image all grey or black. "Extremely colourful" begins at 109 / 255 = 0.43.
  """
  red, green, blue = np.moveaxis(_colours(images, "colourfulness"), -1, 0)
  opponents = np.stack([red - green, (red + green) / 2 - blue])
  spread = np.sqrt(opponents.var(axis=(2, 3), dtype=np.float64).sum(axis=0))
  return spread + 0.3 * np.sqrt(np.square(opponents.mean(axis=(2, 3), dtype=np.float64)).sum(axis=0))


def _has_hue(images: np.ndarray, third: int, rule: str) -> np.ndarray:
  """Tells whether the dominant hue is in this third of the circle, 0 (around red) to 2, and the image not grey."""
  colour = _mean_colour(images, rule)
  hue, chroma = _hue_and_chroma(colour)
  # Relative to the brightness, so that thin strokes on black count as well; the floor excludes images that look black.
  coloured = chroma > 0.1 * np.maximum(colour.max(axis=-1), 0.1)
  return coloured & ((hue + 60) // 120 % 3 == third)


def _hue_and_chroma(colour: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Computes hue in degrees, [0, 360), and distance from grey, 1 for pure red, of colours `[N, 3]`."""
  red, green, blue = colour.T
  first, second = red - (green + blue) / 2, np.sqrt(0.75) * (green - blue)
  hue = np.rad2deg(np.arctan2(second, first)) % 360 % 360  # the first % gives 360 for angles just below 0
  return hue, np.hypot(first, second)


def _mean_colour(images: np.ndarray, rule: str) -> np.ndarray:
  return _colours(images, rule).mean(axis=(1, 2), dtype=np.float64)


def _colours(images: np.ndarray, rule: str) -> np.ndarray:
  if images.shape[-1] != 3:
    raise errors.InputError(
      f"rules.{rule}: needs images with 3 channels (red, green, blue), these have {images.shape[-1]}; "
      "use it with a data set in colour, or choose a rule for grey images such as `ink`"
    )
  return images


def _grey(images: np.ndarray) -> np.ndarray:
  """Computes the mean over the channels, `[N, H, W, C]` -> `[N, H, W]`."""
  return images[..., 0] if images.shape[-1] == 1 else images.mean(axis=-1)
