"""Corruptions of one's own, as `custom/my_module.vignette`: found, tried before training, and scored as the others."""

import importlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lcgen.data import corruptions, ranges, sources, test_sets
from lcgen.evaluation import classifier_scores, metrics, robustness
from lcgen.runtime import errors, registry
from tests.support.helpers import squares

MODULE = """
import jax
import jax.numpy as jnp
import numpy as np
from lcgen.data import corruptions

SIZE = 3

def vignette(key, images, severity):
  side = jnp.linspace(-1, 1, images.shape[1])
  dark = 1 - 0.1 * severity * side[:, None] ** 2
  return images * dark[None, :, :, None] + 0.2 * jax.random.uniform(key, (len(images), 1, 1, 1))

def brighter(key, images, severity):
  return images + 0.11 * severity

def raises(key, images, severity):
  raise ValueError("the lens is dirty\\nand this line is left out")

def long(key, images, severity):
  raise ValueError("x" * 10_000)

def smaller(key, images, severity):
  return images[:, ::2]

def one(key, images, severity):
  return images[0]

def stored(key, images, severity):
  return (255 * images).astype(jnp.uint8)

def pair(key, images, severity):
  return images, severity

def nothing(key, images, severity):
  del images

def by_numpy(key, images, severity):
  return np.clip(np.asarray(images) + 0.1, 0, 1)

def branches(key, images, severity):
  return images if severity < 3 else 1 - images

def two_arguments(key, images):
  return images

@corruptions.least_side(16)
def large(key, images, severity):
  return images

def breaks(key, images, severity):
  if not isinstance(images, jax.core.Tracer):
    raise IndexError("list index out of range")
  return images
"""


@pytest.fixture(scope="module", autouse=True)
def my_module(tmp_path_factory):
  """A user's module beside `run.py`."""
  folder = tmp_path_factory.mktemp("own")
  (folder / "my_module.py").write_text(MODULE)
  (folder / "broken.py").write_text("raise RuntimeError('no licence\\nfound')\n")
  with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(folder)
    yield
  for name in ("my_module", "broken"):
    sys.modules.pop(name, None)


def facts(shape=(8, 8, 1)):
  return sources.Facts("squares", shape, tuple("0123"), 80, 16, 20)


def check(name, shape=(8, 8, 1)):
  test_sets.check_fit(test_sets.expand(["test", f"custom/{name}"]), facts(shape), "")


@pytest.mark.parametrize("shape", [(8, 8, 1), (32, 48, 3)])
def test_a_function_of_a_module_is_found(shape):
  check("my_module.vignette", shape)
  assert corruptions.custom("my_module.vignette") is importlib.import_module("my_module").vignette


@pytest.mark.parametrize(
  ("name", "words"),
  [
    (
      "no_such_module.vignette",
      "No module named 'no_such_module'; the module must be importable: ",
    ),
    ("my_module.inner.f", "No module named 'my_module.inner'; 'my_module' is not a package; "),
    ("broken.vignette", "no licence; the module must be importable: beside run.py, or on PYTHONPATH"),
    ("my_module.vignete", "my_module has no function vignete"),
    ("my_module.SIZE", "my_module has no function SIZE"),
    (
      "my_module.raises",
      "cannot be traced (the lens is dirty); write a JAX function of (key, images, severi",
    ),
    ("my_module.long", "cannot be traced (xxxxx"),
    (
      "my_module.two_arguments",
      "cannot be traced (two_arguments() takes 2 positional arguments but 3 were ",
    ),
    (
      "my_module.by_numpy",
      "cannot be traced (The numpy.ndarray conversion method __array__",
    ),
    ("my_module.branches", "cannot be traced ("),
    ("my_module.smaller", "returns float32[1, 4, 8, 1] for float32[1, 8, 8, 1]; return images as given"),
    ("my_module.one", "returns float32[8, 8, 1] for float32[1, 8, 8, 1]; return images as given"),
    ("my_module.stored", "returns uint8[1, 8, 8, 1] for float32[1, 8, 8, 1]; return images as given"),
    ("my_module.pair", "returns a tuple for float32[1, 8, 8, 1]; return images as given"),
    (
      "my_module.large",
      ": images must have at least 16x16 pixels, and those of squares have 8x8; leave these sets out",
    ),
    ("my_module.breaks", "cannot be run (list index out of range); write a JAX function of (key, images, "),
    ("my_module.nothing", "returns a NoneType for float32[1, 8, 8, 1]; return images as given"),
  ],
)
def test_what_cannot_be_used_is_refused_before_training_in_one_sentence(name, words):
  with pytest.raises(errors.InputError) as caught:
    check(name)
  message = str(caught.value)
  assert message.startswith(f"config.evaluate.sets: custom/{name}")
  assert words in message
  assert message.isprintable()
  assert len(message) < 600


def test_a_registered_corruption_needs_no_module():
  with registry.temporary(corruptions.REGISTERED):

    @corruptions.register("mine.negative")
    def negative(key, images, severity):
      del key, severity
      return 1 - images

    check("mine.negative")
    (first, *_) = test_sets.expand(["custom/mine.negative"])
    split = squares(3)
    changed = test_sets.change(first)(test_sets.key(first), jnp.arange(3), jnp.asarray(split.images))
    np.testing.assert_array_equal(changed, 255 - split.images)
    with pytest.raises(errors.InputError, match=r"corruption 'mine\.negative': there is one of this name already"):
      corruptions.register("mine.negative")(lambda key, images, severity: images)
    corruptions.register("mine.large", least=9)(lambda key, images, severity: images)
    check("mine.large", (9, 9, 3))
    with pytest.raises(errors.InputError, match=r"custom/mine\.large: images must have at least 9x9 pixels"):
      check("mine.large")
  with pytest.raises(errors.InputError, match="No module named 'mine'"):
    check("mine.negative")


def changed(name, severity, split, size):
  one = test_sets.TestSet("custom", name, severity)
  cut = classifier_scores.Batching(4, size, jax.devices()[0])
  batches = list(classifier_scores.changed_batches(one, split, cut))
  return np.concatenate([np.asarray(batch["image"].values)[np.asarray(batch["mask"])] for batch in batches])


def test_its_images_are_rounded_to_8_bits():
  split = squares(6)
  for severity in range(1, 6):
    found = changed("my_module.brighter", severity, split, 6)
    assert found.dtype == np.float32
    expected = np.clip(split.images / 255 + 0.11 * severity, 0, 1)
    np.testing.assert_allclose(found, np.round(255 * expected) / 255, atol=1e-6)
    np.testing.assert_allclose(255 * found, np.round(255 * found), atol=1e-4)


def test_each_image_has_a_key_of_its_own_whatever_the_batches():
  split = sources.Split(np.full((6, 8, 8, 1), 100, np.uint8), np.zeros(6, np.int32))
  found = changed("my_module.vignette", 2, split, 6)
  np.testing.assert_array_equal(found, changed("my_module.vignette", 2, split, 4))
  assert len({image.tobytes() for image in found}) == 6
  assert (found != changed("my_module.vignette", 3, split, 6)).any()
  one = test_sets.TestSet("custom", "my_module.vignette", 2)
  unit = ranges.to_unit(jnp.asarray(split.images))
  for row in range(6):
    key = jax.random.fold_in(test_sets.key(one), row)
    own = importlib.import_module("my_module").vignette(key, unit[row][None], 2)
    np.testing.assert_allclose(found[row], np.round(255 * np.asarray(own[0])) / 255, atol=1 / 254)


def test_it_is_scored_at_every_severity_and_summarized_as_a_family():
  split, names = squares(20), ["test", "custom/my_module.brighter", "custom/my_module.vignette"]
  wanted = test_sets.expand(names)

  def score(batch):
    """Answers by the brightness of the top left pixel."""
    bright = batch["image"].values[:, 0, 0, 0] > 0.6
    logits = jnp.stack([jnp.where(bright, 20.0, 0.0), *[jnp.where(bright, 0.0, 1.0 + k) for k in range(3)]], axis=1)
    scores = metrics.soft_scores(logits, batch["label"], batch["target"], batch["mask"])
    return {"fake": jax.tree.map(lambda value: value[None], scores)}

  cut = classifier_scores.Batching(4, 8, jax.devices()[0])
  results, known = classifier_scores.score_all(score, wanted, lambda _: split, cut)
  by_set = results["fake"]
  parts = ("my_module.brighter", "my_module.vignette")
  assert list(by_set) == ["test"] + [f"custom/{part}_{severity}" for part in parts for severity in range(1, 6)]
  assert known["custom/my_module.vignette_4"] == {
    "family": "custom", "part": "my_module.vignette", "severity": 4, "origin": "generated", "images": 20
  }  # fmt: skip
  bright = np.clip(split.images[:, 0, 0, 0] / 255 + 0.55, 0, 1) > 0.6
  expected = np.mean(np.where(bright, 0, 3) == split.labels)
  np.testing.assert_allclose(by_set["custom/my_module.brighter_5"]["accuracy"], [expected])
  assert by_set["custom/my_module.brighter_5"] != by_set["custom/my_module.brighter_1"]

  summary = robustness.summarize({one: np.array(by_set[one.name]["accuracy"]) for one in wanted})
  assert list(summary) == ["custom"]
  summary = summary["custom"]
  assert set(summary) == {"means", "relative", "by_corruption", "by_severity"}
  accuracy = lambda part, severity: by_set[f"custom/{part}_{severity}"]["accuracy"]
  table = np.array([[accuracy(part, severity) for severity in range(1, 6)] for part in parts])
  assert list(summary["means"]) == ["all"]
  np.testing.assert_allclose(summary["means"]["all"], table.mean(axis=(0, 1)))
  np.testing.assert_allclose(summary["relative"]["all"], table.mean(axis=(0, 1)) / by_set["test"]["accuracy"])
  assert list(summary["by_severity"]) == list("12345")
  for severity in range(1, 6):
    np.testing.assert_allclose(summary["by_severity"][str(severity)], table[:, severity - 1].mean(axis=0))
  for place, part in enumerate(parts):
    np.testing.assert_allclose(summary["by_corruption"][part], table[place].mean(axis=0))
