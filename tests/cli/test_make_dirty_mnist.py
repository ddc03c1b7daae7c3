import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lcgen.cli import make_dirty_mnist
from lcgen.data import dirty_mnist, sources, tfds_sets
from lcgen.data.settings import DataSettings
from lcgen.runtime import errors
from tests.conftest import ROOT

RNG = np.random.default_rng(0)
TINY = {"count": 20, "candidates": 2000, "vae_epochs": 1, "ensemble_epochs": 2}
FLAGS = [f"--{name}={value}" for name, value in TINY.items()]


def entropy64(probabilities):
  logs = np.log(np.where(probabilities > 0, probabilities, 1))
  return -(probabilities * logs).sum(axis=-1)


@pytest.fixture(scope="module")
def digits():
  """Gives what the command starts from by default."""
  return sources.load(DataSettings(validation=0.0, test=0.2))


@pytest.fixture(scope="module")
def command(compilations):
  """Runs the command as a process: `command(*arguments) -> CompletedProcess`."""

  def run(*arguments):
    return subprocess.run(
      [sys.executable, "-m", "lcgen.data.ambiguous", *map(str, arguments)],
      cwd=ROOT,
      env=os.environ | compilations,
      capture_output=True,
      text=True,
      timeout=300,
    )

  return run


@pytest.fixture(scope="module")
def written(command, tmp_path_factory):
  """The folder that the command has written a tiny set to, and the process."""
  out = tmp_path_factory.mktemp("tfds")
  return out, command(f"--out={out}", *FLAGS)


def test_information_of_ensembles_whose_answer_is_known():
  sure = np.eye(4)[None, :2].repeat(2, axis=0)
  apart = np.stack([np.eye(4)[:2], np.eye(4)[2:]])
  unsure = np.full((2, 2, 4), 0.25)
  each = jnp.asarray(np.concatenate([sure, apart, unsure], axis=1), jnp.float32)
  np.testing.assert_allclose(make_dirty_mnist.mutual_information(each), [0, 0, np.log(2), np.log(2), 0, 0], atol=1e-6)
  np.testing.assert_allclose(make_dirty_mnist.entropy(each.mean(axis=0)), np.log([1, 1, 2, 2, 4, 4]), atol=1e-6)


def test_information_agrees_with_float64():
  each = RNG.dirichlet(np.full(10, 0.3), (5, 200))
  expected = entropy64(each.mean(axis=0)) - entropy64(each).mean(axis=0)
  np.testing.assert_allclose(make_dirty_mnist.entropy(jnp.asarray(each, jnp.float32)), entropy64(each), atol=1e-5)
  np.testing.assert_allclose(make_dirty_mnist.mutual_information(jnp.asarray(each, jnp.float32)), expected, atol=1e-5)
  assert expected.min() > 0


@pytest.mark.parametrize("size", [2, 3, 4])
def test_weights_are_uniform_on_the_simplex(size):
  """Moments of Dirichlet(1, ..., 1): mean 1/n, variance (n - 1) / (n^2 (n + 1)), covariance -1 / (n^2 (n + 1))."""
  weights = np.asarray(make_dirty_mnist.simplex_weights(jax.random.key(0), jnp.full(40_000, size)), np.float64)
  assert weights.min() >= 0
  np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-6)
  assert not weights[:, size:].any()
  weights = weights[:, :size]
  np.testing.assert_allclose(weights.mean(axis=0), 1 / size, atol=5e-3)
  covariance = (np.eye(size) * size - 1) / (size**2 * (size + 1))
  np.testing.assert_allclose(np.cov(weights.T), covariance, atol=2e-3)
  np.testing.assert_allclose((weights[:, 0] > 0.5).mean(), 0.5 ** (size - 1), atol=1e-2)


def test_mixtures_take_one_image_of_each_of_two_to_four_classes():
  """Every image is encoded as itself, so that a mixture shows its weights."""
  counts = np.array([3, 1, 4, 2, 5, 1, 2, 3, 4, 2])
  mixed = np.asarray(make_dirty_mnist.mixtures(jax.random.key(0), jnp.eye(counts.sum()), jnp.asarray(counts), 4000))
  np.testing.assert_allclose(mixed.sum(axis=1), 1, atol=1e-6)
  used = (mixed > 0).astype(int)
  by_class = np.add.reduceat(used, np.cumsum(counts) - counts, axis=1)
  assert by_class.max() == 1
  np.testing.assert_allclose(np.bincount(used.sum(axis=1), minlength=5)[2:] / 4000, [1 / 3] * 3, atol=0.03)
  np.testing.assert_allclose(by_class.mean(axis=0), 0.3, atol=0.03)
  expected = np.repeat(0.3 / counts, counts)
  np.testing.assert_allclose(used.mean(axis=0), expected, atol=0.03)


def test_bins_get_their_share_and_never_more_than_they_have():
  available = np.array([100_000, 3000, 100, 0, 7, 1])
  weights = available**0.2
  shares = make_dirty_mnist.allocate(available, 20)
  assert shares.sum() == 20
  np.testing.assert_allclose(shares, 20 * weights / weights.sum(), atol=1)
  for count in (1, 50, 1000, available.sum()):
    shares = make_dirty_mnist.allocate(available, count)
    assert shares.sum() == count
    assert np.all(shares <= available)
  shares = make_dirty_mnist.allocate(available, 1000)
  assert list(shares[2:]) == [100, 0, 7, 1]
  np.testing.assert_allclose(shares[0] / shares[1], (available[0] / available[1]) ** 0.2, rtol=0.02)


def test_entropies_lie_evenly_within_a_bin():
  values = np.sort(RNG.uniform(size=4000) ** 3)
  places = make_dirty_mnist.spread(values, 0.0, 1.0, 40)
  np.testing.assert_allclose(values[places], (np.arange(40) + 0.5) / 40, atol=5e-3)
  for number in (0, 1, 4, 5):
    places = make_dirty_mnist.spread(np.array([0.1, 0.11, 0.12, 0.13, 0.9]), 0.0, 1.0, number)
    assert len(set(places)) == number
    assert set(places) <= set(range(5))


def test_both_splits_have_the_same_profile_and_share_no_image():
  entropies = RNG.exponential(0.3, 60_000).astype(np.float32)
  train, test = make_dirty_mnist.subsample(entropies, 3000)
  assert len(train) == len(test) == 3000
  assert len(set(train) | set(test)) == 6000
  edges = np.linspace(0.05, 1.6, 51)
  train_counts, test_counts = (np.histogram(entropies[rows], edges)[0] for rows in (train, test))
  assert train_counts.sum() == test_counts.sum() == 3000
  np.testing.assert_allclose(train_counts, test_counts, atol=1)  # histogram rounds edges in another way
  weights = np.histogram(entropies, edges)[0] ** 0.2
  plenty = np.histogram(entropies, edges)[0] > 400
  np.testing.assert_allclose((test_counts / weights)[plenty], (test_counts / weights)[0], rtol=0.05)


def test_too_few_ambiguous_images_are_refused_with_the_numbers():
  entropies = np.concatenate([np.full(30, 0.5), np.full(100, 0.01), np.full(100, 1.7)])
  assert len(make_dirty_mnist.subsample(entropies, 15)[0]) == 15
  with pytest.raises(errors.InputError, match=r"--count=16: takes 32 .* of 230 accepted candidates 30 .*--candidates"):
    make_dirty_mnist.subsample(entropies, 16)


def test_labels_are_drawn_by_the_probabilities():
  probabilities = np.array([[0.7, 0.3, 0], [0, 0, 1], [0.2, 0.2, 0.6]], np.float32).repeat(3000, axis=0)
  drawn = make_dirty_mnist.draw_labels(jax.random.key(0), probabilities)
  assert drawn.dtype == np.int64
  assert drawn.shape == (9000, 10)
  shares = (drawn.reshape(3, -1, 1) == np.arange(3)).mean(axis=1)
  np.testing.assert_allclose(shares, probabilities[::3000], atol=0.01)


@pytest.mark.slow
def test_the_same_seed_makes_the_same_set(command, written, tmp_path):
  process = command(f"--out={tmp_path}", *FLAGS)
  assert process.returncode == 0, process.stderr
  for split in ("train", "test"):
    first, again = (
      tfds_sets.Prepared("dirty_mnist_like", str(out)).read(split, extras=("label_counts",))
      for out in (written[0], tmp_path)
    )
    for name, values in first.items():
      np.testing.assert_array_equal(values, again[name])


@pytest.mark.slow
def test_another_seed_makes_another_set(digits, written):
  arrays, entropies = make_dirty_mnist.make(digits, seed=1, **TINY)
  found = tfds_sets.Prepared("dirty_mnist_like", str(written[0]))
  for split, source in (("train", digits.train), ("test", digits.test)):
    images, labels, blends, drawn = arrays[split]
    np.testing.assert_array_equal(images, source.images)
    np.testing.assert_array_equal(labels, source.labels)
    assert (blends.dtype, blends.shape, drawn.dtype, drawn.shape) == (np.uint8, (20, 28, 28, 1), np.int64, (20, 10))
    assert np.all((0.05 <= entropies[split]) & (entropies[split] <= 1.6))
    assert not {image.tobytes() for image in blends} & {image.tobytes() for image in found.read(split)["image"]}
  assert len({image.tobytes() for split in arrays.values() for image in split[2]}) == 40


def test_the_command_writes_a_set_that_says_what_it_is(digits, written):
  out, process = written
  assert process.returncode == 0, process.stderr
  assert "not the published Dirty-MNIST" in process.stdout
  assert str(out / "dirty_mnist_like" / "1.0.0") in process.stdout
  info = (out / "dirty_mnist_like" / "1.0.0" / "dataset_info.json").read_text()
  assert "Not the published Dirty-MNIST" in info
  found = tfds_sets.Prepared("dirty_mnist_like", str(out))
  assert found.sizes == {"train": 4200, "test": 1200}
  rows = found.read("test", extras=("half", "label_counts"))
  half, counts = rows["half"], rows["label_counts"]
  assert (np.bincount(half) == [1000, 200]).all()
  assert len(counts) == 1200
  np.testing.assert_array_equal(counts[half == 0], np.eye(10)[rows["label"][half == 0]])
  assert (counts[half == 1].sum(axis=1) == 10).all()
  images, first, repeats = np.unique(
    rows["image"][half == 1].reshape(200, -1), axis=0, return_index=True, return_counts=True
  )
  assert len(images) == 20
  assert (repeats == dirty_mnist.LABELS_AN_IMAGE).all()
  ceiling = 100 * counts[half == 1][first].max(axis=1).mean() / 10
  assert f"commonest label: {ceiling:.1f} %" in process.stdout
  order = lambda images: images[np.lexsort(images.T)]
  np.testing.assert_array_equal(
    order(rows["image"][half == 0].reshape(1000, -1)), order(digits.test.images.reshape(1000, -1))
  )


def test_a_set_is_never_overwritten(written, capsys):
  out, _ = written
  path = out / "dirty_mnist_like" / "1.0.0" / "dataset_info.json"
  before = path.stat().st_mtime_ns
  with pytest.raises(SystemExit) as exit_:
    make_dirty_mnist.main([f"--out={out}", *FLAGS])
  assert exit_.value.code == 2
  assert f"there is a set in {path.parent}" in capsys.readouterr().err
  assert path.stat().st_mtime_ns == before


@pytest.mark.parametrize(
  ("arguments", "reason"),
  [
    ((), "--out"),
    (("--out=OUT", "--count=0"), "--count=0: must be from 1"),
    (("--out=OUT", "--count=many"), "--count: invalid int value"),
    (("--out=OUT", "--seed=-1"), "--seed=-1: must be from 0"),
    (("--out=OUT", "--vae_epochs=0"), "--vae_epochs=0: must be from 1"),
    (("--out=OUT", "--count=200", "--candidates=399"), "--candidates=399: must be at least twice --count=200"),
    (("--out=OUT", "--source=folder"), "--source: invalid choice"),
    (("--out=OUT", "--source=tfds", "--name=no_such_set", "--data_dir=OUT"), "no_such_set"),
    (("--out=OUT/file", "--count=20"), "cannot be made"),
    (("--out=OUT", "--what"), "--what"),
  ],
)
def test_bad_arguments_end_with_a_sentence_before_anything_is_trained(arguments, reason, tmp_path, monkeypatch, capsys):
  (tmp_path / "file").touch()
  monkeypatch.setattr(make_dirty_mnist, "make", None)
  with pytest.raises(SystemExit) as exit_:
    make_dirty_mnist.main([argument.replace("OUT", str(tmp_path)) for argument in arguments])
  assert exit_.value.code == 2
  assert reason in capsys.readouterr().err.splitlines()[-1]
  assert not (tmp_path / "dirty_mnist_like").exists()


def test_images_of_another_kind_are_refused(tmp_path, monkeypatch, capsys):
  colour = sources.Split(np.zeros((80, 32, 32, 3), np.uint8), np.arange(80, dtype=np.int32) % 10)
  data = sources.Dataset("colour", tuple("0123456789"), colour, colour, colour)
  monkeypatch.setattr(sources, "load", lambda *_, **__: data)
  with pytest.raises(SystemExit):
    make_dirty_mnist.main([f"--out={tmp_path}"])
  assert "takes 28x28 grey images in 10 classes" in capsys.readouterr().err
