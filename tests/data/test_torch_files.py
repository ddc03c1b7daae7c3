"""Checks what is read from files of `torch.save`, and what such a file must agree with to be read."""

import struct

import numpy as np
import pytest

from lcgen.data import torch_files
from lcgen.runtime import errors
from tests.support.torch_archives import (
  BUILDERS,
  CONTAINERS,
  FILES,
  NAMES,
  SYSTEM,
  VALUES,
  Name,
  legacy,
  program,
  storage,
  tensor,
  zipped,
)

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


@pytest.mark.parametrize("container", CONTAINERS)
def test_truth_values_are_0_or_1(container, refused):
  pickled = program(tensor(storage(Name("torch", "BoolStorage"))))
  refused(BUILDERS[container](pickled, b"\0\1\2\0\1\0"), "truth values")


@pytest.mark.parametrize("data", [b"", b"P", b"PK\x03\x04", b"\x80\x02.", b"\x93NUMPY", b"{}", bytes(1000)])
def test_files_of_another_kind_are_refused(data, refused):
  refused(data)


def test_missing_files_and_folders_are_refused(tmp_path):
  for path in (tmp_path / "none.pt", tmp_path):
    with pytest.raises(errors.InputError, match=rf"^{path}: .*directory$"):
      torch_files.read(path)
