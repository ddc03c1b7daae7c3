"""A policy that a plug-in registers is an arm like any other."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lcgen import config
from lcgen.classifiers import arm_phase, arms, policies
from lcgen.classifiers.arms import POLICIES
from lcgen.runtime import errors, registry
from tests.classifiers.conftest import LIMIT, SIZE, keys
from tests.support.helpers import squares, tree_bytes


@pytest.fixture
def vignette():
  """A policy of a plug-in, which darkens images towards their border."""
  with registry.temporary(POLICIES, policies._BUILDERS):

    @policies.register("vignette", control=True)
    def function(key, images, labels, frozen, *, strength=0.5, jitter=0.0):
      del frozen
      y, x = jnp.meshgrid(*(jnp.linspace(-1, 1, size) for size in images.shape[1:3]), indexing="ij")
      dark = strength * (y**2 + x**2) / 2 + jitter * jax.random.uniform(key)
      return images - dark[None, ..., None] * (images + LIMIT), labels, jnp.ones(len(images))

    yield function


def test_a_policy_of_a_plug_in_is_an_arm_with_settings_and_a_role(world, vignette):
  assert arms.parse("vignette:strength=0.3") == [("vignette", {"strength": 0.3, "jitter": 0.0})]
  assert arms.role("vignette:strength=0.3") == "control"
  assert arms.controls()[-1] == "vignette"
  assert config.changed(world.settings, {"classifier.arms": "none,vignette:strength=0.3"}).classifier.arms == (
    "none",
    "vignette:strength=0.3",
  )
  for text, words in (("vignette:power=1", "it has strength, jitter"), ("vignete", "the nearest is vignette")):
    with pytest.raises(errors.InputError, match=words):
      arms.parse(text)
  policy = policies.build("vignette:strength=0.3+none", world.tools).policy
  images, labels, weights = policy(keys()[0], world.images, world.labels, world.frozen)
  expected, _, _ = vignette(keys()[0], world.images, world.labels, None, strength=0.3)
  np.testing.assert_array_equal(images, expected)
  assert np.abs(np.asarray(images) - np.asarray(world.images)).max() > 0.3
  np.testing.assert_array_equal(labels, world.labels)
  assert np.all(np.asarray(weights) == 1)


def test_a_policy_of_a_plug_in_is_the_same_bit_by_bit_inside_the_comparison(world, vignette):
  """Its classifier depends on the key and the batch alone, whatever other arms are trained in the same program."""

  def train(*texts):
    phase = arm_phase.phase(world.context, world.settings.classifier, world.tools, world.frozen, arms=texts)
    data = {"image": jnp.asarray(squares().images), "label": jnp.asarray(squares().labels)}
    rows = jnp.arange(3 * SIZE).reshape(3, SIZE)
    return jax.jit(phase.run_steps)(phase.init(keys()[0]), world.frozen, data, rows, keys()[1:4])

  text = "vignette:strength=0.3:jitter=0.1"
  (state, metrics), (again, _), (joined, terms) = train(text), train(text), train("none", text)
  assert tree_bytes(state) == tree_bytes(again)
  assert tree_bytes((state[text], metrics[text])) == tree_bytes((joined[text], terms[text]))
  assert tree_bytes(joined["none"]) != tree_bytes(joined[text])


def test_a_policy_of_a_plug_in_takes_no_name_of_another(vignette):
  for name in ("vignette", "mixup", "latent_constraints"):
    with pytest.raises(errors.InputError, match=f"policy '{name}': there is one of this name already"):
      policies.register(name)(lambda key, images, labels, frozen: (images, labels, jnp.ones(len(images))))
  assert "vignette" in POLICIES
