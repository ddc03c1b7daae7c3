import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from lcgen.classifiers import transforms
from lcgen.classifiers.operations import GEOMETRY
from tests.support.images import photographs
from tests.support.steps import in_training

KEY = jax.random.key(0)
BATCH, HEIGHT, WIDTH = 6, 20, 26
ROOM = 32  # operations are tested in batches of one size, which compile once


EACH = {
  "shift_rotate": functools.partial(transforms.shift_rotate, pixels=2.0, degrees=15.0, fill=0.0),
  "flip_crop": functools.partial(transforms.flip_crop, padding=4, flip=0.5, fill=0.0),
  "cutout": functools.partial(transforms.cutout, side=0.5, fill=0.0),
  "randaugment": functools.partial(transforms.randaugment, operations=2, magnitude=9.0),
  "augmix": functools.partial(transforms.augmix, severity=3.0, width=3, depth=0, alpha=1.0),
}
COMPILED = {name: in_training(function) for name, function in EACH.items()}
KEYS = jnp.broadcast_to(jax.random.split(KEY)[:, None], (2, 2))  # one a step


def as_unit(levels):
  return jnp.asarray(levels / 255, jnp.float32)


def test_settings_without_effect_return_the_input():
  images, labels = jax.random.normal(KEY, (BATCH, HEIGHT, WIDTH, 3)), jnp.eye(BATCH)
  returned = {
    "shift_rotate": transforms.shift_rotate(KEY, images, pixels=0, degrees=0, fill=-2.0),
    "flip_crop": transforms.flip_crop(KEY, images, padding=0, flip=0, fill=-2.0),
    "cutout": transforms.cutout(KEY, images, side=0, fill=-2.0),
    "randaugment": transforms.randaugment(KEY, images, operations=0, magnitude=9.0),
  }
  mixes = {"mixup": functools.partial(transforms.mixup, alpha=0)}
  mixes |= {"cutmix": functools.partial(transforms.cutmix, alpha=0, probability=1)}
  mixes |= {"rare cutmix": functools.partial(transforms.cutmix, alpha=1, probability=0)}
  for name, mix in mixes.items():
    returned[name], returned_labels = mix(KEY, images, labels)
    np.testing.assert_array_equal(returned_labels, labels)
  for name, result in returned.items():
    np.testing.assert_array_equal(result, images, err_msg=name)


@pytest.mark.parametrize("name", COMPILED)
def test_draws_depend_on_the_key_alone(name):
  images = jnp.tile(as_unit(photographs(BATCH, 3)), (2, 2, 1, 1, 1, 1))
  for keys, axis in ((KEYS, 1), (KEYS.T, 0)):  # the same in all runs of a step, and in all steps of a run
    results = np.moveaxis(COMPILED[name](keys, images), axis, 0)
    assert results.dtype == np.float32
    assert results.shape == images.shape
    np.testing.assert_array_equal(results[0], results[1])
    assert (results[0, 0] != results[0, 1]).any()
    assert (results != np.asarray(images)).any(axis=(2, 3, 4, 5)).all()


@pytest.mark.parametrize("name", EACH)
def test_each_image_has_its_own_draws(name):
  images = jnp.tile(as_unit(photographs(1, 3)), (2, 2, BATCH, 1, 1, 1))
  results = COMPILED[name](KEYS, images)[0, 0].reshape(BATCH, -1)
  assert len(np.unique(results, axis=0)) >= BATCH - 1


@pytest.mark.parametrize("name", ["randaugment", "augmix"])
def test_results_stay_in_range(name):
  unit = np.random.default_rng(0).random((2, 2, BATCH, HEIGHT, WIDTH, 3), np.float32)
  unit[:, :, :2] = 1
  results = np.stack([COMPILED[name](keys, unit) for keys in jax.random.split(KEY, (8, 2, 2))])
  assert results.min() >= 0
  assert results.max() <= 1


def test_shifts_and_angles_are_uniform():
  """The source of every pixel, read off images of the coordinates themselves, tells the map."""
  count, pixels, degrees, fill = 400, 2.5, 20.0, -3.0
  y, x = np.mgrid[:14, :11].astype(np.float32)
  images = jnp.tile(np.stack([x, y, np.ones_like(x)], axis=-1), (count, 1, 1, 1))
  move = jax.jit(functools.partial(transforms.shift_rotate, pixels=pixels, degrees=degrees, fill=fill))
  result = np.asarray(move(KEY, images), np.float64)
  centre = np.array([5, 6.5])
  angles, shifts = [], []
  for image in result:
    inside = np.abs(image[..., 2] - 1) < 1e-5
    places = np.stack([x[inside], y[inside], np.ones(inside.sum())], axis=-1)
    (*turn, offset), residuals, *_ = np.linalg.lstsq(places, image[inside][:, :2])
    assert residuals.max() < 1e-6
    np.testing.assert_allclose(np.transpose(turn) @ turn, np.eye(2), atol=1e-5)  # a rotation
    angles.append(np.rad2deg(np.arctan2(turn[0][1], turn[0][0])))
    shifts.append(np.linalg.solve(np.transpose(turn), centre - offset) - centre)  # of what was at the centre
  for draws, reach in ((angles, degrees), (np.transpose(shifts)[0], pixels), (np.transpose(shifts)[1], pixels)):
    assert np.abs(draws).max() <= reach + 1e-4
    assert scipy.stats.kstest(draws, scipy.stats.uniform(-reach, 2 * reach).cdf).pvalue > 0.01
  assert result.min() == fill


def test_results_are_crops_and_every_crop_occurs():
  count, padding, flip, fill = 2000, 2, 0.3, -7.0
  image = np.random.default_rng(0).random((5, 4, 3), np.float32)
  border = ((padding, padding), (padding, padding), (0, 0))
  padded = [np.pad(side, border, constant_values=fill) for side in (image, image[:, ::-1])]
  places = list(itertools.product((0, 1), range(2 * padding + 1), range(2 * padding + 1)))
  crops = np.stack([padded[flipped][y : y + 5, x : x + 4] for flipped, y, x in places])
  images = jnp.tile(image, (count, 1, 1, 1))
  result = jax.jit(functools.partial(transforms.flip_crop, padding=padding, flip=flip, fill=fill))(KEY, images)
  matches = (np.asarray(result)[:, None] == crops).all(axis=(2, 3, 4))
  assert (matches.sum(axis=1) == 1).all()
  expected = [count / 25 * (flip if flipped else 1 - flip) for flipped, _, _ in places]
  assert scipy.stats.chisquare(matches.sum(axis=0), expected).pvalue > 0.01


@pytest.mark.parametrize(("side", "pixels"), [(0.4, 2), (0.6, 2), (0.8, 4)])  # 0.6 would be 3 pixels, and loses one
def test_squares_lie_around_every_pixel(side, pixels):
  height, width, count = 5, 8, 2000
  boxes = np.zeros((height, width, height, width), bool)
  for y, x in np.ndindex(height, width):
    top, left = y - pixels // 2, x - pixels // 2
    boxes[y, x, max(top, 0) : top + pixels, max(left, 0) : left + pixels] = True
  kinds, places = np.unique(boxes.reshape(-1, height * width), axis=0, return_counts=True)
  images = jax.random.normal(KEY, (count, height, width, 3))
  result = np.asarray(jax.jit(lambda fill: transforms.cutout(KEY, images, side=side, fill=fill))(9.0))
  cut = (result == 9).all(axis=-1)
  np.testing.assert_array_equal(result[~cut], np.asarray(images)[~cut])
  matches = (cut.reshape(count, 1, -1) == kinds).all(axis=-1)
  assert (matches.sum(axis=1) == 1).all()
  assert scipy.stats.chisquare(matches.sum(axis=0), count * places / (height * width)).pvalue > 0.01


def test_randaugment_draws_operations_uniformly(monkeypatch):
  """Which operation made an image shows by comparison with the images of all; see `test_operations` for these."""
  count, magnitude = 700, 21.0
  level = as_unit(photographs(1, 3))
  draw = jax.jit(functools.partial(transforms.randaugment, operations=1, magnitude=magnitude))
  result = np.asarray(draw(KEY, jnp.tile(level, (count, 1, 1, 1)))).reshape(count, -1)
  _, counts = np.unique(result, axis=0, return_counts=True)
  assert len(counts) == 23  # 9 operations have two directions
  expected = np.sort([count / 14] * 5 + [count / 28] * 18)
  assert scipy.stats.chisquare(np.sort(counts), expected).pvalue > 1e-4  # sorted counts lie closer than drawn ones


def test_randaugment_applies_operations_in_turn():
  """The images of two operations are those of one operation on the images of one."""
  unit = as_unit(photographs(1, 3))
  once = jax.jit(functools.partial(transforms.randaugment, operations=1, magnitude=21.0))
  first = np.unique(np.asarray(once(KEY, jnp.tile(unit, (400, 1, 1, 1)))), axis=0)
  first = np.asarray([one for one in first])
  second = once(jax.random.key(1), jnp.asarray(first).repeat(400, axis=0))
  twice = {image.tobytes() for image in np.asarray(second)}
  two = jax.jit(functools.partial(transforms.randaugment, operations=2, magnitude=21.0))
  result = np.asarray(two(KEY, jnp.tile(unit, (40, 1, 1, 1))))
  assert np.mean([image.tobytes() in twice for image in result]) > 0.95
  ones = {image.tobytes() for image in first}
  assert np.mean([image.tobytes() in ones for image in result]) < 0.5


def augmix_draws(monkeypatch, count, **settings):
  """Operations and strengths that AugMix asks for, `[depth, width * count]` each."""

  @jax.jit
  def draw():
    asked = []
    with monkeypatch.context() as patch:
      patch.setattr(transforms, "_apply_all", lambda unit, *draws: asked.extend(draws) or unit)
      transforms.augmix(KEY, jnp.zeros((count, HEIGHT, WIDTH, 1)), alpha=1.0, **settings)
    return tuple(asked)

  return [np.asarray(values) for values in draw()]


def test_augmix_draws_depths_operations_and_levels(monkeypatch):
  severity = 8.0
  operations, strengths = augmix_draws(monkeypatch, 1500, severity=severity, width=2, depth=0)
  assert operations.shape == (3, 3000)
  present = operations != transforms.OPERATIONS.index("identity")
  assert not (present[1:] & ~present[:-1]).any()
  assert scipy.stats.chisquare(np.bincount(present.sum(axis=0), minlength=4)[1:]).pvalue > 0.01
  drawn, counts = np.unique(operations[present], return_counts=True)
  assert {transforms.OPERATIONS[index] for index in drawn} == set(transforms.AUGMIX_OPERATIONS)
  assert scipy.stats.chisquare(counts).pvalue > 0.01

  of = lambda name: strengths[operations == transforms.OPERATIONS.index(name)]
  for name in ("shear_x", "shear_y"):
    levels = np.abs(of(name)) / 0.03
    assert scipy.stats.kstest(levels, scipy.stats.uniform(0.1, severity - 0.1).cdf).pvalue > 0.01
  for name, reach in (("rotate", 30), ("translate_x", WIDTH / 3), ("translate_y", HEIGHT / 3)):
    assert set(np.abs(of(name))) == set(range(int(np.ceil(severity * reach / 10))))
  for name in GEOMETRY:
    positive = np.sum(of(name) > 0)
    assert scipy.stats.binomtest(positive, positive + np.sum(of(name) < 0)).pvalue > 0.01
  assert set(of("posterize")) == {4, 3, 2, 1}
  assert set(of("solarize")) <= set(range(256 - int(severity * 25.6), 255))
  assert len(set(of("solarize"))) > 80


@pytest.mark.parametrize("depth", [1, 4])
def test_augmix_of_a_given_depth(monkeypatch, depth):
  operations, _ = augmix_draws(monkeypatch, 50, severity=3.0, width=3, depth=depth)
  assert operations.shape == (depth, 150)
  assert (operations != transforms.OPERATIONS.index("identity")).all()


def test_augmix_weights_sum_to_one(monkeypatch):
  """Chains that each light up a pixel of their own, and an image with another, leave their weights there."""
  width, count, alpha = 3, 600, 0.5
  chains = lambda unit, *_: jnp.eye(width, 4).repeat(count, axis=0).reshape(unit.shape)
  monkeypatch.setattr(transforms, "_apply_all", chains)
  images = jnp.tile(jnp.array([0.0, 0.0, 0.0, 1.0]).reshape(1, 2, 2, 1), (count, 1, 1, 1))
  mix = jax.jit(functools.partial(transforms.augmix, severity=3.0, width=width, depth=1, alpha=alpha))
  result = np.asarray(mix(KEY, images), np.float64).reshape(count, 4)
  np.testing.assert_allclose(result.sum(axis=1), 1, atol=1e-6)
  together = 1 - result[:, 3]
  assert scipy.stats.kstest(together, scipy.stats.beta(alpha, alpha).cdf).pvalue > 0.01
  weights = (result[:, :3] / together[:, None])[together > 1e-3].T
  for weight in weights:
    assert scipy.stats.kstest(weight, scipy.stats.beta(alpha, (width - 1) * alpha).cdf).pvalue > 0.01
    assert scipy.stats.spearmanr(weight, together[together > 1e-3]).pvalue > 0.01


def test_augmix_without_severity_moves_and_inverts_nothing():
  """Posterisation to 4 bits takes the last 15 levels of white; the rest leaves black and white as they are."""
  unit = np.random.default_rng(0).integers(0, 2, (ROOM, HEIGHT, WIDTH, 1)).astype(np.float32)
  augment = jax.jit(functools.partial(transforms.augmix, severity=0, width=1, depth=2, alpha=1.0))
  result = np.asarray(augment(KEY, unit))
  np.testing.assert_array_equal(result[unit == 0], 0)
  assert 239.9 / 255 < result[unit == 1].min() < 0.99


REFUSED = {
  "pixels": functools.partial(transforms.shift_rotate, pixels=-1, degrees=0, fill=0),
  "degrees": functools.partial(transforms.shift_rotate, pixels=0, degrees=-1, fill=0),
  "padding": functools.partial(transforms.flip_crop, padding=1.5, flip=0.5, fill=0),
  "flip": functools.partial(transforms.flip_crop, padding=4, flip=1.5, fill=0),
  "side": functools.partial(transforms.cutout, side=1.5, fill=0),
  "operations": functools.partial(transforms.randaugment, operations=-1, magnitude=3),
  "magnitude": functools.partial(transforms.randaugment, operations=2, magnitude=31),
  "severity": functools.partial(transforms.augmix, severity=11, width=3, depth=0, alpha=1),
  "width": functools.partial(transforms.augmix, severity=3, width=0, depth=0, alpha=1),
  "depth": functools.partial(transforms.augmix, severity=3, width=3, depth=-1, alpha=1),
  "alpha": functools.partial(transforms.augmix, severity=3, width=3, depth=0, alpha=0),
}


@pytest.mark.parametrize("setting", REFUSED)
def test_settings_out_of_range_are_named(setting):
  with pytest.raises(ValueError, match=f"^{setting}="):
    REFUSED[setting](KEY, jnp.zeros((2, 8, 8, 1)))


@pytest.mark.parametrize("name", EACH)
def test_images_must_be_batches_of_floats(name):
  with pytest.raises(ValueError, match="floats"):
    EACH[name](KEY, jnp.zeros((2, 8, 8, 1), jnp.uint8))
  with pytest.raises(ValueError, match="floats"):
    EACH[name](KEY, jnp.zeros((8, 8, 1)))


@pytest.mark.parametrize("name", ["randaugment", "augmix"])
def test_images_must_be_grey_or_rgb(name):
  with pytest.raises(ValueError, match="4 channels"):
    EACH[name](KEY, jnp.zeros((2, 8, 8, 4)))
