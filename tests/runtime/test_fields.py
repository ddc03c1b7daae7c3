"""Declared settings: conversions, checks, and what plug-ins may add."""

import dataclasses

import pytest

from lcgen.runtime import errors, fields
from lcgen.runtime.fields import at_least, field, one_of, section, some_of
from lcgen.runtime.registry import Registry


@dataclasses.dataclass(frozen=True)
class Inner:
  """Inner settings."""

  rate: float = field(0.5, fields.positive, "A rate.")


@dataclasses.dataclass(frozen=True)
class Outer:
  """Outer settings."""

  steps: int = field(3, at_least(1), "Steps.", free=True)
  names: tuple[str, ...] = field(("a", "b"), some_of("a", "b", "c", joined=True), "Names.")
  inner: Inner = section(Inner)
  aside: Inner = section(Inner, free=True)


@pytest.mark.parametrize(
  ("check", "given", "value"),
  [
    (fields.positive, 3, 3.0),
    (fields.widths, [4, 8], (4, 8)),
    (some_of("a", "b"), "a,b", ("a", "b")),
    (some_of("a", "b"), ["a", "b"], ("a", "b")),
    (fields.modules, "my_module,pkg.other", ("my_module", "pkg.other")),
    (fields.modules, (), ()),
    (fields.decay, 0, 0.0),
    (fields.switch, True, True),
  ],
)
def test_values_are_converted(check, given, value):
  found = check.value(given, "x")
  assert (type(found), found) == (type(value), value)


@pytest.mark.parametrize(
  ("check", "given", "words"),
  [
    (at_least(2), 1, "a whole number of at least 2"),
    (at_least(0), True, "a whole number"),
    (fields.positive, float("inf"), "a finite number above 0"),
    (fields.non_negative, -0.1, "at least 0"),
    (fields.share, 1.1, r"\[0, 1\]"),
    (fields.proper_share, 1, "between 0 and 1, both excluded"),
    (fields.decay, 1.0, r"\[0, 1\)"),
    (fields.switch, 1, "True or False"),
    (fields.text, 1, "a text"),
    (fields.name, "", "not empty"),
    (fields.widths, (), "positive whole numbers"),
    (fields.counts, (1, 0), "at least 1"),
    (fields.shares, (0.5, 0.5), "each once"),
    (fields.shares, ([1],), "numbers"),
    (some_of("a"), (), "one or more"),
    (fields.modules, "a b", "names of modules"),
    (one_of("a", "b"), "c", "one of a, b"),
  ],
)
def test_values_out_of_range_are_refused(check, given, words):
  with pytest.raises(errors.InputError, match=rf"config\.x=.*: must be .*{words}"):
    check.value(given, "x")


def test_choices_may_grow():
  registry = Registry("tool")
  registry.add("saw", 1)
  check = one_of("none", registry, lambda: ["own"])
  registry.add("axe", 2)
  assert check.text == "one of none, saw, axe, own"
  assert check.value("axe", "x") == "axe"


def test_settings_are_built_from_nested_values():
  assert fields.parse(Outer, {}) == Outer()
  assert fields.parse(Outer, {"inner": {"rate": 2}, "names": "c"}) == Outer(names=("c",), inner=Inner(2.0))
  with pytest.raises(errors.InputError, match=r"config\.x\.inner=3: must be a section with rate"):
    fields.parse(Outer, {"inner": 3}, "x.")
  with pytest.raises(errors.InputError, match=r"config\.inner\.rat: unknown key; the nearest is rate; there are rate"):
    fields.parse(Outer, {"inner": {"rat": 3}})


def test_keys_know_whether_they_are_free():
  assert {key.name: key.free for key in fields.keys(Outer)} == {
    "steps": True,
    "names": False,
    "inner.rate": False,
    "aside.rate": True,
  }
  assert [key.default for key in fields.keys(Outer)] == [3, "a,b", 0.5, 0.5]


def test_classes_are_extended():
  more = fields.extended(Outer, {"other": (Inner, True), "inner": (Inner, False)})
  assert issubclass(more, Outer)
  assert more().other == Inner()
  assert fields.summary(more) == "Outer settings."
  assert fields.extended(Outer, {"inner": (Inner, False)}) is Outer
  for name in ("steps", "inner"):
    with pytest.raises(errors.InputError, match=f"'{name}' is a field of Outer already"):
      fields.extended(Outer, {name: (Outer, False)})


def test_fields_must_be_declared():
  @dataclasses.dataclass(frozen=True)
  class Bare:
    steps: int = 3

  with pytest.raises(errors.InputError, match=r"Bare\.steps: declare it by"):
    fields.parse(Bare, {})
