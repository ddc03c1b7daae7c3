"""Plug-ins that are wrong are refused in a sentence that names them, before anything is trained."""

import dataclasses
import json

import jax.numpy as jnp
import pytest
from etils import epath

from lcgen import config as configs
from lcgen.classifiers import policies
from lcgen.classifiers.arms import POLICIES
from lcgen.cli import try_plugins
from lcgen.constraints import samplers
from lcgen.constraints.settings import SAMPLERS
from lcgen.evaluation import metrics
from lcgen.generator import registration
from lcgen.generator.base import Generator
from lcgen.generator.settings import GENERATORS
from lcgen.models.posterior import Posterior
from lcgen.runtime import errors
from lcgen.runtime.fields import at_least, field
from lcgen.runtime.registry import temporary
from tests.support.helpers import FACTS, config_of, context_of


@dataclasses.dataclass(frozen=True)
class Latents:
  """Settings of a generator."""

  latent_dim: int = field(3, at_least(1), "Latents.")


@dataclasses.dataclass(frozen=True)
class Nothing:
  """Settings of a sampler."""

  steps: int = field(1, at_least(1), "Steps.")


class Flat(Generator):
  """A right generator: every image is grey."""

  def init(self, key):
    return {"grey": jnp.zeros(())}

  def fit(self, images):
    return {"grey": jnp.zeros(())}

  def encode(self, variables, images):
    mean = jnp.zeros((len(images), self.latent_dim))
    return Posterior(mean, mean)

  def decode(self, variables, latents):
    return jnp.broadcast_to(variables["grey"], (len(latents), *self.image_shape))


@pytest.fixture
def plugged():
  """Checks a run with plug-ins after they have been registered: `plugged(**changes)`; they are forgotten after it."""
  registries = GENERATORS, registration._CLASSES, SAMPLERS, samplers._SAMPLERS, POLICIES, policies._BUILDERS
  with temporary(*registries, metrics.METRICS):

    def check(**changes):
      config = dataclasses.replace(config_of("smoke", **changes), plugins=("mine",))
      try_plugins.check(config, context_of(config, FACTS))

    yield check


def test_what_comes_with_the_project_passes(plugged):
  plugged(classifier__arms=",".join(POLICIES))


def test_a_right_generator_passes(plugged):
  registration.register("flat", Latents)(Flat)
  plugged(generator="flat")


@pytest.mark.parametrize(
  ("methods", "words"),
  [
    ({"decode": lambda self, variables, latents: latents}, r"decode: is float32\[6, 3\] and should be float32\[6, 8"),
    ({"encode": lambda self, variables, images: images}, "encode returns a ShapeDtypeStruct; return a Posterior"),
    ({"encode": lambda self, variables, images: 1 / 0}, r"encode fails \(division by zero"),
    ({"fit": Generator.fit}, "has neither fit nor phase"),
  ],
)
def test_a_wrong_generator_is_named(plugged, methods, words):
  registration.register("flat", Latents)(type("Wrong", (Flat,), methods))
  with pytest.raises(errors.InputError, match=f"generator flat: {words}"):
    plugged(generator="flat")


@pytest.mark.parametrize(
  ("function", "words"),
  [
    (lambda key, constraint, latents, settings: latents, "returns a ShapeDtypeStruct; return Moved"),
    (
      lambda key, constraint, latents, settings: samplers.Moved(latents[:, 1:], latents),
      r"latents: is float32\[6, 7\]",
    ),
    (lambda key, constraint, latents, settings: 1 / 0, r"fails \(division by zero"),
  ],
)
def test_a_wrong_sampler_is_named(plugged, function, words):
  samplers.register("mine", Nothing)(function)
  with pytest.raises(errors.InputError, match=f"sampler mine.*{words}"):
    plugged()


@pytest.mark.parametrize(
  ("function", "words"),
  [
    (lambda key, images, labels, frozen: (images, labels), "returns a tuple; return images, labels and weights"),
    (lambda key, images, labels, frozen: (images[:2], labels, jnp.ones(6)), r"images: is float32\[2, 8, 8, 1\]"),
    (lambda key, images, labels, frozen: 1 / 0, r"fails \(division by zero"),
  ],
)
def test_a_wrong_arm_is_named(plugged, function, words):
  policies.register("mine")(function)
  with pytest.raises(errors.InputError, match=f"arm mine.*{words}"):
    plugged(classifier__arms="none,mine")


def test_a_wrong_metric_is_named(plugged):
  @metrics.register("mine")
  def vector(sets):
    return sets.samples

  with pytest.raises(errors.InputError, match=r"metric vector fails .*return one number"):
    plugged()


def test_a_metric_of_logits_gives_a_number_an_image(plugged):
  @metrics.register("mine", of="logits")
  def scalar(logits, labels):
    return logits.mean()

  with pytest.raises(errors.InputError, match=r"metric scalar: is float32\[\] and should be float32\[6\]"):
    plugged()


def test_nothing_is_tried_without_plug_ins(monkeypatch):
  monkeypatch.setattr(try_plugins, "_traced", None)
  config = config_of("smoke")
  try_plugins.check(config, context_of(config, FACTS))


def test_a_workdir_lends_its_plug_ins_or_goes_without(tmp_path):
  """A plug-in that a finished run does not need may go away: the flag takes the place of the workdir's list."""
  values = configs.to_dict(config_of("smoke")) | {"plugins": ["gone"]}
  values["sample"]["hmc"] = {"steps": 3}
  (tmp_path / "config.json").write_text(json.dumps(values))
  with pytest.raises(errors.InputError, match=r"gone: there is no module of this name.*--config\.plugins"):
    configs.read(epath.Path(tmp_path))
  assert configs.read(epath.Path(tmp_path), plugins=()) == config_of("smoke")
