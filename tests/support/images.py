"""Folders of small images, as users have them, and images like photographs."""

import numpy as np
from PIL import Image


def save(path, pixels):
  """Writes an image file, and its folder."""
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.fromarray(np.asarray(pixels, np.uint8)).save(path)


def write_folder(root, parts=("train", "test"), shape=(10, 12), count=6):
  """Writes `count` images a class, cat dark and dog bright, in every part; returns the folder."""
  rng = np.random.default_rng(0)
  for part in parts:
    for base, name in ((0, "cat"), (128, "dog")):
      for number in range(count):
        save(root / part / name / f"{number}.png", base + rng.integers(0, 100, shape))
  return root


def photographs(count, channels, height=20, width=26):
  """Draws smooth parts, noise, and not all levels: bytes `[count, height, width, channels]`."""
  y, x = np.mgrid[:height, :width, :1][:2] / 10
  rng = np.random.default_rng(count)
  phase, slope = rng.uniform(0, 6, (2, count * channels))
  waves = 120 + 70 * np.sin(x * slope / 3 + y + phase)
  levels = np.clip(waves + rng.normal(0, 12, waves.shape), 7, 243).astype(np.uint8)
  return levels.reshape(height, width, count, channels).transpose(2, 0, 1, 3)
