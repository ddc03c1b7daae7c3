"""Images are read as a viewer shows them, and change their shape as the config says."""

import logging

import numpy as np
import pytest
from etils import epath
from PIL import Image, ImageOps

from lcgen.data import pictures, sources
from lcgen.data.settings import DataSettings
from lcgen.runtime import errors, memory, places, registry
from tests.support.images import save, write_folder

GREY = np.arange(6 * 4, dtype=np.uint8).reshape(6, 4) * 10
STROKE = (slice(1, 3), slice(1, 3))


def read(*paths, **look):
  return pictures.read([places.expanded(path, "path") for path in paths], pictures.Look(**look))


def black_on_transparent(mode):
  """An image of a black square on nothing; what lies behind it is black too, as drawing programs leave it."""
  alpha = Image.fromarray(np.where(np.indices((6, 6)).max(0) < 3, 255, 0).astype(np.uint8))
  if mode in ("RGBA", "LA"):
    image = Image.new(mode, (6, 6))
    image.putalpha(alpha)
    return image, {}
  if mode == "P":
    image = Image.fromarray((np.asarray(alpha) > 0).astype(np.uint8), "L").convert("P")
    image.putpalette([0, 0, 0] * 256)
    return image, {"transparency": 0}
  return Image.fromarray(np.where(np.asarray(alpha) > 0, 0, 7).astype(np.uint8)).convert(mode), {
    "transparency": 7 if mode == "L" else (7, 7, 7)
  }


@pytest.mark.parametrize("kind", ["png", "webp"])
@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "L", "RGB"])
def test_transparent_parts_show_the_background(mode, kind, tmp_path):
  if kind == "webp" and mode in ("P", "L", "RGB"):
    pytest.skip("WebP has no transparent colour")
  image, options = black_on_transparent(mode)
  image.save(tmp_path / f"a.{kind}", lossless=True, **options)
  inside = np.indices((6, 6)).max(0) < 3
  for background, value in (("white", 255), ("black", 0), ("#808080", 128)):
    pixels = read(tmp_path / f"a.{kind}", background=background)[0]
    np.testing.assert_array_equal(pixels, np.where(inside, 0, value)[..., None] * np.ones(pixels.shape[2], int))
  coloured = read(tmp_path / f"a.{kind}", background="#ff0080")[0]
  assert (coloured[~inside] == (255, 0, 128)).all()
  assert (coloured[inside] == 0).all()


def test_half_transparent_pixels_are_mixed(tmp_path):
  save(tmp_path / "a.png", np.full((2, 2, 4), (100, 0, 200, 51)))
  np.testing.assert_allclose(read(tmp_path / "a.png")[0, 0, 0], np.array((100, 0, 200)) * 0.2 + 255 * 0.8, atol=1)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["png", "jpg", "webp"])
def test_images_are_turned_upright(kind, orientation, tmp_path):
  exif = Image.Exif()
  exif[0x0112] = orientation
  image = Image.fromarray(np.stack([GREY] * 3, axis=-1))
  image.save(tmp_path / f"a.{kind}", exif=exif, lossless=True)
  with Image.open(tmp_path / f"a.{kind}") as stored:
    expected = np.asarray(ImageOps.exif_transpose(stored).convert("RGB"))
  assert expected.shape == ((4, 6, 3) if orientation > 4 else (6, 4, 3))
  np.testing.assert_array_equal(read(tmp_path / f"a.{kind}")[0], expected)


def test_exif_data_after_the_pixels_count_and_broken_ones_do_not(tmp_path):
  exif = Image.Exif()
  exif[0x0112] = 6
  Image.fromarray(GREY).save(tmp_path / "a.png", exif=exif)
  content = (tmp_path / "a.png").read_bytes()
  start, pixels = content.index(b"eXIf") - 4, content.index(b"IDAT") - 4
  assert start < pixels
  chunk, end = content[start:pixels], content.index(b"IEND") - 4
  (tmp_path / "late.png").write_bytes(content[:start] + content[pixels:end] + chunk + content[end:])
  np.testing.assert_array_equal(read(tmp_path / "late.png")[0, ..., 0], np.rot90(GREY, -1))
  Image.fromarray(GREY).save(tmp_path / "b.png", exif=b"Exif\0\0rubbish")
  np.testing.assert_array_equal(read(tmp_path / "b.png")[0, ..., 0], GREY)


@pytest.mark.parametrize("name", ["a.png", "a.webp", "a.gif called a.png"])
def test_animations_are_refused_by_name(name, tmp_path):
  first, second = (Image.fromarray(np.full((6, 6, 3), value, np.uint8)) for value in (0, 200))
  kind = name.split(" ")[0].split(".")[1]
  path = tmp_path / name.rpartition(" ")[2]
  first.save(path, kind, save_all=True, append_images=[second])
  with pytest.raises(errors.InputError, match=rf"{path.name}: an animation of 2 frames; save"):
    read(path)


def test_a_phone_s_second_picture_is_no_animation(tmp_path):
  image = Image.fromarray(GREY)
  image.save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[image])
  assert read(tmp_path / "a.jpg").shape == (1, 6, 4, 1)


def test_images_of_mixed_shape_are_fitted_and_it_is_said(tmp_path, caplog):
  save(tmp_path / "square.png", np.full((8, 8), 100))
  save(tmp_path / "wide.png", np.concatenate([np.full((4, 4), 0), np.full((4, 8), 60), np.full((4, 4), 200)], axis=1))
  files = tmp_path / "square.png", tmp_path / "wide.png"
  look = {"side": 8, "background": "#fafafa"}
  with caplog.at_level(logging.INFO, "lcgen"):
    padded, cropped = (read(*files, fit=fit, **look)[1, ..., 0] for fit in ("pad", "crop"))
  assert "1 of 2 images are not square and are made 8x8: padded with #fafafa (config.data.fit=pad)" in caplog.text
  assert "cropped to the middle (config.data.fit=crop)" in caplog.text
  assert (padded[:3] == 250).all()
  assert (padded[5:] == 250).all()
  assert (padded[3:5].max(), padded[3:5].min()) == (200, 0)
  assert (cropped[:, 2:6] == 60).all()
  assert cropped.min() > 0
  stretched = read(*files, fit="stretch", **look)[1, ..., 0]
  with Image.open(files[1]) as image:
    np.testing.assert_array_equal(stretched, image.resize((8, 8), Image.Resampling.BILINEAR))


@pytest.mark.parametrize("shape", [(1, 40), (40, 1), (3, 7), (50, 40)])
@pytest.mark.parametrize("fit", ["pad", "crop"])
def test_every_shape_fits(fit, shape, tmp_path):
  save(tmp_path / "a.png", np.full(shape, 9))
  save(tmp_path / "b.png", np.full((2, 2), 9))
  found = read(tmp_path / "a.png", tmp_path / "b.png", side=8, fit=fit)
  assert found.shape == (2, 8, 8, 1)
  assert (found[0] == 9).any()
  assert (found[0] == 9).all() == (fit == "crop")


def from_folder(path):
  return {"source": "folder", "path": str(write_folder(path / "pets"))}


def from_npz(path):
  rng = np.random.default_rng(0)
  np.savez(path / "a.npz", images=rng.integers(0, 250, (20, 10, 12), np.uint8), labels=np.arange(20) % 2)
  return {"source": "npz", "path": str(path / "a.npz")}


def from_plug_in(path):
  rng = np.random.default_rng(0)

  @sources.register("oblong")
  def oblong(settings):
    """Draws noise."""
    part = sources.Split(rng.integers(0, 250, (20, 10, 12, 1), np.uint8), np.arange(20) % 2)
    return sources.split("oblong", ("a", "b"), part, None, settings)

  return {"source": "oblong"}


@pytest.mark.parametrize("given", [from_folder, from_npz, from_plug_in])
def test_a_set_that_is_not_square_is_not_stretched_in_silence(given, tmp_path, caplog):
  with registry.temporary(sources.SOURCES, sources._SOURCES), caplog.at_level(logging.INFO, "lcgen"):
    settings = given(tmp_path)
    for changes, shape in (
      ({}, (10, 12, 1)),
      ({"image_size": 16}, (12, 12, 1)),
      ({"image_size": 16, "fit": "crop"}, (10, 10, 1)),
      ({"image_size": 16, "fit": "stretch"}, (10, 12, 1)),
    ):
      caplog.clear()
      data = sources.load(DataSettings(**settings, **changes))
      assert data.facts.shape == data.test.images.shape[1:] == shape
      assert ("images of 12x10 pixels are made" in caplog.text) == (shape[0] == shape[1])
      assert (data.train.images[:, 0] == 255).all() == (shape[0] == 12)


def test_images_that_do_not_fit_the_memory_are_refused_before_they_are_read(tmp_path, monkeypatch):
  root = write_folder(tmp_path, parts=("train",), shape=(20, 30), count=2)
  files = sorted(map(epath.Path, root.glob("train/*/*.png")))
  monkeypatch.setattr(memory, "available_memory", lambda: 4 * 20 * 30)
  assert pictures.read(files, pictures.Look()).shape == (4, 20, 30, 1)
  monkeypatch.setattr(memory, "available_memory", lambda: 4 * 20 * 30 - 1)
  with pytest.raises(errors.InputError, match="4 images, which take 2,400 bytes, and 2,399 are free; make the images"):
    pictures.read(files, pictures.Look())
