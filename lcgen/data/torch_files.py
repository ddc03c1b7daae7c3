"""Reads one tensor from a file of PyTorch's `torch.save`, without PyTorch and without trusting the file.

The formats are those of `_save` (a zip archive) and `_legacy_save` (pickles, then raw values) in
`torch/serialization.py`. A pickle is a program, so its opcodes are checked before it runs. The names it may ask for
stand for tuples of this module: nothing else can be built or called.
"""

import io
import math
import os
import pathlib
import pickle
import pickletools
import struct
import zipfile
from typing import Any, NamedTuple

import numpy as np

from lcgen.runtime import errors

_LEGACY_START = pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2)
_ZIP_START, _ZIP_ENTRY = b"PK\x03\x04", b"PK\x01\x02"
_RECORDS = {"data.pkl", "version", "byteorder", ".format_version", ".storage_alignment", ".data/serialization_id"}
_OPCODES = {
  "PROTO", "STOP", "MARK", "GLOBAL", "REDUCE", "BINPERSID", "BINPUT", "BINUNICODE", "BININT", "BININT1", "BININT2",
  "NONE", "NEWTRUE", "NEWFALSE", "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3",
}  # fmt: skip
# Real files stay far below these limits, which bound the objects that a hostile file can make Python build.
_PICKLE_BYTES, _ZIP_ENTRIES = 4096, 100


class _StorageType(NamedTuple):
  """Stands for `torch.FloatStorage` and its like."""

  dtype: str


class _Storage(NamedTuple):
  """Stands for a storage; its values lie elsewhere in the file, under `key`."""

  dtype: str
  key: str
  count: int


class _Hooks(NamedTuple):
  """Stands for the empty `collections.OrderedDict` of backward hooks."""


class _Tensor(NamedTuple):
  """Stands for a call of `torch._utils._rebuild_tensor_v2`; offset and strides count elements of the storage."""

  storage: _Storage
  offset: int
  shape: tuple[int, ...]
  strides: tuple[int, ...]
  requires_grad: bool
  hooks: _Hooks


_DTYPES = {
  "Double": "<f8", "Float": "<f4", "Half": "<f2", "Long": "<i8", "Int": "<i4", "Short": "<i2", "Char": "i1",
  "Byte": "u1", "Bool": "?",
}  # fmt: skip
_GLOBALS = {
  ("torch._utils", "_rebuild_tensor_v2"): _Tensor,
  ("collections", "OrderedDict"): _Hooks,
  **{("torch", f"{kind}Storage"): _StorageType(dtype) for kind, dtype in _DTYPES.items()},
}


def read(path: str | os.PathLike[str]) -> np.ndarray:
  """Reads the only tensor of a file.

  Args:
    path: a file that `torch.save(tensor, path)` wrote on a little-endian machine, in either of its formats, with the
      default pickle protocol. The tensor is dense and has no more elements than its storage. Its values are floats of
      16 to 64 bits, signed integers, uint8 or bool.

  Returns:
    A new, writable, C-contiguous array with the tensor's shape, dtype and values.

  Raises:
    InputError: if there is no such file, or it holds anything else.
  """
  try:
    data = pathlib.Path(path).read_bytes()
    if data.startswith(_ZIP_START):
      return _read_zip(data)
    if data.startswith(_LEGACY_START):
      return _read_legacy(data)
    reason = "it starts like neither of PyTorch's formats"
  except errors.InputError as error:
    reason = str(error)
  except OSError as error:
    reason = str(error.strerror)
  except Exception as error:  # Hostile bytes make pickle, zipfile and NumPy raise nearly anything.
    reason = f"it is cut short or damaged ({type(error).__name__})"
  raise errors.InputError(f"{path}: not read as one tensor of torch.save: {reason}")


def _read_zip(data: bytes) -> np.ndarray:
  if data.count(_ZIP_ENTRY) > _ZIP_ENTRIES:
    raise errors.InputError("its archive has too many members")
  with zipfile.ZipFile(io.BytesIO(data)) as archive:
    if any(member.compress_type or member.compress_size != member.file_size for member in archive.infolist()):
      raise errors.InputError("its archive is compressed")
    names = archive.namelist()
    folder = names[0].partition("/")[0]
    storages = set(names) - {f"{folder}/{record}" for record in _RECORDS}
    complete = len(storages) == 1 and f"{folder}/data.pkl" in names
    if not complete or len(names) > len(set(names)) or not folder.strip("."):
      raise errors.InputError("its archive's members are not those of one tensor")
    pickled = archive.read(f"{folder}/data.pkl")
    tensor, end = _unpickle(pickled)
    if end < len(pickled):
      raise errors.InputError("something follows its pickle")
    storage = f"{folder}/data/{_checked(tensor).storage.key}"
    if storages != {storage}:
      raise errors.InputError("its storage is not the one of its tensor")
    if f"{folder}/byteorder" in names and archive.read(f"{folder}/byteorder") != b"little":
      raise errors.InputError("its values are not little-endian")
    return _array(tensor, archive.read(storage))


def _read_legacy(data: bytes) -> np.ndarray:
  system, end = _unpickle(data, len(_LEGACY_START), "EMPTY_DICT", "SETITEMS")
  if system["little_endian"] is not True:
    raise errors.InputError("its values are not little-endian")
  tensor, end = _unpickle(data, end)
  storage = _checked(tensor).storage
  keys, end = _unpickle(data, end, "EMPTY_LIST", "APPEND")
  if keys != [storage.key]:
    raise errors.InputError("its storage is not the one of its tensor")
  if struct.unpack_from("<q", data, end)[0] != storage.count:
    raise errors.InputError("it gives two sizes of its storage")
  return _array(tensor, memoryview(data)[end + 8 :])


class _Unpickler(pickle.Unpickler):
  def find_class(self, module: str, name: str) -> Any:
    if (module, name) not in _GLOBALS:
      raise errors.InputError(f"its pickle asks for {f'{module}.{name}'[:80]!r}")
    return _GLOBALS[module, name]

  def persistent_load(self, pid: Any) -> _Storage:
    match pid:
      case ("storage", _StorageType(dtype), str(key), str(), int(count), *view):
        if key.isdecimal() and view in ([], [None]):
          return _Storage(dtype, key, count)
    raise errors.InputError("its pickle has a reference that is no storage")


def _unpickle(data: bytes, start: int = 0, *extra: str) -> tuple[Any, int]:
  """Runs the pickle at `start`; returns its object and its end. `extra` names opcodes allowed besides a tensor's."""
  stream = io.BytesIO(data[start : start + _PICKLE_BYTES])
  for opcode, argument, _ in pickletools.genops(stream):
    if opcode.name not in _OPCODES.union(extra) or (opcode.name == "PROTO" and argument != 2):
      raise errors.InputError(f"its pickle has the opcode {opcode.name}, which no tensor needs")
  end = start + stream.tell()
  return _Unpickler(io.BytesIO(data[start:end])).load(), end


def _checked(tensor: Any) -> _Tensor:
  match tensor:
    case _Tensor(_Storage(), offset, tuple(shape), tuple(strides), bool(), _Hooks()):
      if all(type(number) is int and number >= 0 for number in (offset, *shape, *strides)):
        return tensor
  raise errors.InputError("its pickle is not that of one tensor")


def _array(tensor: _Tensor, values: bytes | memoryview) -> np.ndarray:
  storage, offset, shape, strides, *_ = tensor
  dtype = np.dtype(storage.dtype)
  if len(values) != storage.count * dtype.itemsize:
    raise errors.InputError(f"its storage has {len(values)} bytes instead of {storage.count * dtype.itemsize}")
  last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
  elements = math.prod(shape)
  if elements > storage.count or (elements and last >= storage.count):
    raise errors.InputError("its tensor is larger than its storage or reaches beyond it")
  steps = [stride * dtype.itemsize for stride in strides]
  array = np.ndarray(shape, dtype, values, offset * dtype.itemsize, steps).astype(dtype.newbyteorder("="), order="C")
  if array.dtype.kind == "b" and array.view(np.uint8).max(initial=0) > 1:
    raise errors.InputError("its truth values are not all 0 or 1")
  return array
