"""Each corruption against its formula: in NumPy, SciPy, Pillow or the standard library, or by hand."""

import colorsys
import io

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest
import scipy.ndimage

from lcgen.data.corruptions import cifar10_c, colours, edges, elastic, fields, filters, jpeg, mnist_c, spattering
from tests.support.scenes import CIFAR10_C, KEY, MNIST_C, scenes

plasma = jax.jit(fields.plasma, static_argnums=(1, 2))


def test_defocus_blur_is_a_smoothed_disk():
  images = scenes()
  published = ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1.0, 0.2), (1.5, 0.1))
  for severity, (radius, sigma) in enumerate(published, start=1):
    y, x = np.mgrid[-8:9, -8:9]
    disk = (x**2 + y**2 <= radius**2) / np.sum(x**2 + y**2 <= radius**2)
    weights = np.exp(-0.5 * (np.arange(-1, 2) / sigma) ** 2)
    for axis in (0, 1):
      disk = scipy.ndimage.correlate1d(disk, weights / weights.sum(), axis=axis)
    expected = scipy.ndimage.correlate(images.astype(float), disk[None, :, :, None], mode="mirror")
    np.testing.assert_allclose(CIFAR10_C["defocus_blur"](KEY, images, severity), expected, atol=1e-5)


def test_gaussian_blur_is_scipys():
  images = scenes()
  for severity, sigma in enumerate((0.4, 0.6, 0.7, 0.8, 1.0), start=1):
    expected = scipy.ndimage.gaussian_filter(images.astype(float), (0, sigma, sigma, 0), mode="nearest")
    np.testing.assert_allclose(CIFAR10_C["gaussian_blur"](KEY, images, severity), expected, atol=1e-5)


def test_glass_blur_copies_neighbours():
  places = jnp.arange(20.0 * 20).reshape(1, 20, 20, 1) / 400
  for times in (1, 2):
    moved = np.asarray(jax.jit(cifar10_c._displace)(KEY, places, times) * 400)[0, :, :, 0].round().astype(int)
    down, right = np.arange(20)[:, None] - moved // 20, np.arange(20)[None] - moved % 20
    assert (down[:2] == 0).all()
    assert (right[:, :2] == 0).all()
    assert set(np.unique(down[2:, 2:])) == set(range(times + 1)) == set(np.unique(right[2:, 2:]))
  np.testing.assert_array_equal(jax.jit(cifar10_c._displace)(KEY, places, 0), places)


def test_mnist_glass_blur_only_swaps():
  images = jnp.tile(jnp.arange(100.0).reshape(1, 10, 10, 1), (50, 1, 1, 1))
  swapped = np.asarray(jax.jit(mnist_c._swap)(KEY, images))
  np.testing.assert_array_equal(np.sort(swapped.reshape(50, -1)), np.sort(images.reshape(50, -1)))
  moved = (swapped != images)[:, :, :, 0].mean(axis=0)
  assert (moved[0] == 0).all()  # only rows and columns 1 and up take part
  assert (moved[:, 0] == 0).all()
  assert moved[-1, -1] == pytest.approx(3 / 8, abs=0.25)


def test_motion_blur_walks_along_a_line():
  image = scenes(1, 20, 20, 3)
  for angle, radius, sigma, taps in ((0.3, 6, 1.5, 9), (-0.7, 9, 2.5, 14), (-2.0, 3, 12.0, 7)):
    weights = np.exp(-0.5 * (np.arange(2 * radius + 1) / sigma) ** 2)
    weights /= weights.sum()
    expected = np.zeros(image.shape)
    for step, weight in enumerate(weights):
      rows = np.clip(np.arange(20) + int(np.ceil(step * np.sin(angle) - 0.5)), 0, 19)
      columns = np.clip(np.arange(20) + int(np.ceil(step * np.cos(angle) - 0.5)), 0, 19)
      expected += weight * image[:, rows][:, :, columns]
    found = jax.jit(filters.motion_blur, static_argnums=4)(jnp.asarray(image), jnp.array([angle]), radius, sigma, taps)
    np.testing.assert_allclose(found, expected, atol=1e-5)
  still = jax.jit(filters.motion_blur, static_argnums=4)(jnp.asarray(image), jnp.array([0.3]), 6, 1e-3, 9)
  np.testing.assert_allclose(still, image, atol=1e-6)


def clipped_zoom(image, factor):
  """The published one, for one image `[H, H, C]`."""
  size = image.shape[0]
  part = int(np.ceil(size / factor))
  start = (size - part) // 2
  large = scipy.ndimage.zoom(image[start : start + part, start : start + part], (factor, factor, 1), order=1)
  trim = (large.shape[0] - size) // 2
  return large[trim : trim + size, trim : trim + size]


def test_zoom_blur_is_the_mean_of_zooms():
  image = scenes(1, 32, 32, 3)[0].astype(float)
  for severity, stop in enumerate((1.06, 1.11, 1.16, 1.21, 1.26), start=1):
    zooms = np.arange(1, stop, 0.01)
    expected = (image + sum(clipped_zoom(image, factor) for factor in zooms)) / (len(zooms) + 1)
    found = CIFAR10_C["zoom_blur"](KEY, jnp.asarray(image[None], jnp.float32), severity)[0]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_brightness_and_contrast_do_what_they_say():
  images = scenes()
  mean = images.mean(axis=(1, 2), keepdims=True, dtype=float)
  for severity, factor in enumerate((0.75, 0.5, 0.4, 0.3, 0.15), start=1):
    np.testing.assert_allclose(CIFAR10_C["contrast"](KEY, images, severity) - mean, factor * (images - mean), atol=1e-5)
  for severity, amount in enumerate((0.05, 0.1, 0.15, 0.2, 0.3), start=1):
    brighter = np.asarray(CIFAR10_C["brightness"](KEY, images, severity))
    np.testing.assert_allclose(brighter.max(-1), np.minimum(images.max(-1) + amount, 1), atol=1e-6)
    saturation = lambda x: 1 - x.min(-1) / x.max(-1)
    np.testing.assert_allclose(saturation(brighter), saturation(images), atol=1e-4)
  np.testing.assert_allclose(CIFAR10_C["brightness"](KEY, jnp.zeros((1, 8, 8, 3)), 5), 0.3)


def test_saturate_keeps_hue_and_value():
  images = scenes(1, 8, 8, 3)
  for severity, (factor, offset) in enumerate(((0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2)), start=1):
    hsv = [colorsys.rgb_to_hsv(*pixel) for pixel in images.reshape(-1, 3).tolist()]
    expected = [colorsys.hsv_to_rgb(h, min(s * factor + offset, 1), v) for h, s, v in hsv]
    found = CIFAR10_C["saturate"](KEY, jnp.asarray(images), severity)
    np.testing.assert_allclose(found.reshape(-1, 3), expected, atol=1e-5)
  grey = jnp.full((1, 8, 8, 3), 0.5)
  np.testing.assert_allclose(colours.scale_saturation(grey, 2.0, 0.0), grey)
  np.testing.assert_allclose(colours.scale_saturation(jnp.asarray(images), 1.0, 0.0), images, atol=1e-6)
  np.testing.assert_array_equal(CIFAR10_C["saturate"](KEY, grey[..., :1], 5), grey[..., :1])


def test_pixelate_is_pillows_box_filter():
  image = (scenes(1, 24, 32, 3)[0] * 255).round().astype(np.uint8)
  for severity, factor in enumerate((0.95, 0.9, 0.85, 0.75, 0.65), start=1):
    small = PIL.Image.fromarray(image).resize((int(32 * factor), int(24 * factor)), PIL.Image.Resampling.BOX)
    expected = np.asarray(small.resize((32, 24), PIL.Image.Resampling.BOX))
    found = CIFAR10_C["pixelate"](KEY, jnp.asarray(image[None], jnp.float32) / 255, severity)[0] * 255
    np.testing.assert_allclose(found, expected, atol=1e-3)


@pytest.mark.parametrize("size", [(32, 32, 3), (37, 21, 3), (13, 30, 1)])
def test_jpeg_is_pillows(size):
  images = (scenes(20, *size) * 255).round().astype(np.uint8)
  for severity, quality in enumerate((80, 65, 58, 50, 40), start=1):
    expected = []
    for image in images:
      file = io.BytesIO()
      PIL.Image.fromarray(image.squeeze()).save(file, "JPEG", quality=quality)
      expected.append(np.asarray(PIL.Image.open(file), float).reshape(size))
    found = CIFAR10_C["jpeg_compression"](KEY, jnp.asarray(images, jnp.float32) / 255, severity) * 255
    expected = np.array(expected)
    # Not exactly: libjpeg's cosines are rounded, so that now and then a coefficient falls to the other side.
    assert np.abs(found - expected).mean() < 0.12 * np.abs(images - expected).mean()
    assert (np.abs(found - expected) < 1.5).mean() > 0.85


def test_jpeg_of_the_finest_tables_only_rounds():
  images = jnp.round(jnp.asarray(scenes(2, 13, 30, 1)) * 255) / 255
  np.testing.assert_allclose(jax.jit(jpeg.compress)(images, jnp.ones((2, 8, 8))), images, atol=1.01 / 255)


def test_fog_and_plasma():
  clouds = np.asarray(plasma(KEY, 50, 32, 2.0))[:3]
  np.testing.assert_allclose(clouds.min(axis=(1, 2)), 0, atol=1e-6)
  np.testing.assert_allclose(clouds.max(axis=(1, 2)), 1, atol=1e-6)
  rough = lambda decay: float(jnp.abs(jnp.diff(plasma(KEY, 50, 32, decay), axis=1)).mean())
  assert rough(1.5) > rough(2) > rough(3)
  images = jnp.asarray(scenes(3, 32, 32, 3))
  largest = np.max(images, axis=(1, 2, 3), keepdims=True)
  expected = (images + 0.75 * clouds[..., None]) * largest / (largest + 0.75)
  np.testing.assert_allclose(colours.add_fog(images, clouds[..., None], 0.75), expected, atol=1e-6)


def test_diamond_square_without_noise_interpolates():
  corners = jnp.arange(16.0).reshape(1, 4, 4)
  fine = np.asarray(jax.jit(fields._halve_spacing)(corners, jnp.zeros((1, 3, 4, 4))))[0]
  np.testing.assert_array_equal(fine[::2, ::2], corners[0])
  assert fine[3, 3] == (5 + 6 + 9 + 10) / 4  # a square's middle
  assert fine[3, 2] == (5 + 9 + fine[3, 1] + fine[3, 3]) / 4  # an edge's
  assert fine[2, 3] == (5 + 6 + fine[1, 3] + fine[3, 3]) / 4


def test_plasma_corner_is_smooth_and_within():
  corner = np.asarray(jax.jit(fields.plasma_corner, static_argnums=(1, 2))(KEY, 20, 28, 1.4))
  assert corner.shape == (20, 28, 28)
  assert 0 <= corner.min() < corner.max() <= 1
  assert np.abs(np.diff(corner, axis=1)).mean() < 0.3 * corner.std()


def test_snow_adds_flakes_and_whitens():
  dark = jnp.zeros((50, 32, 32, 3))
  for severity, mix in enumerate((0.95, 0.9, 0.9, 0.85, 0.8), start=1):
    snowed = np.asarray(CIFAR10_C["snow"](KEY, dark, severity))
    assert snowed.min() == pytest.approx((1 - mix) * 0.5, abs=0.01)  # where no flake fell
    assert snowed.mean() > 0.005 + (1 - mix) * 0.5
    np.testing.assert_allclose(snowed, snowed[:, ::-1, ::-1], atol=1e-6)  # upright and upside down


def test_frost_is_pale_ice_on_a_darker_image():
  ice = np.asarray(jax.jit(fields.frost, static_argnums=(1, 2, 3))(KEY, 400, 32, 32))
  np.testing.assert_allclose(ice.mean(axis=(0, 1, 2)), (0.56, 0.65, 0.69), atol=0.04)  # of the photographs
  assert ice.mean(-1).std(axis=(1, 2)).mean() == pytest.approx(0.088, abs=0.015)
  assert ice.mean(axis=(1, 2, 3)).std() == pytest.approx(0.14, abs=0.03)
  for severity, (keep, add) in enumerate(((1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45)), start=1):
    white = np.asarray(CIFAR10_C["frost"](KEY, jnp.full((400, 32, 32, 3), 0.1), severity))
    assert white.mean() == pytest.approx(0.1 * keep + add * ice.mean(), abs=0.01)


def test_elastic_transform_without_movement_changes_nothing():
  images = jnp.asarray(scenes())
  np.testing.assert_allclose(jax.jit(elastic.affine_of_points)(KEY, images, 0.0), images, atol=1e-5)
  still = jax.jit(elastic.displace, static_argnums=(3, 4))(KEY, images, 0.0, (0.0,), 1)
  np.testing.assert_allclose(still, images, atol=1e-6)
  assert not np.allclose(jax.jit(elastic.affine_of_points)(KEY, images, 1.0), images, atol=1e-2)


def test_affine_map_moves_three_points(monkeypatch):
  """A ramp along x and one along y show where every pixel came from."""
  moves = jnp.array([[[1.0, -2.0], [0.5, 1.5], [-1.0, 0.0]]])
  monkeypatch.setattr(jax.random, "uniform", lambda key, shape, minval: moves)
  ramps = jnp.stack(jnp.mgrid[:32, :32][::-1], axis=-1)[None].astype(jnp.float32)
  origin = np.asarray(elastic.affine_of_points(KEY, ramps, 1.0))[0]  # [y, x] -> (x, y) it was read from
  points = np.array([[26, 26], [26, 6], [6, 6]])
  places = points + np.asarray(moves[0])
  for axis in (0, 1):
    found = scipy.ndimage.map_coordinates(origin[..., axis], places[:, ::-1].T, order=1)
    np.testing.assert_allclose(found, points[:, axis], atol=1e-3)


def test_bilinear_reads_like_scipy():
  image = scenes(1, 16, 12, 1)
  rows, columns = np.random.default_rng(2).uniform(-20, 40, (2, 1, 16, 12))
  for border, mode in (("reflect", "mirror"), ("symmetric", "reflect")):
    expected = scipy.ndimage.map_coordinates(image[0, ..., 0].astype(float), [rows[0], columns[0]], order=1, mode=mode)
    found = jax.jit(filters.bilinear, static_argnums=3)(
      jnp.asarray(image), jnp.asarray(rows), jnp.asarray(columns), border
    )[0, ..., 0]
    np.testing.assert_allclose(found, expected, atol=1e-4)
  expected = scipy.ndimage.map_coordinates(
    np.pad(image[0, ..., 0], 30).astype(float), [rows[0] + 30, columns[0] + 30], order=1
  )
  found = jax.jit(filters.bilinear, static_argnums=3)(
    jnp.asarray(image), jnp.asarray(rows), jnp.asarray(columns), "zero"
  )[0, ..., 0]
  np.testing.assert_allclose(found, expected, atol=1e-4)


def test_mud_hides_and_water_shines():
  mud, water = jax.jit(spattering.mud, static_argnums=2), jax.jit(spattering.water)
  images = jnp.asarray(scenes(2, 16, 16, 3))
  nothing, everything = jnp.zeros((2, 16, 16, 1)), jnp.ones((2, 16, 16, 1))
  np.testing.assert_allclose(mud(images, nothing, 0.6), images)
  np.testing.assert_allclose(
    mud(images, everything, 0.6), np.broadcast_to(np.array([63, 42, 20]) / 255, images.shape), atol=1e-5
  )
  np.testing.assert_allclose(water(images, nothing, 0.5), images)
  drop = nothing.at[:, 5:10, 4:9].set(0.8)
  added = np.asarray(water(jnp.zeros_like(images), drop, 0.5))
  assert (added[:, :4] == 0).all()
  np.testing.assert_allclose(added.max(axis=(1, 2))[0], 0.5 * np.array([175, 238, 238]) / 255, atol=1e-5)


def test_distances_are_exact():
  found = np.asarray(edges.distance(jnp.asarray(np.random.default_rng(3).random((3, 20, 17)) > 0.97), 20))
  expected = [
    scipy.ndimage.distance_transform_edt(np.random.default_rng(3).random((3, 20, 17))[i] <= 0.97) for i in range(3)
  ]
  np.testing.assert_allclose(found, np.minimum(expected, 20), atol=1e-5)


def test_equalised_levels_are_ranks():
  levels = jnp.array([0.0] * 8 + [3.0] * 4 + [20.0] * 4).reshape(1, 4, 4, 1)
  expected = [0.0] * 8 + [round(4 * 255 / 8)] * 4 + [255.0] * 4
  np.testing.assert_allclose(spattering._equalise(levels).reshape(-1), expected, atol=1)


def test_canny_finds_the_outline_of_a_square():
  square = jnp.zeros((1, 28, 28)).at[:, 8:20, 8:20].set(1.0)
  found = np.asarray(jax.jit(edges.canny)(square))[0]
  assert not found[10:18, 10:18].any()
  assert not found[:6].any()
  assert found[13, 7:9].any()
  assert found[19:21, 13].any()
  faint = jax.jit(edges.canny)(0.02 * square)
  assert not np.asarray(faint).any()


def test_weak_edges_count_where_linked_to_strong_ones():
  weak = jnp.zeros((1, 9, 9), bool).at[0, 1:8, 2].set(True).at[0, 2:7, 6].set(True)
  strong = jnp.zeros((1, 9, 9), bool).at[0, 7, 2].set(True)
  found = np.asarray(edges.connected(weak, strong))[0]
  assert found[1:8, 2].all()
  assert not found[:, 6].any()


def test_translation_moves_whole_pixels_along_a_diagonal():
  dot = jnp.zeros((40, 15, 15, 1)).at[:, 7, 7].set(1.0)
  moved = np.asarray(MNIST_C["translate"](KEY, dot, 1))
  assert {tuple(np.argwhere(image[..., 0] == 1)[0]) for image in moved} == {(4, 4), (4, 10), (10, 4), (10, 10)}


@pytest.mark.parametrize(
  ("name", "matrices"),
  [
    ("shear", [[[1, -np.sin(a)], [0, np.cos(a)]] for a in (-0.4, 0.4)]),
    ("rotate", [[[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]] for a in (-0.4, 0.4)]),
    ("scale", [[[1 / 0.7, 0], [0, 1 / 0.7]]]),
  ],
)
def test_affine_corruptions_read_where_the_published_matrix_points(name, matrices):
  images = scenes(12, 28, 28, 1)
  images[1:] = images[0]
  y, x = np.mgrid[:28, :28] - 13.5
  padded = np.pad(images[0, ..., 0], 20)
  expected = []
  for (xx, xy), (yx, yy) in matrices:
    places = [yx * x + yy * y + 33.5, xx * x + xy * y + 33.5]
    expected.append(scipy.ndimage.map_coordinates(padded.astype(float), places, order=1))
  found = np.asarray(MNIST_C[name](KEY, jnp.asarray(images), 1))[..., 0]
  errors = np.array([[np.abs(image - version).max() for version in expected] for image in found])
  assert errors.min(axis=1).max() < 1e-4
  assert set(errors.argmin(axis=1)) == set(range(len(matrices)))  # to both sides


def test_stripes_invert_the_outer_quarters():
  images = scenes(1, 28, 28, 1)
  striped = np.asarray(MNIST_C["stripe"](KEY, jnp.asarray(images), 1))
  np.testing.assert_allclose(striped[:, :, 7:21], images[:, :, 7:21])
  for part in (slice(0, 7), slice(21, 28)):
    np.testing.assert_allclose(striped[:, :, part], 1 - images[:, :, part], atol=1e-6)


def test_lines():
  black = jnp.zeros((30, 28, 28, 1))
  dotted = np.asarray(MNIST_C["dotted_line"](KEY, black, 1))[..., 0]
  columns = dotted.max(axis=1) > 0.4
  np.testing.assert_array_equal(
    columns, np.broadcast_to((np.arange(28) // 2 % 2 == 1) & (np.arange(28) < 27), (30, 28))
  )
  zigzag = np.asarray(MNIST_C["zigzag"](KEY, black, 1))[..., 0]
  assert (zigzag[:, :, :1] == 0).all()
  assert (zigzag[:, :, 27:] == 0).all()
  middle = zigzag[:, :, 8:20]
  rows = (middle * np.arange(28)[:, None]).sum(axis=1) / np.maximum(middle.sum(axis=1), 1e-6)
  assert np.ptp(rows, axis=1).min() > 2  # it goes up and down
  level = mnist_c._lines(jnp.array([[0.0, 27.0]]), jnp.array([[10.0, 10.0]]), 28, 28)[0, :, 5, 0]
  np.testing.assert_allclose(level[9:12], [1 + np.log(1 - 1 / 2.3), 1, 1 + np.log(1 - 1 / 2.3)], atol=1e-5)
