"""The grammar of arms: texts that are read, texts that are refused, and the role of each arm."""

import re

import pytest

from lcgen.classifiers import arms, policies
from tests.support.helpers import config_of, context_of
from tests.support.untrained import tools_of


@pytest.fixture(scope="module")
def tools():
  settings = config_of("smoke")
  return tools_of(settings, context_of(settings))


def test_only_augmix_has_views_and_a_consistency(tools):
  of = lambda arm: (policies.build(arm, tools).views, policies.build(arm, tools).consistency)
  assert {of(name) for name in arms.POLICIES if name != "augmix"} == {(1, 0.0)}
  assert of("augmix") == of("flip_crop+augmix") == (3, 12.0)
  assert of("augmix:consistency=0.5") == (3, 0.5)


@pytest.mark.parametrize(
  ("text", "changes"),
  [
    *((name, [(name, {})]) for name in arms.POLICIES),
    ("latent_constraints:share=0.5", [("latent_constraints", {"share": 0.5})]),
    ("clip:share=0:limit=1.5", [("clip", {"share": 0.0, "limit": 1.5})]),
    (
      "latent_constraints:source=edit:filter=True:calibrate=False",
      [("latent_constraints", {"source": "edit", "filter": True, "calibrate": False})],
    ),
    (
      "flip_crop:padding=2:flip=1+mixup+augmix",
      [("flip_crop", {"padding": 2, "flip": 1.0}), ("mixup", {}), ("augmix", {})],
    ),
    ("duplicate+duplicate:share=1", [("duplicate", {}), ("duplicate", {"share": 1.0})]),
    (arms.ALONE, [("latent_constraints", {"share": 1.0})]),
  ],
)
def test_texts_are_read(tools, text, changes):
  parsed = arms.parse(text)
  assert parsed == [(name, arms.POLICIES[name].settings | settings) for name, settings in changes]
  types_of = lambda settings: {name: type(value) for name, value in settings.items()}
  assert [types_of(settings) for _, settings in parsed] == [
    types_of(arms.POLICIES[name].settings) for name, _ in changes
  ]
  assert arms.known(text)
  policies.build(text, tools)


@pytest.mark.parametrize(
  ("text", "names"),
  [
    ("", ["''", "latent_constraints", "augmix"]),
    ("all", ["'all'", "latent_constraints", "augmix"]),
    ("none+", ["''", "latent_constraints", "augmix"]),
    ("flip_crop,mixup", ["'flip_crop,mixup'", "latent_constraints", "augmix"]),
    (" mixup", ["' mixup'", "spaces"]),
    ("duplicate:limit=1", ["duplicate", "'limit'", "share"]),
    ("none:share=1", ["none", "'share'"]),
    ("duplicate:", ["duplicate", "''", "share"]),
    ("flip_crop:padding=1.5", ["flip_crop:padding=1.5", "whole number"]),
    ("duplicate:share", ["duplicate:share", "a number"]),
    ("duplicate:share=half", ["duplicate:share=half", "a number"]),
    ("latent_constraints:filter=yes", ["latent_constraints:filter=yes", "True", "False"]),
    ("latent_constraints:source=prior", ["source=prior", "actor", "refine", "mixture", "edit"]),
    ("duplicate:share=1.5", ["duplicate:share=1.5", "at most 1"]),
    ("duplicate:share=-1", ["duplicate:share=-1", "at least 0"]),
    ("duplicate:share=nan", ["duplicate:share=nan", "at most 1"]),
    ("contrast:factor=inf", ["contrast:factor=inf", "finite"]),
    ("shift_rotate:pixels=-1", ["shift_rotate:pixels=-1", "at least 0"]),
    ("flip_crop:flip=1.5", ["flip=1.5", "at most 1"]),
    ("cutout:side=1.5", ["side=1.5", "at most 1"]),
    ("randaugment:magnitude=31", ["magnitude=31", "at most 30"]),
    ("augmix:severity=11", ["severity=11", "at most 10"]),
    ("augmix:width=0", ["width=0", "at least 1"]),
    ("augmix:alpha=0", ["alpha=0", "at least 0.01"]),
    ("augmix+none", ["augmix", "last"]),
    ("augmix+augmix", ["augmix", "last"]),
  ],
)
def test_texts_that_are_no_arms_are_refused_with_what_there_is(tools, text, names):
  assert not arms.known(text)
  with pytest.raises(ValueError, match="".join(f"(?=.*{re.escape(name)})" for name in names)):  # in any order
    policies.build(text, tools)


def test_controls_are_single_policies_without_samples_of_the_right_label():
  assert arms.controls() == ["reconstruction", "duplicate", "clip", "contrast", "blur", "noise", "shuffled"]
  assert {name for name in arms.POLICIES if arms.role(name) == arms.CONTROL} == set(arms.controls())
  assert arms.role("clip:share=0.5:limit=0.5") == arms.CONTROL
  assert arms.role(arms.ALONE) == arms.METHOD
  assert arms.role("flip_crop+duplicate") == arms.AUGMENTATION


@pytest.mark.parametrize(
  ("text", "role"),
  [
    ("none", "baseline"),
    (arms.ALONE, "method"),
    ("flip_crop+latent_constraints:share=0.5", "method"),
    ("duplicate:share=0.5", "control"),
    ("flip_crop+duplicate", "augmentation"),
    ("augmix", "augmentation"),
  ],
)
def test_every_arm_has_a_role(text, role):
  assert arms.role(text) == role


def test_there_is_a_function_for_every_policy(tools):
  for name in arms.POLICIES:
    assert callable(policies.build(name, tools).policy)
