"""Times every CIFAR-10-C corruption here and in the package `imagecorruptions`, in images per second.

    python -m benchmarks.compare_corruptions --reference PYTHON [--severity 3] [--only NAME ...]

Both corrupt uint8 images of 32x32x3 that are drawn at random. lcgen takes batches of 1,000 as an evaluation does, with
one key for each image, in one thread for each core; compilation is left out. The package takes image by image, in one
process for each core. It needs older libraries than lcgen, so PYTHON is the interpreter of an environment of its own:

    python -m venv reference
    reference/bin/pip install imagecorruptions "numpy<2" "scipy<1.15" "scikit-image==0.20.0" "setuptools<81"

The package has the ImageNet-C parameters, which are stronger than CIFAR-10-C's, and leaves out the affine map of
`elastic_transform`. The rates are of wall time. The last column is the ratio of processor time for each image, which
other programs on the machine disturb less.
"""

import argparse
import json
import os
import subprocess
import time
from concurrent import futures

import numpy as np

BATCH = 1000
SECONDS = 1.0  # that each corruption is measured for

# Runs in the other environment: waits for a line, then prints how many images it corrupted in how many seconds.
REFERENCE = """
import json, sys, time, warnings
warnings.simplefilter("ignore")
import numpy as np
import imagecorruptions
from imagecorruptions import corruptions
from skimage.filters import gaussian

def blur(image, sigma, multichannel=False, **options):  # newer versions of scikit-image renamed the argument
  return gaussian(image, sigma, channel_axis=-1 if multichannel else None, **options)

corruptions.gaussian = blur
images = np.random.default_rng(0).integers(0, 256, (200, 32, 32, 3), dtype=np.uint8)
for line in sys.stdin:
  name, severity, seconds = json.loads(line)
  imagecorruptions.corrupt(images[0], severity, name)
  start, processor, count = time.perf_counter(), time.process_time(), 0
  while time.perf_counter() < start + seconds:
    imagecorruptions.corrupt(images[count % len(images)], severity, name)
    count += 1
  print(json.dumps([count / (time.perf_counter() - start), (time.process_time() - processor) / count]), flush=True)
"""


class Reference:
  """The package `imagecorruptions` in one process for each core."""

  def __init__(self, python: str):
    command = [python, "-c", REFERENCE]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    self.processes = [subprocess.Popen(command, **pipes) for _ in range(os.cpu_count())]

  def __call__(self, name: str, severity: int) -> tuple[float, float]:
    """Measures images per second of all processes together, and seconds of processor time for each image."""
    for process in self.processes:
      process.stdin.write(json.dumps([name, severity, SECONDS]) + "\n")
      process.stdin.flush()
    rates, seconds = zip(*(json.loads(process.stdout.readline()) for process in self.processes), strict=True)
    return sum(rates), sum(seconds) / len(seconds)

  def close(self):
    for process in self.processes:
      process.stdin.close()
      process.wait()


def measure(name: str, images: np.ndarray, severity: int) -> tuple[float, float]:
  """Measures images per second of one of our corruptions, and seconds of processor time for each image."""
  import jax

  from lcgen.data import test_sets

  test_set = test_sets.TestSet("generated_cifar10_c", name, severity)
  key, change = test_sets.key(test_set), test_sets.change(test_set)
  rows, images = jax.device_put((np.arange(len(images), dtype=np.uint32), images))
  corrupt = lambda _: change(key, rows, images).block_until_ready()
  corrupt(None)
  cores, count = os.cpu_count(), 0
  with futures.ThreadPoolExecutor(cores) as pool:
    start, processor = time.perf_counter(), time.process_time()
    while time.perf_counter() < start + SECONDS:
      list(pool.map(corrupt, range(4 * cores)))
      count += 4 * cores * len(images)
  return count / (time.perf_counter() - start), (time.process_time() - processor) / count


def main():
  parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
  parser.add_argument("--reference", help="the interpreter that has imagecorruptions; without, only ours is measured")
  parser.add_argument("--severity", type=int, default=3)
  parser.add_argument("--only", nargs="*", default=())
  flags = parser.parse_args()
  reference = Reference(flags.reference) if flags.reference else None  # its processes start before any thread

  from lcgen.data import corruptions

  images = np.random.default_rng(0).integers(0, 256, (BATCH, 32, 32, 3), dtype=np.uint8)
  print(f"images per second at severity {flags.severity}; imagecorruptions in {os.cpu_count()} processes, one a core")
  print(f"{'corruption':20}{'lcgen':>12}{'reference':>12}{'ratio':>8}{'processor':>11}")
  for name in corruptions.CIFAR10_C:
    if flags.only and name not in flags.only:
      continue
    ours, our_seconds = measure(name, images, flags.severity)
    theirs, their_seconds = reference(name, flags.severity) if reference else (float("nan"),) * 2
    ratios = f"{ours / theirs:8.1f}{their_seconds / our_seconds:11.1f}"
    print(f"{name:20}{ours:12,.0f}{theirs:12,.0f}{ratios}", flush=True)
  if reference:
    reference.close()


if __name__ == "__main__":
  main()
