"""Registries: what they hold, and how they refuse."""

import re

import pytest

from lcgen.runtime import errors
from lcgen.runtime.registry import Registry, temporary


@pytest.fixture
def tools():
  registry = Registry("tool")
  registry.add("hammer", "h")
  registry.add("saw", "s")
  return registry


def test_entries_keep_their_order(tools):
  @tools.register("drill")
  def drill():
    pass

  assert tools.names() == tuple(tools) == ("hammer", "saw", "drill")
  assert (tools["drill"], tools.get("saw"), len(tools)) == (drill, "s", 3)
  assert dict(tools.items()) == {"hammer": "h", "saw": "s", "drill": drill}
  assert "saw" in tools
  assert "axe" not in tools


@pytest.mark.parametrize("name", ["hamer", "x" * 10_000])
def test_an_unknown_name_is_refused_with_all_names(tools, name):
  with pytest.raises(errors.InputError, match=r"is no tool.*; there are hammer, saw$"):
    tools[name]


def test_the_nearest_name_is_said(tools):
  with pytest.raises(errors.InputError, match=re.escape("'hamer' is no tool; the nearest is hammer; there are")):
    tools.get("hamer")


def test_a_second_entry_of_a_name_is_refused(tools):
  assert tools.add("saw", tools["saw"]) == "s"
  with pytest.raises(errors.InputError, match="tool 'saw': there is one of this name already"):
    tools.add("saw", "another")
  assert tools["saw"] == "s"


def test_registrations_for_a_while_are_forgotten(tools):
  def fail():
    with temporary(tools):
      tools.add("drill", "d")
      assert tools.names() == ("hammer", "saw", "drill")
      raise ZeroDivisionError

  with pytest.raises(ZeroDivisionError):
    fail()
  with temporary(tools):
    tools.add("drill", "another")
  assert tools.names() == ("hammer", "saw")
