"""A trained run in Python: samples with their certificates, edits, and rules learnt afterwards."""

import dataclasses
import functools
import json
import shutil

import jax
import numpy as np
import pytest
from etils import epath

import lcgen
from lcgen.api import export
from lcgen.api import workdir as workdirs
from lcgen.constraints import rules
from lcgen.runtime import errors
from tests.support.helpers import tree_bytes
from tests.support.runs import METHODS

LABELS = [3, 1, 4, 1]
TEXT = "rule:lcgen.rules.ink:top=0.25"
close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def trained(smoke):
  return lcgen.load(smoke)


@pytest.fixture(scope="module")
def images(trained):
  return trained.sample(LABELS, "actor", seed=9)


@pytest.fixture(scope="module")
def workdir(smoke, tmp_path_factory):
  """A copy to learn in."""
  return shutil.copytree(smoke, tmp_path_factory.mktemp("trained") / "run")


@pytest.fixture(scope="module")
def learning(workdir):
  return lcgen.load(workdir)


@pytest.fixture(scope="module")
def kept(learning):
  """A rule that a config could name."""
  return learning.learn(TEXT)


def of_replica(constraint, replica):
  return jax.tree.map(lambda leaf: leaf[replica], constraint)


def same(a, b):
  """The fields in which two draws are the same."""
  pairs = ((field.name, getattr(a, field.name), getattr(b, field.name)) for field in dataclasses.fields(a))
  return {name for name, one, other in pairs if np.array_equal(one, other)}


def check_certificates(trained, samples, constraints, replica=0):
  """Everything that can be found out about samples otherwise; `constraints` has one for each."""
  count, size = len(constraints), samples.latents.shape[1]
  floats = {"images": (count, 28, 28, 1), "latents": (count, size), "start": (count, size), "moved": (count,)}
  floats |= {"energy": (count,), "confidence": (count,), "critics": (count, samples.critics.shape[1])}
  kinds = dict.fromkeys(floats, np.float32) | {"labels": np.int32, "verdict": np.int32, "accepted": bool}
  shapes = dict.fromkeys(kinds, (count,)) | floats
  for name, kind in kinds.items():
    array = getattr(samples, name)
    assert isinstance(array, np.ndarray), name
    assert (array.dtype, array.shape) == (kind, shapes[name]), name
  assert 0 <= samples.images.min() < samples.images.max() <= 1
  close(samples.images, trained.decode(samples.latents, replica))
  close(samples.moved, np.sqrt(np.square(samples.latents - samples.start).mean(axis=1)))
  probabilities = np.asarray(trained.judge(samples.images, replica))
  close(probabilities.sum(axis=1), 1)
  np.testing.assert_array_equal(samples.verdict, probabilities.argmax(axis=1))
  close(samples.confidence, probabilities.max(axis=1))
  for row, constraint in enumerate(constraints):
    alone, z = of_replica(constraint, replica), samples.latents[row : row + 1]
    close(samples.energy[row], alone.energy(z)[0])
    close(samples.critics[row], alone.logits(z)[0])
    assert samples.accepted[row] == alone.holds(z)[0]


@pytest.mark.parametrize("method", METHODS)
def test_samples_of_labels_come_with_true_certificates(trained, method):
  samples = trained.draw(LABELS, method, seed=7)
  check_certificates(trained, samples, [trained.label(label) for label in LABELS])
  assert samples.critics.shape == (4, 1)
  np.testing.assert_array_equal(samples.labels, LABELS)
  every = {field.name for field in dataclasses.fields(samples)}
  assert same(samples, trained.draw(np.array(LABELS), method, seed=7)) == every
  np.testing.assert_array_equal(samples.images, trained.sample(LABELS, method, seed=7))
  assert same(samples, trained.draw(LABELS, method, seed=8)) <= {"labels", "accepted", "verdict"}
  other = trained.draw(LABELS, method, seed=7, replica=1)
  assert not {"images", "latents", "energy"} & same(samples, other)
  check_certificates(trained, other, [trained.label(label) for label in LABELS], replica=1)


def test_a_workdir_without_a_mixture_gets_one_when_it_is_needed(trained, smoke, tmp_path):
  """As one of an older version; its export says what is needed."""
  workdir = shutil.copytree(smoke, tmp_path / "run")
  shutil.rmtree(workdir / "checkpoints" / "mixture")
  export.write(epath.Path(workdir))
  with pytest.raises(errors.InputError, match=r"it has no mixture of each class; draw by it from the workdir"):
    lcgen.load(workdir / export.NAME).draw(3, "mixture")
  older = lcgen.load(workdir)
  older.draw(3, "actor")
  assert not (workdir / "checkpoints" / "mixture").exists()
  every = {field.name for field in dataclasses.fields(trained.draw(3, "actor"))}
  assert same(older.draw(LABELS, "mixture", seed=7), trained.draw(LABELS, "mixture", seed=7)) == every
  before = snapshot(workdir)
  assert same(lcgen.load(workdir).draw(LABELS, "flow"), trained.draw(LABELS, "flow")) == every
  assert snapshot(workdir) == before
  export.write(epath.Path(workdir))
  exported = lcgen.load(workdir / export.NAME)
  assert same(exported.draw(LABELS, "mixture", seed=7), trained.draw(LABELS, "mixture", seed=7)) == every


@pytest.mark.parametrize("method", ["flow", "map"])
def test_an_edit_can_take_the_mixture_instead_of_adam(trained, images, method):
  config = trained._stored.config
  changed = dataclasses.replace(config, edit=dataclasses.replace(config.edit, method=method))
  other = lcgen.Run(workdirs.Workdir(trained._stored._trainer.workdir, changed))
  samples = other.edit(images, [8, 8, 8, 8])
  check_certificates(other, samples, [other.label(8)] * 4)
  close(samples.start, trained.encode(images))
  assert not np.allclose(samples.latents, trained.edit(images, 8).latents, atol=1e-2)


@pytest.mark.parametrize("method", METHODS)
def test_compositions_can_be_drawn_from(learning, method):
  wish = learning.label(1) & ~learning.label(2) | 2.0 * learning.realism
  samples = learning.draw(wish, method, count=4, seed=7)
  check_certificates(learning, samples, [wish] * 4)
  assert samples.critics.shape == (4, 1 + 9 + 1)
  np.testing.assert_array_equal(samples.labels, -1)


def test_a_label_is_the_constraint_of_its_name(trained):
  label, constraint, each = (
    trained.draw(wish, "actor", count=count, seed=3)
    for wish, count in ((3, 4), (trained.label(3), 4), ([3, 3, 3, 3], None))
  )
  np.testing.assert_array_equal(constraint.labels, -1)
  np.testing.assert_array_equal(label.labels, 3)
  close(label.latents, each.latents)
  close(label.latents, constraint.latents)
  assert len(trained.sample(3, "actor")) == len(trained.sample(trained.label(3), "actor")) == 1
  assert same(trained.draw(LABELS), trained.draw(LABELS, "refine", seed=0, replica=0)) >= {"images", "start", "energy"}


def test_a_class_is_named_by_its_text_or_its_index(trained):
  assert trained.class_names[3] == "3"
  every = same(trained.draw(3, "actor", count=4), trained.draw("3", "actor", count=4))
  assert every == {field.name for field in dataclasses.fields(trained.draw(3, "actor"))}
  assert trained.draw(["3", "1"], "actor").labels.tolist() == [3, 1]
  assert trained.sample("3", 5).shape[0] == trained.sample(trained.label("3"), 5).shape[0] == 5


def test_samples_start_from_the_prior(trained):
  constraint = trained.label(1)
  proposed = trained.draw(constraint, "actor", count=500, seed=5)
  close(proposed.latents, of_replica(constraint, 0).propose(proposed.start))
  assert np.abs(proposed.start.mean(axis=0)).max() < 5 / np.sqrt(500)
  assert np.abs(proposed.start.std(axis=0) - 1).max() < 5 / np.sqrt(1000)
  starts = [trained.draw(LABELS, method, seed=5).start for method in METHODS[:3]]
  np.testing.assert_array_equal(starts[0], starts[1])
  np.testing.assert_array_equal(starts[0], starts[2])


def test_an_edit_starts_from_the_encoding(trained, images):
  stored = np.round(images * 255).astype(np.uint8)
  samples = trained.edit(stored, LABELS)
  check_certificates(trained, samples, [trained.label(label) for label in LABELS])
  np.testing.assert_array_equal(samples.labels, LABELS)
  close(samples.start, trained.encode(stored))
  close(samples.latents, trained.edit(stored, LABELS, distance_weight=0.003).latents)  # the config's
  other = trained.edit(stored, trained.label(3), replica=1)
  check_certificates(trained, other, [trained.label(3)] * 4, replica=1)
  np.testing.assert_array_equal(other.labels, -1)
  np.testing.assert_array_equal(trained.edit(stored, 3).labels, 3)


def test_an_edit_pays_for_its_way(trained, images):
  free, dear = (trained.edit(images, 3, distance_weight=weight) for weight in (0, 1e6))
  close(dear.images, trained.decode(trained.encode(images)), atol=1e-2)
  assert dear.moved.max() < 1e-2 < free.moved.min()
  assert (free.energy < dear.energy).all()


def test_interpolations_end_in_reconstructions(trained, images):
  between = trained.interpolate(images[:2], images[2:], count=5)
  assert between.shape == (2, 5, 28, 28, 1)
  assert 0 <= between.min() < between.max() <= 1
  for place, end in ((0, images[:2]), (-1, images[2:])):
    close(between[:, place], trained.decode(trained.encode(end)), atol=1e-4)
  assert np.abs(np.diff(between, axis=1)).max(axis=(0, 2, 3, 4)).min() > 1e-3  # it moves at every point
  resting = trained.interpolate(images[:2], images[:2], count=2)
  close(resting[:, 0], resting[:, 1], atol=1e-4)


@pytest.fixture
def rewritten(smoke, tmp_path):
  """A copy of the workdir whose `config.json` is changed: `rewritten(change) -> workdir`."""

  def _rewritten(change):
    workdir = shutil.copytree(smoke, tmp_path / "run")
    values = json.loads((workdir / "config.json").read_text())
    change(values)
    (workdir / "config.json").write_text(json.dumps(values))
    return workdir

  return _rewritten


def age(values):
  """Makes a config what an older version wrote: the old key of the constraint, and no field that came later."""
  for name in ("generator", "plugins", "pca", "benchmark"):
    del values[name]
  del values["train"]["grace_s"], values["sample"]["refine"]["rounds"]
  values["actor_critic"]["constraint"] = values.pop("constraint")


def test_an_older_workdir_is_loaded_and_sampled_from(trained, rewritten):
  workdir = rewritten(age)
  before = snapshot(workdir)
  older = lcgen.load(workdir)
  every = {field.name for field in dataclasses.fields(older.draw(LABELS, "actor"))}
  for method in METHODS:
    assert same(older.draw(LABELS, method, seed=7), trained.draw(LABELS, method, seed=7)) == every
  assert snapshot(workdir) == before


def test_an_older_workdir_is_sampled_by_the_command(rewritten, run):
  workdir = rewritten(age)
  written = (workdir / "config.json").read_bytes()
  flags = ("--stage=sample", "--config.sample.method=actor", "--config.sample.count=2")
  code, stdout, stderr = run(f"--workdir={workdir}", *flags)
  assert code == 0, stderr
  assert stdout.startswith("20 images: ")
  with np.load(workdir / "sample" / "labels-actor.npz") as arrays:
    np.testing.assert_array_equal(arrays["labels"], np.repeat(np.arange(10), 2))
  assert (workdir / "config.json").read_bytes() == written


@pytest.mark.parametrize(
  ("section", "key", "name"),
  [("vae", "dropout", "vae.dropout"), ("", "colours", "colours"), ("actor_critic", "lambda", "actor_critic.lambda")],
)
def test_a_workdir_with_an_unknown_key_is_refused_by_that_name(rewritten, section, key, name):
  workdir = rewritten(lambda values: (values[section] if section else values).update({key: 0.5}))
  with pytest.raises(errors.InputError, match=rf"config\.{name}: unknown key") as refused:
    lcgen.load(workdir)
  assert f"{workdir}/config.json" in str(refused.value)
  assert len(str(refused.value).splitlines()) == 1


WRONG = [
  (lambda run, _: run.draw([3, 10]), "10", "from 0 to 9"),
  (lambda run, _: run.draw(-1), "-1", "from 0 to 9"),
  (lambda run, _: run.draw([3.5]), "3.5", "from 0 to 9"),
  (lambda run, _: run.draw(True), "True", "from 0 to 9"),
  (lambda run, _: run.draw([[3]]), "[[3]]", "from 0 to 9"),
  (lambda run, _: run.label(10), "10", "from 0 to 9"),
  (lambda run, images: run.edit(images, [1, 2, 3, 4.5]), "4.5", "from 0 to 9"),
  (lambda run, _: run.draw(3, count=0), "count=0", "at least 1"),
  (lambda run, _: run.draw(run.label(3), count=-2), "count=-2", "at least 1"),
  (lambda run, _: run.draw([3, 1], count=2), "count=2", "has its own"),
  (lambda run, _: run.draw(3, "anneal"), "'anneal'", "there are actor, optimize, langevin, refine, mixture, flow"),
  (lambda run, _: run.draw(3, "refin"), "'refin'", "the nearest is refine"),
  (lambda run, _: run.draw("33"), "'33'", "there is no class of this name; the nearest is 3; there are 0, 1, "),
  (lambda run, _: run.label("three"), "'three'", "there is no class of this name"),
  (lambda run, _: run.draw([3, "x"]), "[3, 'x']", "give names or indices, not both"),
  (lambda run, images: run.classify(images, "nome"), "'nome'", "the nearest is none"),
  (lambda run, _: run.draw(3, replica=2), "replica 2", "there are 2"),
  (lambda run, images: run.edit(images, 3, replica=-1), "replica -1", "there are 2"),
  (lambda run, images: run.edit(images[0], 3), "(28, 28, 1)", "must be"),
  (lambda run, images: run.edit(images.repeat(3, axis=3), 3), "(4, 28, 28, 3)", "must be"),
  (lambda run, images: run.edit(images - 0.5, 3), "-0.5", "must be in"),
  (lambda run, images: run.judge(images * np.nan), "nan", "must be in"),
  (lambda run, images: run.edit(images, 3, distance_weight=-0.1), "distance_weight=-0.1", "at least 0"),
  (lambda run, images: run.edit(images, 3, distance_weight=np.nan), "distance_weight=nan", "at least 0"),
  (lambda run, images: run.edit(images, [1, 2]), "2 labels for 4 images", "one for each"),
  (lambda run, images: run.interpolate(images, images, count=1), "count=1", "2 or more"),
  (lambda run, images: run.interpolate(images, images[:3]), "4 and 3", "pairs"),
  (lambda run, images: run.edit(images, 3, distance_weight=np.inf), "distance_weight=inf", "at least 0"),
  (lambda run, _: run.draw(np.zeros(0, int), "actor"), "labels array([], ", "from 0 to 9"),
]


@pytest.mark.parametrize(("call", "given", "words"), WRONG)
def test_what_cannot_be_done_is_refused_by_its_value(trained, images, call, given, words):
  with pytest.raises(ValueError, match=words) as refused:
    call(trained, images)
  assert given in str(refused.value)
  assert len(str(refused.value).splitlines()) == 1


def test_a_rule_of_a_config_is_kept(workdir, learning, kept, smoke):
  (folder,) = (workdir / "checkpoints" / "rule").iterdir()
  assert folder.name.startswith("lcgen.rules.ink-top-0.25-")
  assert {entry.name for entry in folder.iterdir()} == {"actor_critic", "energy", "rule.json"}
  samples = learning.draw(kept, "actor", count=4)
  check_certificates(learning, samples, [kept] * 4)
  np.testing.assert_array_equal(samples.labels, -1)
  before = snapshot(workdir)
  again = lcgen.load(workdir)
  assert tree_bytes(again.learn(TEXT)) == tree_bytes(kept)
  assert tree_bytes(again.realism) == tree_bytes(learning.realism)
  assert snapshot(workdir) == before
  beside = snapshot(smoke).items() - before.items()
  assert {path.name for path, _ in beside} == {"metrics.jsonl"}  # all else is as it was


def test_realism_is_exported_once_it_is_learnt(workdir, learning, kept):
  export.write(epath.Path(workdir))
  exported = lcgen.load(workdir / export.NAME)
  assert tree_bytes(exported.realism) == tree_bytes(learning.realism)


def snapshot(folder):
  """Every file with the time of its last change, or with its content where that may be written again."""
  files = [path for path in folder.rglob("*") if path.is_file()]
  changed = lambda path: path.read_bytes() if path.name == "rule.json" else path.stat().st_mtime_ns
  return {path.relative_to(folder): changed(path) for path in files}


@pytest.fixture(scope="module")
def bound(workdir, kept):
  """The score that the rule's share has come to."""
  (record,) = (workdir / "checkpoints" / "rule").glob("*/rule.json")
  return json.loads(record.read_text())["value"]


@pytest.mark.parametrize(
  ("function", "bounds"),
  [
    (rules.ink, lambda _: {"top": 0.25}),
    (lambda images: rules.ink(images), lambda _: {}),
    (lambda images: -rules.ink(images), lambda _: {"bottom": 0.25}),
    (rules.ink, lambda score: {"above": score}),
    (lambda images: -rules.ink(images), lambda score: {"below": -score}),
  ],
)
def test_the_same_rule_is_learnt_to_the_same_bits_and_leaves_no_trace(learning, workdir, kept, bound, function, bounds):
  before = snapshot(workdir)
  assert tree_bytes(learning.learn(function, **bounds(bound))) == tree_bytes(kept)
  assert snapshot(workdir) == before


def test_another_rule_is_learnt_to_other_bits(learning, kept):
  flipped = learning.learn(lambda images: images[:, ::-1].mean(axis=(1, 2, 3)) < 0.1)
  assert not set(tree_bytes(flipped.energy_variables)) & set(tree_bytes(kept.energy_variables))


@pytest.mark.parametrize(
  ("rule", "bounds", "words"),
  [
    (rules.ink, {"above": 0.1, "top": 0.2}, "'above': 0.1, 'top': 0.2"),
    (rules.ink, {"above": 0.0, "below": 0.0}, "'above': 0.0, 'below': 0.0"),
    (TEXT, {"top": 0.2}, "'top': 0.2"),
    ("rule:lcgen.rules.ink", {"below": 0.0}, "'below': 0.0"),
    (rules.ink, {"top": 1.5}, "top=1.5"),
    (rules.ink, {"bottom": 0}, "bottom=0"),
    ("ink", {}, "'ink' is no rule"),
    (3, {}, "rule .*3: must be a function"),
  ],
)
def test_bounds_and_rules_that_make_no_sense_are_refused(trained, rule, bounds, words):
  with pytest.raises(ValueError, match=words):
    trained.learn(rule, **bounds)
