"""Compares two workdirs by meaning: same arrays, same numbers, whatever the files and names around them.

  python -m benchmarks.compare_workdirs OLD NEW

Prints one line for each thing that both should hold: `equal`, or `DIFFERS` with the first place. Prints `new:` for
things that only NEW has. Exits 1 on a difference. Arrays are compared bit for bit and numbers exactly. Times and
versions are left out.
"""

import argparse
import csv
import json
import math
import pathlib
import re
import sys
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from orbax.checkpoint import v1 as ocp

# Paths that have moved: a pattern of files, a pattern of paths in OLD, and its replacement in NEW.
RENAMED: list[tuple[str, str, str]] = []

_IGNORED = {"timing", "ms_per_sample", "versions", "tables", "schema", "lcgen"}  # at any depth of a JSON file
_DIGEST = re.compile(r"-[0-9a-f]{8}(?=/|$)")  # digest of a rule's source, or of arms trained together
_ARRAYS = ("samples.npz", "sample/*.npz", "edit/*.npz", "traverse/*.npz", "rules/*/samples.npz")
_NUMBERS = ("results.json", "audit.json", "learning_curve.json", "rules/*/results.json", "checkpoints/**/rule.json")

Values = dict[str, Any]  # by their paths


def plain(name: str) -> str:
  """Removes digests from a path, because they change with the source of a rule and the list of arms."""
  return _DIGEST.sub("", name)


def arrays(path: pathlib.Path) -> Values:
  """Reads the arrays of an `.npz` file."""
  with np.load(path) as found:
    return dict(found)


def tensors(path: pathlib.Path) -> Values:
  """Reads the tensors of a safetensors file as type, shape and bytes, because NumPy lacks some types."""
  data = path.read_bytes()
  length = int.from_bytes(data[:8], "little")
  head, body = json.loads(data[8 : 8 + length]), data[8 + length :]
  head.pop("__metadata__", None)
  return {name: (one["dtype"], tuple(one["shape"]), body[slice(*one["data_offsets"])]) for name, one in head.items()}


def numbers(tree: Any, path: str = "") -> Values:
  """Collects the numbers of a JSON value by their paths; null counts as NaN, text does not count."""
  if isinstance(tree, Mapping):
    parts = [numbers(value, f"{path}/{key}".lstrip("/")) for key, value in tree.items() if key not in _IGNORED]
  elif isinstance(tree, list):
    parts = [numbers(value, f"{path}/{place}".lstrip("/")) for place, value in enumerate(tree)]
  else:
    return {} if isinstance(tree, str) else {path: math.nan if tree is None else tree}
  return {name: value for part in parts for name, value in part.items()}


def table(path: pathlib.Path) -> Values:
  """Reads the cells of `table.csv` by test set, score, arm and column."""
  with path.open(newline="") as file:
    rows = list(csv.DictReader(file))
  keys = ("test set", "score", "arm")
  return {
    "/".join([*(row[key] for key in keys), column]): float(cell) if cell else math.nan
    for row in rows
    for column, cell in row.items()
    if column not in keys
  }


def last_metrics(path: pathlib.Path) -> Values:
  """Reads the last value of each term of each phase in `metrics.jsonl`; arms trained together share a phase."""
  found: Values = {}
  for line in path.read_text().splitlines():
    record = json.loads(line)
    terms = {key: value for key, value in record.items() if key not in ("phase", "terms")} | record.get("terms", {})
    found |= numbers(terms, plain(record["phase"]))
  return found


def checkpoints(workdir: pathlib.Path) -> dict[str, Values]:
  """Reads the newest checkpoint of each phase, by phase and path; phases of one plain name are joined."""
  found: dict[str, Values] = {}
  for directory in sorted({seal.parent.parent for seal in (workdir / "checkpoints").rglob("seal.json")}):
    step = max(int(seal.parent.name) for seal in directory.glob("*/seal.json"))
    with warnings.catch_warnings(), ocp.training.Checkpointer(directory) as checkpointer:
      warnings.filterwarnings("ignore", "Sharding info not provided")  # the saved sharding is the right one
      state = checkpointer.load(step)
    leaves = found.setdefault(plain(str(directory.relative_to(workdir))), {})
    for path, leaf in {"step": np.array(step), **dict(_leaves(state))}.items():
      name = next(name for name in _numbered(path) if name not in leaves)
      leaves[name] = np.asarray(leaf)
  return found


def _numbered(path: str) -> Iterator[str]:
  yield path
  place = 2
  while True:
    yield f"{path} ({place})"
    place += 1


def _leaves(tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:
  if isinstance(tree, Mapping | list | tuple):
    for key, value in tree.items() if isinstance(tree, Mapping) else enumerate(tree):
      yield from _leaves(value, f"{path}/{key}".lstrip("/"))
  elif tree is not None:
    yield path, tree


def same(old: Any, new: Any) -> bool:
  """Tells whether two values are equal: arrays bit for bit, numbers exactly, NaN to NaN."""
  if isinstance(old, np.ndarray):
    return old.dtype == new.dtype and old.shape == new.shape and old.tobytes() == new.tobytes()
  if isinstance(old, float) and isinstance(new, float) and math.isnan(old):
    return math.isnan(new)
  return old == new


def compare(name: str, old: Values, new: Values) -> tuple[bool, list[str]]:
  """Tells whether OLD's values are in NEW, and gives the lines that say so."""
  for file, pattern, replacement in RENAMED:
    if re.fullmatch(file, name):
      old = {re.sub(pattern, replacement, path): value for path, value in old.items()}
  wrong = [path for path, value in old.items() if path not in new or not same(value, new[path])]
  if wrong:
    first = wrong[0]
    seen = _shown(new[first]) if first in new else "nothing"
    more = f", and in {len(wrong) - 1} more of {len(old)} places" if len(wrong) > 1 else ""
    line = f"DIFFERS {name} at {first}: {_shown(old[first])} became {seen}{more}"
  else:
    line = f"equal   {name}: {len(old)} values"
  return not wrong, [line, *(f"new:    {name} has {path}" for path in _only_new(old, new))]


def _shown(value: Any) -> str:
  if isinstance(value, np.ndarray):
    mean = f" with mean {value.astype(np.float64).mean():.9g}" if value.size and value.dtype.kind in "biufV" else ""
    return f"{value.dtype}{[*value.shape]}{mean}"
  if isinstance(value, tuple):
    return f"{value[0]}{[*value[1]]}"
  return repr(value)


def _only_new(old: Values, new: Values) -> list[str]:
  """Lists the shortest beginnings of NEW's paths that no path of OLD has."""
  known = {path[:end] for path in old for end in [*(at.start() for at in re.finditer("/", path)), len(path)]}
  found = []
  for path in new:
    if path not in old:
      ends = [*(at.start() for at in re.finditer("/", path)), len(path)]
      found.append(next((path[:end] for end in ends if path[:end] not in known), path))
  return list(dict.fromkeys(found))


def _things(workdir: pathlib.Path) -> dict[str, Callable[[], Values]]:
  """Gives a reader of each thing in a workdir to compare, by its name without digests."""
  readers = [
    *((pattern, arrays) for pattern in _ARRAYS),
    ("networks.safetensors", tensors),
    *((pattern, lambda path: numbers(json.loads(path.read_text()))) for pattern in _NUMBERS),
    ("table.csv", table),
    ("metrics.jsonl", last_metrics),
  ]
  found: dict[str, Callable[[], Values]] = {
    name: lambda leaves=leaves: leaves for name, leaves in checkpoints(workdir).items()
  }
  for pattern, read in readers:
    for path in sorted(workdir.glob(pattern)):
      found[plain(str(path.relative_to(workdir)))] = lambda path=path, read=read: read(path)
  return found


def compare_workdirs(old: pathlib.Path, new: pathlib.Path) -> tuple[bool, list[str]]:
  """Tells whether NEW holds all that OLD holds, and gives a line for each thing."""
  was, now = _things(old), _things(new)
  good, lines = bool(was), [] if was else [f"DIFFERS {old} holds nothing to compare"]
  for name, read in was.items():
    if name not in now:
      good = False
      lines.append(f"DIFFERS {name} is missing")
      continue
    try:
      equal, said = compare(name, read(), now[name]())
    except (ValueError, KeyError, OSError, zipfile.BadZipFile) as error:
      equal, said = False, [f"DIFFERS {name} cannot be read: {type(error).__name__}: {error}"]
    good = good and equal
    lines += said
  return good, [*lines, *(f"new:    {name}" for name in now if name not in was)]


def main(arguments: list[str] | None = None) -> int:
  """Compares and prints; returns the exit status."""
  parser = argparse.ArgumentParser(description="Compares two workdirs by meaning.")
  parser.add_argument("old", type=pathlib.Path)
  parser.add_argument("new", type=pathlib.Path)
  given = parser.parse_args(arguments)
  equal, lines = compare_workdirs(given.old, given.new)
  print(*lines, sep="\n")
  return 0 if equal else 1


if __name__ == "__main__":
  sys.exit(main())
