"""Names of the test sets of an evaluation, for config files, tables and `lcgen.data.test_sets`.

A family is the test images, corruptions of them that are generated on the device, a TFDS set, or the user's own
corruptions. Generated corruptions are not the published ones: their families are named `generated_*`, and they are
never averaged with published sets.
"""

import dataclasses
from collections.abc import Sequence

from lcgen.runtime import registry

TEST = "test"
CUSTOM = "custom"  # custom/module.function: the user's own corruption
IDENTITY = "identity"  # MNIST-C's name for its own clean images
DIRTY = ("dirty_mnist", "dirty_mnist_like", "dirty_mnist_twice", "dirty_mnist_like_twice")  # normalised once, or twice
DIAGNOSTIC = ("noise", "normalised_twice")
HALVES = ("mnist", "ambiguous")  # of Dirty-MNIST
CORRUPTED = "corrupted"  # key in the results: the mean over all sets of the families in GENERATED
TWICE = "_twice"  # suffix of families that are normalised twice

SEVERITIES = (1, 2, 3, 4, 5)  # of CIFAR-10-C; MNIST-C has one severity
NO_SEVERITY = (0,)
GROUPS: dict[str, tuple[str, ...]] = {
  "noise": ("gaussian_noise", "shot_noise", "impulse_noise"),
  "blur": ("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
  "weather": ("snow", "frost", "fog", "brightness"),
  "digital": ("contrast", "elastic_transform", "pixelate", "jpeg_compression"),
  "extra": ("speckle_noise", "gaussian_blur", "spatter", "saturate"),
}
EXTRA = GROUPS["extra"]
CIFAR10_C = tuple(name for names in GROUPS.values() for name in names)
BENCHMARK = tuple(name for name in CIFAR10_C if name not in EXTRA)
MNIST_C = (
  *("shot_noise", "impulse_noise", "glass_blur", "motion_blur", "shear", "scale", "rotate", "brightness"),
  *("translate", "stripe", "fog", "spatter", "dotted_line", "zigzag", "canny_edges"),
)
GENERATED = {"generated_cifar10_c": CIFAR10_C, "generated_mnist_c": MNIST_C}
_TFDS_NAMES = {"glass_blur": "frosted_glass_blur", "elastic_transform": "elastic"}

# Parts of each built-in family (corruptions, diagnostics or halves of Dirty-MNIST), with their severities.
FAMILIES: dict[str, dict[str, tuple[int, ...]]] = {
  TEST: {"": NO_SEVERITY},
  "diagnostic": dict.fromkeys(DIAGNOSTIC, NO_SEVERITY),
  "generated_cifar10_c": dict.fromkeys(CIFAR10_C, SEVERITIES),
  "generated_mnist_c": dict.fromkeys(MNIST_C, NO_SEVERITY),
  "cifar10_corrupted": dict.fromkeys(CIFAR10_C, SEVERITIES),
  "mnist_corrupted": dict.fromkeys((IDENTITY, *MNIST_C), NO_SEVERITY),
} | {name: dict.fromkeys(HALVES, NO_SEVERITY) for name in DIRTY}

KNOWN = (
  f"one or more, each once, of {', '.join(FAMILIES)}, or a part of one, as in generated_cifar10_c/fog, "
  f"or a corruption of your own, as in {CUSTOM}/my_module.vignette"
)


@dataclasses.dataclass(frozen=True)
class TestSet:
  """One test set.

  Attributes:
    family: one of `FAMILIES`, or `CUSTOM`.
    part: a corruption, a diagnostic set or a half of Dirty-MNIST; for `CUSTOM` the path `module.function`; empty for
      the test images.
    severity: 1 to 5; 0 if there is only one severity.
  """

  __test__ = False  # pytest would collect it by its name

  family: str
  part: str = ""
  severity: int = 0

  @property
  def name(self) -> str:
    """The name: `test`, `family/part` or `family/part_severity`."""
    return self.family + (f"/{self.part}" if self.part else "") + (f"_{self.severity}" if self.severity else "")

  @property
  def origin(self) -> str:
    """The origin of the images: "generated", "own" (the data set's test images) or "published"."""
    if self.family in (*GENERATED, "diagnostic", CUSTOM) or self.family.startswith("dirty_mnist_like"):
      return "generated"
    return "own" if self.family == TEST else "published"

  @property
  def tfds_name(self) -> str | None:
    """The TFDS set that holds the images; None if they are made from the test images."""
    if self.family in (TEST, "diagnostic", CUSTOM, *GENERATED):
      return None
    if self.family in DIRTY:
      return self.family.removesuffix(TWICE)
    part = _TFDS_NAMES.get(self.part, self.part) if self.severity else self.part
    return f"{self.family}/{part}" + (f"_{self.severity}" if self.severity else "")


def known(name: str) -> bool:
  """Tells whether `evaluate.sets` accepts a name: a family, `family/part`, or `custom/module.function`."""
  family, slash, part = name.partition("/")
  if family == CUSTOM:
    path = part.split(".")
    return len(path) > 1 and all(word.isidentifier() for word in path)
  return family in FAMILIES and (not slash or (part != "" and part in FAMILIES[family]))


def nearest(name: str) -> str:
  """Returns `; the nearest is NAME` for the most similar name of a test set, or an empty text."""
  parts = (f"{family}/{part}" for family, parts in FAMILIES.items() for part in parts if part)
  return registry.nearest(name, [*FAMILIES, *parts])


def expand(names: Sequence[str]) -> list[TestSet]:
  """Returns the test sets of these names: built-in ones in the order of `FAMILIES`, then the user's as given."""
  built_in = [
    TestSet(family, part, severity)
    for family, parts in FAMILIES.items()
    for part, severities in parts.items()
    if family in names or f"{family}/{part}" in names
    for severity in severities
  ]
  own = dict.fromkeys(name.partition("/")[2] for name in names if name.startswith(f"{CUSTOM}/"))
  return built_in + [TestSet(CUSTOM, part, severity) for part in own for severity in SEVERITIES]


def with_mistakes(names: Sequence[str]) -> list[str]:
  """Adds the test images, the diagnostic sets, and the twice normalised version of every Dirty-MNIST family."""
  twice = [family + TWICE for family in DIRTY if family in names and not family.endswith(TWICE)]
  return [*names, TEST, "diagnostic", *twice]
