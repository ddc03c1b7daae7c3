"""Parses expected results, texts such as `judge test accuracy > 0.95`."""

import re
from typing import NamedTuple

_FORM = re.compile(r"(?P<path>\S+(?: \S+)*) (?P<sign>[<>]) (?P<bound>-?\d+(?:\.\d+)?(?:e-?\d+)?)")


class Expectation(NamedTuple):
  """A bound of one number of `results.json`.

  Attributes:
    path: keys from the outermost to the innermost.
    more: whether the number must be above the bound, not below it.
    bound: exclusive.
  """

  path: tuple[str, ...]
  more: bool
  bound: float


def known(text: str) -> bool:
  """Tells whether a text is an expectation: a path in `results.json`, then < or >, then a number, between spaces."""
  return _FORM.fullmatch(text) is not None


def parse(text: str) -> Expectation:
  """Parses a text that is `known`."""
  parts = _FORM.fullmatch(text)
  return Expectation(tuple(parts["path"].split()), parts["sign"] == ">", float(parts["bound"]))
