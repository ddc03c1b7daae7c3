"""The test sets of an evaluation: what they are called, where they come from, and their images.

A family is the test images themselves, corruptions of them that are generated on the device, or a set that TFDS holds.
Generated sets are not the published ones: they carry `generated` in their names and are never averaged with them.
"""

import dataclasses
import functools
import zlib
from collections.abc import Callable, Sequence

import jax
import numpy as np

from lcgen.data import corruptions, ranges, sources, tfds_sets
from lcgen.runtime import errors

TEST = "test"
IDENTITY = "identity"  # MNIST-C's name for its own clean images
GENERATED = {"generated_cifar10_c": corruptions.CIFAR10_C, "generated_mnist_c": corruptions.MNIST_C}
DIRTY = ("dirty_mnist", "dirty_mnist_like", "dirty_mnist_twice", "dirty_mnist_like_twice")  # normalised once, or twice
DIAGNOSTIC = ("noise", "normalised_twice")
HALVES = ("mnist", "ambiguous")  # of these two
CORRUPTED = "corrupted"  # the mean over all generated sets, in the results
_NO_SEVERITY = (0,)
_TWICE = "_twice"
_TFDS_NAMES = {"glass_blur": "frosted_glass_blur", "elastic_transform": "elastic"}
_PART = 200  # images that are corrupted at once on a CPU: more outgrow its caches
_MNIST_MEAN, _MNIST_STD = 0.1307, 0.3081  # what Dirty-MNIST's own loader normalises by
_DIRTY_NOISE = 0.05 * _MNIST_STD  # 0.05 after that
_NOISE = 0.3  # of the diagnostic set

# What each family is made of: corruptions, or the halves of Dirty-MNIST, and the severities of each.
FAMILIES: dict[str, dict[str, tuple[int, ...]]] = {
  TEST: {"": _NO_SEVERITY},
  "diagnostic": dict.fromkeys(DIAGNOSTIC, _NO_SEVERITY),
  "generated_cifar10_c": dict.fromkeys(corruptions.CIFAR10_C, corruptions.SEVERITIES),
  "generated_mnist_c": dict.fromkeys(corruptions.MNIST_C, _NO_SEVERITY),
  "cifar10_corrupted": dict.fromkeys(corruptions.CIFAR10_C, corruptions.SEVERITIES),
  "mnist_corrupted": dict.fromkeys((IDENTITY, *corruptions.MNIST_C), _NO_SEVERITY),
} | {name: dict.fromkeys(HALVES, _NO_SEVERITY) for name in DIRTY}

Change = Callable[[jax.Array, jax.Array, jax.Array], jax.Array | ranges.Unit]  # key, rows [B], uint8 -> uint8 or Unit


@dataclasses.dataclass(frozen=True)
class TestSet:
  """One test set.

  Attributes:
    family: one of `FAMILIES`.
    part: a corruption, or a half of Dirty-MNIST; empty for the test images themselves.
    severity: 1 to 5; 0 where there is one severity only.
  """

  __test__ = False  # not a class of tests, whatever pytest thinks

  family: str
  part: str = ""
  severity: int = 0

  @property
  def name(self) -> str:
    """`test`, `family/part` or `family/part_severity`."""
    return self.family + (f"/{self.part}" if self.part else "") + (f"_{self.severity}" if self.severity else "")

  @property
  def origin(self) -> str:
    """How its images came to be, in a word."""
    if self.family in (*GENERATED, "diagnostic") or self.family.startswith("dirty_mnist_like"):
      return "generated"
    return "own" if self.family == TEST else "published"

  @property
  def tfds_name(self) -> str | None:
    """The TFDS set that holds it, None where the test images do."""
    if self.family in (TEST, "diagnostic", *GENERATED):
      return None
    if self.family in DIRTY:
      return self.family.removesuffix(_TWICE)
    part = _TFDS_NAMES.get(self.part, self.part) if self.severity else self.part
    return f"{self.family}/{part}" + (f"_{self.severity}" if self.severity else "")


def known(name: str) -> bool:
  """Whether `evaluate.sets` may have this name: that of a family, or `family/part`."""
  family, slash, part = name.partition("/")
  return family in FAMILIES and (not slash or (part != "" and part in FAMILIES[family]))


def expand(names: Sequence[str]) -> list[TestSet]:
  """The test sets that these names ask for, in the order of `FAMILIES`."""
  return [
    TestSet(family, part, severity)
    for family, parts in FAMILIES.items()
    for part, severities in parts.items()
    if family in names or f"{family}/{part}" in names
    for severity in severities
  ]


def with_mistakes(names: Sequence[str]) -> list[str]:
  """These sets, the test images, the diagnostic sets, and what has drawn labels normalised twice as well."""
  twice = [family + _TWICE for family in DIRTY if family in names and not family.endswith(_TWICE)]
  return [*names, TEST, "diagnostic", *twice]


def ensure(wanted: Sequence[TestSet], directory: str) -> None:
  """Looks for all published sets among these, and prepares those that are not prepared yet.

  Raises:
    MissingDataError: names a set that cannot be had, the folder looked in and the ways out.
  """
  names = dict.fromkeys(test_set.tfds_name for test_set in wanted if test_set.tfds_name)
  tfds_sets.ensure(
    list(names),
    directory,
    "leave the set out by --config.evaluate.sets=..., where generated_cifar10_c and generated_mnist_c need no files",
  )


def check_fit(wanted: Sequence[TestSet], facts: sources.Facts, directory: str) -> None:
  """Opens the published sets among these, which have been prepared, without reading their images.

  Raises:
    InputError: where one lacks files, or has other classes or colours than the data.
  """
  for name in dict.fromkeys(test_set.tfds_name for test_set in wanted if test_set.tfds_name):
    found = tfds_sets.Prepared(name, directory)
    classes, colours = len(found.class_names), found.shape[2]
    if "test" not in found.sizes or classes != len(facts.class_names) or colours != facts.shape[2]:
      raise errors.InputError(
        f"config.evaluate.sets: {name} has {classes} classes and images {'x'.join(map(str, found.shape))}, "
        f"{facts.name} has {len(facts.class_names)} and {'x'.join(map(str, facts.shape))}; leave the set out"
      )


def read(test_set: TestSet, test: sources.Split, directory: str) -> sources.Split:
  """The stored images of a set; those of generated sets are the test images, which `change` alters.

  Raises:
    InputError: where files of a published set are missing or broken.
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
  """What a set's random numbers come from: a function of its name alone, so that all runs see the same set."""
  return jax.random.key(zlib.crc32(test_set.name.encode()))


def change(test_set: TestSet) -> Change:
  """What becomes of the stored images, jitted; each image has a key of its own, whatever the batches."""
  if test_set.family in GENERATED:
    place = list(GENERATED[test_set.family]).index(test_set.part)
    return functools.partial(_corrupt(test_set.family), corruption=place, severity=test_set.severity or 1)
  if test_set.family == "diagnostic":
    return {"noise": _noisy, "normalised_twice": _normalised_twice}[test_set.part]
  if test_set.family in DIRTY:
    return _with_noise_normalised_twice if test_set.family.endswith(_TWICE) else _with_noise
  return _unchanged


@functools.cache
def _corrupt(family: str) -> Callable[..., jax.Array]:
  """Compiled once for all corruptions and severities of a family; rounded, as a set on disk would be."""
  every = tuple(GENERATED[family].values())

  @jax.jit
  def corrupt(key, rows, images, corruption, severity):
    def one(row_and_image):
      row, image = row_and_image
      unit = ranges.to_unit(image)[None]
      return ranges.to_uint8(jax.lax.switch(corruption, every, jax.random.fold_in(key, row), unit, severity)[0])

    size = _PART if jax.default_backend() == "cpu" else len(images)
    return jax.lax.map(one, (rows, images), batch_size=size)

  return corrupt


def _normal(key, rows, images):
  return jax.vmap(lambda row: jax.random.normal(jax.random.fold_in(key, row), images.shape[1:]))(rows)


@jax.jit
def _with_noise(key, rows, images):
  """Dirty-MNIST's noise, which its own loader adds to all images and does not clip."""
  return ranges.Unit(ranges.to_unit(images) + _DIRTY_NOISE * _normal(key, rows, images))


@jax.jit
def _with_noise_normalised_twice(key, rows, images):
  """The same as the paper's code has it: its loader's normalisation, taken for values in [0, 1]."""
  return ranges.Unit((_with_noise(key, rows, images).values - _MNIST_MEAN) / _MNIST_STD)


@jax.jit
def _normalised_twice(key, rows, images):
  """The mistake that the paper's code makes with Dirty-MNIST, on any images, without noise."""
  del key, rows
  return ranges.Unit((ranges.to_unit(images) - _MNIST_MEAN) / _MNIST_STD)


@jax.jit
def _noisy(key, rows, images):
  """Normal noise far beyond the corruptions' severities; not clipped."""
  return ranges.Unit(ranges.to_unit(images) + _NOISE * _normal(key, rows, images))


def _unchanged(key, rows, images):
  del key, rows
  return images


def label_entropy(split: sources.Split) -> float:
  """Mean entropy of the stored label distributions, in nats: no classifier's NLL is lower; 0 for certain labels."""
  if split.targets is None:
    return 0.0
  shares = split.targets.astype(np.float64)
  return float(-(shares * np.log(np.where(shares > 0, shares, 1))).sum(axis=1).mean())


def ceiling(split: sources.Split) -> float:
  """The accuracy that drawn labels leave to the best classifier: the mean share of an image's commonest label."""
  return 1.0 if split.targets is None else float(split.targets.max(axis=1).astype(np.float64).mean())
