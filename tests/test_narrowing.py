"""Numbers of users are checked in the type that they come in, before anything makes them smaller."""

import dataclasses
import io
import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from lcgen import config
from lcgen.api import classes
from lcgen.api.run import Run
from lcgen.classifiers import arms
from lcgen.cli import make_dirty_mnist, preflight
from lcgen.data import sources, tfds_sets
from lcgen.data.dataset import Dataset
from lcgen.data.settings import DataSettings
from lcgen.runtime import errors, fields, registry
from tests.support.helpers import config_of, context_of, load_config

PICTURES = np.random.default_rng(0).integers(0, 256, (12, 4, 4, 1), np.uint8)


def through_an_npz(labels, folder):
  np.savez(folder / "a.npz", images=PICTURES, labels=labels)
  return sources.load(DataSettings(source="npz", path=str(folder / "a.npz"))).train.labels


def through_test_labels_of_an_npz(labels, folder):
  known = np.arange(12) % 2
  np.savez(folder / "a.npz", images=PICTURES, labels=known, test_images=PICTURES, test_labels=labels)
  return sources.load(DataSettings(source="npz", path=str(folder / "a.npz"))).test.labels


def through_a_plug_in(labels, folder):
  del folder
  return sources.split("mine", ("a", "b"), sources.Split(PICTURES, labels), None, DataSettings()).train.labels


def through_a_plug_in_that_splits(labels, folder):
  del folder
  with registry.temporary(sources.SOURCES, sources._SOURCES):
    part = sources.Split(PICTURES, labels)
    sources.register("mine")(lambda settings: Dataset("mine", ("a", "b"), part, part, part))
    return sources.load(DataSettings(source="mine")).train.labels


def through_tfds(labels, folder):
  buffer = io.BytesIO()
  Image.fromarray(PICTURES[0, ..., 0]).save(buffer, "png")
  found = object.__new__(tfds_sets.Prepared)
  found.shape, found.class_names, found.sizes, found._folder = (4, 4, 1), ("a", "b"), {"train": 12}, folder
  found._examples = lambda split, rows: [{"image": buffer.getvalue(), "label": label} for label in labels]
  return found.read("train")["label"]


def through_a_loaded_run(labels, folder):
  del folder
  return classes.indices(labels, ("a", "b"))


WAYS = (
  through_an_npz,
  through_test_labels_of_an_npz,
  through_a_plug_in,
  through_a_plug_in_that_splits,
  through_tfds,
  through_a_loaded_run,
)


@pytest.mark.parametrize("odd", [2, 2**32, 2**32 + 1, 2**63, 3_000_000_000, -1, -(2**32)])
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_labels(way, odd, tmp_path):
  labels = (np.arange(12) % 2).astype(np.uint64 if odd >= 2**63 else np.int64)
  np.testing.assert_array_equal(np.unique(way(labels, tmp_path)), [0, 1])
  assert way(labels, tmp_path).dtype == np.int32
  labels[3] = odd
  if odd == 2 and way is through_an_npz:
    return  # a third class, with too few images: another test's
  with pytest.raises(ValueError, match=r"labels .*"):
    way(labels, tmp_path)


def test_a_gap_is_refused_before_names_are_made(tmp_path):
  labels = np.arange(12) % 2 * 3_000_000
  tracemalloc.start()
  try:
    with pytest.raises(errors.InputError, match="labels go to 3000000, with no training image of class 1; count"):
      through_an_npz(labels, tmp_path)
    assert tracemalloc.get_traced_memory()[1] < 20e6
  finally:
    tracemalloc.stop()


@pytest.mark.parametrize(("seed", "seeds"), [(2**32, 1), (2**64, 1), (2**32 - 1, 2), (2**32 - 2, 3), (-1, 1)])
def test_seeds_of_a_config(seed, seeds):
  with pytest.raises(errors.InputError, match=rf"^config\.seed={seed}: "):
    config_of(seed=seed, seeds=seeds)
  assert config_of(seed=2**32 - seeds, seeds=seeds).seeds == seeds


@pytest.mark.parametrize("seed", [2**32, 2**64, -1, 0.5])
def test_seeds_of_a_loaded_run(seed):
  run = SimpleNamespace(_moves={"refine": None}, _wanted=lambda wish, count: (None, np.zeros(1, int)))
  with pytest.raises(ValueError, match=rf"seed={seed}: must be a whole number from 0 to 4294967295"):
    Run.draw(run, 0, seed=seed)


@pytest.mark.parametrize("flag", ["--seed", "--candidates", "--count", "--vae_epochs"])
def test_flags_of_the_command_that_makes_dirty_mnist(flag, tmp_path, capsys):
  with pytest.raises(SystemExit) as ended:
    make_dirty_mnist.main([f"--out={tmp_path}", f"{flag}={2**31}"])
  assert ended.value.code == 2
  assert f"{flag}=2147483648: must be from" in capsys.readouterr().err


KEYS = {key.name: key for key in fields.keys(config.config_class())}


def parsed(name, value):
  return config.parse(load_config("mnist5k", **{name.replace(".", "__"): value}))


@pytest.mark.parametrize("name", [name for name, key in KEYS.items() if key.check.type is int])
def test_whole_numbers_of_a_config(name):
  most = {"seed": 2**32 - 1, "seeds": 1000}.get(name, 2**31 - 1)
  for value in (most + 1, 2**64, 10**5000):
    with pytest.raises(errors.InputError, match=rf"^config\.{name}=.*: must be .*at most {most}$"):
      parsed(name, value)


@pytest.mark.parametrize("name", [name for name, key in KEYS.items() if key.check.type is float])
def test_numbers_of_a_config(name):
  with pytest.raises(errors.InputError, match=rf"^config\.{name}=1e\+39: must be "):
    parsed(name, 1e39)


@pytest.mark.parametrize(
  ("check", "given"),
  [
    (fields.positive, 10**400),
    (fields.positive, 1e-50),
    (fields.positive, 1e-39),
    (fields.decay, 1 - 1e-9),
    (fields.proper_share, 1 - 1e-9),
    (fields.shares, (0.5, 1e-50)),
    (fields.widths, (8, 2**31)),
    (fields.widths, (True,)),
    (fields.counts, (8, 2**31)),
  ],
)
def test_numbers_that_devices_round_to_others(check, given):
  with pytest.raises(errors.InputError, match=r"^config\.x=.*: must be "):
    check.value(given, "x")


def test_steps_are_counted():
  context = context_of(config_of())
  with pytest.raises(errors.InputError, match=r"^config\.vae\.epochs=2000000000: makes \d+ steps"):
    preflight.check_fit(config_of(vae__epochs=2_000_000_000), context)


@pytest.mark.parametrize("arm", ["flip_crop:padding=3000000000", "clip:limit=1e39", "augmix:consistency=1e300"])
def test_numbers_of_an_arm(arm):
  assert not arms.known(arm)


@pytest.mark.parametrize(
  ("images", "words"),
  [
    (np.full((1, 4, 4, 1), 2**32), "images are int64: pass uint8"),
    (np.ones((1, 4, 4, 1), bool), "images are bool: pass uint8"),
    (np.full((1, 4, 4, 1), 1 + 1e-12), "floats must be in"),
    (np.full((1, 4, 4, 1), np.nan), "floats must be in"),
    (np.ones((1, 4, 4, 1), np.uint8), "every value is 0 or 1, of 0 to 255"),
  ],
)
def test_images_of_a_loaded_run(images, words):
  facts = dataclasses.make_dataclass("Facts", ["shape"])((4, 4, 1))
  run = SimpleNamespace(_context=SimpleNamespace(facts=facts, prepare=lambda batch: batch), _shaped=np.asarray)
  with pytest.raises(ValueError, match=words):
    Run._prepared(run, images)
  assert Run._prepared(run, PICTURES).dtype == np.uint8


@pytest.mark.parametrize(("mode", "values"), [("1", {0, 255}), ("P", {0, 90}), ("L", {0, 1}), ("I;16", None)])
def test_pixels_of_tfds(mode, values):
  bits = np.eye(4, dtype=np.uint8)
  image = Image.fromarray(bits.astype(np.uint16) * 300 if mode == "I;16" else bits)
  if mode == "1":
    image = image.point(lambda value: value * 255).convert("1")
  elif mode == "P":
    image.putpalette([0, 0, 0, 90, 90, 90])
  buffer = io.BytesIO()
  image.save(buffer, "png")
  if values is None:
    with pytest.raises(errors.InputError, match=r"set: not an image of 4x4x1 .it has more than 8 bits a value"):
      tfds_sets._decoded(buffer.getvalue(), (4, 4, 1), "set")
  else:
    found = tfds_sets._decoded(buffer.getvalue(), (4, 4, 1), "set")
    assert (found.dtype, set(found.ravel().tolist())) == (np.uint8, values)
