"""A workdir knows its data by their digests, and refuses others."""

import dataclasses

import numpy as np
import pytest
from etils import epath

from lcgen.data import digests
from lcgen.data.dataset import Dataset
from lcgen.runtime import errors
from lcgen.training import identity
from tests.support.helpers import squares


@pytest.fixture
def data():
  return Dataset("squares", ("a", "b", "c", "d"), squares(80), squares(16, seed=1), squares(20, seed=2))


@pytest.fixture
def workdir(tmp_path, data):
  """A workdir in which something is trained on the data."""
  folder = epath.Path(tmp_path)
  (folder / "checkpoints").mkdir()
  identity.confirm(folder, data)
  return folder


def inverted(split):
  return dataclasses.replace(split, images=255 - split.images)


def rotated(split):
  return dataclasses.replace(split, labels=np.roll(split.labels, 1))


def reordered(split):
  return split.take(np.arange(len(split))[::-1])


CHANGES = {
  "inverted images": (lambda data: dataclasses.replace(data, train=inverted(data.train)), "images of the training set"),
  "rotated labels": (lambda data: dataclasses.replace(data, train=rotated(data.train)), "labels of the training set"),
  "both": (
    lambda data: dataclasses.replace(data, train=rotated(inverted(data.train))),
    "images and labels of the training set",
  ),
  "another order": (
    lambda data: dataclasses.replace(data, train=reordered(data.train)),
    "images and labels of the training set",
  ),
  "validation": (
    lambda data: dataclasses.replace(data, validation=inverted(data.validation)),
    "images of the validation set",
  ),
  "test": (lambda data: dataclasses.replace(data, test=rotated(data.test)), "labels of the test set"),
  "class names": (
    lambda data: dataclasses.replace(data, class_names=("a", "c", "b", "d")),
    "the class of label 1 (it was 'b' and is 'c')",
  ),
  "a class more": (
    lambda data: dataclasses.replace(data, class_names=(*data.class_names, "e")),
    "the number of classes (it was 4 and is 5)",
  ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_data_of_the_same_size_are_told_apart(workdir, data, change):
  changed, words = CHANGES[change]
  before = (workdir / identity.NAME).read_bytes()
  identity.confirm(workdir, data)
  with pytest.raises(errors.InputError) as refused:
    identity.confirm(workdir, changed(data))
  assert f"--workdir={workdir}: was made with other data: {words} differ; " in str(refused.value)
  assert (workdir / identity.NAME).read_bytes() == before


def test_published_test_sets_are_told_apart(workdir, data):
  identity.confirm_set(workdir, "mnist_corrupted/fog", data.test)
  identity.confirm_set(workdir, "mnist_corrupted/spatter", data.validation)
  identity.confirm_set(workdir, "mnist_corrupted/fog", data.test)
  with pytest.raises(errors.InputError, match="images of the test set mnist_corrupted/fog differ"):
    identity.confirm_set(workdir, "mnist_corrupted/fog", inverted(data.test))
  identity.confirm(workdir, data)


def test_a_workdir_without_a_record_gets_one(workdir, data):
  (workdir / identity.NAME).unlink()
  changed = dataclasses.replace(data, train=inverted(data.train))
  identity.confirm(workdir, changed)
  with pytest.raises(errors.InputError, match="images of the training set differ"):
    identity.confirm(workdir, data)


def test_where_nothing_is_trained_yet_other_data_may_come(tmp_path, data):
  folder = epath.Path(tmp_path)
  identity.confirm(folder, data)
  identity.confirm(folder, dataclasses.replace(data, train=inverted(data.train)))


def test_digests_do_not_depend_on_the_rows_hashed_at_once_but_on_shape_and_type(data, monkeypatch):
  before, joined = digests.of_split(data.train), digests.joined(data.train)
  monkeypatch.setattr(digests, "_ROWS_BYTES", 100)
  assert (digests.of_split(data.train), digests.joined(data.train)) == (before, joined)
  flat = dataclasses.replace(data.train, images=data.train.images.reshape(80, 4, 16, 1))
  wide = dataclasses.replace(data.train, labels=data.train.labels.astype(np.int64))
  assert digests.of_split(flat)["images"] != before["images"]
  assert digests.of_split(wide)["labels"] != before["labels"]
