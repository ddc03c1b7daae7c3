"""Corruptions made on the device: shifted test sets of any data set.

Every corruption is a pure function `(key, images, severity) -> images` of unit images `[B, H, W, C]` (float32 in
[0, 1], at least 8 pixels a side, C in {1, 3}); it can be jitted and mapped over, and the severity, which counts from 1,
may be traced. What the originals draw at random is drawn for each image.

`CIFAR10_C` holds the 19 corruptions of CIFAR-10-C (Hendrycks and Dietterich 2019) in five severities, `MNIST_C` the 15
of MNIST-C (Mu and Gilmer 2019, arXiv:1906.02337) in their one severity, all with the published parameters and names.

The sets are generated here, they are not the published files: compare them with each other, not with published
numbers. Where a corruption is only an equivalent of the published one, its docstring says how it differs.
"""

from lcgen.data.corruptions import cifar10_c, mnist_c
from lcgen.data.corruptions.cifar10_c import Corruption

CIFAR10_C: dict[str, Corruption] = {function.__name__: function for function in cifar10_c.ALL}
MNIST_C: dict[str, Corruption] = {function.__name__: function for function in mnist_c.ALL}

SEVERITIES = (1, 2, 3, 4, 5)  # of CIFAR10_C; MNIST_C knows 1 only
GROUPS: dict[str, tuple[str, ...]] = {
  "noise": ("gaussian_noise", "shot_noise", "impulse_noise"),
  "blur": ("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
  "weather": ("snow", "frost", "fog", "brightness"),
  "digital": ("contrast", "elastic_transform", "pixelate", "jpeg_compression"),
  "extra": ("speckle_noise", "gaussian_blur", "spatter", "saturate"),
}
EXTRA = GROUPS["extra"]
BENCHMARK = tuple(name for name in CIFAR10_C if name not in EXTRA)

__all__ = ["BENCHMARK", "CIFAR10_C", "EXTRA", "GROUPS", "MNIST_C", "SEVERITIES", "Corruption"]
