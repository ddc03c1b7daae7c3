"""Another generator than the VAE in the same pipeline, by the real run.py: principal components."""

import json

import numpy as np
import pytest

import lcgen
from tests.support.helpers import config_of, tree_bytes
from tests.support.runs import SMOKE

PCA = (SMOKE, "--config.generator=pca", "--config.pca.latent_dim=6")


@pytest.fixture(scope="module")
def workdir(run, tmp_path_factory):
  """A smoke run of principal components, trained up to the game and the energy."""
  folder = tmp_path_factory.mktemp("generators") / "run"
  for stage in ("generator", "actor_critic"):
    code, _, stderr = run(*PCA, f"--workdir={folder}", f"--stage={stage}")
    assert code == 0, stderr
  return folder


def test_the_stage_of_the_generator_trains_nothing_but_keeps_it(workdir):
  """Components are found in closed form; only game and energy have metrics."""
  records = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
  assert list(dict.fromkeys(record["phase"] for record in records)) == ["actor_critic", "energy"]
  assert {path.name for path in (workdir / "checkpoints").iterdir()} == {
    "generator",
    "statistics",
    "actor_critic",
    "energy",
    "mixture",
  }
  assert json.loads((workdir / "config.json").read_text())["generator"] == "pca"


def test_a_finished_stage_is_not_done_again(run, workdir):
  files = lambda: {path: path.stat().st_mtime_ns for path in (workdir / "checkpoints").rglob("*") if path.is_file()}
  before = files()
  code, _, stderr = run(*PCA, f"--workdir={workdir}", "--stage=vae")  # the other name of the stage
  assert code == 0, stderr
  assert files() == before


@pytest.mark.slow  # the recipe of a generator, in `test_extending.py`, is sampled from without its config too
def test_its_samples_are_written_without_the_config(run, workdir, tmp_path):
  """The workdir says which generator it is; the judge, which a certificate takes, is trained first."""
  code, _, stderr = run(f"--workdir={workdir}", "--stage=sample", "--config.sample.count=2")
  assert code == 2
  assert "judge is not trained to its end" in stderr
  code, _, stderr = run(f"--workdir={workdir}", "--config.constraint=realism", "--stage=evaluate")
  assert code == 0, stderr
  code, stdout, stderr = run(f"--workdir={workdir}", "--stage=sample", "--config.sample.count=2")
  assert code == 0, stderr
  assert stdout.startswith("20 images: ")
  with np.load(workdir / "sample" / "labels-refine.npz") as arrays:
    assert arrays["images"].shape == (20, 28, 28, 1)
    assert arrays["latents"].shape == (20, 6)
    samples = lcgen.load(workdir).draw(1, count=2, seed=1)  # the second row
    np.testing.assert_array_equal(arrays["latents"][2:4], samples.latents)


def test_its_encodings_are_decoded(workdir):
  trained = lcgen.load(workdir)
  components = trained._read("vae")
  assert tree_bytes(components)[0]  # the mean image
  images = np.zeros((3, 28, 28, 1), np.uint8)
  assert trained.encode(images).shape == (3, config_of("smoke", pca__latent_dim=6).pca.latent_dim)
  assert trained.decode(trained.encode(images)).shape == (3, 28, 28, 1)


def test_another_number_of_components_is_another_run(run, workdir):
  code, _, stderr = run(f"--workdir={workdir}", "--stage=sample", "--config.pca.latent_dim=7")
  assert code == 2
  assert "pca.latent_dim: 6 -> 7" in stderr
