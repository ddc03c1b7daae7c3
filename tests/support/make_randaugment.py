"""Makes `tests/classifiers/randaugment.npz`: all images that torchvision's RandAugment of one operation returns.

python tests/support/make_randaugment.py    # in an environment with torchvision 0.28 and Pillow
"""

import pathlib

import numpy as np
import torch
from PIL import Image
from torchvision import transforms

MAGNITUDES = (9, 10, 30)
DRAWS = 400  # of 23 operations with their signs, the rarest of which has a share of 1 in 28


def picture(height: int, width: int, channels: int) -> np.ndarray:
  """Draws smooth parts, noise, and not all levels."""
  y, x = np.mgrid[:height, :width, :1][:2] / 10
  rng = np.random.default_rng(channels)
  phase, slope = rng.uniform(0, 6, (2, channels))
  waves = 120 + 70 * np.sin(x * slope / 3 + y + phase)
  return np.clip(waves + rng.normal(0, 12, waves.shape), 7, 243).astype(np.uint8)


if __name__ == "__main__":
  arrays = {}
  for kind, shape in (("rgb", (20, 26, 3)), ("grey", (17, 14, 1))):
    levels = arrays[kind] = picture(*shape)
    image = Image.fromarray(levels.squeeze())
    for magnitude in MAGNITUDES:
      torch.manual_seed(0)
      augment = transforms.RandAugment(num_ops=1, magnitude=magnitude)
      found = np.stack([np.asarray(augment(image)).reshape(shape) for _ in range(DRAWS)])
      arrays[f"{kind}_{magnitude}"] = np.unique(found, axis=0)
      print(kind, magnitude, len(arrays[f"{kind}_{magnitude}"]))
  np.savez_compressed(pathlib.Path(__file__).parents[1] / "classifiers" / "randaugment.npz", **arrays)
