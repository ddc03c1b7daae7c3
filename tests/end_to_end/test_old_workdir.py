"""A tiny smoke run that the version before the wings has made, commit ae918ac: `tests/support/old_workdir.zip`."""

import json
import zipfile

import numpy as np
import pytest

import lcgen
from tests.conftest import ROOT


@pytest.fixture
def old(tmp_path):
  with zipfile.ZipFile(ROOT / "tests" / "support" / "old_workdir.zip") as archive:
    archive.extractall(tmp_path / "old")
  return tmp_path / "old"


def test_it_is_reported_with_the_same_numbers(old, run):
  table = (old / "table.csv").read_bytes()
  code, _, stderr = run(f"--workdir={old}", "--stage=report")
  assert code == 0, stderr
  assert (old / "table.csv").read_bytes() == table
  page = (old / "report.html").read_text()
  for words in ("Audit", "Fewer labels", "refine", "generated_cifar10_c"):
    assert words in page
  assert {"vae_loss.png", "classifier_loss.png", "gains.png"} <= {path.name for path in (old / "figures").iterdir()}


def test_it_is_sampled_from_without_naming_its_config(old, run):
  with np.load(old / "sample" / "labels-refine.npz") as stored:
    before = {name: stored[name] for name in ("start", "latents", "labels")}
  code, _, stderr = run(f"--workdir={old}", "--stage=sample", "--config.sample.count=2")
  assert code == 0, stderr
  with np.load(old / "sample" / "labels-refine.npz") as stored:
    np.testing.assert_array_equal(stored["labels"], before["labels"])
    # The suite's processes compile without optimisations, and round otherwise than the run that made the file.
    np.testing.assert_allclose(stored["start"], before["start"], atol=1e-5)
    np.testing.assert_allclose(stored["latents"], before["latents"], atol=1e-3)


def test_it_is_loaded_in_python(old):
  values = json.loads((old / "config.json").read_text())
  assert "constraint" in values["actor_critic"]  # the key's old place
  assert "generator" not in values
  trained = lcgen.load(old)
  assert trained.sample([3, 1], seed=1).shape == (2, 28, 28, 1)
  assert trained.classify(trained.sample([3], seed=1), arm="none").shape == (1,)


def test_nothing_that_it_has_trained_is_trained_again(old, run):
  code, _, stderr = run(f"--workdir={old}", "--stage=classifier", "--config=configs/mnist5k.py:smoke", *_flags(old))
  assert code == 0, stderr
  assert "steps/s" not in stderr


def _flags(workdir):
  """The flags that trained it, from its own config."""
  values = json.loads((workdir / "config.json").read_text())
  names = "seeds vae.hidden_dim vae.depth vae.latent_dim actor_critic.hidden_dim actor_critic.depth energy.hidden_dim"
  names += " energy.depth classifier.hidden_dim evaluate.judge.feature_dim data.train_limit data.test_limit"
  flags = []
  for name in names.split():
    value = values
    for part in name.split("."):
      value = value[part]
    flags.append(f"--config.{name}={value}")
  sets = ",".join(values["evaluate"]["sets"])
  return [*flags, "--config.evaluate.judge.channels=(2,4)", f"--config.evaluate.sets={sets}"]
