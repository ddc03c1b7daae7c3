"""Declares settings: dataclass fields with a check, a sentence of help, and whether trained networks depend on them.

A settings class looks like this:

  @dataclasses.dataclass(frozen=True)
  class Langevin:
    steps: int = field(100, at_least(1), "Gradient steps from a draw of the prior to the sample.")
"""

import dataclasses
import math
import re
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple, TypeVar

from lcgen.runtime import errors, registry

Settings = TypeVar("Settings")
Choices = str | Iterable[str] | Callable[[], Iterable[str]]

MOST = 2**31 - 1
"""The largest whole number of a config: devices count in int32."""

MOST_SEED = 2**32 - 1
"""The largest seed: JAX takes 32 bits of it, and two seeds with the same bits would draw the same numbers."""

LARGEST = 3.4028234e38
"""The largest number of a config: devices compute in float32."""

_LONGEST = 200  # characters of a wrong value that an error shows
_TINIEST = 1.1754944e-38  # devices take what is smaller for 0


@dataclasses.dataclass(frozen=True)
class Check:
  """The type and the allowed values of a field.

  Attributes:
    type: of the value; an int is accepted as a float, and a text or a list as a tuple.
    holds: tells whether a value of this type is allowed.
    words: the allowed values, as in "must be WORDS"; a function if plug-ins add to them.
    meaning: converts a notation such as "all" to the value that it stands for, before the check.
    joined: whether config files and flags write a tuple as one text with commas. The parser of tuple flags refuses
      items such as `clip:share=0.5`.
    most: the largest whole number that is allowed.
    hint: what to say of a wrong value beside `words`, such as the nearest one; begins with a semicolon, or is empty.
  """

  type: type
  holds: Callable[[Any], bool]
  words: str | Callable[[], str]
  meaning: Callable[[Any], Any] = lambda value: value
  joined: bool = False
  most: int = MOST
  hint: Callable[[Any], str] = lambda value: ""

  @property
  def text(self) -> str:
    """The allowed values in words."""
    return self.words if isinstance(self.words, str) else self.words()

  def value(self, given: Any, key: str) -> Any:
    """Converts a given value and checks it.

    Raises:
      InputError: if the value is not allowed; the message starts with `config.KEY=VALUE`.
    """
    value = self.meaning(_converted(given, self.type))
    if type(value) is not self.type or not self.holds(value):
      raise errors.InputError(f"config.{key}={_shown(value)}: must be {self.text}{self.hint(value)}")
    parts = value if self.type is tuple else (value,)
    if any(type(part) is int and part > self.most for part in parts):
      raise errors.InputError(f"config.{key}={_shown(value)}: must be {self.text}, and at most {self.most}")
    narrowed = tuple(map(_narrowed, parts))
    if not self.holds(narrowed if self.type is tuple else narrowed[0]):
      raise errors.InputError(
        f"config.{key}={_shown(value)}: must be {self.text}, also as a 32-bit number, which devices round it to"
      )
    return value


def _narrowed(value: Any) -> Any:
  """Rounds a float as devices do, to 32 bits; leaves other values as they are."""
  if not isinstance(value, float):
    return value
  if not _TINIEST <= abs(value) <= LARGEST:
    return math.copysign(0.0 if abs(value) < _TINIEST else math.inf, value)
  return struct.unpack("f", struct.pack("f", value))[0]


def _converted(value: Any, kind: type) -> Any:
  if kind is float and type(value) is int and abs(value) <= LARGEST:
    return float(value)
  if kind is tuple and isinstance(value, str | list | tuple):
    parts = [value] if isinstance(value, str) else value
    return tuple(item for part in parts for item in (part.split(",") if isinstance(part, str) else [part]))
  return value


def _shown(value: Any) -> str:
  try:
    text = repr(value)
  except ValueError:  # Python writes no whole number of more than 4,300 digits
    return "a number of thousands of digits"
  return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def at_least(bound: int, most: int = MOST) -> Check:
  """Allows whole numbers of at least `bound`, and at most `most`."""
  return Check(int, lambda value: value >= bound, f"a whole number of at least {bound}", most=most)


def one_of(*choices: Choices) -> Check:
  """Allows one of these texts; a choice may also be a registry, or a function that returns texts."""
  return Check(
    str,
    lambda value: value in _listed(choices),
    lambda: f"one of {', '.join(_listed(choices))}",
    hint=lambda value: registry.nearest(str(value), _listed(choices)),
  )


def some_of(*choices: Choices, joined: bool = False) -> Check:
  """Allows one or more of these texts, each once."""
  return Check(
    tuple,
    lambda value: len(value) > 0 and _distinct(value) and all(item in _listed(choices) for item in value),
    lambda: f"one or more, each once, of {', '.join(_listed(choices))}",
    joined=joined,
    hint=lambda value: _first_hint(value, lambda item: item in _listed(choices), _nearest_of(choices)),
  )


def each(
  known: Callable[[str], bool],
  words: str | Callable[[], str],
  meaning: Callable[[Any], Any] = lambda value: value,
  joined: bool = False,
  hint: Callable[[str], str] = lambda item: "",
) -> Check:
  """Allows one or more texts, each once, that `known` accepts; `hint` says what is wrong with one that it does not."""
  holds = lambda value: len(value) > 0 and _distinct(value) and all(map(known, map(str, value)))
  return Check(tuple, holds, words, meaning, joined, hint=lambda value: _first_hint(value, known, hint))


def _nearest_of(choices: Iterable[Choices]) -> Callable[[str], str]:
  return lambda item: registry.nearest(item, _listed(choices))


def _first_hint(value: Any, known: Callable[[str], bool], hint: Callable[[str], str]) -> str:
  """Gives the hint for the first item that is not known; empty if each is, or there are none."""
  wrong = [item for item in map(str, value if isinstance(value, tuple) else ()) if not known(item)]
  return hint(wrong[0]) if wrong else ""


def _listed(choices: Iterable[Choices]) -> list[str]:
  texts = []
  for choice in choices:
    texts += [choice] if isinstance(choice, str) else choice() if callable(choice) else choice
  return texts


def _distinct(value: tuple[Any, ...]) -> bool:
  return all(item not in value[:place] for place, item in enumerate(value))  # items may be unhashable


def _is_module(name: Any) -> bool:
  return isinstance(name, str) and re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*", name) is not None


positive = Check(float, lambda value: 0 < value < float("inf"), "a finite number above 0")
non_negative = Check(float, lambda value: 0 <= value < float("inf"), "a finite number of at least 0")
share = Check(float, lambda value: 0 <= value <= 1, "a number in [0, 1]")
proper_share = Check(float, lambda value: 0 < value < 1, "a number between 0 and 1, both excluded")
decay = Check(float, lambda value: 0 <= value < 1, "a number in [0, 1)")
switch = Check(bool, lambda value: True, "True or False")
text = Check(str, lambda value: True, "a text")
name = Check(str, lambda value: value != "", "a text that is not empty")
widths = Check(
  tuple, lambda value: len(value) > 0 and all(type(w) is int and w > 0 for w in value), "positive whole numbers"
)
counts = Check(tuple, lambda value: all(type(n) is int and n > 0 for n in value), "whole numbers of at least 1")
shares = Check(
  tuple,
  lambda value: len(value) > 0 and _distinct(value) and all(type(s) in (int, float) and 0 < s <= 1 for s in value),
  "one or more numbers, each once, above 0 and at most 1",
)
modules = Check(
  tuple,
  lambda value: _distinct(value) and all(map(_is_module, value)),
  "names of modules, each once, such as my_sampler",
)


def field(default: Any, check: Check, help: str = "", free: bool = False) -> Any:
  """Declares a field of a settings class.

  Args:
    default: its value if a config does not set it.
    check: its type and allowed values.
    help: a sentence, under 120 characters.
    free: whether it may change between two commands on one workdir, because no trained network depends on it.
  """
  if not isinstance(check, Check):
    raise errors.InputError(f"field({default!r}, {check!r}): the second argument must be a check of runtime/fields.py")
  return dataclasses.field(default=default, metadata={"check": check, "help": help, "free": free})


def section(settings: type, free: bool = False) -> Any:
  """Declares a field that holds settings of its own; `free` applies to all of its fields."""
  return dataclasses.field(default_factory=settings, metadata={"section": settings, "free": free})


def extended(settings: type, sections: Mapping[str, tuple[type, bool]]) -> type:
  """Returns a subclass of a settings class with further sections.

  Args:
    settings: the class.
    sections: settings class of each section by its name, and whether it is free. A section that exists already is
      replaced if the new settings are a subclass of its own.

  Raises:
    InputError: if the class has another field of this name.
  """
  known = {one.name: one.metadata.get("section") for one in dataclasses.fields(settings)}
  for label, (own, _) in sections.items():
    if label in known and (known[label] is None or not issubclass(own, known[label])):
      raise errors.InputError(f"{label!r} is a field of {settings.__name__} already; register it by another name")
  new = [(label, own, section(own, free)) for label, (own, free) in sections.items() if own is not known.get(label)]
  if not new:
    return settings
  namespace = {"__doc__": settings.__doc__, "__module__": settings.__module__}
  return dataclasses.make_dataclass(settings.__name__, new, bases=(settings,), namespace=namespace, frozen=True)


def summary(settings: type) -> str:
  """Returns the first line of a settings class's docstring."""
  return (settings.__doc__ or "").strip().partition("\n")[0]


class Key(NamedTuple):
  """A declared key: its dotted name, its field, the settings class that has it, and whether it is free."""

  name: str
  field: dataclasses.Field
  owner: type
  free: bool

  @property
  def check(self) -> Check:
    return self.field.metadata["check"]

  @property
  def default(self) -> Any:
    """The default in the notation of config files and flags."""
    return ",".join(self.field.default) if self.check.joined else self.field.default


def keys(settings: type, prefix: str = "", free: bool = False) -> Iterator[Key]:
  """Yields every declared key, depth first, in declared order."""
  for one in _fields(settings):
    own = free or one.metadata["free"]
    if nested := one.metadata.get("section"):
      yield from keys(nested, f"{prefix}{one.name}.", own)
    else:
      yield Key(prefix + one.name, one, settings, own)


def _fields(settings: type) -> tuple[dataclasses.Field, ...]:
  found = dataclasses.fields(settings)
  for one in found:
    if not one.metadata.keys() & {"check", "section"}:
      raise errors.InputError(f"{settings.__name__}.{one.name}: declare it by lcgen.runtime.fields.field(...)")
  return found


def parse(
  settings: type[Settings], values: Mapping[str, Any], prefix: str = "", renamed: Mapping[str, str] | None = None
) -> Settings:
  """Builds settings from nested mappings; a missing field takes its default.

  Args:
    settings: the class.
    values: by field name.
    prefix: of the dotted keys in errors, such as "vae.".
    renamed: new names of renamed keys, for errors.

  Raises:
    InputError: if a key is unknown, of the wrong type or out of range. It names the key and the allowed values.
  """
  declared = {one.name: one for one in _fields(settings)}
  for key in values:
    if key not in declared:
      raise unknown(f"{prefix}{key}", declared, renamed)
  result = {}
  for key, given in values.items():
    path = prefix + key
    if (nested := declared[key].metadata.get("section")) is None:
      result[key] = declared[key].metadata["check"].value(given, path)
    elif isinstance(given, Mapping):
      result[key] = parse(nested, given, f"{path}.", renamed)
    else:
      names = ", ".join(sorted(one.name for one in dataclasses.fields(nested)))
      raise errors.InputError(f"config.{path}={_shown(given)}: must be a section with {names}")
  return settings(**result)


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
  """Returns `{"vae.epochs": 3, ...}` for nested mappings."""
  result = {}
  for key, value in values.items():
    result |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value}
  return result


def unknown(
  path: str, there: Iterable[str], renamed: Mapping[str, str] | None = None, near: str = ""
) -> errors.InputError:
  """Builds the error for an unknown key. It gives the new name, or else the nearest and all names of the section.

  Args:
    path: dotted name of the key, in full.
    there: names in the section.
    renamed: new names of renamed keys.
    near: words on the nearest key, if it may lie in another section.
  """
  if renamed and path in renamed:
    return errors.InputError(f"config.{path}: is called config.{renamed[path]} now; write that")
  names = sorted(there)
  near = near or registry.nearest(path.rpartition(".")[2], names)
  listed = f"; there are {', '.join(names)}" if names else ""
  return errors.InputError(f"config.{path[:_LONGEST]}: unknown key{near}{listed}")
