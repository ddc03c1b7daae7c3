"""Every operation against Pillow, and all of RandAugment against the images that torchvision made."""

import functools
import itertools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from lcgen.classifiers import operations as ops
from lcgen.classifiers import transforms
from tests.support.images import photographs

HEIGHT, WIDTH = 20, 26
ROOM = 32  # operations are tested in batches of one size, which compile once

ENHANCERS = {
  "color": ImageEnhance.Color,
  "contrast": ImageEnhance.Contrast,
  "brightness": ImageEnhance.Brightness,
  "sharpness": ImageEnhance.Sharpness,
}
TABLES = {
  "autocontrast": lambda image, _: ImageOps.autocontrast(image),
  "equalize": lambda image, _: ImageOps.equalize(image),
  "posterize": ImageOps.posterize,
  "solarize": ImageOps.solarize,
}
MATRICES = {
  "shear_x": lambda strength: (1, strength, 0, 0, 1, 0),
  "shear_y": lambda strength: (1, 0, 0, strength, 1, 0),
  "translate_x": lambda strength: (1, 0, strength, 0, 1, 0),
  "translate_y": lambda strength: (1, 0, 0, 0, 1, strength),
}
MOVES = dict.fromkeys(("shear_x", "shear_y"), (-0.3, 0.12, 0.3)) | {"rotate": (-30.0, 9.0, 45.0)}
MOVES |= dict.fromkeys(("translate_x", "translate_y"), (-8.0, 3.0, 1.0))
MOVED = [(name, strength) for name, some in MOVES.items() for strength in some]


def picture(levels):
  return Image.fromarray(levels[..., 0] if levels.shape[-1] == 1 else levels)


def apply(levels, cases):
  """Applies the operations to levels, with a `(name, strength)` for each image."""
  spare = ROOM - len(cases)
  names, strengths = zip(*cases, *[("identity", 0)] * spare, strict=True)
  operations = jnp.array([ops.OPERATIONS.index(name) for name in names])
  padded = jnp.pad(jnp.asarray(levels, jnp.float32), ((0, spare), (0, 0), (0, 0), (0, 0)))
  return np.asarray(_apply(padded, operations, jnp.array(strengths, jnp.float32)))[: len(cases)]


@jax.jit
def _apply(levels, operations, strengths):
  moved = ops.move_bilinear(levels, ops.sources(levels, operations, strengths))
  return ops.retouch(moved, operations, strengths)


def moved_by_pillow(levels, name, strength, resampling):
  image = picture(levels)
  if name == "rotate":
    return np.asarray(image.rotate(strength, resampling)).reshape(levels.shape)
  moved = image.transform(image.size, Image.Transform.AFFINE, MATRICES[name](strength), resampling)
  return np.asarray(moved).reshape(levels.shape)


@pytest.mark.parametrize("channels", [1, 3])
def test_tables_are_pillows(channels):
  bits, thresholds = range(1, 9), (0, 1, 100, 178.5, 180, 255, 256)
  cases = [("posterize", some) for some in bits] + [("solarize", threshold) for threshold in thresholds]
  cases += [(name, 0) for name in ("autocontrast", "equalize") for _ in range(8)]
  levels = photographs(len(cases), channels)
  for last in (-1, -9):
    levels[last] = 77
    levels[last - 1] = np.where(levels[last - 1] > 120, 200, 30)
    levels[last - 2] = levels[last - 2] // 64 * 20 + 90
    levels[last - 3, 4:] = 250  # fewer than 255 pixels below the brightest level, which Pillow does not equalise
    levels[last - 4, 0, :10] = 250  # 510 pixels, just enough for a step of 2
  for ours, before, (name, strength) in zip(apply(levels, cases), levels, cases, strict=True):
    expected = np.asarray(TABLES[name](picture(before), strength)).reshape(before.shape)
    if name == "autocontrast":  # where quotients are whole, Pillow's product and sum in float64 may come out one lower
      low, high = (of(before.astype(int), axis=(0, 1)) for of in (np.min, np.max))
      quotient = np.where(high > low, (before.astype(int) - low) * 255 // np.maximum(high - low, 1), before)
      assert np.isin(quotient - expected, (0, 1)).all()
      expected = quotient
    np.testing.assert_array_equal(ours, expected, err_msg=f"{name} {strength}")


@pytest.mark.parametrize("channels", [1, 3])
def test_enhancers_are_pillows(channels):
  """To the level, but where a product comes out whole: there the order of float32 operations decides."""
  exact = (0.0, 0.5493, 1.0, 1.4517)
  cases = list(itertools.product(ENHANCERS, (*exact, 0.1, 1.9)))
  levels = photographs(len(cases), channels)
  for ours, before, (name, factor) in zip(apply(levels, cases), levels, cases, strict=True):
    expected = np.asarray(ENHANCERS[name](picture(before)).enhance(factor)).reshape(before.shape)
    assert np.abs(ours - expected).max() <= (0 if factor in exact else 1), (name, factor)


@pytest.mark.parametrize("channels", [1, 3])
def test_bilinear_pixels_are_pillows_up_to_the_border(channels):
  levels = photographs(len(MOVED), channels)
  ours = apply(levels, MOVED)
  expected = np.stack(
    [moved_by_pillow(*one, Image.Resampling.BILINEAR) for one in zip(levels, *zip(*MOVED, strict=True), strict=True)]
  )
  assert (expected == 0).mean() > 0.05  # black comes in
  assert np.abs(ours - expected).max() <= 1
  assert (ours != expected).mean() < 0.01  # whole products, which these round strengths make common
  whole = [name.startswith("translate") for name, _ in MOVED]
  np.testing.assert_array_equal(ours[whole], expected[whole])


def test_nearest_pixels_are_pillows():
  levels = photographs(len(MOVED), 3)
  operations = np.array([ops.OPERATIONS.index(name) for name, _ in MOVED])
  strengths = np.array([strength for _, strength in MOVED], np.float64)
  fixed = ops.fixed_point(ops.sources(levels, operations, strengths, np))
  ours = jax.jit(ops.move_nearest)(jnp.asarray(levels, jnp.float32), fixed)
  for found, before, case in zip(np.asarray(ours), levels, MOVED, strict=True):
    expected = moved_by_pillow(before, *case, Image.Resampling.NEAREST)
    np.testing.assert_array_equal(found, expected, err_msg=str(case))


@pytest.mark.parametrize("channels", [1, 3])
def test_operations_without_strength_change_nothing(channels):
  cases = [("identity", 0.7), *((name, 0.0) for name in ops.GEOMETRY), ("posterize", 8), ("solarize", 256)]
  cases += [(name, 1.0) for name in ops.BLENDS]
  if channels == 1:
    cases += [("color", 0.3), ("color", 1.9)]
  levels = photographs(len(cases), channels)
  np.testing.assert_array_equal(apply(levels, cases), levels)


@pytest.mark.parametrize("magnitude", [9, 10, 30])
@pytest.mark.parametrize("kind", ["rgb", "grey"])
def test_randaugment_makes_torchvisions_images_and_no_others(kind, magnitude):
  """All images of one operation, made by `tests/support/make_randaugment.py`; a few values are off by a level."""
  made = np.load(pathlib.Path(__file__).parent / "randaugment.npz")
  levels, expected = made[kind], made[f"{kind}_{magnitude}"].astype(int)
  augment = jax.jit(functools.partial(transforms.randaugment, operations=1, magnitude=magnitude))
  unit = jnp.tile(jnp.asarray(levels[None] / 255, jnp.float32), (300, 1, 1, 1))
  ours = np.round(np.unique(np.asarray(augment(jax.random.key(0), unit)), axis=0) * 255.0).astype(int)
  differences = np.abs(ours[:, None] - expected[None])  # [ours, theirs, H, W, C]
  off = differences.max(axis=(2, 3, 4))
  assert off.min(axis=1).max() <= 1
  assert off.min(axis=0).max() <= 1
  nearest = differences[off.argmin(axis=0), np.arange(len(expected))]
  assert (nearest > 0).mean() < 0.01
