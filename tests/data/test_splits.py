"""Every class is in every split, and a limit is never exceeded."""

import numpy as np
import pytest

from lcgen.data import sources, splits
from lcgen.data.settings import DataSettings
from lcgen.runtime import errors


def images_of(*sizes):
  """A split with so many images of each class, each image with a number of its own."""
  labels = np.repeat(np.arange(len(sizes)), sizes)
  images = np.random.default_rng(0).integers(0, 256, (len(labels), 4, 4, 1), np.uint8)
  return sources.Split(images, labels)


def cut(training, testing=None, own=None, **settings):
  names = tuple(f"class{label}" for label in range(int(training.labels.max()) + 1))
  return sources.split("mine", names, training, testing, DataSettings(**settings), own)


def counts(data):
  return [np.bincount(part.labels).tolist() for part in (data.train, data.validation, data.test)]


def test_a_rare_class_is_kept_by_a_limit():
  data = cut(images_of(990, 10), images_of(50, 5), train_limit=40, test_limit=7)
  assert counts(data) == [[34, 1], [4, 1], [6, 1]]


@pytest.mark.parametrize("share", [0.001, 0.1, 0.5, 0.6, 0.999])
@pytest.mark.parametrize("sizes", [(3, 3), (300, 3), (4, 5, 6), (100, 3, 40)])
@pytest.mark.parametrize("key", ["test", "validation"])
def test_every_class_is_in_every_split(key, sizes, share):
  data = cut(images_of(*sizes), **{key: share})
  assert np.min(counts(data)) >= 1
  assert np.sum(counts(data), axis=0).tolist() == list(sizes)


@pytest.mark.parametrize("limit", [8, 9, 17, 50, 99, 100, 101, 5000])
@pytest.mark.parametrize("sizes", [(97, 2, 2, 2), (30, 30, 30, 13), (2, 2, 2, 1900), (26, 25, 26, 26)])
@pytest.mark.parametrize("own", [False, True])
def test_limits_are_limits(own, sizes, limit):
  training = images_of(*sizes)
  validation = images_of(3, 3, 3, 3) if own else None
  data = cut(training, images_of(9, 9, 9, 90), validation, train_limit=limit, test_limit=limit)
  most = len(training) + (12 if own else 0)
  assert len(data.train) + len(data.validation) == min(limit, most)
  assert len(data.test) == min(limit, 117)
  assert np.min(counts(data)) >= 1


def test_a_limit_that_every_class_divides_keeps_the_rows_of_earlier_versions():
  labels = np.arange(4000) % 10
  generator = np.random.default_rng(0)
  expected = np.zeros(4000, bool)
  for label in range(10):
    expected[generator.permutation(np.flatnonzero(labels == label))[:40]] = True
  np.testing.assert_array_equal(splits.limited(labels, 400, 2), expected)
  np.testing.assert_array_equal(splits.held_out(labels, 0.1, 1), expected)


TOO_FEW = {
  "one image, no test set": (
    (5, 1),
    {"test": 0.6},
    r"fewer than 3 images of class class1 \(label 1\), and training, validation and test take one of every class",
  ),
  "two images, no test set": ((5, 2), {}, r"fewer than 3 images of class class1 \(label 1\)"),
  "many classes": ((1,) * 1000, {"train_limit": 100}, r"class class0 \(label 0\), class1 .* and 995 more, and"),
  "a limit of training images": (
    (9,) * 1000,
    {"train_limit": 100},
    "train_limit=100: 1000 classes take 2000 images, one each for training and validation; raise",
  ),
  "a limit of test images": ((9,) * 20, {"test_limit": 19}, "test_limit=19: 20 classes take 20 images, one each for"),
}


@pytest.mark.parametrize("case", TOO_FEW)
def test_too_few_images_are_refused_by_name(case):
  sizes, settings, words = TOO_FEW[case]
  with pytest.raises(errors.InputError, match=words):
    cut(images_of(*sizes), **settings)


def test_one_image_of_a_class_does_with_splits_of_their_own():
  data = cut(images_of(5, 1), images_of(2, 1), images_of(1, 1))
  assert counts(data) == [[5, 1], [1, 1], [2, 1]]
  with pytest.raises(errors.InputError, match="fewer than 2 images of class class1"):
    cut(images_of(5, 1), images_of(2, 1))


@pytest.mark.parametrize("part", ["training", "validation", "test"])
def test_a_class_without_an_image_of_a_split_is_named(part):
  parts = {"training": images_of(5, 5, 5), "test": images_of(2, 2, 2), "validation": images_of(2, 2, 2)}
  rows = parts[part].labels != 1
  parts[part] = parts[part].take(rows)
  with pytest.raises(errors.InputError, match=rf"mine: no {part} image of class class1 \(label 1\)"):
    cut(parts["training"], parts["test"], parts["validation"])
