"""The images of the test sets of an evaluation; `lcgen.data.test_set_names` defines the sets and their names."""

import functools
import zlib
from collections.abc import Callable, Sequence

import jax
import numpy as np

from lcgen.data import corruptions, ranges, sources, tfds_sets
from lcgen.data.test_set_names import CORRUPTED as CORRUPTED
from lcgen.data.test_set_names import CUSTOM, DIRTY, HALVES, TWICE, TestSet
from lcgen.data.test_set_names import FAMILIES as FAMILIES
from lcgen.data.test_set_names import IDENTITY as IDENTITY
from lcgen.data.test_set_names import TEST as TEST
from lcgen.data.test_set_names import expand as expand
from lcgen.data.test_set_names import known as known
from lcgen.data.test_set_names import with_mistakes as with_mistakes
from lcgen.runtime import errors, parallel

GENERATED = {"generated_cifar10_c": corruptions.CIFAR10_C, "generated_mnist_c": corruptions.MNIST_C}
# As the published code stores them: CIFAR-10-C's truncates, MNIST-C's rounds.
STORED = {"generated_cifar10_c": ranges.truncate_to_uint8, "generated_mnist_c": ranges.to_uint8}
_PART = 200  # images that are corrupted at once on a CPU; more do not fit its caches
_MNIST_MEAN, _MNIST_STD = 0.1307, 0.3081  # the normalisation in Dirty-MNIST's own loader
_DIRTY_NOISE = 0.05 * _MNIST_STD  # the loader adds noise of 0.05 after it has normalised
_NOISE = 0.3  # standard deviation in diagnostic/noise

Change = Callable[[jax.Array, jax.Array, jax.Array], jax.Array | ranges.Unit]  # key, rows [B], uint8 -> uint8 or Unit


def ensure(wanted: Sequence[TestSet], directory: str) -> None:
  """Prepares those published sets among the wanted ones that are not prepared yet, after it has looked for all.

  Raises:
    MissingDataError: if a set cannot be prepared; names the set, the folder looked in and the ways out.
    InputError: if a download or an archive is broken.
  """
  names = dict.fromkeys(test_set.tfds_name for test_set in wanted if test_set.tfds_name)
  tfds_sets.ensure(
    list(names),
    directory,
    "leave the set out by --config.evaluate.sets=..., where generated_cifar10_c and generated_mnist_c need no files",
  )


def check_fit(wanted: Sequence[TestSet], facts: sources.Facts, directory: str) -> None:
  """Checks published sets without reading their images, sizes for corruptions, and tries the user's own corruptions.

  Raises:
    InputError: if a set lacks files or a test split, or does not have the data's number of classes and channels; if
      images are smaller than a corruption takes; if a corruption cannot be imported, traced or run, or returns images
      of another shape.
  """
  _check_sizes(wanted, facts)
  for part in dict.fromkeys(test_set.part for test_set in wanted if test_set.family == CUSTOM):
    corruptions.check_custom(part, facts.shape)
  for name in dict.fromkeys(test_set.tfds_name for test_set in wanted if test_set.tfds_name):
    found = tfds_sets.Prepared(name, directory)
    classes, colours = len(found.class_names), found.shape[2]
    if "test" not in found.sizes or classes != len(facts.class_names) or colours != facts.shape[2]:
      raise errors.InputError(
        f"config.evaluate.sets: {name} has {classes} classes and images {'x'.join(map(str, found.shape))}, "
        f"{facts.name} has {len(facts.class_names)} and {'x'.join(map(str, facts.shape))}; leave the set out"
      )


def _check_sizes(wanted: Sequence[TestSet], facts: sources.Facts) -> None:
  """Raises an InputError that names the corruptions for which the images are too small."""
  height, width = facts.shape[:2]
  parts = dict.fromkeys((one.family, one.part) for one in wanted if one.family in (CUSTOM, *GENERATED))
  needs = {f"{family}/{part}": corruptions.least_side_of(_function(family, part)) for family, part in parts}
  if small := [name for name, side in needs.items() if side > min(height, width)]:
    side = max(needs[name] for name in small)
    raise errors.InputError(
      f"config.evaluate.sets: {', '.join(small)}: images must have at least {side}x{side} pixels, and those of "
      f"{facts.name} have {width}x{height}; leave these sets out"
    )


def _function(family: str, part: str) -> corruptions.Corruption:
  return corruptions.custom(part) if family == CUSTOM else GENERATED[family][part]


def read(test_set: TestSet, test: sources.Split, directory: str) -> sources.Split:
  """Reads the stored images of a set; generated sets start from the test images, which `change` alters.

  Raises:
    InputError: if files of a published set are missing or broken.
  """
  if test_set.tfds_name is None:
    return test
  if test_set.family in DIRTY:
    arrays = _read_dirty(test_set.tfds_name, directory)
    rows = arrays["half"] == HALVES.index(test_set.part)
    counts = arrays["label_counts"][rows].astype(np.float32)
    targets = counts / counts.sum(axis=1, keepdims=True)
    return sources.Split(arrays["image"][rows], arrays["label"][rows], targets)
  arrays = tfds_sets.Prepared(test_set.tfds_name, directory).read("test")
  return sources.Split(arrays["image"], arrays["label"])


@functools.lru_cache(maxsize=1)
def _read_dirty(name: str, directory: str) -> dict[str, np.ndarray]:
  return tfds_sets.Prepared(name, directory).read("test", extras=("half", "label_counts"))


def key(test_set: TestSet) -> jax.Array:
  """Gives the key of a set's random numbers; it depends on the name alone, so that all runs see the same set."""
  return jax.random.key(zlib.crc32(test_set.name.encode()))


def change(test_set: TestSet) -> Change:
  """Gives the jitted change of the stored images; an image's random numbers depend on its row, not on its batch."""
  severity = test_set.severity or 1
  if test_set.family in GENERATED:
    place = list(GENERATED[test_set.family]).index(test_set.part)
    every = tuple(GENERATED[test_set.family].values())
    corrupt = _corrupt(every, STORED[test_set.family])
    return functools.partial(corrupt, corruption=place, severity=severity)
  if test_set.family == CUSTOM:
    own = (corruptions.custom(test_set.part),)
    return functools.partial(_corrupt(own, ranges.to_uint8), corruption=0, severity=severity)
  if test_set.family == "diagnostic":
    return {"noise": _noisy, "normalised_twice": _normalised_twice}[test_set.part]
  if test_set.family in DIRTY:
    return _with_noise_normalised_twice if test_set.family.endswith(TWICE) else _with_noise
  return _unchanged


@functools.cache
def _corrupt(
  every: tuple[corruptions.Corruption, ...], stored: Callable[[jax.Array], jax.Array]
) -> Callable[..., jax.Array]:
  """Gives one function for all corruptions and severities of a family, to compile once; `stored` makes them uint8.

  Corruptions that take larger images only are left out of the program; `check_fit` refuses them.
  """

  @jax.jit
  def corrupt(key, rows, images, corruption, severity):
    side = min(images.shape[1:3])
    fitting = [function if corruptions.least_side_of(function) <= side else _left_out for function in every]

    def one(row_and_image):
      row, image = row_and_image
      unit = ranges.to_unit(image)[None]
      return stored(jax.lax.switch(corruption, fitting, jax.random.fold_in(key, row), unit, severity)[0])

    size = _PART if parallel.on_cpu() else len(images)
    return jax.lax.map(one, (rows, images), batch_size=size)

  return corrupt


def _left_out(key, images, severity):
  del key, severity
  return images


def _normal(key, rows, images):
  return jax.vmap(lambda row: jax.random.normal(jax.random.fold_in(key, row), images.shape[1:]))(rows)


@jax.jit
def _with_noise(key, rows, images):
  """Adds Dirty-MNIST's noise without clipping, as its own loader does to all images."""
  return ranges.Unit(ranges.to_unit(images) + _DIRTY_NOISE * _normal(key, rows, images))


@jax.jit
def _with_noise_normalised_twice(key, rows, images):
  """Adds the noise and the loader's normalisation, which the paper's code takes for values in [0, 1]."""
  return ranges.Unit((_with_noise(key, rows, images).values - _MNIST_MEAN) / _MNIST_STD)


@jax.jit
def _normalised_twice(key, rows, images):
  """Makes the mistake of the paper's code with Dirty-MNIST on any images, without noise."""
  del key, rows
  return ranges.Unit((ranges.to_unit(images) - _MNIST_MEAN) / _MNIST_STD)


@jax.jit
def _noisy(key, rows, images):
  """Adds unclipped normal noise, three times that of `gaussian_noise` at severity 5."""
  return ranges.Unit(ranges.to_unit(images) + _NOISE * _normal(key, rows, images))


def _unchanged(key, rows, images):
  del key, rows
  return images


def label_entropy(split: sources.Split) -> float:
  """Computes the mean entropy of the label distributions, in nats, the lowest possible NLL; 0 for certain labels."""
  if split.targets is None:
    return 0.0
  shares = split.targets.astype(np.float64)
  return float(-(shares * np.log(np.where(shares > 0, shares, 1))).sum(axis=1).mean())


def ceiling(split: sources.Split) -> float:
  """Computes the accuracy of the best classifier on drawn labels: the mean share of each image's commonest label."""
  return 1.0 if split.targets is None else float(split.targets.max(axis=1).astype(np.float64).mean())
