"""Keeps the digests of a workdir's data in its `data.json`, and refuses other data.

The first stage that trains records the data set; a test set is recorded when it is first scored on. A workdir without
a record, as older versions made them, gets one from the data that it is used with next.
"""

from collections.abc import Mapping
from typing import Any

from etils import epath

from lcgen.data import digests
from lcgen.data.dataset import Dataset, Split
from lcgen.runtime import errors, files

NAME = "data.json"
_SETS = "test_sets"  # key of the test sets beside the data set
_WORDS = {"train": "training", "validation": "validation", "test": "test"}


def check(workdir: epath.Path, data: Dataset) -> dict[str, Any]:
  """Checks that a data set is the one that a workdir was made with; returns its digests, for `record`.

  Raises:
    InputError: if it is another one. It names what differs.
  """
  found, known = digests.of_dataset(data), _read(workdir)
  differing = _differing_names(known, data.class_names)
  for name in digests.SPLITS:
    if parts := _differing(known.get(name, {}), found[name]):
      differing.append(f"{parts} of the {_WORDS[name]} set")
  if differing:
    raise _refused(workdir, differing)
  return found


def record(workdir: epath.Path, found: Mapping[str, Any]) -> None:
  """Records digests in a workdir, beside those of other test sets."""
  known = _read(workdir)
  if known != (known | found):
    files.write_json(workdir / NAME, known | found)


def confirm(workdir: epath.Path, data: Dataset) -> Dataset:
  """Checks and records a data set; returns it."""
  record(workdir, check(workdir, data))
  return data


def confirm_set(workdir: epath.Path, name: str, split: Split) -> None:
  """Checks and records the images of a published test set.

  Raises:
    InputError: if the workdir has been scored on other images under this name.
  """
  known, found = _read(workdir).get(_SETS, {}), digests.of_split(split)
  if parts := _differing(known.get(name, {}), found):
    raise _refused(workdir, [f"{parts} of the test set {name}"])
  record(workdir, {_SETS: known | {name: found}})


def _read(workdir: epath.Path) -> dict[str, Any]:
  """Reads the record; a workdir in which nothing is trained may get other data."""
  path = workdir / NAME
  return files.read_json(path) if path.exists() and (workdir / "checkpoints").exists() else {}


def _differing(known: Mapping[str, str], found: Mapping[str, str]) -> str:
  """Names the parts of a split that differ from a record; a record that lacks the split differs in nothing."""
  return " and ".join(part for part in found if known and known.get(part) != found[part])


def _differing_names(known: Mapping[str, Any], names: tuple[str, ...]) -> list[str]:
  before = known.get("class_names", list(names))
  for place, (old, new) in enumerate(zip(before, names, strict=False)):
    if old != new:
      return [f"the class of label {place} (it was {old!r} and is {new!r})"]
  return [f"the number of classes (it was {len(before)} and is {len(names)})"] if len(before) != len(names) else []


def _refused(workdir: epath.Path, differing: list[str]) -> errors.InputError:
  return errors.InputError(
    f"--workdir={workdir}: was made with other data: {', '.join(differing)} differ; give it the data that it had, or "
    "choose another --workdir"
  )
