"""Files of `torch.save`: those that PyTorch wrote, and honest and hostile ones put together byte by byte.

PyTorch 2.13 wrote `torch_files/*.pt`: `torch.save(tensor, path)` for the zip format, and the same with
`_use_new_zipfile_serialization=False` for the legacy one. `expected.npz` holds what `tensor.numpy()` gave. The view is
`torch.arange(-12, 12, dtype=torch.int32).reshape(6, 4)[::2].T`.
"""

import io
import pathlib
import pickle
import struct
import zipfile
from typing import Any, NamedTuple

import numpy as np
import pytest

from lcgen.data import torch_files
from lcgen.runtime import errors

FILES = pathlib.Path(__file__).parent / "torch_files"
NAMES = "samples", "labels", "view", "boolean", "scalar", "empty"
CONTAINERS = "zip", "legacy"
VALUES = np.arange(6, dtype=np.float32).tobytes()
BEGIN, STOP = b"\x80\x02", b"."
SYSTEM = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}


class Name(NamedTuple):
  """A pickle's GLOBAL."""

  module: str
  name: str


class Call(NamedTuple):
  """A pickle's REDUCE."""

  function: Any
  arguments: Any


class Reference(NamedTuple):
  """A pickle's BINPERSID."""

  identity: Any


def encoded(value):
  """The opcodes that push a value."""
  match value:
    case Name(module, name):
      return f"c{module}\n{name}\n".encode()
    case Call(function, arguments):
      return encoded(function) + encoded(arguments) + b"R"
    case Reference(identity):
      return encoded(identity) + b"Q"
    case tuple():
      return b"(" + b"".join(map(encoded, value)) + b"t"
  return pickle.dumps(value, 2)[len(BEGIN) : -len(STOP)]


REBUILD = Name("torch._utils", "_rebuild_tensor_v2")
FLOATS = Name("torch", "FloatStorage")
HOOKS = Call(Name("collections", "OrderedDict"), ())


def storage(kind=FLOATS, key="0", location="cpu", count=6, label="storage"):
  return Reference((label, kind, key, location, count))


def tensor(stored=None, offset=0, shape=(2, 3), strides=(3, 1), requires_grad=False, hooks=HOOKS, function=REBUILD):
  return Call(function, (storage() if stored is None else stored, offset, shape, strides, requires_grad, hooks))


def program(value):
  return BEGIN + encoded(value) + STOP


def zipped(pickled, values=VALUES, members=None, compression=zipfile.ZIP_STORED):
  """A zip file as PyTorch 1.6 wrote them first, without byte order; `members` adds some or takes other ones."""
  members = {"archive/data.pkl": pickled, "archive/data/0": values, "archive/version": b"3\n"} | (members or {})
  stream = io.BytesIO()
  with zipfile.ZipFile(stream, "w", compression) as archive:
    for name, content in members.items():
      if content is not None:
        archive.writestr(name, content)
  return stream.getvalue()


def legacy(pickled, values=VALUES, keys=("0",), count=6, system=SYSTEM):
  heads = [pickle.dumps(head, 2) for head in (0x1950A86A20F9469CFC6C, 1001, system)]
  parts = [*heads, pickled, pickle.dumps(list(keys), 2)]
  return b"".join(parts) + struct.pack("<q", count) + values


BUILDERS = {"zip": zipped, "legacy": legacy}


def read_bytes(path, data):
  """Reads a file of these bytes."""
  path.write_bytes(data)
  return torch_files.read(path)


def check_refused(path, data, match=None):
  """Checks that a file of these bytes is refused in one line that names it."""
  with pytest.raises(errors.InputError, match=match) as caught:
    read_bytes(path, data)
  message = str(caught.value)
  assert message.startswith(f"{path}: "), message
  assert message.isprintable(), message
  assert len(message) < 300 + len(str(path.parent)), message
