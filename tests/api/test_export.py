"""All networks in one file: what is in it, that it gives the workdir's numbers, and that damage is found."""

import dataclasses
import hashlib
import json
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest
from etils import epath
from safetensors import numpy as safetensors_numpy

import lcgen
from lcgen import config
from lcgen.api import export
from lcgen.api import workdir as workdirs
from lcgen.cli import stages
from lcgen.runtime import errors, files
from tests.support.damage import flips, truncations
from tests.support.helpers import config_of, tree_bytes

LABELS = [3, 1, 4, 1]
ARMS = ("none", "latent_constraints", "latent_constraints:share=1.0")
PLAIN = """
import sys
from safetensors.numpy import load_file
print(sorted(load_file(sys.argv[1])), {"jax", "orbax", "lcgen"} & set(sys.modules))
"""


@pytest.fixture(scope="module")
def workdir(smoke, tmp_path_factory):
  """A copy of a finished run, with its export."""
  copy = shutil.copytree(smoke, tmp_path_factory.mktemp("export") / "run")
  stages.run(config_of("smoke"), epath.Path(copy), "export")
  return copy


@pytest.fixture(scope="module")
def path(workdir):
  return workdir / export.NAME


@pytest.fixture(scope="module")
def exported(path, tmp_path_factory):
  """Opened where nothing else is."""
  return lcgen.load(shutil.copy(path, tmp_path_factory.mktemp("alone") / "mine.safetensors"))


@pytest.fixture(scope="module")
def original(smoke):
  return lcgen.load(smoke)


def about(path):
  content = path.read_bytes()
  header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
  return json.loads(header["__metadata__"]["lcgen"])


def written(folder, said, arrays):
  """A file whose digest is that of its content."""
  path = folder / "other.safetensors"
  text = json.dumps(said | {"sha256": export._digest(said, arrays)})
  path.write_bytes(safetensors_numpy.save(arrays, {"lcgen": text}))
  return path


def test_every_network_is_in_it_by_its_path(path, workdir):
  arrays = safetensors_numpy.load_file(path)
  assert {array.dtype for array in arrays.values()} == {np.dtype(np.float32)}
  assert {array.shape[0] for array in arrays.values()} == {2}
  assert arrays["vae/params/decoder/Dense_0/kernel"].shape == (2, 32, 784)
  assert arrays["statistics/calibration"].shape == (2, 256)
  groups = {name.partition("/")[0] for name in arrays}
  assert groups == {"vae", "statistics", "actor", "critic", "energy", "judge", "classifier", "mixture"}
  assert {name.split("/")[1] for name in arrays if name.startswith("classifier/")} == set(ARMS)
  said = about(path)
  assert (said["format"], said["lcgen"]) == (1, lcgen.__version__)
  assert config.parse(said["config"]) == config.read(epath.Path(workdir))
  assert said["facts"]["class_names"] == [str(digit) for digit in range(10)]
  assert set(said["groups"]) == groups
  assert not list(workdir.glob("*.unfinished"))


def test_the_same_run_gives_the_same_file(path, workdir, capsys):
  before = hashlib.sha256(path.read_bytes()).digest()
  for _ in range(5):
    stages.run(config_of("smoke"), epath.Path(workdir), "export")
    assert str(path) in capsys.readouterr().out
    assert hashlib.sha256(path.read_bytes()).digest() == before


def test_nothing_but_safetensors_is_needed_to_read_it(path):
  done = subprocess.run([sys.executable, "-c", PLAIN, path], capture_output=True, text=True, check=True)
  names, _, modules = done.stdout.strip().rpartition("] ")
  assert "'judge/params/" in names
  assert modules == "set()"


@pytest.mark.parametrize("replica", [0, 1])
def test_an_export_gives_the_workdirs_numbers(exported, original, replica):
  for attribute in ("class_names", "image_shape", "replicas", "arms"):
    assert getattr(exported, attribute) == getattr(original, attribute)
  samples, images = [], None
  for run in (exported, original):
    drawn = run.draw(LABELS, "refine", seed=7, replica=replica)
    images = drawn.images if images is None else images
    edited = run.edit(images, 8, replica=replica)
    others = [run.encode(images, replica), run.judge(images, replica), run.decode(drawn.latents, replica)]
    others += [run.probabilities(images, arm, replica) for arm in run.arms]
    samples.append(tree_bytes([dataclasses.asdict(drawn), dataclasses.asdict(edited), others]))
  assert samples[0] == samples[1]


def test_an_export_has_what_is_trained_and_no_place_to_learn(exported, original):
  for name in workdirs.names(config_of("smoke")):
    held = original._stored.has(name)
    assert exported._stored.has(name) == held
    if held:
      assert tree_bytes(exported._stored.read(name)) == tree_bytes(original._stored.read(name)), name
  assert not exported._stored.has("realism/actor")
  with pytest.raises(errors.InputError, match=r"mine\.safetensors.*load the workdir"):
    exported.realism  # noqa: B018
  with pytest.raises(errors.InputError, match="load the workdir"):
    exported.learn(lambda images: images.mean(axis=(1, 2, 3)) > 0.1)


def test_a_run_that_has_not_ended_is_exported_as_far_as_it_is(workdir, tmp_path):
  begun = tmp_path / "begun"
  shutil.copytree(workdir, begun, ignore=lambda _, names: {"actor_critic", "energy", "classifier", "judge"} & {*names})
  stages.run(config_of("smoke"), epath.Path(begun), "export")
  run = lcgen.load(begun / export.NAME)
  assert run.decode(np.zeros((2, 8))).shape == (2, 28, 28, 1)
  for call in (lambda: run.sample(3), lambda: run.classify(np.zeros((1, 28, 28, 1)))):
    with pytest.raises(errors.InputError, match=r"(actor|classifier/.*) had not been trained; it has vae, statistics"):
      call()


def test_without_the_vae_there_is_no_export(workdir, tmp_path):
  broken = shutil.copytree(workdir, tmp_path / "run")
  shutil.rmtree(broken / "checkpoints" / "vae")
  before = (broken / export.NAME).read_bytes()
  with pytest.raises(errors.InputError, match="vae is not trained to its end"):
    stages.run(config_of("smoke"), epath.Path(broken), "export")
  assert (broken / export.NAME).read_bytes() == before


def test_where_nothing_is_trained_there_is_nothing_to_export(tmp_path):
  with pytest.raises(errors.InputError, match="no trained VAE"):
    stages.run(config_of("smoke"), epath.Path(tmp_path / "run"), "export")
  assert not (tmp_path / "run").exists()


def test_damage_is_found(path, tmp_path):
  content, random = path.read_bytes(), np.random.default_rng(0)
  header = 8 + int.from_bytes(content[:8], "little")
  damaged = [*truncations(content), b"", content[:7], content + b"\0"]
  damaged += flips(content, random, 10)
  damaged += [flipped + content[header:] for flipped in flips(content[:header], random, 40)]
  for index, changed in enumerate(damaged):
    copy = tmp_path / f"{index}.safetensors"
    copy.write_bytes(changed)
    with pytest.raises(errors.InputError, match=rf"{index}\.safetensors") as refused:
      lcgen.load(copy)
    assert len(str(refused.value).splitlines()) == 1
    copy.unlink()


def test_other_files_and_other_versions_are_refused_with_what_they_are(path, tmp_path):
  arrays, said = safetensors_numpy.load_file(path), about(path)
  del said["sha256"]
  foreign = tmp_path / "foreign.safetensors"
  kernel = "vae/params/decoder/Dense_0/kernel"

  def refused(file):
    with pytest.raises(errors.InputError) as caught:
      lcgen.load(file).decode(np.zeros((1, 8)))
    return str(caught.value)

  assert "is not there" in refused(tmp_path / "nowhere.safetensors")
  foreign.write_bytes(safetensors_numpy.save({"weight": np.ones(3, np.float32)}))
  assert "is not an export of lcgen" in refused(foreign)
  foreign.write_bytes(safetensors_numpy.save({"weight": np.ones(3, np.float32)}, {"format": "pt"}))
  assert "is not an export of lcgen" in refused(foreign)
  (tmp_path / "notes").write_text("not an export")
  assert "is damaged, or no safetensors file" in refused(tmp_path / "notes")
  newer = said | {"format": 2, "lcgen": "9.0"}
  assert "has format 2, written by lcgen 9.0" in refused(written(tmp_path, newer, arrays))
  other = said | {"config": said["config"] | {"shapes": 3}, "lcgen": "9.0"}
  assert "config.shapes: unknown key" in refused(written(tmp_path, other, arrays))
  wide = arrays | {kernel: np.zeros((2, 33, 784), np.float32)}
  assert f"{kernel} is (2, 33, 784) and should be (2, 32, 784)" in refused(written(tmp_path, said, wide))
  fewer = {name: array for name, array in arrays.items() if name != kernel}
  assert f"{kernel} is not there and should be (2, 32, 784)" in refused(written(tmp_path, said, fewer))
  more = arrays | {"vae/params/decoder/Dense_9/kernel": np.zeros((2, 1), np.float32)}
  assert "Dense_9/kernel is (2, 1) and should be not there" in refused(written(tmp_path, said, more))


def test_only_the_first_process_writes(path, tmp_path, monkeypatch):
  monkeypatch.setattr(jax, "process_index", lambda: 1)
  copy = epath.Path(tmp_path / export.NAME)
  files.write_bytes(copy, b"something")
  assert not copy.exists()
