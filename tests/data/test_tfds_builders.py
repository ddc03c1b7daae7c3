"""The builders on small archives in the official formats, from a server on the loopback interface."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import tarfile
import time

import numpy as np
import pytest

from lcgen.data import test_sets, tfds_sets
from lcgen.runtime import errors
from tests.conftest import ROOT
from tests.support import archives

NAMES = (
  "mnist",
  "cifar10",
  "cifar10_corrupted/fog_3",
  "cifar10_corrupted/elastic_1",
  "mnist_corrupted/fog",
  "dirty_mnist",
)


@pytest.fixture(scope="module")
def official(tmp_path_factory):
  """The folder of all archives, and what went in."""
  folder = tmp_path_factory.mktemp("official")
  return folder, archives.write_all(folder)


@pytest.fixture
def point(monkeypatch):
  """Points the builders of this process at a server: `point(base, folder)`."""
  return lambda base, folder: archives.point_builders(archives.addresses(base, folder), monkeypatch.setattr)


def start(base, folder, data_dir, *names):
  """A process that prepares sets with TensorFlow and torch hidden from it."""
  addresses = data_dir.parent / "addresses.json"
  addresses.write_text(json.dumps(archives.addresses(base, folder)))
  command = [sys.executable, "-m", "tests.support.prepare_local", str(addresses), str(data_dir), *names]
  return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process):
  stdout, stderr = process.communicate(timeout=120)
  return process.returncode, stdout, stderr


def unfinished(data_dir):
  return [path for path in data_dir.rglob("*") if ".tmp." in path.name or path.name.startswith("incomplete")]


def in_order(images, labels):
  """Rows sorted by their bytes: TFDS shuffles."""
  rows = np.concatenate([np.asarray(images).reshape(len(labels), -1), np.asarray(labels, np.uint8)[:, None]], axis=1)
  return rows[np.lexsort(rows.T)]


def same(arrays, images, labels):
  np.testing.assert_array_equal(in_order(arrays["image"], arrays["label"]), in_order(images, labels))


def test_all_official_formats_without_tensorflow_and_torch(official, tmp_path):
  folder, given = official
  data_dir = tmp_path / "tfds"
  with archives.serve(folder) as server:
    code, _, stderr = finish(start(server.base, folder, data_dir, *NAMES))
  assert code == 0, stderr
  assert server.requests.count("CIFAR-10-C.tar") == 1
  assert not list((data_dir / "downloads" / "extracted").iterdir())
  read = lambda name, split, *extras: tfds_sets.Prepared(name, str(data_dir)).read(split, extras)
  for name in ("mnist", "cifar10"):
    for split, (images, labels) in zip(("train", "test"), given[name], strict=True):
      same(read(name, split), images, labels)
  assert tfds_sets.Prepared("cifar10", str(data_dir)).class_names == tuple(archives.CIFAR_CLASSES)
  parts = list(test_sets.FAMILIES["cifar10_corrupted"])
  images, labels = given["cifar10"][1]
  for name, part, severity in (("fog_3", "fog", 3), ("elastic_1", "elastic_transform", 1)):
    same(read(f"cifar10_corrupted/{name}", "test"), images + np.uint8(10 * parts.index(part) + severity), labels)
  images, labels = given["mnist"][0]
  fog = np.uint8(list(test_sets.FAMILIES["mnist_corrupted"]).index("fog"))
  same(read("mnist_corrupted/fog", "train"), images + fog, labels)


def test_dirty_mnist_is_mnist_and_ambiguous_images_with_each_label(official, tmp_path, point):
  folder, given = official
  with archives.serve(folder) as server:
    point(server.base, folder)
    tfds_sets.ensure(["dirty_mnist"], str(tmp_path), "")
  samples, drawn = (np.load(archives.TORCH_FILES / "amnist.npz")[name] for name in ("samples", "labels"))
  for split, part, rows in (("train", 0, slice(0, 2)), ("test", 1, slice(2, 4))):
    arrays = tfds_sets.Prepared("dirty_mnist", str(tmp_path)).read(split, ("half", "label_counts"))
    clean = arrays["half"] == 0
    same({name: arrays[name][clean] for name in ("image", "label")}, *given["mnist"][part])
    np.testing.assert_array_equal(arrays["label_counts"][clean].argmax(axis=1), arrays["label"][clean])
    assert set(arrays["label_counts"][clean].sum(axis=1)) == {1}
    images = np.repeat(np.round(samples[rows] * 255).astype(np.uint8).reshape(-1, 28, 28, 1), 10, axis=0)
    same({name: arrays[name][~clean] for name in ("image", "label")}, images, drawn[rows].reshape(-1))
    assert set(arrays["label_counts"][~clean].sum(axis=1)) == {10}
    for image, counts in zip(arrays["image"][~clean], arrays["label_counts"][~clean], strict=True):
      place = [np.array_equal(image, known) for known in images].index(True) // 10
      np.testing.assert_array_equal(counts, np.bincount(drawn[rows][place], minlength=10))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
  """A folder of archives large enough to be killed in between, and what their preparation prints."""
  folder = tmp_path_factory.mktemp("undisturbed") / "official"
  archives.write_all(folder, train=4000, test=1000)
  with archives.serve(folder) as server:
    code, stdout, stderr = finish(start(server.base, folder, folder.parent / "tfds", "mnist"))
  assert code == 0, stderr
  return folder, stdout


@pytest.mark.parametrize("moment", ["download", "one file of four", "preparation", "records"])
def test_killed_at_any_moment_the_next_run_makes_the_same_set(moment, undisturbed, tmp_path):
  folder, expected = undisturbed
  data_dir = tmp_path / "tfds"
  signs = {
    "download": "downloads/mnist/*.tmp.*/*",
    "one file of four": "downloads/mnist/*.INFO",
    "preparation": "mnist/incomplete*",
    "records": "mnist/incomplete*/*record*",
  }
  with archives.serve(folder) as server:
    if moment in ("download", "one file of four"):
      server.stalled.add("train-images-idx3-ubyte.gz")
    process = start(server.base, folder, data_dir, "mnist")
    deadline = time.monotonic() + 60
    while not list(data_dir.glob(signs[moment])) and process.poll() is None and time.monotonic() < deadline:
      time.sleep(0.001)
    os.kill(process.pid, signal.SIGKILL)
    finish(process)
    assert tfds_sets.find("mnist", str(data_dir)) is None
    server.stalled.clear()
    code, again, stderr = finish(start(server.base, folder, data_dir, "mnist"))
    assert code == 0, stderr
  assert not unfinished(data_dir)
  assert again == expected


def test_two_processes_at_once_prepare_one_set(official, tmp_path):
  folder, _ = official
  with archives.serve(folder) as server:
    both = [start(server.base, folder, tmp_path / "tfds", "mnist") for _ in range(2)]
    ends = [finish(process) for process in both]
  assert [code for code, _, _ in ends] == [0, 0], ends
  assert ends[0][1] == ends[1][1]
  assert server.requests.count("train-images-idx3-ubyte.gz") == 1


def test_a_download_that_breaks_off_leaves_nothing_and_can_be_run_again(official, tmp_path, point):
  folder, _ = official
  with archives.serve(folder) as server:
    point(server.base, folder)
    server.halved.add("cifar-10-binary.tar.gz")
    with pytest.raises(errors.InputError, match=rf"cifar10 cannot be downloaded and prepared in {tmp_path}"):
      tfds_sets.ensure(["cifar10"], str(tmp_path), "")
    assert not unfinished(tmp_path)
    assert tfds_sets.find("cifar10", str(tmp_path)) is None
    server.halved.clear()
    tfds_sets.ensure(["cifar10"], str(tmp_path), "")
  assert tfds_sets.Prepared("cifar10", str(tmp_path)).sizes == {"train": 50, "test": 20}


def test_wrong_checksums_are_refused(official, tmp_path, point, monkeypatch):
  from lcgen.data import dirty_mnist

  folder, _ = official
  with archives.serve(folder) as server:
    known = archives.addresses(server.base, folder)
    known["mnist_corrupted"]["url_infos"][f"{server.base}/mnist_c.zip"][1] = "0" * 64
    archives.point_builders(known, monkeypatch.setattr)
    with pytest.raises(errors.InputError, match=r"mnist_corrupted/fog cannot .*mnist_c\.zip.*wrong checksum"):
      tfds_sets.ensure(["mnist_corrupted/fog"], str(tmp_path), "")
    point(server.base, folder)
    monkeypatch.setattr(dirty_mnist.DirtyMNIST, "md5s", {f"{server.base}/amnist_samples.pt": "0" * 32})
    with pytest.raises(errors.InputError, match=r"amnist_samples\.pt: its MD5 sum is \w+ and not 000"):
      tfds_sets.ensure(["dirty_mnist"], str(tmp_path), "")
  assert not unfinished(tmp_path)
  assert not list(tmp_path.glob("downloads/*/*mnist_c*"))
  assert not list(tmp_path.glob("downloads/*/*amnist_samples*.pt"))
  assert not (tmp_path / "dirty_mnist").exists()


def halve(path):
  path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


BROKEN = {
  "half of a gzip file": ("mnist", lambda folder: halve(folder / "t10k-images-idx3-ubyte.gz"), "t10k-images"),
  "labels for images": (
    "mnist",
    lambda folder: (folder / "train-images-idx3-ubyte.gz").write_bytes(
      (folder / "train-labels-idx1-ubyte.gz").read_bytes()
    ),
    r"train-images.*not uint8 \[N, 28, 28, 1\]",
  ),
  "labels beyond nine": (
    "mnist",
    lambda folder: archives.write_mnist(
      folder, archives.labelled(20, (28, 28), 0), (archives.labelled(20, (28, 28), 0)[0], np.full(20, 17, np.uint8))
    ),
    "from 17 to 17",
  ),
  "fewer labels than images": (
    "mnist",
    lambda folder: archives.write_mnist(
      folder, archives.labelled(20, (28, 28), 0), (archives.labelled(20, (28, 28), 0)[0], np.zeros(19, np.uint8))
    ),
    r"labels \[19\] for 20 images",
  ),
  "half of a tar.gz": ("cifar10", lambda folder: halve(folder / "cifar-10-binary.tar.gz"), "cifar-10-binary"),
  "half of a tar": ("cifar10_corrupted/saturate_5", lambda folder: halve(folder / "CIFAR-10-C.tar"), "CIFAR-10-C"),
  "floats for bytes": (
    "cifar10_corrupted/fog_3",
    lambda folder: archives.write_cifar10_c(folder, np.zeros((20, 32, 32, 3)), np.zeros(20, np.uint8)),
    "images are float64",
  ),
  "half of a zip": ("mnist_corrupted/fog", lambda folder: halve(folder / "mnist_c.zip"), "mnist_c.*unpacked"),
  "half of a torch file": ("dirty_mnist", lambda folder: halve(folder / "amnist_samples.pt"), "amnist_samples"),
  "labels for samples": (
    "dirty_mnist",
    lambda folder: (folder / "amnist_samples.pt").write_bytes((folder / "amnist_labels.pt").read_bytes()),
    r"amnist_samples.*int64 \[4, 10\]",
  ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_archives_are_named_and_leave_nothing(case, tmp_path, point):
  name, spoil, words = BROKEN[case]
  folder, data_dir = tmp_path / "official", tmp_path / "tfds"
  archives.write_all(folder)
  spoil(folder)
  with archives.serve(folder) as server:
    point(server.base, folder)
    with pytest.raises(errors.InputError, match=words):
      tfds_sets.ensure([name], str(data_dir), "")
  assert tfds_sets.find(name, str(data_dir)) is None
  assert not unfinished(data_dir)


def test_files_that_are_at_hand_need_no_network(official, tmp_path, point):
  folder, _ = official
  with archives.serve(folder) as server:
    point(server.base, folder)
    tfds_sets.ensure(["cifar10_corrupted/fog_1"], str(tmp_path), "")
  tfds_sets.ensure(["cifar10_corrupted/fog_2"], str(tmp_path), "")  # from the archive that was downloaded
  given = tmp_path / "downloads" / "manual"
  given.mkdir()
  for file in (*folder.glob("*-ubyte.gz"), *folder.glob("*.pt")):
    (given / file.name).write_bytes(file.read_bytes())
  tfds_sets.ensure(["mnist", "dirty_mnist"], str(tmp_path), "")
  assert tfds_sets.Prepared("dirty_mnist", str(tmp_path)).sizes == {"train": 70, "test": 40}


@pytest.mark.parametrize("server_is", ["not there", "silent"])
def test_without_an_answer_the_error_comes_soon_and_says_what_to_do(server_is, official, tmp_path, point):
  folder, _ = official
  with archives.serve(folder) as server:
    point(server.base, folder)
    if server_is == "silent":
      server.RequestHandlerClass.do_HEAD = lambda self: server.closing.wait(60)
    else:
      server.shutdown()
      server.server_close()
    started = time.monotonic()
    with pytest.raises(errors.MissingDataError) as caught:
      tfds_sets.ensure(["cifar10_corrupted/fog_1"], str(tmp_path), "use the generated corruptions")
    assert time.monotonic() - started < 10
  message = str(caught.value)
  for words in (
    f"{tmp_path}/cifar10_corrupted",
    "127.0.0.1",
    "CIFAR-10-C.tar",
    "copy a prepared folder",
    "--config.data.dir=DIR",
    "use the generated corruptions",
  ):
    assert words in message


def test_sets_that_cannot_be_prepared_say_why(tmp_path):
  for name, words in (
    ("no_such_set", "TFDS knows no data set of this name"),
    ("imagenette/160px-v2", "takes TensorFlow to prepare it, which is not installed"),
    ("dirty_mnist_like", "python -m lcgen.data.ambiguous"),
    ("mnist_corrupted", "to be named as in mnist_corrupted/identity"),
    ("mnist_corrupted/sleet", "has the configs identity, shot_noise"),
    ("mnist/small", "it has no configs"),
  ):
    with pytest.raises(errors.MissingDataError, match=words):
      tfds_sets.ensure([name], str(tmp_path), "")
  assert not list(tmp_path.iterdir())


def test_broken_prepared_sets_are_named(official, tmp_path, point):
  folder, _ = official
  with archives.serve(folder) as server:
    point(server.base, folder)
    tfds_sets.ensure(["mnist", "mnist_corrupted/fog"], str(tmp_path), "")
  (records,) = tmp_path.glob("mnist/*/*test*record*")
  halve(records)
  with pytest.raises(errors.InputError, match=rf"{tmp_path}/mnist/3\.0\.1.* split test"):
    tfds_sets.Prepared("mnist", str(tmp_path)).read("test")
  records.unlink()
  with pytest.raises(errors.InputError, match=rf"{records.name}.* is missing"):
    tfds_sets.Prepared("mnist", str(tmp_path))


def test_the_newest_version_counts_and_half_made_ones_do_not(tmp_path):
  for version in ("2.0.0", "10.0.0", "incomplete.ABC_11.0.0"):
    (tmp_path / "mnist" / version).mkdir(parents=True)
    (tmp_path / "mnist" / version / "dataset_info.json").write_text("{}")
  assert tfds_sets.find("mnist", str(tmp_path)).name == "10.0.0"


SHARED = ROOT.parent / "shared" / "data"


@pytest.mark.parametrize("name", ["mnist", pytest.param("cifar10", marks=pytest.mark.slow)])
def test_sets_that_tfds_prepared_hold_the_same_images(name, tmp_path, point):
  theirs = tfds_sets.find(name, "")
  if not SHARED.is_dir() or theirs is None:
    pytest.skip(f"needs the archives in {SHARED} and {name} as TFDS prepared it from them in $TFDS_DATA_DIR")
  folder = SHARED / "mnist"
  if name == "cifar10":
    spec = importlib.util.spec_from_file_location("prepare_tfds", SHARED / "prepare_tfds.py")
    prepare_tfds = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(prepare_tfds)
    folder = prepare_tfds.cifar10_binary_folder(tmp_path)
    with tarfile.open(folder / "cifar-10-binary.tar.gz", "w:gz", compresslevel=1) as tar:
      tar.add(folder / "cifar-10-batches-bin", "cifar-10-batches-bin")
  with archives.serve(folder) as server:
    point(server.base, folder)
    tfds_sets.ensure([name], str(tmp_path / "ours"), "")
  both = tfds_sets.Prepared(name, ""), tfds_sets.Prepared(name, str(tmp_path / "ours"))
  assert both[0].class_names == both[1].class_names
  for split in both[0].sizes:
    first, second = (found.read(split) for found in both)
    np.testing.assert_array_equal(first["label"], second["label"])
    np.testing.assert_array_equal(first["image"], second["image"])
  ours = tfds_sets.find(name, str(tmp_path / "ours"))
  assert {path.name for path in ours.iterdir()} == {path.name for path in theirs.iterdir()}
  assert (ours / "features.json").read_text() == (theirs / "features.json").read_text()
