"""Damaged copies of a file's content."""

import numpy as np


def truncations(content):
  """Returns twenty beginnings of the content, the empty one among them."""
  return [content[: int(share * len(content))] for share in np.linspace(0, 1, 20, endpoint=False)]


def flips(content, random, count):
  """Yields copies of the content with one bit flipped."""
  for _ in range(count):
    flipped = bytearray(content)
    flipped[random.integers(len(content))] ^= 1 << random.integers(8)
    yield bytes(flipped)
