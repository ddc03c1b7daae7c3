"""Folders of small images, as users have them."""

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
