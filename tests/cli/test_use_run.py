"""The stages that use a trained run, and rules in place of labels, by the real run.py on a copy of a smoke run."""

import dataclasses
import json
import re
import shutil
import types

import numpy as np
import pytest
from etils import epath

import lcgen
from lcgen.api import run as runs
from lcgen.cli import stages
from lcgen.data import sources
from lcgen.runtime import errors
from lcgen.training import loop
from tests.support.helpers import config_of
from tests.support.images import save
from tests.support.runs import METHODS, REFERENCES, SMOKE

INK = "--config.constraint=rule:lcgen.rules.ink"
MY_RULES = """
import numpy as np
left = lambda images: images[:, :, :14].mean((1, 2, 3)) > images[:, :, 14:].mean((1, 2, 3))
raising = lambda images: {}["weights.npz"]
unknown = lambda images: np.full(len(images), np.nan)
always = lambda images: np.ones(len(images), bool)
"""
close = lambda actual, expected: np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)
close_pixels = lambda stored, unit: np.testing.assert_allclose(stored / 255, unit, atol=0.6 / 255)


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


def contents(folder):
  return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def read(path):
  """The arrays, after a look at the figure beside them."""
  assert path.with_name(path.name + ".png").read_bytes().startswith(b"\x89PNG")
  with np.load(path.with_name(path.name + ".npz")) as arrays:
    return dict(arrays)


def check_samples(arrays, labels, extra=()):
  """All certificates, of samples with these labels."""
  fields = {field.name for field in dataclasses.fields(runs.Samples)}
  assert set(arrays) == fields | set(extra)
  np.testing.assert_array_equal(arrays["labels"], labels)
  assert {len(arrays[name]) for name in fields} == {len(labels)}
  assert arrays["images"].dtype == np.uint8
  assert {arrays[name].shape[1:] for name in ("images", *extra)} == {(28, 28, 1)}
  assert arrays["latents"].shape[1] == 8


def test_samples_are_written_with_their_certificates(command, workdir):
  default = command("--stage=sample", "--config.sample.count=3")
  asked = ("--config.sample.method=actor", "--config.sample.labels=3,1", "--config.sample.count=4")
  stdout = finish(command("--stage=sample", *asked))
  arrays = read(workdir / "sample" / "labels-actor")
  check_samples(arrays, [3] * 4 + [1] * 4)
  agreed = np.mean(arrays["verdict"] == arrays["labels"])
  assert re.search(rf"^8 images: .* the judge agrees with {agreed:.1%}; moved {arrays['moved'].mean():.2f}", stdout)
  assert f"{workdir}/sample/labels-actor.npz" in stdout
  samples = lcgen.load(workdir).draw(1, "actor", count=4, seed=1)  # the second row
  close(arrays["latents"][4:], samples.latents)
  close_pixels(arrays["images"][4:], samples.images)
  finish(default)
  check_samples(read(workdir / "sample" / "labels-refine"), np.repeat(np.arange(10), 3))


def test_ones_own_images_are_edited(command, workdir, tmp_path):
  pixels = np.random.default_rng(0).integers(0, 256, (3, 20, 28), np.uint8)
  np.savez(tmp_path / "mine.npz", images=pixels)
  for row, image in enumerate(pixels):
    save(tmp_path / "mine" / f"{row}.png", image)
  (tmp_path / "mine" / "notes.txt").write_text("not an image")
  found = []
  for name, count in (("mine.npz", 3), ("mine", 3), ("mine/2.png", 1)):
    finish(command("--stage=edit", f"--config.edit.images={tmp_path / name}", "--config.edit.labels=3,1"))
    found.append(read(workdir / "edit" / "labels"))
    check_samples(found[-1], [3] * count + [1] * count, ("originals", "reconstructions"))
    assert len(found[-1]["originals"]) == len(found[-1]["reconstructions"]) == count
  archive, folder, single = found
  padded = np.pad(pixels, ((0, 0), (4, 4), (0, 0)), constant_values=255)  # as `data.fit` and `data.background` say
  close(archive["originals"], padded[..., None] / np.float32(255))
  for name, array in archive.items():
    np.testing.assert_array_equal(array, folder[name], err_msg=name)
  for name in ("originals", "reconstructions"):
    close(single[name][0], archive[name][2])
  run = lcgen.load(workdir)
  close(archive["start"], np.tile(run.encode(pixels[..., None]), (2, 1)))
  close(archive["reconstructions"], run.decode(archive["start"][:3]))


def test_test_images_are_edited_and_joined(command, workdir):
  few = ("--config.sample.labels=3,1", "--config.sample.method=actor", "--config.traverse.count=2")
  traverse = command("--stage=traverse", "--config.traverse.points=3", *few)
  finish(command("--stage=edit", "--config.edit.count=12", "--config.edit.labels=3"))
  edits = read(workdir / "edit" / "labels")
  check_samples(edits, [3] * 12, ("originals", "reconstructions"))
  test = sources.load(config_of("smoke").data).test
  known = {image.tobytes(): label for image, label in zip(test.images, test.labels, strict=True)}
  labels = [known[np.round(image * 255).astype(np.uint8).tobytes()] for image in edits["originals"]]
  assert sorted(labels[:10]) == list(range(10))  # of each class in turn
  finish(traverse)
  ways, shape = read(workdir / "traverse" / "labels"), (2, 3, 28, 28, 1)
  assert {name: array.shape for name, array in ways.items()} == {"images": shape, "wishes": shape}
  ends = np.stack([ways["images"][0, 0], ways["images"][0, -1], ways["images"][1, -1]])
  close_pixels(ends, edits["reconstructions"][:3])
  run = lcgen.load(workdir)
  close_pixels(ways["wishes"][:, 0], np.concatenate([run.sample(label, "actor", seed=0) for label in (3, 1)]))


@pytest.mark.slow
def test_a_single_class_is_joined_with_the_others(command, workdir):
  finish(command("--stage=traverse", "--config.sample.labels=3", "--config.traverse.count=1"))
  assert read(workdir / "traverse" / "labels")["wishes"].shape == (1, 8, 28, 28, 1)


@pytest.fixture(scope="module")
def ink(command, workdir):
  """The workdir before a run with a rule in place of labels and after it, what that says, and after learning again."""
  before = contents(workdir)
  stdout = finish(command(INK))
  after = contents(workdir)
  finish(command(INK, "--stage=actor_critic"))
  return types.SimpleNamespace(before=before, after=after, again=contents(workdir), stdout=stdout)


def test_a_rule_is_learnt_beside_the_labels(ink, workdir):
  assert [path for path in ink.before if ink.after[path] != ink.before[path]] == ["metrics.jsonl"]
  figures = {f"{name}_samples.png" for name in ("prior", *METHODS)}
  folder = workdir / "rules" / "lcgen.rules.ink"
  assert set(contents(folder)) == {"results.json", "table.md", "samples.npz", *figures}
  results = json.loads((folder / "results.json").read_text())
  assert results.items() >= {"name": "lcgen.rules.ink", "bound": "above", "seeds": [0, 1]}.items()
  assert list(results["samples"]) == ["prior", *METHODS, *REFERENCES]
  with np.load(folder / "samples.npz") as samples:
    assert {name: samples[name].shape for name in samples} == dict.fromkeys(("prior", *METHODS), (20, 28, 28, 1))
  table = (folder / "table.md").read_text()
  assert table in ink.stdout
  assert table.startswith(f"Samples for lcgen.rules.ink (above {results['value']:.4g}), mean ± ")
  for name, scores in results["samples"].items():
    assert set(np.ravel(scores["conditional_accuracy_by_class"]) * 8) <= set(range(9))  # of 8 samples
    last = "–" if name in REFERENCES else f"{scores['ms_per_sample']:.3f}"
    assert re.search(rf"^\| {name} \| \d.* \| {last} \|$", table, re.MULTILINE)
  assert results["samples"]["real"]["conditional_accuracy"] == [1, 1]  # of images for which the rule holds


def test_a_rule_is_learnt_once(ink):
  assert ink.again == ink.after
  phases = {json.loads(line)["phase"].partition("-")[0] for line in ink.after["metrics.jsonl"].splitlines()}
  assert phases > {"realism/actor_critic", "realism/energy", "rule/lcgen.rules.ink"}


def test_a_rule_takes_the_config_of_the_workdir(ink, start, workdir):
  """Without --config it is the same rule of the same run: nothing is learnt again."""
  for stage in ("actor_critic", "sample"):
    finish(start(f"--workdir={workdir}", INK, f"--stage={stage}", "--config.sample.method=actor"))
  now = contents(workdir)
  assert {path: now[path] for path in ink.again} == ink.again
  assert set(now) - set(ink.again) <= {f"sample/lcgen.rules.ink-actor.{end}" for end in ("npz", "png")} | {
    path for path in now if path.startswith(("sample/labels", "edit/", "traverse/"))
  }


@pytest.fixture(scope="module")
def ruled(ink, command):
  """Samples for the same rule, and for one's own: what the commands say."""
  mine = command("--stage=sample", "--config.sample.count=2", "--config.constraint=rule:my_rules.left")
  stdout = finish(command("--stage=sample", "--config.sample.count=3", "--config.sample.method=actor", INK))
  return stdout, finish(mine)


def test_samples_for_a_rule(ruled, ink, workdir):
  assert [int(stdout.split()[0]) for stdout in ruled] == [3, 2]
  assert "judge" not in "".join(ruled)  # which knows labels
  (record,) = (workdir / "checkpoints" / "rule").glob("my_rules.left-*/rule.json")
  assert json.loads(record.read_text()).items() >= {"bound": "above", "value": 0.5}.items()
  now = contents(workdir)
  assert [path for path in ink.again if now[path] != ink.again[path]] == ["metrics.jsonl"]


def test_samples_for_a_rule_lie_where_the_command_says(ruled, workdir):
  for name, count in (("lcgen.rules.ink-actor", 3), ("my_rules.left-refine", 2)):
    check_samples(read(workdir / "sample" / name), [-1] * count)


REFUSED = [
  ("sample", "sample.labels=3,eleven", ["'eleven'", "0, 1, 2"]),
  ("edit", "edit.images=nowhere.png", ["nowhere.png", "no image"]),
  ("edit", "edit.images=nowhere.npz", ["nowhere.npz"]),
  ("traverse", "sample.method=anneal", ["'anneal'", "refine"]),
  ("all", "constraint=rule:ink", ["'rule:ink'", "rule:module.function"]),
  ("all", "constraint=rule:no_module.f", ["rule:no_module.f", "importable"]),
  ("sample", "constraint=rule:my_rules.right", ["rule:my_rules.right"]),
  ("all", "constraint=rule:my_rules.raising", ["my_rules.raising", "there is no 'weights.npz'"]),
  ("sample", "constraint=rule:my_rules.unknown", ["my_rules.unknown", "NaN"]),
  ("sample", "constraint=rule:my_rules.always", ["my_rules.always", "512 of 512"]),
]
ALONE = ("traverse", "edit.images={grey}", ["grey.png"])


@pytest.mark.parametrize(("stage", "setting", "words"), [*REFUSED, ("edit", "edit.images={rgb}", ["28, 3"]), ALONE])
def test_bad_wishes_are_refused_in_a_sentence(ink, command, workdir, tmp_path, stage, setting, words):
  save(tmp_path / "rgb.png", np.zeros((28, 28, 3)))
  save(tmp_path / "grey.png", np.zeros((28, 28)))
  files, before = {name: tmp_path / f"{name}.png" for name in ("rgb", "grey")}, contents(workdir)
  process = command(f"--stage={stage}", f"--config.{setting.format(**files)}")
  stdout, stderr = process.communicate(timeout=300)
  assert process.returncode == 2, stderr
  (sentence,) = [line for line in stderr.splitlines() if not re.match(r"\d\d:\d\d:\d\d ", line)]  # the log
  assert sentence.startswith("run.py: ")
  assert all(word in sentence for word in words), sentence
  assert stdout == ""
  assert contents(workdir) == before


@pytest.mark.parametrize("stage", ["sample", "edit", "traverse"])
def test_without_a_trained_run_there_is_nothing_to_use(tmp_path, stage):
  with pytest.raises(errors.InputError, match="run: no trained VAE"):
    stages.run(config_of("smoke"), epath.Path(tmp_path / "run"), stage)
  assert not (tmp_path / "run").exists()


def test_a_rule_is_looked_for_before_anything_is_trained(tmp_path, monkeypatch):
  monkeypatch.delattr(loop, "train")
  ruled = config_of("smoke", constraint="rule:no_module.f")
  with pytest.raises(errors.InputError, match="no_module"):
    stages.run(ruled, epath.Path(tmp_path / "run"), "all")
  assert not (tmp_path / "run").exists()
