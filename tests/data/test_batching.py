"""Padded batches: every row counts once, whatever the size of a batch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lcgen.data import batching
from tests.support.helpers import squares


@pytest.mark.parametrize("size", [1, 7, 20, 33])
def test_batches_have_one_size_and_a_mask_counts_every_row_once(size):
  split = squares(20)
  batches = batching.padded(split, size, jax.devices()[0])
  assert {batch["image"].shape[0] for batch in batches} == {size}
  assert {batch["image"].dtype for batch in batches} == {np.dtype("uint8")}
  assert sum(int(batch["mask"].sum()) for batch in batches) == 20
  for name, expected in (("image", split.images), ("label", split.labels)):
    rows = [np.asarray(batch[name])[np.asarray(batch["mask"])] for batch in batches]
    np.testing.assert_array_equal(np.concatenate(rows), expected)


def test_rows_that_fill_the_last_batch_are_real_ones():
  arrays = {"row": np.arange(3), "mask": np.array([True, False, True])}
  (batch,) = batching.padded_arrays(arrays, 8, jax.devices()[0])
  np.testing.assert_array_equal(batch["row"], [0, 1, 2, 0, 1, 2, 0, 1])
  np.testing.assert_array_equal(batch["mask"], [True, False, True] + [False] * 5)


@pytest.mark.parametrize("size", [3, 20])
def test_sums_of_trees_are_exact(size):
  split = squares(20)

  def function(batch):
    return {"labels": jnp.where(batch["mask"], batch["label"], 0).sum(), "rows": [batch["mask"].sum()]}

  found = batching.total(function, batching.padded(split, size, jax.devices()[0]))
  assert jax.device_get(found) == {"labels": split.labels.sum(), "rows": [20]}
