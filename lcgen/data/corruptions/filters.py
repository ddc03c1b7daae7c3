"""Blurs, zooms and warps of small images, in forms that XLA runs fast on a CPU as well.

A separable filter is a product with one matrix per side, which includes the border. A small kernel is a sum of shifted
images. Lines and warps are gathers.
"""

import jax
import jax.numpy as jnp
import numpy as np


def level(table, severity: jax.Array) -> jax.Array:
  """Looks up a severity, counted from 1, in a table `[severities, ...]`."""
  return jnp.asarray(table, jnp.float32)[severity - 1]


def separable(images: jax.Array, rows: jax.Array, columns: jax.Array) -> jax.Array:
  """Applies `rows` `[Y, H]` and `columns` `[X, W]` to the two sides of `[B, H, W, C]`: `[B, Y, X, C]`."""
  return jnp.einsum("yh,bhwc,xw->byxc", rows, images, columns, precision=jax.lax.Precision.HIGHEST)


def sum_of_separable(images: jax.Array, rows: np.ndarray, columns: np.ndarray) -> jax.Array:
  """Sums over k the image `[B, H, W, C]` with `rows[k]` `[H, H]` and `columns[k]` `[W, W]` applied to its sides."""
  batch, height, width, channels = images.shape
  planes = jnp.moveaxis(images, -1, 1).reshape(batch * channels, height, width)
  count = len(rows)
  highest = jax.lax.Precision.HIGHEST
  stretched = jnp.einsum("kyh,phw->pykw", rows, planes, precision=highest).reshape(-1, height, count * width)
  result = jnp.einsum("pyk,kx->pyx", stretched, columns.transpose(0, 2, 1).reshape(-1, width), precision=highest)
  return jnp.moveaxis(result.reshape(batch, channels, height, width), 1, -1)


def gaussian_kernel(sigma: float, truncate: float = 4.0) -> np.ndarray:
  """Gives normal weights of `sigma` pixels, cut off after `truncate` standard deviations (as in SciPy); sum 1."""
  radius = int(truncate * sigma + 0.5)
  weights = np.exp(-0.5 * np.square(np.arange(-radius, radius + 1) / max(sigma, 1e-6)))
  return weights / weights.sum()


def filter_matrix(size: int, kernel: np.ndarray, border: str = "edge") -> np.ndarray:
  """Gives the matrix `[size, size]` that correlates a signal with an odd kernel; `border` is a mode of `np.pad`."""
  pixels = np.arange(size)
  sources = np.pad(pixels, len(kernel) // 2, mode=border)
  matrix = np.zeros((size, size), np.float32)
  for offset, weight in enumerate(kernel):
    matrix[pixels, sources[offset : offset + size]] += weight
  return matrix


def gaussian_matrices(size: int, sigmas, truncate: float = 4.0, border: str = "edge") -> np.ndarray:
  """Gives one `filter_matrix` of Gaussian weights per severity: `[severities, size, size]`."""
  return np.stack([filter_matrix(size, gaussian_kernel(sigma, truncate), border) for sigma in sigmas])


def gaussian(images: jax.Array, sigmas, severity: jax.Array) -> jax.Array:
  """Blurs `[B, H, W, C]` with the Gaussian of this severity (sigma in pixels); the border is repeated."""
  rows, columns = (level(gaussian_matrices(size, sigmas), severity) for size in images.shape[1:3])
  return separable(images, rows, columns)


def shifts(images: jax.Array, radius: int, border: str) -> dict[tuple[int, int], jax.Array]:
  """Gives the neighbours of every pixel: `{(dy, dx): the pixels dy below and dx to the right}`, dy and dx in ±radius.

  Args:
    images: `[B, H, W, C]`.
    radius: Pixels.
    border: A mode of `jnp.pad`.

  Returns:
    Arrays `[B, H, W * C]`. Channels are merged into the columns to make the innermost loops long.
  """
  batch, height, width, channels = images.shape
  sides = ((0, 0), (radius, radius), (radius, radius), (0, 0))
  padded = jnp.pad(images, sides, mode=border).reshape(batch, height + 2 * radius, -1)
  padded = jax.lax.optimization_barrier(padded)  # padding that is fused into its users costs a branch for each read
  offsets = range(-radius, radius + 1)
  return {
    (dy, dx): padded[:, dy + radius :, (dx + radius) * channels :][:, :height, : width * channels]
    for dy in offsets
    for dx in offsets
  }


def correlate(images: jax.Array, kernel: jax.Array, border: str = "reflect") -> jax.Array:
  """Correlates `[B, H, W, C]` with a square kernel of odd size; `border` is a mode of `jnp.pad`."""
  radius = kernel.shape[0] // 2
  parts = shifts(images, radius, border)
  return sum(kernel[dy + radius, dx + radius] * part for (dy, dx), part in parts.items()).reshape(images.shape)


def disk_kernel(radius: float, sigma: float) -> np.ndarray:
  """Gives the disk of this radius (below 2 pixels), smoothed by a 3x3 Gaussian: `[5, 5]`, sum 1."""
  y, x = np.mgrid[-1:2, -1:2]
  disk = (x**2 + y**2 <= radius**2).astype(float)
  smooth = np.exp(-0.5 * np.square(np.arange(-1, 2) / sigma))
  parts = [
    np.roll(np.pad(disk, 1), (dy, dx), (0, 1)) * smooth[dy + 1] * smooth[dx + 1]
    for dy in (-1, 0, 1)
    for dx in (-1, 0, 1)
  ]
  return np.sum(parts, axis=0) / disk.sum() / smooth.sum() ** 2


def motion_blur(images: jax.Array, angles: jax.Array, radius: jax.Array, sigma: jax.Array, taps: int) -> jax.Array:
  """Blurs along a one-sided line: each pixel averages the pixels on the line that starts there.

  The weights are half a Gaussian on 2 x radius + 1 pixels, as in ImageMagick. Positions are rounded to the grid, and
  the border is repeated.

  Args:
    images: `[B, H, W, C]`.
    angles: `[B]`, radians from the x axis towards growing y.
    radius: Pixels.
    sigma: Standard deviation of the Gaussian, pixels.
    taps: Number of pixels of the line that are read. Static; five standard deviations or 2 x radius + 1 are enough.
  """
  batch, height, width, channels = images.shape
  steps = jnp.arange(taps, dtype=jnp.float32)
  weights = jnp.exp(-0.5 * jnp.square(steps / sigma)) * (steps < 2 * radius + 1)
  weights = weights / weights.sum()
  sides = ((0, 0), (taps, taps), (taps, taps), (0, 0))
  padded = jnp.pad(images, sides, mode="edge").reshape(batch, height + 2 * taps, -1)
  padded = jax.lax.optimization_barrier(padded)

  def blur(image, angle):
    rows = jnp.ceil(steps * jnp.sin(angle) - 0.5).astype(jnp.int32) + taps
    columns = (jnp.ceil(steps * jnp.cos(angle) - 0.5).astype(jnp.int32) + taps) * channels
    part = lambda tap: jax.lax.dynamic_slice(image, (rows[tap], columns[tap]), (height, width * channels))
    total = jnp.zeros((height, width * channels))
    for start in range(0, taps, 8):  # XLA materialises the slices of a longer sum before it adds them up
      some = range(start, min(start + 8, taps))
      total = jax.lax.optimization_barrier(total + sum(weights[tap] * part(tap) for tap in some))
    return total

  return jax.vmap(blur)(padded, angles).reshape(images.shape)


def zoom_matrix(size: int, factor: float) -> np.ndarray:
  """Gives the matrix `[size, size]` that enlarges the centre of a signal linearly and crops it to `size`.

  The first and the last pixel of the enlarged part keep their places, as in SciPy's `zoom`.
  """
  part = int(np.ceil(size / factor))
  start, large = (size - part) // 2, round(part * factor)
  places = (np.arange(size) + (large - size) // 2) * (part - 1) / (large - 1)
  hat = 1 - np.abs(places[:, None] - np.arange(part))
  matrix = np.zeros((size, size), np.float32)
  matrix[:, start : start + part] = np.clip(hat, 0, None)
  return matrix


def bilinear(images: jax.Array, rows: jax.Array, columns: jax.Array, border: str) -> jax.Array:
  """Reads each image of `[B, H, W, C]` at real-valued positions by bilinear interpolation: `[B, H, W, C]`.

  Args:
    images: `[B, H, W, C]`.
    rows: `[B, H, W]`, pixels from the top.
    columns: `[B, H, W]`, pixels from the left.
    border: "zero" beyond the image; "reflect", mirrored about the outermost pixels (OpenCV's reflect-101); or
      "symmetric", mirrored about their outer edges (SciPy's reflect).
  """
  if border == "zero":
    images = jnp.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
    rows, columns = rows + 1, columns + 1
  batch, height, width, channels = images.shape
  pixels = images.reshape(batch, height * width, channels)
  top, left = jnp.floor(rows), jnp.floor(columns)
  result = 0.0
  for row, row_weight in ((top, top + 1 - rows), (top + 1, rows - top)):
    for column, column_weight in ((left, left + 1 - columns), (left + 1, columns - left)):
      place = _within(row, height, border) * width + _within(column, width, border)
      part = jnp.take_along_axis(pixels, place.reshape(batch, -1, 1), axis=1, mode="clip")
      result += part * (row_weight * column_weight).reshape(batch, -1, 1)
  return result.reshape(*rows.shape, channels)


def _within(index: jax.Array, size: int, border: str) -> jax.Array:
  """Gives the pixel, 0 to size - 1, that an index stands for, also beyond the image."""
  index = index.astype(jnp.int32)
  if border == "zero":
    return jnp.clip(index, 0, size - 1)
  period = 2 * size - 2 if border == "reflect" else 2 * size
  index = index % period
  return jnp.minimum(index, (period if border == "reflect" else period - 1) - index)


def affine_places(height: int, width: int, matrix: jax.Array, shift: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Computes the positions to which an affine map takes the pixels (x, y).

  Args:
    height: Pixels.
    width: Pixels.
    matrix: `[B, 2, 2]`, acts on (x, y).
    shift: `[B, 2]`, added, (x, y).

  Returns:
    Rows and columns, `[B, height, width]` each.
  """
  y, x = jnp.mgrid[:height, :width].astype(jnp.float32)[:, None]  # [1, H, W] each
  entry = lambda values: values[:, None, None]
  columns = entry(matrix[:, 0, 0]) * x + entry(matrix[:, 0, 1]) * y + entry(shift[:, 0])
  rows = entry(matrix[:, 1, 0]) * x + entry(matrix[:, 1, 1]) * y + entry(shift[:, 1])
  return rows, columns
