"""Every policy on known inputs: what it did to the batch, and what it left alone."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from lcgen import config
from lcgen.classifiers import arm_phase, labelled, policies, transforms
from lcgen.classifiers.arms import POLICIES, SOURCES
from lcgen.constraints import algebra, samplers
from lcgen.data import ranges
from lcgen.generator.frozen import decode
from tests.classifiers.conftest import CLASSES, KEYS, LIMIT, MEMBERS, SHARE, SIZE, keys, over_keys
from tests.support.helpers import tree_bytes
from tests.support.untrained import tools_of

OF_SOURCES = tuple(f"latent_constraints:source={source}" for source in SOURCES)
REPLACING = tuple(name for name, spec in POLICIES.items() if "share" in spec.settings)
ARMS = (*POLICIES, *OF_SOURCES[1:])


@pytest.fixture(scope="module")
def draw(world):
  """`draw(arm, images=..., **frozen)`: what an arm makes of the batch with each of 64 keys, `[KEYS, ...]`."""

  def _draw(arm, images=world.images, **changes):
    policy = over_keys(policies.build(arm, world.tools).policy)
    return [np.asarray(part) for part in policy(keys(), images, world.labels, world.frozen.replace(**changes))]

  once = functools.cache(_draw)
  return lambda arm, **changes: _draw(arm, **changes) if changes else once(arm)


@pytest.fixture(scope="module")
def by_hand(world):
  """`by_hand(source)`: which images are replaced, by what, of which classes, and does the constraint hold there."""
  tools, frozen = world.tools, world.frozen

  def one(key, source, calibrate):
    pick_key, own_key = jax.random.split(key)
    picked = jax.random.permutation(pick_key, SIZE)[: round(SHARE * SIZE)]
    start_key, class_key, move_key = jax.random.split(own_key, 3)
    classes = world.labels[picked].argmax(axis=-1)
    if source == "edit":
      classes = (classes + jax.random.randint(class_key, classes.shape, 1, CLASSES)) % CLASSES
    constraint = algebra.Learnt(
      tools.energy, tools.actor, frozen.energy, frozen.actor, jax.nn.one_hot(classes, CLASSES)
    )
    constraint = algebra.Drawable(constraint, frozen.mixture)
    if source == "edit":
      start = tools.generator.encode(frozen.generator, world.images[picked]).sample(start_key)
      latents = samplers.edit(constraint, start, frozen.posterior_scale, tools.edit).latents
    else:
      start = tools.generator.prior(start_key, len(picked))
      latents = tools.samplers[source](move_key, constraint, start).latents
    unit = decode(latents, frozen, generator=tools.generator, calibrate=calibrate)
    return picked, (unit - 0.5) / 0.25, classes, constraint.holds(latents)

  @functools.cache
  def _by_hand(source="actor", calibrate=True):
    return [np.asarray(part) for part in jax.vmap(lambda key: one(key, source, calibrate))(keys())]

  return _by_hand


def changed(images, world):
  """Which images are not what they were, bit by bit; `[KEYS, B, H, W, C]` -> `[KEYS, B]`."""
  return (images != np.asarray(world.images)[None]).any(axis=(2, 3, 4))


def put(values, picked, others):
  """`values` `[B, ...]` for every key, `[KEYS, B, ...]`, with others at the picked places."""
  result = np.stack([np.asarray(values)] * KEYS)
  for own, places, new in zip(result, picked, others, strict=True):
    own[places] = new
  return result


def at(values, places):
  """`values[key, places[key]]`."""
  return np.stack([own[rows] for own, rows in zip(values, places, strict=True)])


@pytest.mark.parametrize("arm", ARMS)
def test_policies_are_pure_functions_of_a_batch(world, draw, arm):
  images, labels, weights = drawn = draw(arm)
  assert tree_bytes((world.images, world.labels, world.frozen)) == world.bytes

  count = policies.build(arm, world.tools).views * SIZE
  assert [part.shape for part in drawn] == [(KEYS, count, 8, 8, 1), (KEYS, count, CLASSES), (KEYS, count)]
  assert {part.dtype for part in drawn} == {np.dtype("float32")}
  assert np.abs(images).max() <= LIMIT
  assert labels.min() >= 0
  np.testing.assert_allclose(labels.sum(axis=-1), 1, atol=1e-6)
  np.testing.assert_array_equal(weights, np.tile(np.arange(count) < SIZE, (KEYS, 1)))
  different = {images[key].tobytes() for key in range(KEYS)}
  if arm == "cutmix":  # leaves half of the batches alone
    assert KEYS / 4 < len(different) < KEYS
    return
  assert len(different) == (1 if arm == "none" else KEYS)


def test_policies_of_several_steps_compile_into_one_program(world, draw):
  """As the loop over chunks has them: every step depends on its own key and its own batch alone."""
  shorter = {"augmix": "augmix:width=1:depth=1", "randaugment": "randaugment:operations=1"}  # quicker to compile
  texts = [shorter.get(arm, arm) for arm in ARMS]
  built = {arm: jax.vmap(policies.build(arm, world.tools).policy, (0, 0, 0, None)) for arm in texts}
  program = jax.jit(lambda *steps: {arm: policy(*steps) for arm, policy in built.items()})
  batches = [jnp.stack([values, values[::-1]]) for values in (world.images, world.labels)]
  compiled = program(keys()[:2], *batches, world.frozen)
  exchanged = program(keys()[1::-1], *(values[::-1] for values in batches), world.frozen)
  assert tree_bytes(jax.tree.map(lambda values: values[::-1], exchanged)) == tree_bytes(compiled)
  for arm in texts:
    for of_program, plain in zip(compiled[arm], draw(arm), strict=True):
      np.testing.assert_allclose(of_program[0], plain[0], atol=1e-5, err_msg=arm)


def test_none_returns_what_came_in(world, draw):
  images, labels, weights = draw("none")
  assert not changed(images, world).any()
  np.testing.assert_array_equal(labels, np.stack([world.labels] * KEYS))
  assert np.all(weights == 1)


@pytest.mark.parametrize(("share", "count"), [(0.23, 4), (1.0, SIZE)])
@pytest.mark.parametrize("name", [*REPLACING, "latent_constraints:source=edit"])
def test_the_share_of_the_batch_is_replaced_and_nothing_else(world, draw, name, share, count):
  images, labels, weights = draw(f"{name}:share={share}")
  replaced = changed(images, world)
  assert np.all(replaced.sum(axis=1) == count)
  assert replaced.any(axis=0).all()  # no place is safe
  assert np.all(weights == 1)
  kept = ~replaced if name in ("shuffled", "latent_constraints:source=edit") else np.ones_like(replaced)
  np.testing.assert_array_equal(labels[kept], np.stack([world.labels] * KEYS)[kept])


@pytest.mark.parametrize("arm", [*REPLACING, *OF_SOURCES[1:], "latent_constraints:filter=True"])
def test_a_share_of_zero_is_the_identity(world, arm):
  policy = policies.build(f"{arm}:share=0", world.tools).policy
  images, labels, weights = policy(jax.random.key(0), world.images, world.labels, world.frozen)
  assert tree_bytes((images, labels)) == tree_bytes((world.images, world.labels))
  assert np.all(np.asarray(weights) == 1)


def test_the_share_of_the_config_is_that_of_arms_that_say_none(world):
  settings = config.changed(world.settings, {"classifier.share": 0.5})
  tools = tools_of(settings, world.context)
  phase = arm_phase.phase(world.context, settings.classifier, tools, None, arms=["clip", "clip:share=0.25"])
  built = phase.run_steps.keywords["comparison"].arms
  for arm, expected in (("clip", 0.5), ("clip:share=0.25", 0.25)):
    images, _, _ = over_keys(built[arm].policy)(keys(), world.images, world.labels, world.frozen)
    assert np.all(changed(images, world).sum(axis=1) == expected * SIZE)


def test_duplicates_are_all_the_real_images_of_the_class_and_no_others(world, draw):
  images, _, _ = draw("duplicate:share=1")
  stored = np.asarray(world.tools.prepare(jnp.asarray(world.stored)))
  distances = np.abs(images[:, :, None] - stored[None, None]).max(axis=(3, 4, 5))  # [KEYS, B, N]
  assert distances.min(axis=2).max() < 1e-6
  found = distances.argmin(axis=2)
  for place, label in enumerate(np.asarray(world.labels).argmax(axis=1)):
    assert set(found[:, place]) == set(MEMBERS[label])


@pytest.mark.parametrize(
  ("arm", "change"),
  [
    ("clip", lambda images: np.clip(images, -1, 1)),
    ("clip:limit=0.5", lambda images: np.clip(images, -0.5, 0.5)),
    ("clip:limit=2", lambda images: images),
    ("contrast", lambda images: 0.5 * images),
    ("contrast:factor=3", lambda images: np.clip(3 * images, -LIMIT, LIMIT)),
  ],
)
def test_clip_and_contrast_change_the_images_that_duplicate_takes(world, draw, arm, change):
  duplicates, _, _ = draw("duplicate")
  images, _, _ = draw(arm)
  expected = np.where(changed(duplicates, world)[..., None, None, None], change(duplicates), duplicates)
  np.testing.assert_allclose(images, expected, atol=1e-6)


def blurred(images, gain):
  """In float64 along axes 2 and 3, with the amplitudes of `rfft2` times gain."""
  spectra = np.fft.rfft2(images.astype(np.float64), axes=(2, 3)) * np.asarray(gain, np.float64)[..., None]
  return np.clip(np.fft.irfft2(spectra, s=images.shape[2:4], axes=(2, 3)), -LIMIT, LIMIT)


def test_blur_is_the_gain_of_each_frequency(world, draw):
  duplicates, _, _ = draw("duplicate:share=1")
  images, _, _ = draw("blur:share=1")
  np.testing.assert_allclose(images, blurred(duplicates, world.frozen.decoder_gain), atol=1e-5)
  images, _, _ = draw("blur:share=1", decoder_gain=jnp.ones((8, 5)))
  np.testing.assert_allclose(images, duplicates, atol=1e-5)
  images, _, _ = draw("blur:share=1", decoder_gain=jnp.zeros((8, 5)).at[0, 0].set(1))
  np.testing.assert_allclose(images, np.broadcast_to(duplicates.mean((2, 3), keepdims=True), images.shape), atol=1e-5)


def test_blur_keeps_odd_sides_and_colours_apart(world):
  rng = np.random.default_rng(1)
  stored = rng.integers(0, 256, (1, 7, 9, 3)).astype(np.uint8)
  known = labelled.Labelled(jnp.zeros((1, 1), jnp.int32), jnp.ones(1, jnp.int32), jnp.asarray(stored))
  gain = rng.uniform(0, 1, (7, 5)).astype(np.float32)
  frozen = world.frozen.replace(labelled=known, decoder_gain=jnp.asarray(gain))
  policy = policies.build("blur:share=1", dataclasses.replace(world.tools, prepare=ranges.to_model)).policy
  images, _, _ = policy(jax.random.key(0), jnp.zeros((1, 7, 9, 3)), jnp.ones((1, 1)), frozen)
  np.testing.assert_allclose(images[None], blurred((stored[None] / 255 - 0.5) / 0.25, gain), atol=1e-5)


def test_noise_is_normal_and_as_strong_as_the_decoder_errs(world, draw):
  duplicates, _, _ = draw("duplicate:share=1")
  images, _, _ = draw("noise:share=1", decoder_error=jnp.zeros(()))
  np.testing.assert_allclose(images, duplicates, atol=1e-6)

  grey = world.frozen.labelled.replace(images=jnp.full_like(world.frozen.labelled.images, 128))
  images, _, _ = draw("noise:share=1", labelled=grey)
  noise = images - (128 / 255 - 0.5) / 0.25
  np.testing.assert_allclose(noise.std(), 0.3, rtol=0.01)  # of 65,536 values: 3.6 standard errors
  assert stats.kstest(noise.ravel(), "norm", (0, 0.3)).pvalue > 0.01

  images, _, _ = draw("noise:share=1", decoder_error=jnp.array(5.0))
  assert (images.min(), images.max()) == (-LIMIT, LIMIT)


def test_reconstructions_are_the_decoded_encodings_of_the_images_themselves(world, draw):
  def by_hand(key):
    pick_key, own_key = jax.random.split(key)
    picked = jax.random.permutation(pick_key, SIZE)[: round(SHARE * SIZE)]
    latents = world.tools.generator.encode(world.frozen.generator, world.images[picked]).sample(own_key)
    return picked, (decode(latents, world.frozen, generator=world.tools.generator) - 0.5) / 0.25

  images, _, _ = draw("reconstruction")
  np.testing.assert_allclose(images, put(world.images, *jax.vmap(by_hand)(keys())), atol=1e-5)


@pytest.mark.parametrize("source", SOURCES)
def test_samples_are_decoded_latents_where_the_constraint_of_the_label_was_sought(world, draw, by_hand, source):
  picked, samples, classes, _ = by_hand(source)
  images, labels, _ = draw(f"latent_constraints:source={source}")
  np.testing.assert_allclose(images, put(world.images, picked, samples), atol=1e-5)
  np.testing.assert_array_equal(labels, put(world.labels, picked, np.eye(CLASSES)[classes]))


def test_samples_may_be_clipped_or_left_uncalibrated(world, draw, by_hand):
  picked, samples, _, _ = by_hand()
  _, raw, _, _ = by_hand(calibrate=False)
  images, _, _ = draw("latent_constraints:limit=1")
  np.testing.assert_allclose(images, put(world.images, picked, np.clip(samples, -1, 1)), atol=1e-5)
  assert np.abs(samples).max() > 1
  images, _, _ = draw("latent_constraints:calibrate=False")
  np.testing.assert_allclose(images, put(world.images, picked, raw), atol=1e-5)
  assert np.abs(samples - raw).max() > 0.1


@pytest.mark.parametrize("source", ["actor", "edit"])
def test_the_filter_keeps_real_images_where_the_constraint_does_not_hold(world, draw, by_hand, source):
  picked, samples, classes, holds = by_hand(source)
  assert 0.05 < holds.mean() < 0.95
  images, labels, _ = draw(f"latent_constraints:source={source}:filter=True")
  np.testing.assert_array_equal(at(changed(images, world), picked), holds)
  originals = np.asarray(world.images)[picked], np.asarray(world.labels)[picked]
  samples = np.where(holds[..., None, None, None], samples, originals[0])
  targets = np.where(holds[..., None], np.eye(CLASSES)[classes], originals[1])
  np.testing.assert_allclose(images, put(world.images, picked, samples), atol=1e-5)
  np.testing.assert_array_equal(labels, put(world.labels, picked, targets))


def test_edits_are_of_any_other_class(world, draw):
  images, labels, _ = draw("latent_constraints:source=edit:share=1")
  own = np.asarray(world.labels).argmax(axis=1)
  for place, label in enumerate(own):
    assert set(labels[:, place].argmax(axis=1)) == set(range(CLASSES)) - {label}
  assert changed(images, world).all()


def test_shuffled_samples_are_the_same_with_labels_of_each_other(world, draw, by_hand):
  picked, _, classes, _ = by_hand()
  samples, _, _ = draw("latent_constraints")
  images, labels, _ = draw("shuffled")
  np.testing.assert_allclose(images, samples, atol=1e-6)
  shuffled = at(labels.argmax(axis=-1), picked)
  np.testing.assert_array_equal(np.sort(shuffled, axis=1), np.sort(classes, axis=1))
  assert (shuffled != classes).mean() > 0.3
  np.testing.assert_array_equal(labels, put(world.labels, picked, np.eye(CLASSES)[shuffled]))


@pytest.mark.parametrize(
  ("arm", "by_hand"),
  [
    (
      "shift_rotate:pixels=1.5:degrees=30",
      lambda key, x, y: (transforms.shift_rotate(key, x, pixels=1.5, degrees=30.0, fill=-LIMIT), y),
    ),
    (
      "flip_crop:padding=2:flip=0.25",
      lambda key, x, y: (transforms.flip_crop(key, x, padding=2, flip=0.25, fill=-LIMIT), y),
    ),
    ("cutout:side=0.25", lambda key, x, y: (transforms.cutout(key, x, side=0.25, fill=x.mean()), y)),
    ("mixup:alpha=0.5", lambda key, x, y: transforms.mixup(key, x, y, alpha=0.5)),
    ("cutmix:alpha=0.5", lambda key, x, y: transforms.cutmix(key, x, y, alpha=0.5, probability=0.5)),
    ("cutmix:probability=1", lambda key, x, y: transforms.cutmix(key, x, y, alpha=1, probability=1)),
    (
      "randaugment:operations=1:magnitude=5",
      lambda key, x, y: (4 * transforms.randaugment(key, x / 4 + 0.5, operations=1, magnitude=5.0) - 2, y),
    ),
  ],
)
def test_transforms_get_their_settings_and_the_range_they_work_in(world, draw, arm, by_hand):
  images, labels, _ = draw(arm)
  expected_images, expected_labels = jax.vmap(by_hand, (0, None, None))(keys(), world.images, world.labels)
  np.testing.assert_allclose(images, expected_images, atol=1e-5)
  np.testing.assert_allclose(labels, expected_labels, atol=1e-6)


def test_cutout_fills_each_channel_with_its_mean(world):
  """As zeros do in images that are normalised by channel."""
  noise = np.random.default_rng(0).normal(0, 0.1, (SIZE, 8, 8, 3))
  images = jnp.asarray(np.array([-1, 0.5, 1.5]) + noise, jnp.float32)
  policy = policies.build("cutout:side=1", world.tools).policy
  cut, _, _ = policy(jax.random.key(1), images, world.labels, world.frozen)
  filled = np.asarray(cut)[(cut != images).all(axis=-1)]
  assert len(filled) > SIZE
  np.testing.assert_allclose(filled, np.broadcast_to(images.mean(axis=(0, 1, 2)), filled.shape), rtol=1e-5)


def test_what_comes_in_from_outside_the_image_is_black(world, draw):
  for arm in ("flip_crop:padding=8", "shift_rotate:pixels=8:degrees=0"):
    images, _, _ = draw(arm, images=jnp.full_like(world.images, LIMIT))
    assert (images.min(), images.max()) == (-LIMIT, LIMIT)


@pytest.mark.parametrize(
  "arm",
  ["shift_rotate:pixels=0:degrees=0", "flip_crop:padding=0:flip=0", "cutout:side=0", "mixup:alpha=0", "cutmix:alpha=0"],
)
def test_transforms_without_strength_are_the_identity(world, draw, arm):
  images, labels, weights = draw(arm)
  assert not changed(images, world).any()
  np.testing.assert_array_equal(labels, np.stack([world.labels] * KEYS))
  assert np.all(weights == 1)


def test_policies_apply_in_the_order_they_are_written_in(world, draw):
  samples, _, _ = draw("latent_constraints:share=1")
  mirrored, _, _ = draw("latent_constraints:share=1+flip_crop:padding=0:flip=1")
  np.testing.assert_allclose(mirrored, samples[:, :, :, ::-1], atol=1e-6)

  images, _, _ = draw("flip_crop:padding=0:flip=1+latent_constraints")
  flipped = np.asarray(world.images)[:, :, ::-1]
  replaced = (images != flipped[None]).any(axis=(2, 3, 4))
  assert np.all(replaced.sum(axis=1) == SHARE * SIZE)
  # Samples do not depend on the images that they replace: with the same keys they come unflipped after no flip.
  unflipped, _, _ = draw("none+latent_constraints")
  np.testing.assert_array_equal(changed(unflipped, world), replaced)
  np.testing.assert_allclose(images[replaced], unflipped[replaced], atol=1e-5)


def test_a_replaced_image_of_mixed_label_gets_the_class_that_was_most_of_it(draw):
  _, mixed, _ = draw("mixup")
  _, labels, _ = draw("mixup+duplicate")
  replaced = (labels != mixed).any(axis=2)
  assert 0 < replaced.sum() <= KEYS * SHARE * SIZE
  np.testing.assert_array_equal(labels[replaced], np.eye(CLASSES)[mixed[replaced].argmax(axis=1)])


@pytest.mark.parametrize(
  "arm", ["shift+shift", "shift+shift+none", "shift+none+shift", "none+shift+shift", "none+none+shift+shift"]
)
def test_parts_draw_with_keys_of_their_own(world, arm):
  """Two shifts by up to a pixel each; one that was made twice would move everything by an even number."""
  policy = policies.build(arm.replace("shift", "flip_crop:padding=1:flip=0"), world.tools).policy
  dot = jnp.full((SIZE, 5, 5, 1), -LIMIT).at[:, 2, 2].set(LIMIT)
  images, _, _ = over_keys(policy)(keys(), dot, world.labels, world.frozen)
  _, _, row, column, _ = np.nonzero(np.asarray(images) == LIMIT)
  assert len(row) == KEYS * SIZE
  shifts, counts = np.unique(np.stack([row, column]) - 2, return_counts=True)
  expected = 2 * KEYS * SIZE * np.array([1, 2, 3, 2, 1]) / 9  # the sum of two uniform draws from {-1, 0, 1}
  np.testing.assert_array_equal(shifts, [-2, -1, 0, 1, 2])
  assert stats.chisquare(counts, expected).pvalue > 0.001


@pytest.mark.parametrize("first", ["none", "duplicate", "mixup"])
def test_augmix_adds_two_views_that_count_for_nothing_but_consistency(world, draw, first):
  images, labels, weights = (values.reshape(KEYS, 3, SIZE, *values.shape[2:]) for values in draw(f"{first}+augmix"))
  seen, targets, counted = draw(first)
  np.testing.assert_allclose(images[:, 0], seen, atol=1e-6)
  for view in range(3):
    np.testing.assert_allclose(labels[:, view], targets, atol=1e-6)
    np.testing.assert_array_equal(weights[:, view], counted if view == 0 else np.zeros_like(counted))
  for one, other in ((0, 1), (0, 2), (1, 2)):
    assert (images[:, one] != images[:, other]).any(axis=(2, 3, 4)).mean() > 0.9
