"""Small archives in the official formats, and a server on the loopback interface that hands them out."""

import contextlib
import gzip
import hashlib
import http.server
import io
import pathlib
import shutil
import tarfile
import threading
import zipfile

import numpy as np

from lcgen.data import corruptions

TORCH_FILES = pathlib.Path(__file__).parent / "torch_files"  # amnist_*.pt were written by torch 2.13
CIFAR_CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def labelled(count, shape, seed):
  """Random images, uint8 `[count, *shape]`, and the labels 0, 1, ..., 9, 0, ..."""
  images = np.random.default_rng(seed).integers(0, 256, (count, *shape), np.uint8)
  return images, np.arange(count, dtype=np.uint8) % 10


def write_mnist(folder, train, test):
  """The four IDX files of images `[N, 28, 28]` with labels."""
  for part, (images, labels) in (("train", train), ("t10k", test)):
    for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
      header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes()
      (folder / f"{part}-{kind}-ubyte.gz").write_bytes(gzip.compress(header + array.tobytes()))


def write_cifar10(folder, train, test):
  """`cifar-10-binary.tar.gz` of images `[N, 32, 32, 3]` with labels, N of training a multiple of five."""
  rows = lambda images, labels: np.concatenate(
    [labels[:, None], images.transpose(0, 3, 1, 2).reshape(len(labels), -1)], 1
  )
  batches = np.split(rows(*train), 5)
  files = {f"data_batch_{number}.bin": batch.tobytes() for number, batch in enumerate(batches, start=1)}
  files |= {"test_batch.bin": rows(*test).tobytes(), "batches.meta.txt": "\n".join([*CIFAR_CLASSES, ""]).encode()}
  _tar(folder / "cifar-10-binary.tar.gz", {f"cifar-10-batches-bin/{name}": content for name, content in files.items()})


def write_cifar10_c(folder, images, labels):
  """`CIFAR-10-C.tar`: severity s of corruption k is the clean images plus 10 k + s, modulo 256."""
  levels = np.concatenate([images + np.uint8(severity) for severity in corruptions.SEVERITIES])
  names = enumerate(corruptions.CIFAR10_C)
  files = {f"CIFAR-10-C/{name}.npy": _npy(levels + np.uint8(10 * place)) for place, name in names}
  _tar(folder / "CIFAR-10-C.tar", files | {"CIFAR-10-C/labels.npy": _npy(np.tile(labels, 5))})


def write_mnist_c(folder, train, test):
  """`mnist_c.zip`: corruption k is the clean images `[N, 28, 28, 1]` plus k, modulo 256."""
  with zipfile.ZipFile(folder / "mnist_c.zip", "w", zipfile.ZIP_DEFLATED) as file:
    for place, name in enumerate(["identity", *corruptions.MNIST_C]):
      for split, (images, labels) in (("train", train), ("test", test)):
        file.writestr(f"mnist_c/{name}/{split}_images.npy", _npy(images + np.uint8(place)))
        file.writestr(f"mnist_c/{name}/{split}_labels.npy", _npy(labels.astype(np.int64)))


def write_all(folder, train=50, test=20):
  """All official files, small; returns what went in, `{name: (images, labels)}`."""
  folder.mkdir(parents=True, exist_ok=True)
  grey, colour = (28, 28), (32, 32, 3)
  given = {
    "mnist": (labelled(train, grey, 0), labelled(test, grey, 1)),
    "cifar10": (labelled(train, colour, 2), labelled(test, colour, 3)),
  }
  write_mnist(folder, *given["mnist"])
  write_cifar10(folder, *given["cifar10"])
  write_cifar10_c(folder, *given["cifar10"][1])
  write_mnist_c(folder, *[(images[..., None], labels) for images, labels in given["mnist"]])
  for name in ("amnist_samples.pt", "amnist_labels.pt"):
    shutil.copy(TORCH_FILES / name, folder)
  return given


def addresses(base, folder):
  """Tells the builders: `{set: {"url_infos": {url: [size, sha256, name]}, "md5s": {url: md5}}}`."""
  entry = lambda name: {f"{base}/{name}": [(folder / name).stat().st_size, _digest(folder / name, "sha256"), name]}
  mnist = [f"{part}-{kind}-ubyte.gz" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")]
  files = {
    "mnist": mnist,
    "cifar10": ["cifar-10-binary.tar.gz"],
    "cifar10_corrupted": ["CIFAR-10-C.tar"],
    "mnist_corrupted": ["mnist_c.zip"],
    "dirty_mnist": mnist,
  }
  known = {
    name: {"url_infos": {url: info for part in parts if (folder / part).exists() for url, info in entry(part).items()}}
    for name, parts in files.items()
  }
  drawn = [name for name in ("amnist_samples.pt", "amnist_labels.pt") if (folder / name).exists()]
  known["dirty_mnist"]["md5s"] = {f"{base}/{name}": _digest(folder / name, "md5") for name in drawn}
  return known


def point_builders(known, set_attribute):
  """Gives the builders other addresses and checksums, from `addresses`, by `set_attribute(class, name, value)`."""
  import tensorflow_datasets as tfds

  from lcgen.data import dirty_mnist, tfds_builders

  classes = (tfds_builders.MNIST, tfds_builders.CIFAR10, tfds_builders.CIFAR10Corrupted, tfds_builders.MNISTCorrupted)
  for builder in (*classes, dirty_mnist.DirtyMNIST):
    infos = known[builder.name]["url_infos"].items()
    set_attribute(builder, "url_infos", {url: tfds.download.checksums.UrlInfo(*info) for url, info in infos})
    set_attribute(builder, "md5s", known[builder.name].get("md5s", {}))


@contextlib.contextmanager
def serve(folder):
  """Serves a folder on the loopback interface; yields the server.

  `server.base` is its address, `server.requests` the paths asked for. Of a path in `server.halved` only the first half
  is sent and then the connection is closed, or, in `server.stalled`, kept open without a word.
  """

  class Handler(http.server.SimpleHTTPRequestHandler):
    def __init__(self, *arguments):
      super().__init__(*arguments, directory=str(folder))

    def log_message(self, *arguments):
      pass

    def do_GET(self):
      name = self.path.lstrip("/")
      self.server.requests.append(name)
      if name not in self.server.halved | self.server.stalled:
        super().do_GET()
        return
      content = (folder / name).read_bytes()
      self.send_response(200)
      self.send_header("Content-Length", str(len(content)))
      self.end_headers()
      self.wfile.write(content[: len(content) // 2])
      self.wfile.flush()
      if name in self.server.stalled:
        self.server.closing.wait(60)
      self.close_connection = True

  server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
  server.base = f"http://127.0.0.1:{server.server_port}"
  server.handle_error = lambda *arguments: None  # killed clients hang up
  server.requests, server.halved, server.stalled = [], set(), set()
  server.closing = threading.Event()
  thread = threading.Thread(target=server.serve_forever, daemon=True)
  thread.start()
  try:
    yield server
  finally:
    server.closing.set()
    server.shutdown()
    server.server_close()
    thread.join()


def _npy(array):
  buffer = io.BytesIO()
  np.save(buffer, array)
  return buffer.getvalue()


def _tar(path, files):
  with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as tar:
    for name, content in files.items():
      member = tarfile.TarInfo(name)
      member.size = len(content)
      tar.addfile(member, io.BytesIO(content))


def _digest(path, algorithm):
  return hashlib.new(algorithm, path.read_bytes()).hexdigest()
