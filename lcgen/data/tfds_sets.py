"""TFDS sets on disk: finds them, downloads and prepares missing ones, and reads them without TensorFlow."""

import contextlib
import fcntl
import importlib.util
import io
import logging
import os
import re
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator, Sequence
from concurrent import futures
from typing import Any

import numpy as np
from etils import epath

from lcgen.data import checks, ranges
from lcgen.runtime import errors, files, parallel, places

_log = logging.getLogger(__name__)

_PROBE_SECONDS = 5.0  # TFDS itself retries for minutes


def home(directory: str) -> epath.Path:
  """Returns the folder that holds TFDS sets; for an empty name it is TFDS's default.

  Raises:
    InputError: if it is in a store that cannot be read here.
  """
  path = directory or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
  return places.expanded(path, "config.data.dir" if directory else "TFDS_DATA_DIR")


def find(name: str, directory: str) -> epath.Path | None:
  """Returns the folder of the newest prepared version of a set, or None."""
  folder = home(directory) / name
  found = files.matching(folder, "*/dataset_info.json") if folder.is_dir() else ()
  versions = [path.parent for path in found if re.fullmatch(r"\d+\.\d+\.\d+", path.parent.name)]
  return max(versions, key=lambda path: [int(part) for part in path.name.split(".")], default=None)


def look_for(names: Sequence[str], directory: str, otherwise: str) -> list[str]:
  """Returns the sets that are not prepared yet, after it has checked that they can be prepared here.

  Args:
    names: TFDS names; sets with configs need one, as in `cifar10_corrupted/fog_3`.
    directory: folder of TFDS sets, as for `home`.
    otherwise: the way to do without the sets, for the error message.

  Raises:
    MissingDataError: if a set is missing and cannot be prepared; names the set, the folder and the ways out.
  """
  missing = [name for name in names if find(name, directory) is None]
  for base, name in {name.partition("/")[0]: name for name in missing}.items():
    if reason := _obstacle(name, directory):
      raise errors.MissingDataError(
        f"{base}: no prepared TFDS data set in {home(directory) / base}, and {reason}; copy a prepared folder there, "
        f"name the folder that holds it by --config.data.dir=DIR, or {otherwise}"
      )
  return missing


def ensure(names: Sequence[str], directory: str, otherwise: str) -> None:
  """Prepares the sets that are not prepared yet; takes the arguments of `look_for`, which checks all sets first.

  Raises:
    MissingDataError: as `look_for` does, before anything is downloaded.
    InputError: if a download fails, or a download or an archive is broken.
  """
  for name in look_for(names, directory, otherwise):
    _prepare(name, directory)


def _obstacle(name: str, directory: str) -> str:
  """Says why a set cannot be prepared here; empty if no reason is known."""
  import tensorflow_datasets as tfds

  base, _, config = name.partition("/")
  if base == "dirty_mnist_like":
    return f"it is made by python -m lcgen.data.ambiguous --out={home(directory)}"
  own = _own_builders()
  try:
    builder = own.get(base) or tfds.builder_cls(base)
  except tfds.core.DatasetNotFoundError:
    return "TFDS knows no data set of this name"
  configs = [known.name for known in builder.BUILDER_CONFIGS]
  if configs and config not in configs:
    return f"it has the configs {', '.join(configs)}, to be named as in {base}/{configs[0]}"
  if config and not configs:
    return "it has no configs"
  if base not in own and not importlib.util.find_spec("tensorflow"):
    return "TFDS takes TensorFlow to prepare it, which is not installed"
  addresses = list(_addresses(builder, home(directory) / "downloads"))
  if reason := _unreachable(addresses):
    names = ", ".join(address.rpartition("/")[2] for address in addresses)
    return f"{reason} ({names} may also be put into {home(directory) / 'downloads' / 'manual'})"
  return ""


def _own_builders() -> dict[str, type]:
  from lcgen.data import dirty_mnist, tfds_builders

  own = (
    tfds_builders.MNIST,
    tfds_builders.FashionMNIST,
    tfds_builders.KMNIST,
    tfds_builders.CIFAR10,
    tfds_builders.CIFAR10Corrupted,
    tfds_builders.MNISTCorrupted,
    dirty_mnist.DirtyMNIST,
  )
  return {builder.name: builder for builder in own}


def _addresses(builder: type, downloads: epath.Path) -> Iterator[str]:
  """Yields the addresses of the builder's files that are neither downloaded yet nor in `downloads/manual`."""
  import tensorflow_datasets as tfds

  checksums = {url: info.checksum for url, info in (builder.url_infos or {}).items()}
  checksums |= dict.fromkeys(getattr(builder, "md5s", ()))  # only our own builders have them
  for url, checksum in checksums.items():
    kept = downloads / builder.name / tfds.download.resource.get_dl_fname(url, checksum)
    if not kept.exists() and not (downloads / "manual" / url.rpartition("/")[2]).exists():
      yield url


def _unreachable(addresses: Iterable[str]) -> str:
  """Says which hosts do not answer; empty if all do. Returns within seconds in any case."""
  first = {address.split("/")[2]: address for address in addresses}
  failures = dict.fromkeys(first, "no answer")

  def ask(host: str, address: str) -> None:
    try:
      with urllib.request.urlopen(urllib.request.Request(address, method="HEAD"), timeout=_PROBE_SECONDS):
        del failures[host]
    except urllib.error.HTTPError:  # the host answers; the download itself will report the error
      del failures[host]
    except OSError as error:
      failures[host] = str(getattr(error, "reason", error))

  # Threads, because a DNS lookup has no timeout; daemons, because they do not keep the process from ending.
  threads = [threading.Thread(target=ask, args=item, daemon=True) for item in first.items()]
  for thread in threads:
    thread.start()
  deadline = time.monotonic() + _PROBE_SECONDS + 1
  for thread in threads:
    thread.join(max(0.0, deadline - time.monotonic()))
  return "; ".join(f"{host} cannot be reached ({failure})" for host, failure in dict(failures).items())


def _prepare(name: str, directory: str) -> None:
  import tensorflow_datasets as tfds

  base, _, config = name.partition("/")
  folder = home(directory)
  _log.info("preparing %s in %s", name, folder)
  if not sys.stderr.isatty():
    tfds.disable_progress_bar()
  try:
    with _alone(folder / "downloads", base):
      if find(name, directory):  # another process prepared it while this one waited
        return
      make = _own_builders().get(base) or tfds.builder_cls(base)
      builder = make(data_dir=folder, config=config or None, file_format="array_record")
      with contextlib.redirect_stdout(io.StringIO()):  # TFDS prints there
        builder.download_and_prepare()
  except (tfds.download.DownloadError, tfds.download.download_manager.NonMatchingChecksumError, OSError) as error:
    reason = " ".join(str(error).split())
    raise errors.InputError(f"{name} cannot be downloaded and prepared in {folder}: {reason}") from error


@contextlib.contextmanager
def _alone(downloads: epath.Path, base: str) -> Iterator[None]:
  """Lets one process at a time prepare a set, and afterwards removes unfinished files and empty folders."""
  downloads.mkdir(parents=True, exist_ok=True)
  with (downloads / f".{base}.lock").open("w") as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    try:
      yield
    finally:
      for pattern in (
        f"{base}/*.tmp.*",
        f"{base}/incomplete.*",
        f"../{base}/incomplete.*",
        f"../{base}/*/incomplete.*",
      ):
        for unfinished in files.matching(downloads, pattern):
          if unfinished.is_dir():
            unfinished.rmtree()
          else:
            unfinished.unlink()
      for folder in (*files.matching(downloads.parent, f"{base}/*"), downloads.parent / base):
        if folder.is_dir() and not any(folder.iterdir()):
          folder.rmdir()


class Prepared:
  """A prepared set of labelled images of one size.

  Attributes:
    shape: shape of the images, `(H, W, C)`.
    class_names: names of the labels 0, 1, ...
    sizes: number of examples in each split.

  Raises:
    MissingDataError: if there is no such set.
    InputError: if the set is of another kind or file format, or lacks files.
  """

  def __init__(self, name: str, directory: str):
    import tensorflow_datasets as tfds

    folder = find(name, directory)
    if folder is None:
      raise errors.MissingDataError(f"{name}: no prepared TFDS data set in {home(directory) / name}")
    self._folder, self._builder = folder, tfds.builder_from_directory(folder)
    info = self._builder.info
    if not {"image", "label"} <= set(info.features) or None in info.features["image"].shape:
      raise errors.InputError(f"{name}: not a set of labelled images of one size, but {dict(info.features)}")
    if info.file_format.value != "array_record":
      raise errors.InputError(
        f"{name}: {folder} is prepared as {info.file_format.value}, which takes TensorFlow to read; prepare it again "
        "with file_format='array_record'"
      )
    for split in info.splits.values():
      for path in split.filepaths:
        if not path.exists():
          raise errors.InputError(f"{name}: {path} is missing; copy the whole folder, or remove it")
    self.shape: tuple[int, int, int] = info.features["image"].shape
    self.class_names: tuple[str, ...] = tuple(info.features["label"].names)
    self.sizes: dict[str, int] = {key: split.num_examples for key, split in info.splits.items()}

  def read(self, split: str, extras: Sequence[str] = ()) -> dict[str, np.ndarray]:
    """Reads a whole split: `image` uint8 `[N, H, W, C]`, `label` int32 `[N]`, and further features by name.

    If there are several processes, each reads its part and gets the rest from the others.

    Raises:
      InputError: if a file is broken, or images or labels differ from the set's description.
    """
    return parallel.read_in_parts(self.sizes[split], lambda rows: self._read(split, rows, extras))

  def _read(self, split: str, rows: range, extras: Sequence[str]) -> dict[str, np.ndarray]:
    examples = self._examples(split, rows)
    images = np.empty((len(examples), *self.shape), np.uint8)

    def decode(place: int) -> None:
      where = f"{self._folder}, split {split}, example {rows[place]}"
      images[place] = _decoded(examples[place]["image"], self.shape, where)

    with futures.ThreadPoolExecutor() as pool:
      list(pool.map(decode, range(len(examples))))
    labels, what = np.array([example["label"] for example in examples]), f"{self._folder}, split {split}: labels"
    if len(labels):
      labels = checks.of_classes(checks.whole_labels(labels, len(images), what), len(self.class_names), what)
    return {"image": images, "label": labels.astype(np.int32)} | {
      name: np.array([example[name] for example in examples]) for name in extras
    }

  def _examples(self, split: str, rows: range) -> Sequence[dict[str, Any]]:
    import tensorflow_datasets as tfds

    # Our own decoding runs in threads, which is several times faster than TFDS's, and needs no OpenCV.
    source = self._builder.as_data_source(split, decoders={"image": tfds.decode.SkipDecoding()})
    try:
      return source.__getitems__(rows)
    except (IndexError, RuntimeError, ValueError, OSError) as error:  # array_record raises these for broken files
      raise errors.InputError(
        f"{self._folder}: split {split} cannot be read ({error}); remove the folder and prepare it again"
      ) from error


def _decoded(content: bytes, shape: tuple[int, ...], where: str) -> np.ndarray:
  """Decodes an image to uint8 `[H, W, C]`, also one that is stored in a palette or as bits."""
  from PIL import Image

  try:
    image = Image.open(io.BytesIO(content))
    if image.mode in ("1", "P"):
      image = image.convert("L" if shape[-1] == 1 else "RGB")
    pixels = np.asarray(image)
    if pixels.dtype != np.uint8:
      raise ValueError(f"it has more than 8 bits a value, {image.mode}")
    return pixels.reshape(shape)
  except ranges.PILLOW_ERRORS as error:
    raise errors.InputError(f"{where}: not an image of {'x'.join(map(str, shape))} ({error})") from error
