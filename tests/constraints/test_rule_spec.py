import functools
import os
import re
import subprocess
import sys

import numpy as np
import pytest

from lcgen.constraints import rule_spec, rules
from lcgen.constraints.rule_spec import Rule
from lcgen.runtime import errors
from tests.conftest import ROOT

IMAGES = np.random.default_rng(0).random((40, 4, 4, 1), np.float32)
NOT_A_FUNCTION = 3.0


def bright(images):
  return images.mean(axis=(1, 2, 3)) > 0.5


KNOWN = """
labels
realism
rule:a.b.c.function
rule:lcgen.rules.ink:above=0.2
rule:lcgen.rules.ink:below=-1e-3
rule:lcgen.rules.ink:top=0.25
rule:lcgen.rules.ink:bottom=0.25
"""
UNKNOWN = """
label
Labels
labels:top=0.25
lcgen.rules.ink
rule:
rule:ink
rule:.ink
rule:lcgen.rules.
rule:lcgen..ink
rule:lcgen/rules.py
rule:lcgen.rules.ink()
rule:lcgen.1rules.ink
rule: lcgen.rules.ink
rule:lcgen.rules.ink:above
rule:lcgen.rules.ink:above=
rule:lcgen.rules.ink:above=much
rule:lcgen.rules.ink:above=nan
rule:lcgen.rules.ink:below=inf
rule:lcgen.rules.ink:over=1
rule:lcgen.rules.ink:above=1:below=2
rule:lcgen.rules.ink:=1
"""


@pytest.mark.parametrize("text", KNOWN.split("\n")[1:-1])
def test_these_name_a_constraint(text):
  assert rule_spec.known(text)


@pytest.mark.parametrize("text", ["", *UNKNOWN.split("\n")[1:-1]])
def test_these_name_none(text):
  assert not rule_spec.known(text)
  with pytest.raises(errors.InputError, match=f"^{re.escape(repr(text))} is no rule; write rule:module"):
    rule_spec.parse(text)


def test_rules_are_parsed_from_a_line():
  assert rule_spec.parse("rule:lcgen.rules.ink:top=0.3") == Rule(rules.ink, "top", 0.3, "lcgen.rules.ink")
  assert rule_spec.parse("rule:lcgen.rules.slant:below=-2.5") == Rule(rules.slant, "below", -2.5, "lcgen.rules.slant")
  assert rule_spec.parse("rule:lcgen.rules.red") == Rule(rules.red, path="lcgen.rules.red")
  assert rule_spec.parse("rule:tests.constraints.test_rule_spec.bright").function.__name__ == "bright"
  assert rule_spec.parse("rule:lcgen.rules.ink:top=0.3").name == "lcgen.rules.ink:top=0.3"
  assert Rule(rules.ink, "top", 0.3).name == "lcgen.constraints.rules.ink:top=0.3"
  assert Rule(rules.red).name == "lcgen.constraints.rules.red"


@pytest.mark.parametrize(
  ("text", "reason"),
  [
    ("labels", "'labels' is no rule"),
    ("realism", "'realism' is no rule"),
    (
      "rule:no_such_module.f",
      "rule:no_such_module.f: No module named 'no_such_module'; the module must be importable",
    ),
    (
      "rule:lcgen.no_such.f:top=0.1",
      "rule:lcgen.no_such.f:top=0.1: No module named 'lcgen.no_such'",
    ),
    (
      "rule:lcgen.rules.no_such",
      "rule:lcgen.rules.no_such: module 'lcgen.rules' has no attribute 'no_such'",
    ),
    (
      "rule:tests.constraints.test_rule_spec.NOT_A_FUNCTION",
      "rule tests.constraints.test_rule_spec.NOT_A_FUNCTION = 3.0: must be a function of images",
    ),
    ("rule:lcgen.rules.ink:top=0", "rule lcgen.rules.ink:top=0: a share of the prior's samples must be between 0"),
    ("rule:lcgen.rules.ink:top=1", "rule lcgen.rules.ink:top=1: a share"),
    ("rule:lcgen.rules.ink:bottom=-0.1", "rule lcgen.rules.ink:bottom=-0.1: a share"),
    ("rule:lcgen.rules.ink:bottom=25", "rule lcgen.rules.ink:bottom=25: a share"),
  ],
)
def test_what_cannot_be_a_rule_is_refused_in_a_sentence(text, reason):
  with pytest.raises(errors.InputError) as raised:
    rule_spec.parse(text)
  assert str(raised.value).startswith(reason)
  assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
  "function",
  [
    bright,
    lambda images: images[:, 0, 0, 0],
    lambda images: images[:, 0, 0, 0].astype(np.float64),
    lambda images: np.arange(len(images)),
    lambda images: [index % 2 == 0 for index in range(len(images))],
    lambda images: [float(image.mean()) for image in images],
  ],
)
def test_verdicts_and_scores_are_taken_as_they_are(function):
  scored = rule_spec.scores(Rule(function), IMAGES)
  np.testing.assert_array_equal(scored, function(IMAGES))
  assert scored.dtype == np.asarray(function(IMAGES)).dtype


def raising(images):
  raise KeyError("weights.npz")


QUARTER_UNKNOWN = np.where(np.arange(40) < 10, np.nan, 1.0)


@pytest.mark.parametrize(
  ("function", "reason"),
  [
    (raising, "fails (there is no 'weights.npz'); it is given float32 images in [0, 1] of shape [40, 4, 4, 1]"),
    (lambda images: images[:, 0, 0], "returned shape [40, 1]; it is given"),
    (lambda images: images.mean(), "returned shape []; it is given"),
    (lambda images: images[1:, 0, 0, 0], "returned shape [39]; it is given"),
    (lambda images: images > 0.5, "returned shape [40, 4, 4, 1]; it is given"),
    (lambda images: None, "returned shape []; it is given"),
    (lambda images: [[1], *[1, 2] * 20], "fails (setting an array element"),
    (lambda images: ["yes"] * len(images), "returned <U3; it is given"),
    (lambda images: np.full(len(images), 1j), "returned complex128; it is given"),
    (lambda images: [None] * len(images), "returned object; it is given"),
    (
      lambda images: QUARTER_UNKNOWN,
      "returned NaN or infinity for 10 of 40 decoded samples; give those a finite score",
    ),
    (lambda images: -np.inf * (images[:, 0, 0, 0] >= 0), "returned NaN or infinity for 40 of 40 decoded samples"),
  ],
)
def test_other_answers_are_refused_in_a_sentence(function, reason):
  with pytest.raises(errors.InputError) as raised:
    rule_spec.scores(Rule(function, "above", 0.5), IMAGES)
  message = str(raised.value)
  assert message.startswith(f"rule tests.constraints.test_rule_spec.{function.__qualname__}:above=0.5 ")
  assert reason in message
  assert "must return [40]" in message or "or False" in message


def share(rule, prior):
  return rule_spec.verdicts(rule_spec.settled(rule, prior), prior).mean()


@pytest.mark.parametrize("dtype", [bool, np.int64, np.float32])
def test_verdicts_hold_where_they_are_true(dtype):
  prior = (np.arange(30) % 3 == 0).astype(dtype)
  rule = rule_spec.settled(Rule(bright), prior)
  assert (rule.function, rule.bound, rule.value) == (bright, "above", 0.5)
  np.testing.assert_array_equal(rule_spec.verdicts(rule, prior), prior == 1)


@pytest.mark.parametrize("shape", [(1001,), (3, 500)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("part", [0.25, 0.1, 0.003, 0.9])
def test_shares_are_those_of_the_priors_samples(part, dtype, shape):
  prior = np.random.default_rng(0).normal(size=shape).astype(dtype)
  ordered = np.sort(prior, axis=None)
  for bound, settled_bound, right in (("top", "above", ordered[::-1]), ("bottom", "below", ordered)):
    rule = rule_spec.settled(Rule(rules.ink, bound, part), prior)
    assert rule.bound == settled_bound
    holding = rule_spec.verdicts(rule, prior)
    assert holding.shape == shape
    count = holding.sum()
    assert abs(count - part * prior.size) <= 1
    assert set(prior[holding]) == set(right[:count])  # the extremes and not others


def test_scores_without_a_bound_hold_for_the_top_quarter():
  prior = np.random.default_rng(0).normal(size=1000)
  assert rule_spec.settled(Rule(rules.ink), prior) == rule_spec.settled(Rule(rules.ink, "top", 0.25), prior)
  assert share(Rule(rules.ink), prior) == 0.25


def test_bounds_in_scores_are_kept_and_strict():
  prior = np.array([[0.0, 0.2, 0.4], [0.6, 0.2, 1.0]])
  for bound, expected in (("above", prior > 0.2), ("below", prior < 0.2)):
    rule = Rule(rules.ink, bound, 0.2)
    assert rule_spec.settled(rule, prior) == rule
    np.testing.assert_array_equal(rule_spec.verdicts(rule, prior), expected)


def test_verdicts_with_a_share_are_refused_in_a_sentence():
  with pytest.raises(errors.InputError):
    rule_spec.settled(Rule(bright, "top", 0.25), np.arange(8) % 2 == 0)


@pytest.mark.parametrize(("size", "held"), [(1000, 500), (1001, 30), (64, 984), (7, 16), (1, 500)])
def test_half_of_the_exemplars_are_of_each_verdict(size, held):
  holds = np.random.default_rng(0).permutation(1000) < held
  places = rule_spec.balanced(Rule(bright), holds, size, seed=3)
  assert places.shape == (size,)
  assert abs(int(holds[places].sum()) - size / 2) <= 0.5
  np.testing.assert_array_equal(places, rule_spec.balanced(Rule(bright), holds, size, seed=3))
  if size > 1:
    assert not np.array_equal(places, rule_spec.balanced(Rule(bright), holds, size, seed=4))
  if size == 1001:
    assert set(places[holds[places]]) == set(np.flatnonzero(holds))  # each of few, again and again


@pytest.mark.parametrize("held", [0, 15, 985, 1000])
def test_too_few_of_a_verdict_are_refused_with_their_number(held):
  with pytest.raises(errors.InputError, match=f"bright:top=0.1 holds for {held} of 1000 .* both sides need 16"):
    rule_spec.balanced(Rule(bright, "top", 0.1), np.arange(1000) < held, 100, seed=0)


def test_the_digest_changes_with_source_bound_and_settings():
  bounds = ((), ("top", 0.25), ("top", 0.3), ("above", 0.3))
  some_rules = [Rule(rules.ink), *(Rule(bright, *bound) for bound in bounds)]
  some_settings = [(), ({"steps": 3},), ({"steps": 4},), ({"steps": 3}, {"steps": 4})]
  digests = [rule.digest(*settings) for rule in some_rules for settings in some_settings]
  assert len(set(digests)) == 20
  assert all(len(digest) == 8 for digest in digests)


def test_the_digest_follows_the_file(tmp_path, monkeypatch):
  monkeypatch.syspath_prepend(tmp_path)
  wishes = tmp_path / "wishes_of_a_test.py"
  digests = set()
  for level in ("0.1", "0.1", "0.25"):
    wishes.write_text(f"def dark(images):\n  return images.mean((1, 2, 3)) < {level}\n")
    sys.modules.pop("wishes_of_a_test", None)
    digests.add(rule_spec.parse("rule:wishes_of_a_test.dark").digest())
  assert len(digests) == 2


def test_what_has_no_source_has_a_digest_and_a_name():
  assert Rule(functools.partial(np.mean, axis=(1, 2, 3))).name == "functools.partial"
  assert Rule(len).digest() != Rule(len, "top", 0.5).digest() != Rule(sum, "top", 0.5).digest()


def test_the_digest_is_the_same_in_every_process():
  rule, settings = "rule:lcgen.rules.ink:top=0.3", {"steps": 3, "kinds": ("a", "b")}
  code = f"from lcgen.constraints import rule_spec; print(rule_spec.parse({rule!r}).digest({settings!r}))"
  environment = os.environ | {"PYTHONHASHSEED": "1"}
  process = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
  assert process.stdout.strip() == rule_spec.parse(rule).digest(settings), process.stderr


def test_a_share_holds_for_some_where_many_scores_are_the_same():
  scores = np.repeat([0, 1, 2], [50, 20, 30])
  for bound, holding in (("top", 30), ("bottom", 50)):
    rule = rule_spec.settled(Rule(bright, bound, 0.25), scores)
    assert rule_spec.verdicts(rule, scores).sum() == holding


def test_a_rule_cannot_change_what_it_is_shown():
  def careless(images):
    images *= 0
    return images.mean(axis=(1, 2, 3))

  with pytest.raises(errors.InputError, match="read-only"):
    rule_spec.scores(Rule(careless), np.ones((3, 2, 2, 1), np.float32))
