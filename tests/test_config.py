import json
import pathlib

import pytest
from etils import epath

from lcgen import config
from lcgen.runtime import errors
from tests.support.helpers import load_config

CONFIGS = [
  path.stem for path in (pathlib.Path(__file__).parent.parent / "configs").glob("*.py") if path.stem != "common"
]
VARIANTS = [("mnist5k", "paper"), ("mnist", "paper"), ("mnist", "small"), ("cifar10", "paper"), ("cifar10", "small")]


@pytest.mark.parametrize(("name", "variant"), [(name, "") for name in CONFIGS] + VARIANTS)
def test_every_shipped_config_passes(name, variant):
  values = config.checked(load_config(name, variant))
  assert config.checked(json.loads(json.dumps(values))) == values  # what config.json keeps is the same config


@pytest.mark.parametrize(
  ("key", "value", "words"),
  [
    ("seeds", 0, "at least 1"),
    ("vae.latent_dim", -3, "at least 1"),
    ("vae.learning_rate", float("nan"), "above 0"),
    ("vae.architecture", "resnet", "dense, conv"),
    ("vae.channels", (), "positive whole numbers"),
    ("classifier.share", 1.5, "[0, 1]"),
    ("classifier.arms", ("none", "cut_out"), "latent_constraints"),
    ("classifier.arms", ("none", "cutout:side=2"), "cutout"),
    ("learning_curve.shares", (0.1, 2.0), "at most 1"),
    ("expected", ("accuracy is high",), "samples actor"),
    ("classifier.arms", ("none", "none"), "each once"),
    ("data.validation", 1.0, "between 0 and 1"),
    ("evaluate.sets", ("tests",), "generated_mnist_c"),
    ("train.chunk_steps", True, "at least 1"),
    ("vae.epochs", "3", "at least 1"),
    ("vae", 3, "a section"),
  ],
)
def test_bad_values_are_named_with_what_they_may_be(key, value, words):
  values = load_config("mnist5k")
  *sections, last = key.split(".")
  section = values
  for part in sections:
    section = section[part]
  section[last] = value
  with pytest.raises(errors.InputError) as caught:
    config.checked(values)
  assert f"config.{key}={value!r}" in str(caught.value)
  assert words in str(caught.value)


def test_unknown_and_missing_keys_are_errors():
  values = load_config("mnist5k")
  with pytest.raises(errors.InputError, match=r"config\.vae\.latents: unknown key; .*latent_dim"):
    config.checked(values | {"vae": values["vae"] | {"latents": 3}})
  del values["vae"]["epochs"]
  with pytest.raises(errors.InputError, match=r"config\.vae\.epochs: missing"):
    config.checked(values)


def test_names_may_come_as_one_text():
  values = config.checked(load_config("mnist5k", evaluate__sets=("test,dirty_mnist",)))
  assert values["evaluate"]["sets"] == ("test", "dirty_mnist")


def test_only_what_decides_the_training_separates_workdirs():
  old = config.checked(load_config("mnist5k"))
  same = config.checked(load_config("mnist5k", evaluate__sets=("test",), train__chunk_steps=7, data__dir="elsewhere"))
  other = config.checked(load_config("mnist5k", vae__epochs=7))
  assert config.differences(old, same) == []
  assert config.differences(old, other) == ["vae.epochs: 40 -> 7"]


def test_a_workdir_with_an_unreadable_config_is_refused(tmp_path):
  (tmp_path / "config.json").write_text("{")
  with pytest.raises(errors.InputError, match="is not a config of this version"):
    config.read(epath.Path(tmp_path))
  with pytest.raises(errors.InputError, match="is not a folder"):
    config.read(epath.Path(tmp_path / "config.json"))
