"""TFDS builders that need no TensorFlow: only unpacking and the encoding of images as PNG differ from TFDS's own.

Names, versions, URLs, registered checksums, features and folders are TFDS's. Sets that either prepares, both can read.
"""

import contextlib
import gzip
import hashlib
import io
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

import numpy as np
import tensorflow_datasets as tfds
from etils import epath
from PIL import Image

from lcgen.runtime import errors

CLASSES = 10
SIDE = 28
_CIFAR_SHAPE = (32, 32, 3)
_FILES = {"frosted_glass_blur": "glass_blur", "elastic": "elastic_transform"}  # TFDS's names of CIFAR-10-C's files

Examples = Iterator[tuple[int, dict[str, Any]]]


def png(pixels: np.ndarray) -> bytes:
  """Encodes a uint8 image `[H, W, C]`, C in {1, 3}, as PNG."""
  buffer = io.BytesIO()
  Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(buffer, "png")
  return buffer.getvalue()


class Downloads:
  """Mixin of builders that downloads and checks their files.

  Attributes:
    url_infos: address, size and SHA-256 sum of each file that TFDS has registered; TFDS checks them.
    md5s: MD5 sums, by address, of further files, for which nothing else was published.
  """

  url_infos: Mapping[str, Any]
  md5s: Mapping[str, str] = {}

  def download(self, manager: tfds.download.DownloadManager) -> dict[str, epath.Path]:
    """Returns all files by the last part of their address; deletes a download that does not match.

    Raises:
      InputError: if an MD5 sum is not the published one; for SHA-256 TFDS raises its own exception.
    """
    name = lambda url: url.rpartition("/")[2]
    files = manager.download({name(url): url for url in self.url_infos})
    for url, md5 in self.md5s.items():
      given = self.data_dir_root / "downloads" / "manual" / name(url)
      path = files[name(url)] = given if given.exists() else manager.download(url)
      found = hashlib.md5(path.read_bytes()).hexdigest()
      if found != md5:
        if path != given:
          path.unlink()
        raise errors.InputError(f"{path}, from {url}: its MD5 sum is {found} and not {md5}; get it again")
    return files


@contextlib.contextmanager
def unpacking(path: epath.Path) -> Iterator[None]:
  """Turns the standard library's errors about a broken archive into an InputError that names the file."""
  try:
    yield
  except (OSError, EOFError, KeyError, ValueError, tarfile.TarError, zipfile.BadZipFile, zlib.error) as error:
    if isinstance(error, errors.InputError):
      raise
    raise errors.InputError(f"{path} cannot be unpacked: {error}; delete it to have it downloaded again") from error


def check_images(images: np.ndarray, labels: np.ndarray, shape: tuple[int, ...], path: Any) -> None:
  """Raises an InputError if arrays from a file are not labelled uint8 images of this shape."""
  if images.dtype != np.uint8 or images.shape[1:] != shape:
    raise errors.InputError(
      f"{path}: images are {images.dtype} {list(images.shape)} and not uint8 [N, {str(shape)[1:-1]}]"
    )
  if labels.shape != images.shape[:1]:
    raise errors.InputError(f"{path}: labels {list(labels.shape)} for {len(images)} images, not one each")
  check_labels(labels, path)


def check_labels(labels: np.ndarray, path: Any) -> None:
  """Raises an InputError if an array from a file does not hold whole numbers from 0 to 9."""
  if labels.dtype.kind not in "iu" or (labels.size and not 0 <= labels.min() <= labels.max() < CLASSES):
    raise errors.InputError(
      f"{path}: labels are {labels.dtype} from {labels.min()} to {labels.max()}, not whole numbers to {CLASSES - 1}"
    )


def labelled(images: np.ndarray, labels: np.ndarray) -> Examples:
  for index, (image, label) in enumerate(zip(images, labels, strict=True)):
    yield index, {"image": png(image), "label": int(label)}


def _idx(path: epath.Path) -> np.ndarray:
  """Reads a gzipped IDX file: two zero bytes, type 8 (uint8), rank, sizes as big-endian int32, values."""
  content = gzip.decompress(path.read_bytes())
  rank = content[3] if len(content) > 3 else 0
  if content[:3] != b"\0\0\x08":
    raise ValueError("not an IDX file of bytes")
  shape = np.frombuffer(content, ">i4", rank, offset=4)
  return np.frombuffer(content, np.uint8, offset=4 + 4 * rank).reshape(shape)


def mnist_arrays(files: Mapping[str, epath.Path], part: str) -> tuple[np.ndarray, np.ndarray]:
  """Reads images `[N, 28, 28, 1]` and labels `[N]` from MNIST's files; the part is `train` or `t10k`."""
  images_path, labels_path = files[f"{part}-images-idx3-ubyte.gz"], files[f"{part}-labels-idx1-ubyte.gz"]
  with unpacking(images_path):
    images = _idx(images_path)[..., None]
  with unpacking(labels_path):
    labels = _idx(labels_path)
  check_images(images, labels, (SIDE, SIDE, 1), images_path)
  return images, labels


def _mnist_family(official: type) -> type:
  """Makes the builder of MNIST, Fashion-MNIST or KMNIST, which have four files of the same names and format."""

  class Builder(Downloads, official, skip_registration=True):
    name = official.name
    url_infos = official.url_infos

    def _split_generators(self, dl_manager):
      files = self.download(dl_manager)
      parts = {"train": "train", "test": "t10k"}
      return {split: self._generate_examples(*mnist_arrays(files, part)) for split, part in parts.items()}

    def _generate_examples(self, images, labels) -> Examples:
      yield from labelled(images, labels)

  Builder.__name__ = Builder.__qualname__ = official.__name__
  return Builder


MNIST = _mnist_family(tfds.builder_cls("mnist"))
FashionMNIST = _mnist_family(tfds.builder_cls("fashion_mnist"))
KMNIST = _mnist_family(tfds.builder_cls("kmnist"))


class CIFAR10(Downloads, tfds.builder_cls("cifar10"), skip_registration=True):
  """CIFAR-10 from its binary batches: one byte for the label, then 32x32 red, green and blue bytes."""

  name = "cifar10"
  url_infos = tfds.builder_cls("cifar10").url_infos

  def _split_generators(self, dl_manager):
    (archive,) = self.download(dl_manager).values()
    with unpacking(archive), tarfile.open(archive) as tar:
      files = {member.name.rpartition("/")[2]: tar.extractfile(member).read() for member in tar if member.isfile()}
      self.info.features["label"].names = files["batches.meta.txt"].decode().split()
      training = b"".join(files[f"data_batch_{batch}.bin"] for batch in range(1, 6))
      testing = files["test_batch.bin"]
    return {
      "train": self._generate_examples("train", training, archive),
      "test": self._generate_examples("test", testing, archive),
    }

  def _generate_examples(self, split, content, archive) -> Examples:
    with unpacking(archive):
      rows = np.frombuffer(content, np.uint8).reshape(-1, 1 + np.prod(_CIFAR_SHAPE))
    images, labels = rows[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), rows[:, 0]
    check_images(images, labels, _CIFAR_SHAPE, archive)
    for index, example in labelled(images, labels):
      yield index, example | {"id": f"{split}_{index:05d}"}


class CIFAR10Corrupted(Downloads, tfds.builder_cls("cifar10_corrupted"), skip_registration=True):
  """CIFAR-10-C; every config reads its own rows from the one archive without unpacking it."""

  name = "cifar10_corrupted"
  url_infos = tfds.builder_cls("cifar10_corrupted").url_infos

  def _split_generators(self, dl_manager):
    (archive,) = self.download(dl_manager).values()
    return {"test": self._generate_examples(archive)}

  def _generate_examples(self, archive) -> Examples:
    corruption, severity = self.builder_config.corruption, self.builder_config.severity
    name = f"CIFAR-10-C/{_FILES.get(corruption, corruption)}.npy"
    with unpacking(archive), tarfile.open(archive) as tar:
      rows = _npy_header(tar.extractfile(name))[0][0]
      part = slice((severity - 1) * rows // 5, severity * rows // 5)
      labels = _npy_rows(tar.extractfile("CIFAR-10-C/labels.npy"), part)
      images = _npy_rows(tar.extractfile(name), part)
    check_images(images, labels, _CIFAR_SHAPE, f"{archive}, {name}")
    yield from labelled(images, labels)


class MNISTCorrupted(Downloads, tfds.builder_cls("mnist_corrupted"), skip_registration=True):
  """MNIST-C; every config reads its own members of the one archive, without unpacking the rest."""

  name = "mnist_corrupted"
  url_infos = tfds.builder_cls("mnist_corrupted").url_infos

  def _split_generators(self, dl_manager):
    (archive,) = self.download(dl_manager).values()
    return {split: self._generate_examples(archive, split) for split in ("train", "test")}

  def _generate_examples(self, archive, split) -> Examples:
    name = f"mnist_c/{self.builder_config.corruption}/{split}"
    with unpacking(archive), zipfile.ZipFile(archive) as files:
      images = np.load(io.BytesIO(files.read(f"{name}_images.npy")), allow_pickle=False)
      labels = np.load(io.BytesIO(files.read(f"{name}_labels.npy")), allow_pickle=False)
    check_images(images, labels, (SIDE, SIDE, 1), f"{archive}, {name}_images.npy")
    yield from labelled(images, labels)


def _npy_header(file: BinaryIO) -> tuple[tuple[int, ...], np.dtype]:
  """Reads shape and dtype of a `.npy` file, and leaves the file at its first value."""
  version = np.lib.format.read_magic(file)
  read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
  shape, fortran_order, dtype = read(file)
  if fortran_order or dtype.hasobject:
    raise ValueError(f"a .npy of {dtype}{' in Fortran order' if fortran_order else ''}")
  return shape, dtype


def _npy_rows(file: BinaryIO, rows: slice) -> np.ndarray:
  """Reads these rows of a `.npy` file and skips the others."""
  shape, dtype = _npy_header(file)
  row = dtype.itemsize * int(np.prod(shape[1:]))
  file.seek(rows.start * row, io.SEEK_CUR)
  return np.frombuffer(file.read((rows.stop - rows.start) * row), dtype).reshape(-1, *shape[1:])
