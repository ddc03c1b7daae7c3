"""Hostile, broken and senseless files of `torch.save` are refused, and cost no more than their size to refuse."""

import contextlib
import functools
import pickle
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest

from lcgen.runtime import errors
from tests.support.torch_archives import (
  BEGIN,
  BUILDERS,
  CONTAINERS,
  FILES,
  FLOATS,
  HOOKS,
  NAMES,
  REBUILD,
  STOP,
  SYSTEM,
  Call,
  Name,
  Reference,
  encoded,
  legacy,
  program,
  storage,
  tensor,
  zipped,
)

MEMORY = 400_000  # what Python's own objects take beside the bytes of a small file


@contextlib.contextmanager
def bounded_memory(data):
  """Checks that no more is allocated in between than a file of these bytes allows."""
  tracemalloc.start()
  try:
    yield
    assert tracemalloc.get_traced_memory()[1] < 4 * len(data) + MEMORY
  finally:
    tracemalloc.stop()


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
