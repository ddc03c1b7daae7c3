"""Classes are named by texts or by indices, which are told apart."""

import numpy as np
import pytest

from lcgen.api import classes


@pytest.mark.parametrize(
  ("names", "label", "index"),
  [
    (("1", "2", "10"), "2", 1),
    (("1", "2", "10"), 0, 0),
    (("cat", "dog"), 1, 1),
    (("cat", "dog"), "dog", 1),
    (("01", "02", "03"), "02", 1),
    (("0", "1", "2"), 2, 2),
  ],
)
def test_names_and_indices_are_told_apart_by_their_type(names, label, index):
  assert classes.indices([label], names).tolist() == [index]


def test_indices_stay_indices_where_classes_are_called_by_other_numbers():
  assert classes.indices(np.array([3, 0], np.int32), ("3", "2", "1", "0")).tolist() == [3, 0]
  assert classes.indices([2], ("1", "2", "10")).tolist() == [2]


@pytest.mark.parametrize(
  ("wanted", "words"),
  [(["dgo"], "the nearest is dog"), ([1, "dog"], "not both"), ([2], "from 0 to 1"), ([True], "from 0")],
)
def test_what_is_no_class_is_refused(wanted, words):
  with pytest.raises(ValueError, match=words):
    classes.indices(wanted, ("cat", "dog"))
