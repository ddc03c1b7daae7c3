"""Rows that stand for a whole set: nothing that is scored or shown depends on the order in which images are stored."""

import ast
import itertools
import pathlib

import jax.numpy as jnp
import numpy as np
import pytest

import lcgen
from lcgen.data import picking, sources
from lcgen.evaluation import distances, sample_scores

OPTIMIZED = True  # thousands of rows are compared
PACKAGE = pathlib.Path(lcgen.__file__).parent
COUNT, CLASSES = 12_000, 10
SHARES = np.array([3, 1, 1, 1, 1, 1, 1, 1, 0.5, 0.5]) / 11  # classes of unlike size


def synthetic(count=COUNT, seed=0):
  """Images of a class are alike, and drift from one to the next, as those of one source do; sorted by class."""
  rng = np.random.default_rng(seed)
  labels = np.sort(rng.choice(CLASSES, count, p=SHARES)).astype(np.int32)
  middles = np.random.default_rng(99).uniform(60, 190, (CLASSES, 8))
  images = middles[labels] + np.linspace(-20, 20, count)[:, None] + rng.normal(0, 12, (count, 8))
  return sources.Split(images.clip(0, 255).astype(np.uint8).reshape(count, 4, 2, 1), labels)


def interleaved(labels):
  """The first image of each class, then the second of each, and so on."""
  places = np.concatenate([np.arange((labels == label).sum()) for label in range(CLASSES)])
  return np.argsort(places, kind="stable")


ORDERS = {
  "sorted by class": lambda labels: np.arange(len(labels)),
  "reversed": lambda labels: np.arange(len(labels))[::-1],
  "shuffled": lambda labels: np.random.default_rng(5).permutation(len(labels)),
  "interleaved": interleaved,
}
of_orders = pytest.mark.parametrize("order", ORDERS)


@of_orders
@pytest.mark.parametrize("count", [20, 999, 10_000])
def test_every_class_has_its_share(order, count):
  labels = synthetic().labels
  labels = labels[ORDERS[order](labels)]
  rows = picking.pick(labels, count)
  assert rows.tolist() == sorted(set(rows.tolist()))
  assert len(rows) == count
  share = np.bincount(labels[rows], minlength=CLASSES) - count * np.bincount(labels) / COUNT
  assert np.abs(share).max() <= 1


def test_a_set_that_is_short_is_picked_whole():
  for count in (0, 1, 9, 10):
    np.testing.assert_array_equal(picking.pick(np.arange(count) % 3, 10), np.arange(count))
  assert len(picking.pick(np.arange(9), 0)) == 0


def test_rows_without_labels_are_spread_over_all():
  np.testing.assert_array_equal(picking.pick(np.zeros(101), 5), [0, 25, 50, 75, 100])


def test_rows_of_a_sorted_set_are_spread_evenly():
  """The default config's test set is sorted, and its figures and edits have always taken these rows."""
  labels = np.repeat(np.arange(10), 100)
  for count in (20, 200):
    np.testing.assert_array_equal(picking.pick(labels, count), np.linspace(0, 999, count).astype(int))


def features(split):
  return jnp.asarray(split.images.reshape(len(split), -1) / 255, jnp.float32)


def frechet(split, samples):
  sets = [(rows, jnp.ones(len(rows), bool)) for rows in map(features, (split, samples))]
  return distances.frechet_distance(*(distances.moments(*one) for one in sets))


def spread(split, samples):
  del samples
  return float(distances.within_class_spread(features(split), jnp.asarray(split.labels), CLASSES))


def neighbourhood(split, samples):
  real, drawn = features(split), features(samples)
  found = distances.neighbourhood_scores(real, drawn, jnp.ones(len(real), bool), jnp.ones(len(drawn), bool))
  return [float(found[name]) for name in ("precision", "recall", "density", "coverage")]


@pytest.mark.parametrize(("score", "count", "most"), [(frechet, COUNT, 10_000), (spread, COUNT, 10_000),
                                                      (neighbourhood, 1_200, 1_000)])  # fmt: skip
def test_scores_do_not_depend_on_the_stored_order(score, count, most, monkeypatch):
  """They are as alike as those of random subsets; the first rows of the sorted set are not."""
  monkeypatch.setattr(sample_scores, "_MOST", most)
  split, samples = synthetic(count), synthetic(300, seed=1)
  rng = np.random.default_rng(2)
  subsets = [score(split.take(rng.choice(count, most, replace=False)), samples) for _ in range(10)]
  centre, deviation = np.mean(subsets, axis=0), np.std(subsets, axis=0, ddof=1)
  for name, order in ORDERS.items():
    found = score(sample_scores._some(split.take(order(split.labels))), samples)
    assert (np.abs(found - centre) < 4 * deviation).all(), (name, found, centre, deviation)
  first = score(split.take(np.arange(most)), samples)
  assert score is spread or (np.abs(first - centre) > 8 * deviation).any()


WORDS = ("image", "label", "latent", "test", "train", "rows", "split", "validation", "feature", "exemplar")
FIRST_ROWS = {  # places that take first rows, and why their order cannot matter
  ("classifiers/policies.py", "jax.random.permutation(pick_key, images.shape[0])[:size]"): "rows in a random order",
  ("data/checks.py", "labels[:_MOST_NAMES]"): "labels for a sentence",
  ("data/splits.py", "rows[:count]"): "rows in a random order",
  ("runtime/parallel.py", "rows[:count]"): "all rows without the padding",
  ("cli/use_run.py", "images[:-1]"): "all but the last, each beside the next",
}


def first_rows(path):
  """Slices `x[:n]` of what holds images, labels or their rows, and rows at equal distances over a stored order."""
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Subscript):
      first = node.slice.elts[0] if isinstance(node.slice, ast.Tuple) and node.slice.elts else node.slice
      is_head = isinstance(first, ast.Slice) and first.lower is None and first.upper is not None
      value = ast.unparse(node.value)
      if is_head and not value.endswith((".shape", "digest()")) and any(word in value for word in WORDS):
        yield ast.unparse(node)
    elif isinstance(node, ast.Call) and ast.unparse(node).startswith("np.linspace(0, len("):
      yield ast.unparse(node)


def test_nothing_takes_the_first_rows_of_stored_images():
  found = {}
  for path in sorted(PACKAGE.rglob("*.py")):
    name = path.relative_to(PACKAGE).as_posix()
    if name != "data/picking.py":
      found |= dict.fromkeys(itertools.product([name], first_rows(path)))
  assert set(found) == set(FIRST_ROWS)
