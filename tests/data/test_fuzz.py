"""Broken input of every kind: it is read, or refused with a sentence; nothing else happens."""

import io
import random

import numpy as np
import pytest
from PIL import Image

from lcgen import config
from lcgen.data import array_files, own_images, pictures
from lcgen.runtime import errors, fields
from tests.support.helpers import load_config

INPUTS = 200  # of each kind


def mutated(content, draw):
  """The bytes with a few of them flipped, cut out, repeated, or exchanged."""
  content = bytearray(content)
  for _ in range(draw.choice((1, 1, 2, 8))):
    start = draw.randrange(len(content) or 1)
    end = min(len(content), start + draw.choice((1, 2, 4, 16, 200)))
    kind = draw.randrange(5)
    if kind == 0 and content:
      content[start] ^= 1 << draw.randrange(8)
    elif kind == 1:
      del content[start:end]
    elif kind == 2:
      content[start:start] = content[start:end] * draw.choice((1, 3))
    elif kind == 3:
      content[start:end] = draw.choice((b"\x00", b"\xff", b"\x7f\xff\xff\xff")) * (end - start)
    else:
      del content[start:]
  return bytes(content)


def npz(**arrays):
  buffer = io.BytesIO()
  save = np.savez if arrays.pop("plain", False) else np.savez_compressed
  save(buffer, **arrays)
  return buffer.getvalue()


def image(kind, mode):
  buffer = io.BytesIO()
  pixels = np.random.default_rng(0).integers(0, 256, (9, 7, len(mode)), np.uint8)
  Image.fromarray(pixels.squeeze(), mode).save(buffer, kind)
  return buffer.getvalue()


LABELLED = {"images": np.zeros((6, 5, 4), np.uint8), "labels": np.arange(6) % 3}
SEEDS = {
  "plain.npz": (npz(**LABELLED, plain=True), lambda path: array_files.read_npz(str(path))),
  "compressed.npz": (
    npz(**LABELLED, class_names=np.array(["a", "b", "c"])),
    lambda path: array_files.read_npz(str(path)),
  ),
  "grey.png": (image("png", "L"), lambda path: own_images.read_images(str(path), pictures.Look())),
  "colour.png": (image("png", "RGB"), lambda path: own_images.read_images(str(path), pictures.Look(8))),
  "colour.jpg": (image("jpeg", "RGB"), lambda path: own_images.read_images(str(path), pictures.Look())),
  "colour.bmp": (image("bmp", "RGB"), lambda path: own_images.read_images(str(path), pictures.Look())),
  "colour.webp": (image("webp", "RGB"), lambda path: own_images.read_images(str(path), pictures.Look())),
}


@pytest.mark.parametrize("name", SEEDS)
def test_files_of_images(name, tmp_path):
  content, read = SEEDS[name]
  folder = tmp_path / "folder"
  folder.mkdir()
  path, draw, refused = folder / name, random.Random(0), 0
  path.write_bytes(content)
  read(path)
  for _ in range(INPUTS):
    path.write_bytes(mutated(content, draw))
    try:
      read(path)
    except errors.InputError:
      refused += 1
  assert refused > INPUTS // 10
  assert [entry.name for entry in tmp_path.iterdir()] == ["folder"]
  assert [entry.name for entry in folder.iterdir()] == [name]


VALUES = (
  None, True, False, 0, -1, 1, 10**30, 0.0, -0.5, 0.5, 1e308, float("nan"), float("inf"), "", "x", "all", "a" * 10_000,
  "__import__('os').system('touch pwned')", "../../etc/passwd", "\x00", "none,none", "rule:x.py:f", (), (1,), (1, "x"),
  ((1,),), [], {}, {"x": 1}, b"x", "labels", "latent_constraints:share=nan", "shift_rotate+", ("test", "test"),
)  # fmt: skip


def test_values_of_a_config(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  draw, words = random.Random(0), []
  keys = sorted(key.name for key in fields.keys(config.config_class()))
  for _ in range(10 * INPUTS):
    values = load_config("mnist5k")
    for key in draw.sample(keys, draw.choice((1, 1, 2))):
      *sections, last = key.split(".")
      section = values
      for part in sections:
        section = section[part]
      section[last] = draw.choice(VALUES)
    try:
      config.parse(values)
    except errors.InputError as error:
      words.append(str(error))
  assert len(words) > INPUTS
  assert max(map(len, words)) < 1000
  assert all(len(text.splitlines()) == 1 for text in words)
  assert not list(tmp_path.iterdir())
