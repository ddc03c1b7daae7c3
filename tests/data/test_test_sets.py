"""Which test sets there are, and what values their images have after the one conversion."""

import jax
import numpy as np
import pytest

from lcgen.data import corruptions, ranges, sources, test_set_names, test_sets, tfds_sets
from lcgen.evaluation import classifier_scores
from lcgen.runtime import errors
from tests.support import archives
from tests.support.helpers import squares


def test_names_and_origins():
  counts = {family: len(test_sets.expand([family])) for family in test_sets.FAMILIES}
  assert counts == {
    "test": 1,
    "diagnostic": 2,
    "generated_cifar10_c": 95,
    "generated_mnist_c": 15,
    "cifar10_corrupted": 95,
    "mnist_corrupted": 16,
    "dirty_mnist": 2,
    "dirty_mnist_like": 2,
    "dirty_mnist_twice": 2,
    "dirty_mnist_like_twice": 2,
  }
  assert len({one.name for one in everything()}) == len(everything())
  for one in everything():
    generated = one.family.startswith(("generated", "diagnostic", "dirty_mnist_like"))
    assert one.origin == ("own" if one.family == "test" else "generated" if generated else "published")
  assert [one.name for one in test_sets.expand(["generated_cifar10_c/fog", "test"])] == [
    "test",
    *(f"generated_cifar10_c/fog_{severity}" for severity in range(1, 6)),
  ]
  for name in ("test", "dirty_mnist", "cifar10_corrupted/glass_blur"):
    assert test_sets.known(name)
  for name in ("", "fog", "cifar10_corrupted/", "cifar10_corrupted/fog_3", "test/", "dirty_mnist/mnist/x"):
    assert not test_sets.known(name)


def test_tfds_knows_every_published_set_by_our_name():
  import tensorflow_datasets as tfds

  for family in ("cifar10_corrupted", "mnist_corrupted"):
    ours = {one.tfds_name.partition("/")[2] for one in test_sets.expand([family])}
    assert ours == {config.name for config in tfds.builder_cls(family).BUILDER_CONFIGS}


@pytest.fixture(scope="module")
def published(tmp_path_factory):
  """A TFDS folder with small published sets."""
  folder, data_dir = tmp_path_factory.mktemp("official"), tmp_path_factory.mktemp("tfds")
  archives.write_all(folder)
  names = ["cifar10_corrupted/fog_3", "mnist_corrupted/fog", "dirty_mnist"]
  with archives.serve(folder) as server, pytest.MonkeyPatch.context() as patch:
    archives.point_builders(archives.addresses(server.base, folder), patch.setattr)
    tfds_sets.ensure(names, str(data_dir), "")
  return str(data_dir)


def model_values(one, test, directory, classes=10):
  """All images of a set as the networks see them, as evaluation prepares them."""
  split = test_sets.read(one, test, directory)
  side = split.images.shape[1]
  cut = classifier_scores.Batching(classes, 50, jax.devices()[0])
  batches = classifier_scores.changed_batches(one, split, cut)
  parts = [np.asarray(ranges.prepare(batch["image"], side, side))[np.asarray(batch["mask"])] for batch in batches]
  return np.concatenate(parts)


@pytest.mark.parametrize("name", ["cifar10_corrupted/fog_3", "mnist_corrupted/fog", "dirty_mnist"])
def test_values_of_published_sets(published, name):
  """Stored bytes b become (b / 255 - 0.5) / 0.25, once; Dirty-MNIST's noise, 0.0616 there, leads beyond [-2, 2]."""
  for one in [one for one in everything() if one.tfds_name == name and not one.family.endswith("like")]:
    stored = test_sets.read(one, None, published).images
    assert stored.dtype == np.uint8
    expected, values = (stored / 255 - 0.5) / 0.25, model_values(one, None, published)
    assert values.dtype == np.float32
    if one.family == "dirty_mnist":
      assert -2.4 < values.min() < -2.15
      assert 2.1 < values.max() < 2.4
      assert values.mean() == pytest.approx(expected.mean(), abs=3e-3)
      np.testing.assert_allclose(values, expected, atol=0.4)
    elif one.family == "dirty_mnist_twice":
      twice = ((stored / 255 - 0.1307) / 0.3081 - 0.5) / 0.25
      assert 4 * 0.05 == pytest.approx((values - twice).std(), rel=0.02)
      np.testing.assert_allclose(values, twice, atol=0.4 / 0.3081)
    else:
      assert (values.min(), values.max()) == (-2, 2)
      np.testing.assert_allclose(values, expected, atol=1e-6)


def test_diagnostic_sets_are_what_they_say():
  split = squares(60)
  values = {one.part: model_values(one, split, "") for one in test_sets.expand(["diagnostic"])}
  unit = split.images / 255
  np.testing.assert_allclose(values["normalised_twice"], ((unit - 0.1307) / 0.3081 - 0.5) / 0.25, atol=1e-5)
  noise = values["noise"] / 4 + 0.5 - unit
  assert noise.std() == pytest.approx(0.3, rel=0.03)
  assert abs(noise.mean()) < 0.02


def everything():
  return test_sets.expand(list(test_sets.FAMILIES))


def test_dirty_noise_is_small_seeded_and_each_image_s_own(published):
  one = test_sets.TestSet("dirty_mnist", "ambiguous")
  split = test_sets.read(one, None, published)
  noise = ranges.from_model(0) - 0.5 + (model_values(one, None, published) / 4 + 0.5 - split.images / 255)
  assert noise.std() == pytest.approx(0.05 * 0.3081, rel=0.02)
  assert abs(np.corrcoef(noise[0].ravel(), noise[1].ravel())[0, 1]) < 0.15
  np.testing.assert_array_equal(model_values(one, None, published), model_values(one, None, published))


def test_dirty_mnist_keeps_its_halves_and_label_distributions(published):
  clean, ambiguous = (test_sets.read(one, None, published) for one in test_sets.expand(["dirty_mnist"]))
  assert (len(clean), len(ambiguous)) == (20, 20)
  assert test_sets.ceiling(clean) == 1
  assert test_sets.label_entropy(clean) == 0
  with np.load(archives.TORCH_FILES / "amnist.npz") as file:
    counts = np.array([np.bincount(row, minlength=10) for row in file["labels"][2:]]) / 10
  assert test_sets.ceiling(ambiguous) == pytest.approx(counts.max(axis=1).mean())
  entropy = -(counts * np.log(np.where(counts > 0, counts, 1))).sum(axis=1).mean()
  assert test_sets.label_entropy(ambiguous) == pytest.approx(entropy)


def test_a_set_that_does_not_fit_the_data_is_refused(published):
  facts = sources.Facts("digits", (28, 28, 1), tuple("0123456789"), 1, 1, 1)
  fitting = [test_sets.TestSet("mnist_corrupted", "fog"), *test_sets.expand(["test", "dirty_mnist"])]
  test_sets.check_fit(fitting, facts, published)
  with pytest.raises(errors.InputError, match=r"cifar10_corrupted/fog_3 has 10 classes and images 32x32x3, digits"):
    test_sets.check_fit([test_sets.TestSet("cifar10_corrupted", "fog", 3)], facts, published)


GENERATED = [(family, part) for family, functions in test_sets.GENERATED.items() for part in functions]


@pytest.mark.parametrize(("family", "part"), GENERATED)
def test_every_corruption_states_its_least_size_which_is_checked_before_training(family, part):
  least = test_sets.GENERATED[family][part].least_side
  facts = lambda height, width: sources.Facts("dots", (height, width, 1), ("0", "1"), 1, 1, 1)
  wanted = test_sets.expand(["test", f"{family}/{part}"])
  test_sets.check_fit(wanted, facts(least, least), "")
  for shape in ((least - 1, 32), (32, least - 1)) if least > 1 else ():
    words = (
      f"^config.evaluate.sets: {family}/{part}: images must have at least {least}x{least} pixels, and those of dots"
    )
    with pytest.raises(errors.InputError, match=words):
      test_sets.check_fit(wanted, facts(*shape), "")


@pytest.mark.parametrize("shape", [(1, 1), (1, 3), (4, 1), (2, 2), (2, 28)])
@pytest.mark.parametrize("family", test_sets.GENERATED)
def test_what_passes_the_check_can_be_made_though_others_of_the_family_need_larger_images(family, shape):
  fit = [part for part, function in test_sets.GENERATED[family].items() if function.least_side <= min(shape)]
  assert fit
  images = np.zeros((2, *shape, 1), np.uint8)
  for part in fit:
    one = test_sets.TestSet(family, part, 1)
    made = jax.eval_shape(test_sets.change(one), test_sets.key(one), np.arange(2), images)
    assert (made.shape, made.dtype) == (images.shape, np.uint8)


def test_generated_sets_are_stored_as_the_published_ones():
  """CIFAR-10-C is truncated, but where another program had rounded it; MNIST-C is rounded. Whole levels stay."""
  levels = np.arange(8 * 8 * 3 * 4, dtype=np.uint8).reshape(4, 8, 8, 3)
  stored = lambda family, part, severity: np.asarray(
    test_sets.change(one := test_sets.TestSet(family, part, severity))(test_sets.key(one), np.arange(4), levels)
  )
  unit = levels / 255.0
  mean = unit.mean(axis=(1, 2), keepdims=True)
  for severity, factor in ((1, 0.75), (5, 0.15)):
    published = np.uint8(np.clip((unit - mean) * factor + mean, 0, 1) * 255)
    found = stored("generated_cifar10_c", "contrast", severity)
    assert (found == published).mean() > 0.99
    assert np.abs(found.astype(int) - published).max() <= 1
  kept = stored("generated_cifar10_c", "impulse_noise", 1)
  assert (kept == levels).mean() > 0.97  # no level is lost on the way to floats and back
  every = np.arange(256, dtype=np.uint8)
  np.testing.assert_array_equal(ranges.truncate_to_uint8(ranges.to_unit(every)), every)
  between = (every[:-1] + 0.9) / 255
  np.testing.assert_array_equal(ranges.truncate_to_uint8(between), every[:-1])
  np.testing.assert_array_equal(ranges.to_uint8(between), every[1:])
  assert test_sets.STORED == {"generated_cifar10_c": ranges.truncate_to_uint8, "generated_mnist_c": ranges.to_uint8}


def test_names_are_those_of_functions():
  assert tuple(corruptions.CIFAR10_C) == test_set_names.CIFAR10_C
  assert tuple(corruptions.MNIST_C) == test_set_names.MNIST_C
  assert {family: tuple(functions) for family, functions in test_sets.GENERATED.items()} == test_set_names.GENERATED


def test_corruptions_of_the_user_have_names():
  for name in ("custom/my_module.vignette", "custom/a.b.c"):
    assert test_sets.known(name)
  for name in ("custom", "custom/", "custom/vignette", "custom/my module.f", "custom/a.", "custom/a.b:c"):
    assert not test_sets.known(name)
  found = test_sets.expand(["custom/z.f", "custom/a.g", "test", "custom/z.f"])
  assert [one.name for one in found] == ["test"] + [f"custom/{f}_{s}" for f in ("z.f", "a.g") for s in range(1, 6)]
  assert (found[1].origin, found[1].tfds_name, found[1].severity) == ("generated", None, 1)
