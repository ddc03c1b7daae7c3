"""Files of `torch.save`, read without it.

PyTorch 2.13 wrote `torch_files/*.pt`: `torch.save(tensor, path)` for the zip format, and the same with
`_use_new_zipfile_serialization=False` for the legacy one. `expected.npz` holds what `tensor.numpy()` gave. The view is
`torch.arange(-12, 12, dtype=torch.int32).reshape(6, 4)[::2].T`. Hostile files are put together here.
"""

import contextlib
import functools
import io
import pathlib
import pickle
import struct
import tracemalloc
import zipfile
from typing import Any, NamedTuple

import numpy as np
import pytest

from lcgen import errors
from lcgen.data import torch_files

FILES = pathlib.Path(__file__).parent / "torch_files"
NAMES = "samples", "labels", "view", "boolean", "scalar", "empty"
CONTAINERS = "zip", "legacy"
DTYPES = {
  "Double": "f8",
  "Float": "f4",
  "Half": "f2",
  "Long": "i8",
  "Int": "i4",
  "Short": "i2",
  "Char": "i1",
  "Byte": "u1",
  "Bool": "?",
}
VALUES = np.arange(6, dtype=np.float32).tobytes()
BEGIN, STOP = b"\x80\x02", b"."
SYSTEM = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}
MEMORY = 400_000  # what Python's own objects take beside the bytes of a small file


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


class Raw(NamedTuple):
  """Opcodes as they are."""

  code: bytes


def encoded(value):
  """The opcodes that push a value."""
  match value:
    case Raw(code):
      return code
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


@pytest.fixture
def read(tmp_path):
  """Reads bytes as a file."""

  def _read(data):
    path = tmp_path / "file.pt"
    path.write_bytes(data)
    return torch_files.read(path)

  return _read


@pytest.fixture
def refused(read, tmp_path):
  """Checks that bytes are refused in one line that names the file."""

  def _refused(data, match=None):
    with pytest.raises(errors.InputError, match=match) as caught:
      read(data)
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'file.pt'}: ")
    assert message.isprintable()
    assert len(message) < 300 + len(str(tmp_path))

  return _refused


@contextlib.contextmanager
def bounded_memory(data):
  """Checks that no more is allocated in between than a file of these bytes allows."""
  tracemalloc.start()
  try:
    yield
    assert tracemalloc.get_traced_memory()[1] < 4 * len(data) + MEMORY
  finally:
    tracemalloc.stop()


def same(array, expected):
  np.testing.assert_array_equal(array, expected, strict=True)
  return array.flags.c_contiguous and array.flags.writeable and array.flags.owndata and array.dtype.isnative


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("name", NAMES)
def test_files_of_pytorch_give_what_pytorch_gives(name, container):
  with np.load(FILES / "expected.npz") as expected:
    assert same(torch_files.read(FILES / f"{name}_{container}.pt"), expected[name])
    assert same(torch_files.read(str(FILES / f"{name}_{container}.pt")), expected[name])


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize(("kind", "code"), DTYPES.items())
def test_every_dtype(kind, code, container, read):
  expected = np.array([0, 1, 1, 0, 1, 0] if code == "?" else [3, 1, 4, 1, 5, 9], code)
  pickled = program(tensor(storage(Name("torch", f"{kind}Storage"))))
  assert same(read(BUILDERS[container](pickled, expected.tobytes())), expected.reshape(2, 3))


@pytest.mark.parametrize("container", CONTAINERS)
def test_views_stay_inside_their_storage(container, read, refused):
  expected = np.frombuffer(VALUES, np.float32)
  inside = {
    (3, (3,), (1,)): expected[3:],
    (1, (2, 2), (1, 3)): expected.reshape(2, 3)[:, 1:].T,
    (5, (), ()): expected[5],
    (0, (2, 2), (1, 1)): [[0, 1], [1, 2]],
    (0, (3, 2), (0, 1)): [[0, 1]] * 3,
    (6, (0,), (1,)): [],
  }
  for (offset, shape, strides), values in inside.items():
    data = BUILDERS[container](program(tensor(None, offset, shape, strides)))
    assert same(read(data), np.asarray(values, np.float32))
  outside = [
    (4, (3,), (1,)),
    (6, (), ()),
    (0, (7,), (1,)),
    (0, (2, 3), (4, 1)),
    (0, (2**31 - 1,), (0,)),
    (0, (2, 2, 2), (1, 1, 1)),
    (2**31 - 1, (1,), (1,)),
    (0, (2**31 - 1,) * 9, (2**31 - 1,) * 9),
  ]
  for offset, shape, strides in outside:
    refused(BUILDERS[container](program(tensor(None, offset, shape, strides))), "reaches beyond")


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize(
  "arguments",
  [
    {"offset": -1},
    {"offset": True},
    {"offset": "0"},
    {"shape": (-2, -3)},
    {"shape": (2, -3)},
    {"shape": 6},
    {"shape": ((2,), 3)},
    {"shape": (True, 6)},
    {"strides": (-3, 1)},
    {"offset": 5, "strides": (-3, -1)},
    {"offset": True, "shape": (2,), "strides": (1,)},
    {"strides": (3, None)},
    {"strides": (1,)},
    {"strides": ()},
    {"shape": (0, 2**31 - 1, 2**31 - 1, 2**31 - 1), "strides": (0, 0, 0, 0)},
    {"shape": (1,) * 100, "strides": (1,) * 100},
    {"offset": 2**31 - 1, "shape": (0,), "strides": (1,)},
    {"requires_grad": 0},
    {"hooks": ()},
    {"hooks": None},
    {"hooks": REBUILD},
    {"hooks": Name("collections", "OrderedDict")},
    {"hooks": Call(Name("collections", "OrderedDict"), (1,))},
    {"hooks": tensor()},
    {"function": FLOATS},
    {"function": "torch"},
    {"function": Name("collections", "OrderedDict")},
    {"function": HOOKS},
    {"stored": FLOATS},
    {"stored": HOOKS},
    {"stored": tensor()},
    {"stored": "0"},
    {"stored": storage(label="module")},
    {"stored": storage(kind="FloatStorage")},
    {"stored": storage(kind="O")},
    {"stored": storage(kind=REBUILD)},
    {"stored": storage(kind=storage())},
    {"stored": storage(key=storage())},
    {"stored": storage(key="")},
    {"stored": storage(key="1")},
    {"stored": storage(key="../0")},
    {"stored": storage(key=0)},
    {"stored": storage(location=None)},
    {"stored": storage(location="c" * 5000)},
    {"stored": storage(count=5)},
    {"stored": storage(count=-6)},
    {"stored": storage(count=2**31 - 1)},
    {"stored": storage(count="6")},
    {"stored": Reference("0")},
    {"stored": Reference(())},
    {"stored": Reference(storage())},
    {"stored": Reference(("storage", FLOATS, "0", "cpu", 6, ("1", 0, 6)))},
    {"stored": Reference(("storage", FLOATS, "0", "cpu", 6, None, None))},
  ],
)
def test_arguments_that_no_tensor_has_are_refused(arguments, container, refused):
  refused(BUILDERS[container](program(tensor(**arguments))))


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize(
  "value",
  [None, 3, "tensor", (), (tensor(), tensor()), REBUILD, FLOATS, HOOKS, storage(), (storage(), 0, (2, 3), (3, 1))],
)
def test_pickles_of_anything_but_a_tensor_are_refused(value, container, refused):
  refused(BUILDERS[container](program(value)), "not that of one tensor")


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize(
  ("module", "name"),
  [
    ("os", "system"),
    ("posix", "system"),
    ("builtins", "eval"),
    ("__builtin__", "eval"),
    ("builtins", "getattr"),
    ("torch", "load"),
    ("torch", "Tensor"),
    ("torch", "ComplexFloatStorage"),
    ("torch", "BFloat16Storage"),
    ("torch", "FloatStorage.__class__"),
    ("torch.storage", "_load_from_bytes"),
    ("torch._utils", "_rebuild_tensor"),
    ("torch._utils", "_rebuild_tensor_v3"),
    ("torch._utils", "_rebuild_parameter"),
    ("torch._utils", "_rebuild_tensor_v2.__globals__"),
    ("torch._utils ", "_rebuild_tensor_v2"),
    ("collections", "namedtuple"),
    ("collections", "OrderedDict.fromkeys"),
    ("lcgen.data.torch_files", "read"),
    ("numpy", "zeros"),
    ("", ""),
    ("os" * 1500, "system"),
    ("\\z", "system"),
    ("ö\x1b", "\r"),
  ],
)
def test_other_names_are_refused_and_never_called(module, name, container, refused, tmp_path):
  marker = tmp_path / "called"
  argument = f"touch {marker}" if name == "system" else f"open({str(marker)!r}, 'w')"
  for value in (Call(Name(module, name), (argument,)), tensor(function=Name(module, name)), Name(module, name)):
    refused(BUILDERS[container](program(value)))
  assert not marker.exists()


def test_the_hostile_pickles_of_these_tests_would_work(tmp_path):
  marker = tmp_path / "called"
  pickle.loads(program(Call(Name("builtins", "eval"), (f"open({str(marker)!r}, 'w').close()",))))
  assert marker.exists()


def opcode(name):
  return getattr(pickle, name)


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize(
  ("name", "code"),
  [
    ("BUILD", encoded(tensor()) + encoded((None, ("shape", 1))) + opcode("BUILD")),
    ("BUILD", encoded(REBUILD) + b"N" + opcode("BUILD")),
    ("INST", b"(" + opcode("INST") + b"os\nsystem\n"),
    ("OBJ", b"(" + encoded(REBUILD) + opcode("OBJ")),
    ("NEWOBJ", encoded(REBUILD) + b")" + opcode("NEWOBJ")),
    ("NEWOBJ_EX", encoded(REBUILD) + b"))" + opcode("NEWOBJ_EX")),
    ("EXT1", opcode("EXT1") + b"\x01"),
    ("EXT2", opcode("EXT2") + b"\x01\0"),
    ("EXT4", opcode("EXT4") + b"\x01\0\0\0"),
    ("PERSID", opcode("PERSID") + b"0\n"),
    ("SHORT_BINUNICODE", b"\x8c\x02os\x8c\x06system" + opcode("STACK_GLOBAL")),
    ("STACK_GLOBAL", encoded("torch._utils") + encoded("_rebuild_tensor_v2") + opcode("STACK_GLOBAL")),
    ("FRAME", opcode("FRAME") + struct.pack("<Q", 2**63) + encoded(tensor())),
    ("MEMOIZE", encoded(tensor()) + opcode("MEMOIZE")),
    ("PROTO", b"\x80\x04" + encoded(tensor())),
    ("PROTO", b"\x80\xff" + encoded(tensor())),
    ("BINGET", encoded(tensor()) + b"q\x01" + opcode("BINGET") + b"\x01"),
    ("GET", encoded(tensor()) + opcode("GET") + b"1\n"),
    ("LONG_BINGET", opcode("LONG_BINGET") + b"\xff\xff\xff\xff"),
    ("LONG_BINPUT", encoded(tensor()) + opcode("LONG_BINPUT") + b"\xff\xff\xff\x7f"),
    ("PUT", encoded(tensor()) + opcode("PUT") + b"9999999999\n"),
    ("DUP", encoded(tensor()) + opcode("DUP")),
    ("POP", encoded(tensor()) + b"N" + opcode("POP")),
    ("POP_MARK", encoded(tensor()) + b"(" + opcode("POP_MARK")),
    ("EMPTY_DICT", opcode("EMPTY_DICT")),
    ("EMPTY_LIST", opcode("EMPTY_LIST")),
    ("SETITEMS", encoded(tensor()) + b"(NN" + opcode("SETITEMS")),
    ("APPEND", encoded(tensor()) + b"N" + opcode("APPEND")),
    ("APPENDS", encoded(tensor()) + b"(N" + opcode("APPENDS")),
    ("LONG1", opcode("LONG1") + b"\xff" + b"\x7f" * 255),
    ("LONG4", opcode("LONG4") + struct.pack("<i", 1000) + b"\x7f" * 1000),
    ("INT", opcode("INT") + b"1\n"),
    ("LONG", opcode("LONG") + b"1L\n"),
    ("FLOAT", opcode("FLOAT") + b"1.5\n"),
    ("STRING", opcode("STRING") + b"'cpu'\n"),
    ("UNICODE", opcode("UNICODE") + b"cpu\n"),
    ("BINBYTES", opcode("BINBYTES") + struct.pack("<I", 1) + b"a"),
    ("BYTEARRAY8", opcode("BYTEARRAY8") + struct.pack("<Q", 1) + b"a"),
    ("NEXT_BUFFER", opcode("NEXT_BUFFER")),
  ],
)
def test_opcodes_that_no_tensor_needs_are_refused(name, code, container, refused):
  refused(BUILDERS[container](BEGIN + code + STOP), f"has the opcode {name},")


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize(
  "code",
  [
    opcode("BINUNICODE") + b"\xff\xff\xff\xffcpu",
    opcode("BINUNICODE8") + b"\xff" * 8 + b"cpu",
    opcode("BINBYTES8") + b"\xff\xff\xff\xff\xff\xff\xff\x7fcpu",
    opcode("LONG4") + b"\xff\xff\xff\x7f\x01",
    opcode("LONG4") + b"\xff\xff\xff\xff\x01",
    opcode("BINUNICODE") + b"\x02\0\0\0\xff\xfe",
    opcode("LONG") + b"9" * 3000 + b"L\n",
    b"R",
    b"t",
    b"Q",
    b"q\x01",
    b"NNR",
    b"\xff",
    b"",
    b"(" * 4000,
    b")" + b"\x85" * 4000,
    b")" + b"\x85" * 5000,
    encoded("x" * 5000),
  ],
)
def test_senseless_programs_are_refused(code, container, refused):
  refused(BUILDERS[container](BEGIN + code + STOP))
  refused(BUILDERS[container](BEGIN + code))


def test_deep_nesting_in_the_other_pickles_of_the_legacy_format_is_refused(refused):
  deep = BEGIN + b"}()" + b"\x85" * 4000 + b"Nu" + STOP
  data = legacy(program(tensor()))
  system = pickle.dumps(SYSTEM, 2)
  keys = pickle.dumps(["0"], 2)
  refused(data.replace(system, deep))
  refused(data.replace(keys, BEGIN + b"](" + b")" + b"\x85" * 4000 + b"ta" + STOP))
  refused(data.replace(keys, program(Call(Name("os", "system"), ("true",)))), "asks for 'os.system'")
  refused(data.replace(system, program(Call(Name("os", "system"), ("true",)))), "asks for 'os.system'")


def test_legacy_files_agree_with_themselves(refused, read):
  pickled = program(tensor())
  assert same(read(legacy(pickled)), np.frombuffer(VALUES, np.float32).reshape(2, 3))
  for count in (-1, 0, 5, 7, 2**62, -(2**63)):
    refused(legacy(pickled, count=count), "two sizes")
  for keys in ((), ("1",), ("0", "1"), ("0", "0"), (0,)):
    refused(legacy(pickled, keys=keys))
  for system in (SYSTEM | {"little_endian": False}, SYSTEM | {"little_endian": 1}):
    refused(legacy(pickled, system=system), "little-endian")
  for system in ({}, 3, "little_endian"):
    refused(legacy(pickled, system=system))
  refused(legacy(pickled) + b"\0", "25 bytes instead of 24")
  refused(legacy(pickled) + struct.pack("<q", 6) + VALUES, "56 bytes instead of 24")
  refused(legacy(pickled, VALUES[:-4], count=6), "20 bytes instead of 24")
  refused(b"\x80\x02\x8a\x0a" + b"\0" * 10 + legacy(pickled)[14:], "neither")


def test_zip_files_hold_one_tensor_and_nothing_else(refused, read):
  pickled, expected = program(tensor()), np.frombuffer(VALUES, np.float32).reshape(2, 3)
  assert same(read(zipped(pickled)), expected)
  assert same(read(zipped(pickled, members={"archive/byteorder": b"little"})), expected)
  address = program(tensor(storage(key="94068859030512", location="cuda:0")))
  assert same(read(zipped(address, members={"archive/data/0": None, "archive/data/94068859030512": VALUES})), expected)
  refused(zipped(pickled, members={"archive/byteorder": b"big"}), "little-endian")
  for name in (
    *("archive/data/1", "archive/constants.pkl", "archive/code/__torch__.py", "other/version", "version"),
    *(
      "../archive/version",
      "archive/../version",
      "/archive/version",
      "archive\\version",
      "archive/",
      "archive//version",
    ),
  ):
    refused(zipped(pickled, members={name: b""}), "members are not those")
  for folder in ("..", ".", ""):
    members = {f"archive/{name}": None for name in ("data.pkl", "data/0", "version")}
    members |= {f"{folder}/data.pkl": pickled, f"{folder}/data/0": VALUES}
    refused(zipped(pickled, members=members), "members are not those")
  refused(zipped(program(tensor(storage(key="1")))), "not the one of its tensor")
  outside = {"archive/data/0": None, "archive/data/../0": VALUES}
  refused(zipped(program(tensor(storage(key="../0"))), members=outside), "reference that is no storage")
  for name in ("archive/data.pkl", "archive/data/0"):
    refused(zipped(pickled, members={name: None}), "members are not those")
  refused(zipped(pickled + pickled), "something follows")
  refused(zipped(pickled, VALUES + b"\0"), "25 bytes instead of 24")
  refused(zipped(pickled, VALUES[:-1]), "23 bytes instead of 24")


def test_zip_files_are_not_unpacked(refused):
  pickled = program(tensor())
  for compression in (zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
    bomb = zipped(pickled, bytes(50_000_000), compression=compression)
    with bounded_memory(bomb):
      refused(bomb, "compressed")


def test_zip_directories_are_not_believed(refused):
  data = zipped(program(tensor()))
  entry = data.index(b"PK\x01\x02", data.index(b"PK\x01\x02") + 1)
  for place in (16, 20, 24, 42):  # check sum, compressed size, size, where the member starts
    for value in (0, 2**31, 2**32 - 1):
      refused(data[: entry + place] + struct.pack("<I", value) + data[entry + place + 4 :])
  encrypted, deflated = (
    data[: entry + 8] + b"\x01" + data[entry + 9 :],
    data[: entry + 10] + b"\x08" + data[entry + 11 :],
  )
  refused(encrypted)
  refused(deflated, "compressed")
  refused(zipped(program(tensor()), members={f"archive/data/{row}": b"" for row in range(200)}), "too many members")
  doubled = zipped(program(tensor()), members={"archive/data.pkm": b""}).replace(b"data.pkm", b"data.pkl")
  refused(doubled, "members are not those")


@pytest.mark.parametrize("data", [b"", b"P", b"PK\x03\x04", b"\x80\x02.", b"\x93NUMPY", b"{}", bytes(1000)])
def test_files_of_another_kind_are_refused(data, refused):
  refused(data)


@pytest.mark.parametrize("container", CONTAINERS)
def test_truth_values_are_0_or_1(container, refused):
  pickled = program(tensor(storage(Name("torch", "BoolStorage"))))
  refused(BUILDERS[container](pickled, b"\0\1\2\0\1\0"), "truth values")


def test_missing_files_and_folders_are_refused(tmp_path):
  for path in (tmp_path / "none.pt", tmp_path):
    with pytest.raises(errors.InputError, match=rf"^{path}: .*directory$"):
      torch_files.read(path)


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("name", ["scalar", "empty", "labels"])
def test_truncated_files_are_refused_at_every_byte(name, container, refused):
  data = (FILES / f"{name}_{container}.pt").read_bytes()
  for length in range(len(data)):
    refused(data[:length])


def damaged(data, generator):
  """Bytes with one to three of them replaced."""
  data = bytearray(data)
  for row in generator.integers(0, len(data), generator.integers(1, 4)):
    data[row] = generator.integers(0, 256)
  return bytes(data)


def within_bounds(read, data):
  """Reads bytes that may be anything: an array no larger than they are, or None where they are refused."""
  try:
    array = read(data)
  except errors.InputError:
    return None
  assert array.nbytes <= len(data)
  return array


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("name", NAMES)
def test_damaged_files_are_refused_or_read_within_their_size(name, container, read):
  original = (FILES / f"{name}_{container}.pt").read_bytes()
  generator = np.random.default_rng([NAMES.index(name), CONTAINERS.index(container)])
  results = []
  with bounded_memory(original):
    for _ in range(500):
      results.append(within_bounds(read, damaged(original, generator)))
  assert any(result is None for result in results)


@pytest.mark.parametrize("container", CONTAINERS)
def test_damaged_pickles_are_refused_or_read_within_their_size(container, read):
  with zipfile.ZipFile(FILES / "samples_zip.pt") as archive:
    pickled, values = archive.read("samples_zip/data.pkl"), archive.read("samples_zip/data/0")
  generator = np.random.default_rng(2)
  build = zipped if container == "zip" else functools.partial(legacy, count=len(values) // 4)
  results = []
  with bounded_memory(build(pickled, values)):
    for _ in range(1500):
      results.append(within_bounds(read, build(damaged(pickled, generator), values)))
  assert any(result is None for result in results)
  assert any(result is not None for result in results)
