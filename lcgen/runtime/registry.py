"""Registries of named entries, to which built-in modules and plug-ins add."""

import contextlib
import difflib
from collections.abc import Callable, ItemsView, Iterable, Iterator
from typing import Generic, TypeVar

from lcgen.runtime import errors

Entry = TypeVar("Entry")


class Registry(Generic[Entry]):
  """Named entries, in the order of their registration.

  Args:
    kind: the word for one entry in error messages, such as "sampler".
  """

  def __init__(self, kind: str):
    self.kind = kind
    self._entries: dict[str, Entry] = {}

  def add(self, name: str, entry: Entry) -> Entry:
    """Adds an entry and returns it; adding the same object again does nothing.

    Raises:
      InputError: if the name belongs to another entry.
    """
    if self._entries.setdefault(name, entry) is not entry:
      raise errors.InputError(f"{self.kind} {name!r}: there is one of this name already; choose another name")
    return entry

  def register(self, name: str) -> Callable[[Entry], Entry]:
    """Returns a decorator that adds its object under a name."""
    return lambda entry: self.add(name, entry)

  def get(self, name: str) -> Entry:
    """Returns the entry of this name.

    Raises:
      InputError: if there is none; the message lists all names and the nearest one.
    """
    if name not in self._entries:
      raise errors.InputError(f"{name!r} is no {self.kind}{nearest(name, self)}; there are {', '.join(self)}")
    return self._entries[name]

  __getitem__ = get

  def names(self) -> tuple[str, ...]:
    """Returns all names."""
    return tuple(self._entries)

  def items(self) -> ItemsView[str, Entry]:
    """Returns all pairs of name and entry."""
    return self._entries.items()

  def __contains__(self, name: object) -> bool:
    return name in self._entries

  def __iter__(self) -> Iterator[str]:
    return iter(self.names())

  def __len__(self) -> int:
    return len(self._entries)


@contextlib.contextmanager
def temporary(*registries: Registry) -> Iterator[None]:
  """Forgets what is added to these registries inside a `with` block, for tests of plug-ins."""
  kept = [dict(one.items()) for one in registries]
  try:
    yield
  finally:
    for one, entries in zip(registries, kept, strict=True):
      one._entries = entries


def nearest(name: str, names: Iterable[str]) -> str:
  """Returns `; the nearest is NAME` for the most similar name, or an empty text."""
  found = difflib.get_close_matches(name[:100], list(names), n=1)
  return f"; the nearest is {found[0]}" if found else ""
