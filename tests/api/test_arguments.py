"""Arguments of a run's methods in Python: what is taken as what, and what is refused."""

import copy
import dataclasses
import types

import numpy as np
import pytest

import lcgen
from lcgen.constraints.settings import Langevin
from lcgen.runtime import errors


@pytest.fixture(scope="module")
def trained(smoke):
  return lcgen.load(smoke)


def test_the_second_argument_is_the_method_or_the_count(trained):
  assert len(trained.sample("3", 5, method="actor")) == len(trained.sample("3", method="actor", count=5)) == 5
  np.testing.assert_array_equal(trained.sample(3, "actor", count=2), trained.sample(3, 2, method="actor"))


def test_what_classify_returns_is_a_wish(trained):
  found = trained.classify(trained.sample([1, 7], "actor"))
  assert trained.draw(np.asarray(found), "actor").labels.tolist() == np.asarray(found).tolist()


WRONG = [
  (lambda run, _: run.draw(3, 5, count=6), "5 and 6", "the count once"),
  (lambda run, _: run.draw(3, "actor", method="refine"), "'actor' and 'refine'", "the method once"),
  (lambda run, _: run.draw(3, 10**12), f"count={10**12}", "draw fewer at a time"),
  (lambda run, _: run.draw(3, seed=True), "seed=True", "must be a whole number"),
  (lambda run, _: run.draw(3, replica="0"), "replica '0'", "must be a whole number"),
  (lambda run, _: run.draw(3, replica=1.0), "replica 1.0", "must be a whole number"),
  (lambda run, images: run.classify(images, None), "None", "this run has"),
  (lambda run, _: run.decode(np.zeros((0, 8))), "(0, 8)", "one or more"),
  (lambda run, _: run.decode(np.full((1, 8), 1e39)), "NaN, infinity", "decode finite ones"),
  (lambda run, _: run.decode(np.full((1, 8), "0.1")), "<U3", "pass real numbers"),
  (lambda run, _: 1e39 * run.label(3), "1e+39", "must be a finite number above 0"),
]


@pytest.mark.parametrize(("call", "given", "words"), WRONG)
def test_arguments_of_the_wrong_kind_are_refused_by_their_value(trained, call, given, words):
  images = np.zeros((1, *trained.image_shape), np.uint8)
  with pytest.raises(ValueError, match=words) as refused:
    call(trained, images)
  assert given in str(refused.value)
  assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize(
  ("call", "words"),
  [
    (lambda label: label * label, "weight of type Learnt: must be a number"),
    (lambda label: True * label, "weight of type bool: must be a number"),
    (lambda label: label & 3, "3 is no constraint; write run.label"),
    (lambda label: label & label & "4", "'4' is no constraint"),
    (lambda label: label | None, "None is no constraint"),
  ],
)
def test_only_constraints_join_and_only_numbers_weigh(trained, call, words):
  with pytest.raises(TypeError, match=words):
    call(trained.label(3))


def test_settings_that_lead_nowhere_are_named_and_not_the_images(trained):
  sample = dataclasses.replace(trained._stored.config.sample, langevin=Langevin(step_size=1e30))
  config = dataclasses.replace(trained._stored.config, sample=sample)
  other = copy.copy(trained)
  other._stored = types.SimpleNamespace(config=config, constraint=trained._stored.constraint)
  other.__dict__.pop("_moves", None)
  with pytest.raises(
    errors.InputError, match=r"method 'langevin': .* are lost in infinity; make config.sample.langevin"
  ):
    other.draw(3, "langevin")


def test_no_path_is_refused_in_a_sentence():
  with pytest.raises(errors.InputError, match="path=None: must be a path"):
    lcgen.load(None)
