"""One's own images: folders and `.npz` files, good and bad."""

import re

import numpy as np
import pytest
from PIL import Image

from lcgen.data import array_files, sources
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
  "a text called png": (lambda root: (root / "train/cat/1.png").write_text("x"), "", r"cat/1\.png: not an image that"),
  "a class without images": (lambda root: (root / "train/emu").mkdir(), "", r"train/emu: no image of this class"),
  "a class only in test": (
    lambda root: save(root / "test/emu/0.png", np.zeros((10, 12))),
    "",
    r"test/emu is a class that .*train does not have",
  ),
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
