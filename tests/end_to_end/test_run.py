"""The real run.py, as a process."""

import json
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from etils import epath

import lcgen
from lcgen.cli import preflight
from lcgen.data import sources, tfds_sets
from lcgen.runtime import errors
from tests.conftest import ROOT
from tests.support import archives
from tests.support.helpers import config_of
from tests.support.images import write_folder
from tests.support.runs import ARMS, METHODS, REFERENCES, SMOKE


def test_a_run_leaves_what_it_promises(smoke):
  results = json.loads((smoke / "results.json").read_text())
  assert results["seeds"] == [0, 1]
  assert results["data"].items() >= {"name": "mnist5k", "train": 360, "validation": 40, "test": 100}.items()
  contrast = [f"generated_cifar10_c/contrast_{severity}" for severity in range(1, 6)]
  sets = ["test", *contrast, "generated_mnist_c/stripe"]
  assert list(results["test_sets"]) == sets
  assert [known["origin"] for known in results["test_sets"].values()] == ["own"] + ["generated"] * 6
  for arm in ARMS:
    scores = results["arms"][arm]
    assert list(scores) == [*sets, "corrupted"]
    assert all(len(values["accuracy"]) == 2 for values in scores.values())
    shifted = [scores[name]["accuracy"] for name in sets[1:]]
    np.testing.assert_allclose(scores["corrupted"]["accuracy"], np.mean(shifted, axis=0))
    mean = np.mean([scores[name]["accuracy"] for name in contrast], axis=0)
    np.testing.assert_allclose(results["robustness"][arm]["generated_cifar10_c"]["means"]["selected"], mean)
  assert list(results["samples"]) == ["prior", *METHODS, *REFERENCES]
  for scored in results["samples"].values():
    assert len(scored["conditional_accuracy"]) == len(scored["diversity"]) == 2
    by_class = np.mean(scored["conditional_accuracy_by_class"], axis=1)
    np.testing.assert_allclose(by_class, scored["conditional_accuracy"])
  phases = {"vae", "actor_critic", "energy", "judge"}
  assert set(results["timing"]) == phases | {"classifier"}
  for timing in results["timing"].values():
    assert timing["ms_per_step"] == pytest.approx(1e3 * timing["train_s"] / timing["steps"])
    assert timing["compile_s"] > 0

  table = (smoke / "table.md").read_text()
  assert table in (smoke / "stdout.txt").read_text()
  assert re.search(r"^\| test \| \d+\.\d ± \d+\.\d \| \d+\.\d ± \d+\.\d \|$", table, re.MULTILINE)
  records = [json.loads(line) for line in (smoke / "metrics.jsonl").read_text().splitlines()]
  together = {record["phase"] for record in records} - phases
  assert [name.partition("-")[0] for name in together] == ["classifier"]  # all arms are trained together
  figures = {path.name for path in (smoke / "figures").iterdir()}
  names = "vae_loss actor_critic_loss energy_loss classifier_loss classifier_accuracy reconstructions edits"
  names += " gains edit_trade_off prior_samples actor_samples optimize_samples langevin_samples refine_samples"
  names += " mixture_samples flow_samples"
  assert figures == {f"{name}.png" for name in names.split()}
  assert all(path.read_bytes().startswith(b"\x89PNG") for path in (smoke / "figures").iterdir())
  assert {path.suffix for path in smoke.glob("table.*")} == {".md", ".csv", ".tex"}
  assert "<script" not in (smoke / "report.html").read_text()
  with np.load(smoke / "samples.npz") as samples:
    for name in ("prior", *METHODS, "edits"):
      assert samples[name].shape == (100, 28, 28, 1)


def test_a_finished_run_is_only_reported_again(smoke, run, tmp_path):
  names = ("results.json", "metrics.jsonl", "config.json", "table.md", "report.html")
  workdir = shutil.copytree(smoke, tmp_path / "run")
  kept = {name: (workdir / name).read_bytes() for name in names}
  (workdir / "table.md").unlink()
  code, stdout, stderr = run(SMOKE, f"--workdir={workdir}")
  assert code == 0, stderr
  assert kept["table.md"].decode() in stdout
  assert "steps/s" not in stderr
  assert kept == {name: (workdir / name).read_bytes() for name in kept}


def test_stages_come_one_by_one_and_keep_the_vae(run, tmp_path, smoke, read_results):
  def stage(name):
    return run(SMOKE, f"--workdir={tmp_path}", f"--stage={name}")

  def vae_bytes():
    return {
      path.relative_to(tmp_path): path.read_bytes()
      for part in ("vae", "statistics")
      for path in sorted((tmp_path / "checkpoints" / part).rglob("*"))
      if path.is_file()
    }

  for early in ("actor_critic", "classifier", "evaluate"):
    with pytest.raises(errors.InputError, match=f"--stage={early}: vae is not trained"):
      preflight.check_workdir(config_of("smoke"), epath.Path(tmp_path), early)
  assert stage("vae")[0] == 0
  before = vae_bytes()
  assert before
  assert "actor_critic is not trained" in stage("classifier")[2]
  for name in ("actor_critic", "classifier", "evaluate"):
    code, _, stderr = stage(name)
    assert code == 0, stderr
  assert vae_bytes() == before
  assert read_results(tmp_path) == read_results(smoke)


def test_inspect_trains_nothing(run, tmp_path):
  asked = (SMOKE, "--config.vae.output_limit=1", "--config.vae.kl_weight=0.001", "--config.classifier.share=0.1")
  code, stdout, stderr = run(*asked, f"--workdir={tmp_path}", "--stage=inspect")
  assert code == 0, stderr
  found = json.loads((tmp_path / "inspect.json").read_text())
  networks = {"vae", "actor", "critic", "energy", "classifier", "judge"}
  assert set(found["parameters"]) == networks
  assert all(count > 0 for count in found["parameters"].values())
  assert found["observation_sigma"] == pytest.approx(0.25 * np.sqrt(0.001 * 784 / 2))
  assert 0.85 < found["reconstruction_floor"] < 0.95
  assert found["replaced_per_batch"] == 3
  assert "does not reach all data values" in stdout
  assert "decoder/" in stdout
  assert [path.name for path in tmp_path.iterdir()] == ["inspect.json"]


@pytest.mark.parametrize(
  ("arguments", "words"),
  [
    (["--config.vae.latents=3"], ["latents"]),
    (["--config.vae.epochs=many"], ["config.vae.epochs", "many"]),
    (["--config.seeds=0"], ["config.seeds=0", "at least 1"]),
    (["--config.classifier.share=1.5"], ["config.classifier.share=1.5", "[0, 1]"]),
    (["--config.vae.batch_size=5000"], ["config.vae.batch_size=5000", "360 training images"]),
    (["--config.classifier.arms=none,cut_out"], ["cut_out", "latent_constraints"]),
    (
      ["--config.data.source=tfds", "--config.data.name=mnist", "--config.data.dir=nowhere"],
      ["nowhere/mnist", "data.dir"],
    ),
    (
      ["--config.evaluate.sets=test,dirty_mnist", "--config.data.dir=nowhere"],
      ["nowhere/dirty_mnist", "--config.data.dir=DIR", "--config.evaluate.sets", "generated_mnist_c"],
    ),
    (
      ["--config.evaluate.sets=cifar10_corrupted/fog", "--config.data.dir=nowhere"],
      ["nowhere/cifar10_corrupted", "CIFAR-10-C.tar", "zenodo.org"],
    ),
    (["--config.evaluate.sets=test,fog"], ["evaluate.sets", "generated_cifar10_c/fog"]),
    (["--config.data.source=folder", "--config.data.path=nowhere"], ["data.path=nowhere", "not a folder"]),
    (["--config.data.source=npz"], ["data.path=", "no such file"]),
    (["--stage=train"], ["--stage=train", "inspect"]),
    (["--stage=report"], ["no results"]),
    (["train"], ["train", "flag"]),
    (["--config=configs/mnist5k.py:huge"], ["huge", "paper"]),
    (["--config=configs/nothing.py"], ["nothing.py"]),
    (["--wrkdir=x"], ["wrkdir"]),
  ],
)
def test_bad_input_is_refused_in_a_sentence(run, tmp_path, arguments, words):
  workdir = tmp_path / "run"
  code, stdout, stderr = run(SMOKE, f"--workdir={workdir}", *arguments)
  assert code == 2, stderr
  assert all(word in stderr for word in words)
  assert "Traceback" not in stderr
  assert len(stderr.strip().splitlines()) == 1
  assert stdout == ""
  assert not workdir.exists()


@pytest.mark.parametrize(
  ("arguments", "words"),
  [
    (["--config.vae.latents=3"], "latents"),
    (["--config.vea.epochs=3"], "vea"),
    (["--config.vae.epochs=many"], "many"),
    (["--config.seeds=0"], "config.seeds=0"),
    (["--config.actor_critic.constraint=realism"], "config.constraint"),
    (["--config.plugins=no_such_module"], "beside run.py"),
    (["--config."], "config.: unknown key"),
    (["--config", "configs/nothing.py"], "nothing.py"),
  ],
)
def test_the_default_config_refuses_bad_input_too(run, tmp_path, arguments, words):
  code, _, stderr = run(f"--workdir={tmp_path / 'run'}", *arguments)
  assert code == 2, stderr
  assert words in stderr
  assert len(stderr.strip().splitlines()) == 1
  assert not (tmp_path / "run").exists()


def test_the_default_config_is_the_five_thousand_digits(run, tmp_path):
  code, stdout, stderr = run(f"--workdir={tmp_path}", "--stage=data")
  assert code == 0, stderr
  assert "mnist5k: 3600 training, 400 validation, 1000 test images" in stdout


def test_the_data_stage_reads_everything_and_writes_nothing(run, tmp_path):
  code, stdout, stderr = run(SMOKE, f"--workdir={tmp_path / 'run'}", "--stage=data")
  assert code == 0, stderr
  assert "mnist5k: 360 training, 40 validation, 100 test images of 28x28x1" in stdout
  assert "generated_cifar10_c: 5 test sets, generated" in stdout
  assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_run_on_a_folder_of_images(run, tmp_path):
  pictures = write_folder(tmp_path / "pets", shape=(12, 10, 3), count=40)
  code, stdout, stderr = run(
    SMOKE,
    f"--workdir={tmp_path / 'run'}",
    "--config.data.source=folder",
    f"--config.data.path={pictures}",
    "--config.data.image_size=8",
    "--config.evaluate.sets=test",
  )
  assert code == 0, stderr
  results = json.loads((tmp_path / "run" / "results.json").read_text())
  assert results["data"].items() >= {"name": "pets", "class_names": ["cat", "dog"], "train": 72, "test": 80}.items()
  assert "Accuracy in % on pets" in stdout
  assert lcgen.load(tmp_path / "run").sample([1, 0]).shape == (2, 8, 8, 3)


def test_a_run_on_published_sets(run, tmp_path):
  """MNIST and Dirty-MNIST, small, from archives in the official formats."""
  folder, data_dir = tmp_path / "official", str(tmp_path / "tfds")
  archives.write_all(folder, train=400, test=100)
  with archives.serve(folder) as server, pytest.MonkeyPatch.context() as patch:
    archives.point_builders(archives.addresses(server.base, folder), patch.setattr)
    tfds_sets.ensure(["mnist", "mnist_corrupted/identity", "mnist_corrupted/fog", "dirty_mnist"], data_dir, "")
  code, stdout, stderr = run(
    "--config=configs/mnist.py:smoke",
    f"--workdir={tmp_path / 'run'}",
    f"--config.data.dir={data_dir}",
    "--config.evaluate.sets=test,mnist_corrupted/identity,mnist_corrupted/fog,dirty_mnist",
  )
  assert code == 0, stderr
  results = json.loads((tmp_path / "run" / "results.json").read_text())
  assert {name: known["images"] for name, known in results["test_sets"].items()} == {
    "test": 100,
    "mnist_corrupted/identity": 100,
    "mnist_corrupted/fog": 100,
    "dirty_mnist/mnist": 100,
    "dirty_mnist/ambiguous": 20,
    "dirty_mnist": 120,
  }
  ceiling = results["test_sets"]["dirty_mnist/ambiguous"]["ceiling"]
  for arm in ARMS:
    scores = results["arms"][arm]
    assert scores["mnist_corrupted/identity"]["accuracy"] == scores["test"]["accuracy"]
    assert max(scores["dirty_mnist/ambiguous"]["accuracy"]) <= ceiling + 1e-6
    assert min(scores["dirty_mnist/ambiguous"]["kl"]) > 0
    assert "corrupted" not in scores
  assert f"dirty_mnist/ambiguous, published (ceiling {100 * ceiling:.1f}) |" in stdout


def test_a_workdir_of_another_config_is_left_alone(smoke, run):
  before = {path: path.read_bytes() for path in smoke.rglob("*") if path.is_file()}
  code, _, stderr = run(SMOKE, f"--workdir={smoke}", "--config.vae.epochs=3")
  assert code == 2
  assert "vae.epochs: 2 -> 3" in stderr
  assert before == {path: path.read_bytes() for path in smoke.rglob("*") if path.is_file()}


def test_a_run_that_breaks_down_says_where(run, tmp_path):
  code, _, stderr = run(SMOKE, f"--workdir={tmp_path}", "--config.vae.learning_rate=1e30", "--stage=vae")
  assert code == 1
  assert re.search(r"run.py: vae: \w+ is (nan|inf|-inf) at step \d+ of seed \d", stderr)
  assert "Traceback" not in stderr


def test_a_loaded_run_answers(smoke):
  run = lcgen.load(smoke)
  labels = [3, 1, 4, 1, 5]
  images = run.sample(labels, seed=7)
  assert images.shape == (5, 28, 28, 1)
  assert 0 <= images.min() <= images.max() <= 1
  np.testing.assert_array_equal(images, run.sample(labels, seed=7))
  assert not np.array_equal(images, run.sample(labels, seed=8))
  assert not np.array_equal(images, run.sample(labels, seed=7, replica=1))
  stored = np.asarray(images * 255).round().astype(np.uint8)
  np.testing.assert_allclose(run.encode(stored), run.encode(stored / np.float32(255)), rtol=1e-4, atol=1e-5)
  assert run.decode(run.encode(images)).shape == images.shape
  for arm in ARMS:
    probabilities = run.probabilities(images, arm)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_array_equal(run.classify(images, arm=arm), probabilities.argmax(axis=1))
  for call, words in [
    (lambda: run.sample([10]), "from 0 to 9"),
    (lambda: run.sample([1], replica=2), "replica 2"),
    (lambda: run.classify(images, arm="cutout"), "cutout"),
    (lambda: run.classify(images * 255), "must be in"),
    (lambda: run.encode(images[0]), "must be"),
    (lambda: run.decode(np.zeros((1, 3))), "must be"),
  ]:
    with pytest.raises(ValueError, match=words):
      call()


def test_a_loaded_run_scores_what_the_results_say(smoke):
  data = sources.load(config_of("smoke").data)
  results = json.loads((smoke / "results.json").read_text())
  run = lcgen.load(smoke)
  for arm in ARMS:
    for replica in range(2):
      accuracy = np.mean(run.classify(data.test.images, arm=arm, replica=replica) == data.test.labels)
      assert accuracy == pytest.approx(results["arms"][arm]["test"]["accuracy"][replica])


def test_loading_nothing_says_what_is_missing(tmp_path):
  with pytest.raises(ValueError, match="no trained VAE"):
    lcgen.load(tmp_path)


def test_neither_tensorflow_nor_torch_is_imported(tmp_path, compilations):
  program = """
import importlib.abc, runpy, sys
class Hidden(importlib.abc.MetaPathFinder):
  def find_spec(self, name, path=None, target=None):
    if name.partition(".")[0] == "torch":
      raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Hidden())  # SciPy looks into sys.modules for torch, and takes what it finds for a module
sys.modules["tensorflow"] = None
runpy.run_path("run.py", run_name="__main__")
"""
  command = [sys.executable, "-c", program, SMOKE, f"--workdir={tmp_path}", "--stage=vae"]
  done = subprocess.run(command, cwd=ROOT, env=os.environ | compilations, capture_output=True, text=True, check=False)
  assert done.returncode == 0, done.stderr


def test_configs_start_no_backend():
  program = (
    "import sys, configs.mnist5k, configs.mnist, configs.cifar10, configs.forkme; sys.exit('jax' in sys.modules)"
  )
  assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False).returncode == 0
