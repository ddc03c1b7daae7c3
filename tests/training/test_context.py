"""The context of a run: random keys, maps over seeds, exact sums over padded batches."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lcgen.runtime import memory, parallel
from lcgen.training import context as contexts
from lcgen.training.settings import TrainSettings
from tests.support.helpers import DIGITS, FACTS, config_of, context_of, squares

NAMES = (
  "vae",
  "statistics",
  "actor_critic",
  "classifier",
  "judge",
  "evaluate",
  "energy",
  "realism/actor_critic",
  "realism/energy",
  "rule",
  "rule/actor_critic",
  "rule/energy",
)


def context(facts=FACTS, **changes):
  return context_of(config_of("smoke", **changes), facts)


def data_of(keys):
  return np.asarray(jax.random.key_data(keys))


def test_the_order_of_the_names_is_kept():
  """It decides all random numbers, and those of stored runs: names are only added at the end."""
  assert contexts._KEYS[: len(NAMES)] == NAMES
  assert len(set(contexts._KEYS)) == len(contexts._KEYS)


@pytest.mark.parametrize(("place", "name"), list(enumerate(NAMES)))
def test_a_key_is_the_place_of_its_name_folded_into_the_seed(place, name):
  expected = jnp.stack([jax.random.fold_in(jax.random.key(seed), place) for seed in (5, 6)])
  np.testing.assert_array_equal(data_of(context(seed=5).keys(name)), data_of(expected))


def test_keys_depend_on_seed_and_name_alone():
  one = context(seed=3, seeds=3)
  other = context(DIGITS, seed=5, seeds=1, generator="pca", vae__latent_dim=3, train__chunk_steps=7)
  assert (list(one.seeds), list(other.seeds)) == ([3, 4, 5], [5])
  for name in NAMES:
    np.testing.assert_array_equal(data_of(one.keys(name))[2:], data_of(other.keys(name)))
  every = np.concatenate([data_of(one.keys(name)) for name in NAMES])
  assert len(np.unique(every, axis=0)) == 3 * len(NAMES)


def test_a_phase_without_a_key_of_its_own_is_refused():
  with pytest.raises(ValueError, match="not in tuple"):
    context().keys("no such phase")


def test_over_seeds_maps_what_has_a_seed_axis_and_shares_the_rest():
  traced = []

  def affine(scale, offsets, shared):
    traced.append((scale.shape, offsets["a"].shape, shared.shape))
    return {"sum": scale * shared + offsets["a"], "scale": scale}

  own = context(seeds=2)
  mapped = own.over_seeds(affine, 0, 0, None)
  scale, offsets, shared = jnp.array([2.0, 3.0]), {"a": jnp.arange(6.0).reshape(2, 3)}, jnp.array([1.0, 10.0, 100.0])
  for _ in range(2):
    found = mapped(scale, offsets, shared)
  np.testing.assert_array_equal(found["sum"], [[2, 21, 202], [6, 34, 305]])
  np.testing.assert_array_equal(found["scale"], scale)
  assert set(traced) == {((), (3,), (3,))}
  compiled = len(traced)
  mapped(scale + 1, offsets, shared)
  assert len(traced) == compiled  # it is compiled once


@pytest.mark.parametrize("size", [1, 7, 12, 20, 1000])
def test_sums_over_a_split_are_exact_however_it_is_padded(size):
  """Sums of whole numbers, which float32 holds exactly, for each seed its own."""
  split, own = squares(20, seed=2), context(seeds=2, evaluate__batch_size=size)
  batches = own.batches(split)
  assert {batch["image"].shape for batch in batches} == {(min(size, 20), 8, 8, 1)}
  assert sum(int(batch["mask"].sum()) for batch in batches) == 20

  def values(weight, batch):
    pixels = jnp.where(batch["mask"][:, None, None, None], batch["image"].astype(jnp.float32), 0)
    return {"pixels": weight * pixels.sum(axis=0), "count": batch["mask"].sum()}

  found = own.sum_over(split, values, jnp.array([1.0, 3.0]))
  expected = split.images.astype(np.int64).sum(axis=0)
  np.testing.assert_array_equal(found["pixels"], np.stack([expected, 3 * expected]))
  np.testing.assert_array_equal(found["count"], [20, 20])


def test_rows_that_fill_the_last_batch_are_masked():
  split = squares(20, seed=2)
  first, last = context(evaluate__batch_size=12).batches(split)
  np.testing.assert_array_equal(first["mask"], np.ones(12))
  np.testing.assert_array_equal(last["mask"], np.arange(12) < 8)
  np.testing.assert_array_equal(last["image"], split.images[np.arange(12, 24) % 20])
  np.testing.assert_array_equal(last["label"], split.labels[np.arange(12, 24) % 20])


def test_images_are_prepared_at_the_generators_size():
  own = context(data__image_size=16)
  split = squares(4)
  prepared = own.prepare({"image": jnp.asarray(split.images), "label": jnp.asarray(split.labels)})
  assert prepared["image"].shape == (4, 16, 16, 1)
  np.testing.assert_array_equal(prepared["label"], split.labels)
  same = context().prepare({"image": jnp.asarray(split.images)})["image"]
  np.testing.assert_allclose(same, (split.images / 255 - 0.5) / 0.25, rtol=1e-5, atol=1e-6)


def test_examples_have_the_shapes_of_the_generator():
  own = context(vae__latent_dim=5)
  assert (own.image.shape, own.latent.shape, own.classes) == ((1, 8, 8, 1), (1, 5), 4)


@pytest.mark.parametrize(
  ("convolution", "form"), [("auto", "matmul"), ("native", "native"), ("matmul", "matmul")]
)  # on a CPU, where the tests run
@pytest.mark.parametrize(("dtype", "layers"), [("float32", "flax"), ("bfloat16", "pytorch")])
def test_networks_compute_as_the_settings_say(convolution, form, dtype, layers):
  found = contexts.compute(TrainSettings(convolution=convolution, dtype=dtype, layers=layers))
  assert found == contexts.Compute(form, jnp.dtype(dtype), layers)


def test_data_are_spread_where_they_would_take_much_of_a_device(monkeypatch):
  mesh = parallel.make_mesh(1)
  monkeypatch.setattr(memory, "free_memory", lambda: 1000)
  assert contexts.data_sharding(mesh, "auto", 250).spec == parallel.replicated(mesh).spec
  assert contexts.data_sharding(mesh, "auto", 251).spec == contexts.data_sharding(mesh, "sharded", 0).spec
  assert contexts.data_sharding(mesh, "replicated", 10**9).spec == parallel.replicated(mesh).spec
