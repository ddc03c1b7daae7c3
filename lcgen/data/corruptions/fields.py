"""Random fields: uniform, normal and Poisson noise, plasma clouds, frost.

Random bits and the inverse normal distribution dominate the time of a corruption that draws a number for every pixel.
Here two numbers share 32 bits.
"""

import functools
import math
import statistics

import jax
import jax.numpy as jnp
import numpy as np


def uniform(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
  """Draws uniformly from the centres of 65,536 equal parts of (0, 1)."""
  first, second = _uniform_halves(key, math.prod(shape))
  return jnp.concatenate([first, second]).reshape(shape)


def _uniform_halves(key: jax.Array, count: int) -> tuple[jax.Array, jax.Array]:
  """Draws the numbers of `uniform` in two parts; the second may be one shorter.

  XLA vectorises work on the parts. After their concatenation it often does not, and runs at a third of the speed.
  """
  # Without the barrier XLA fuses the generator into its two users and runs it twice.
  bits = jax.lax.optimization_barrier(jax.random.bits(key, ((count + 1) // 2,)))
  unit = lambda half: (half.astype(jnp.float32) + 0.5) / 65536
  return unit(bits >> 16), unit(bits & 0xFFFF)[: count // 2]


def normal(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
  """Draws standard normal numbers from 16 random bits each; none exceeds ±4.3, enough for 8-bit images."""
  return normal_quantile(uniform(key, shape))


def normal_quantile(probability: jax.Array) -> jax.Array:
  """Computes the quantiles of the standard normal distribution, within 2e-4 for probabilities from `uniform`.

  It has no branches, unlike `jax.scipy.special.ndtri`. XLA can therefore vectorise it and all that is fused with it.
  """
  root = jnp.sqrt(1 - jnp.log(4 * probability * (1 - probability)))
  ratio = 0.0
  for coefficient in _quantile_coefficients():
    ratio = ratio * root + coefficient
  return (2 * probability - 1) * ratio


@functools.cache
def _quantile_coefficients() -> tuple[np.float32, ...]:
  """Fits a polynomial in `root` to quantile / (2 x probability - 1); returns coefficients, highest power first."""
  half = np.linspace(1e-6, np.sqrt(-np.log(2.0**-17)), 1000)
  probability = np.exp(-(half**2)) / 2
  root = np.sqrt(1 - np.log(4 * probability * (1 - probability)))
  ratio = np.vectorize(statistics.NormalDist().inv_cdf)(probability) / (2 * probability - 1)
  fit = np.polynomial.Chebyshev.fit(root, ratio, 8).convert(kind=np.polynomial.Polynomial)
  return tuple(fit.coef[::-1].astype(np.float32))


_FEW = 4.0  # up to this mean, `poisson` compares with the exact series
_MOST = 16  # the largest count that 16 bits can draw at that mean


def poisson(key: jax.Array, mean: jax.Array) -> jax.Array:
  """Draws Poisson counts by inverting their distribution; far faster than `jax.random.poisson`.

  Up to a mean of 4 the inverse is exact except for the 16 random bits. Above, it is the Cornish-Fisher expansion in
  powers of mean^-1/2, to the fourth term. Probabilities are then within 5e-4 of the exact ones.
  """
  drawn = _uniform_halves(key, mean.size)
  parts = jnp.split(mean.reshape(-1), [len(drawn[0])])
  return jnp.concatenate([_poisson_quantile(*pair) for pair in zip(drawn, parts, strict=True)]).reshape(mean.shape)


def _poisson_quantile(drawn: jax.Array, mean: jax.Array) -> jax.Array:
  few = jnp.minimum(mean, _FEW)
  scaled = drawn * jnp.exp(few)  # compared with the exponential series of `few`, instead of with probabilities
  term = series = jnp.ones_like(mean)
  count = jnp.zeros_like(mean)
  for number in range(1, _MOST + 1):
    count += (scaled > series).astype(mean.dtype)
    term = term * (few * np.float32(1 / number))
    series += term
  z, large = normal_quantile(drawn), jnp.maximum(mean, _FEW)
  root = jnp.sqrt(large)
  many = large + root * z + (z**2 - 1) / 6 - (2 * z + z**3) / (72 * root)
  many += (z**4 / 270 + 7 * z**2 / 810 - 8 / 405) / large
  return jnp.where(mean <= _FEW, count, jnp.maximum(jnp.round(many), 0))


def photons(key: jax.Array, images: jax.Array, white: jax.Array | float) -> jax.Array:
  """Draws Poisson(value x white) / white, clipped to [0, 1]; `white` is the mean number of photons in white."""
  return jnp.clip(poisson(key, images * white) / white, 0, 1)


def salt_and_pepper(key: jax.Array, images: jax.Array, share: jax.Array | float) -> jax.Array:
  """Sets this share of the values to 0 or 1 with equal probability."""
  drawn = uniform(key, images.shape)
  return jnp.where(drawn < share / 2, 0.0, jnp.where(drawn < share, 1.0, images))


def plasma(key: jax.Array, batch: int, size: int, decay: jax.Array | float) -> jax.Array:
  """Draws clouds by the diamond-square algorithm on a torus: `[batch, size, size]`, each spanning exactly [0, 1].

  Args:
    key: Random key.
    batch: Number of images.
    size: A power of two.
    decay: The amplitude is divided by its square each time the grid spacing is halved.
  """
  grid = jnp.zeros((batch, 1, 1))
  grid = _refine(key, grid, 1.0, decay, int(math.log2(size)))
  return _stretch(grid, grid)


def plasma_corner(key: jax.Array, batch: int, size: int, decay: jax.Array | float, refinements: int = 2) -> jax.Array:
  """Draws a corner `[batch, size, size]` of clouds on a torus of `64 x 2^refinements` pixels a side.

  Only the corner is refined. The range is that of the whole map before the refinements, which add little amplitude.
  """
  coarse_key, fine_key = jax.random.split(key)
  scale, margin, steps = 2**refinements, 2, 6
  grid = _refine(coarse_key, jnp.zeros((batch, 1, 1)), 1.0, decay, steps)
  window = math.ceil(size / scale) + 2 * margin
  part = jnp.roll(grid, margin, axis=(1, 2))[:, :window, :window]
  fine = _refine(fine_key, part, decay ** (-2 * steps), decay, refinements)
  start = margin * scale  # the window is no torus, but its false wrap reaches less far than this margin
  return jnp.clip(_stretch(fine, grid)[:, start : start + size, start : start + size], 0, 1)


def _refine(key: jax.Array, grid: jax.Array, amplitude: float, decay: jax.Array | float, steps: int) -> jax.Array:
  """Halves the spacing of a grid `[B, N, N]` on a torus `steps` times, with less and less noise."""
  batch, size, _ = grid.shape
  counts = [3 * (size * 2**step) ** 2 for step in range(steps)]
  noise = 2 * uniform(key, (batch, sum(counts))) - 1  # one draw, so that one generator is compiled instead of many
  for step, start in enumerate(np.cumsum([0, *counts[:-1]])):
    part = noise[:, start : start + counts[step]].reshape(batch, 3, size * 2**step, size * 2**step)
    grid = _halve_spacing(grid, amplitude * part)
    amplitude = amplitude / decay**2
  return grid


def _halve_spacing(corners: jax.Array, noise: jax.Array) -> jax.Array:
  """Refines `[B, N, N]` to `[B, 2N, 2N]`: first square centres, then edge centres, as the mean of four plus noise."""
  after = lambda grid, axis: jnp.roll(grid, -1, axis)
  before = lambda grid, axis: jnp.roll(grid, 1, axis)
  pairs = corners + after(corners, 1)
  middles = (pairs + after(pairs, 2)) / 4 + noise[:, 0]
  tops = (corners + after(corners, 2) + middles + before(middles, 1)) / 4 + noise[:, 1]
  sides = (corners + after(corners, 1) + middles + before(middles, 2)) / 4 + noise[:, 2]
  batch, size, _ = corners.shape
  upper, lower = jnp.stack([corners, tops], axis=-1), jnp.stack([sides, middles], axis=-1)
  return jnp.stack([upper, lower], axis=2).reshape(batch, 2 * size, 2 * size)


def _stretch(grid: jax.Array, reference: jax.Array) -> jax.Array:
  """Rescales the grid so that the extremes of the reference become 0 and 1."""
  low, high = (extreme(axis=(1, 2), keepdims=True) for extreme in (reference.min, reference.max))
  return (grid - low) / (high - low)


def frost(key: jax.Array, batch: int, height: int, width: int) -> jax.Array:
  """Draws ice in place of photographs of frost: `[batch, height, width, 3]` in [0, 1].

  The ice is pale blue of random brightness. Its branching creases run along the lines at which one of two clouds
  crosses its mean. Mean and spread, within and between images, are those of the five photographs of CIFAR-10-C.
  """
  first, second = jax.random.split(key)
  size = power_of_two(max(height, width))
  clouds = plasma(first, 2 * batch, size, 1.3)[:, :height, :width].reshape(2, batch, height, width)
  creases = -jnp.abs(clouds - clouds.mean(axis=(2, 3), keepdims=True)).min(axis=0)
  creases = creases - creases.mean(axis=(1, 2), keepdims=True)
  creases = creases / jnp.sqrt(jnp.square(creases).mean(axis=(1, 2), keepdims=True) + 1e-6)
  brightness = 0.63 + 0.14 * jnp.clip(normal(second, (batch, 1, 1)), -2, 2)
  grey = brightness + 0.09 * creases
  tint = jnp.array([-0.07, 0.01, 0.06]).reshape(1, 1, 1, 3)
  return jnp.clip(grey[..., None] + tint, 0, 1)


def power_of_two(size: int) -> int:
  """Computes the smallest power of two that is at least `size`."""
  return 2 ** math.ceil(math.log2(size))
