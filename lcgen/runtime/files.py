"""Reads and writes the files of a run: strict JSON, arrays, and the file of metrics. Each is written whole."""

import glob
import io
import json
import logging
import math
import sys
import types
import zipfile
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from etils import epath

from lcgen.runtime import errors, old_results

UNDEFINED = "undefined"  # key of a JSON file: why numbers of it are null
_NO_REASONS: Mapping[str, str] = types.MappingProxyType({})
_log = logging.getLogger(__name__)


def is_writer() -> bool:
  """Tells whether this process writes: the first of several does. One that has not loaded JAX is alone."""
  jax = sys.modules.get("jax")
  return jax is None or jax.process_index() == 0


def write_json(path: epath.Path, content: Any, reasons: Mapping[str, str] = _NO_REASONS) -> None:
  """Writes strict JSON whole or not at all; numbers that are not finite become null, see `strict`."""
  write_text(path, json.dumps(strict(content, reasons), indent=1, allow_nan=False) + "\n")


def matching(folder: epath.Path, pattern: str) -> list[epath.Path]:
  """Lists what matches a pattern in a folder, in the order of names; the folder's own name is no pattern."""
  return sorted(epath.Path(glob.escape(str(folder))).glob(pattern))


def read_json(path: epath.Path) -> Any:
  """Reads JSON of a finished run.

  Raises:
    InputError: the file is missing or cannot be read.
  """
  try:
    return json.loads(path.read_text())
  except (FileNotFoundError, NotADirectoryError) as error:
    raise errors.InputError(f"{path.parent}: there is no {path.name}; name the workdir of a finished run") from error
  except (OSError, ValueError) as error:
    raise errors.InputError(f"{path} cannot be read ({error}); run --stage=evaluate on that workdir again") from error


def strict(content: Any, reasons: Mapping[str, str] = _NO_REASONS) -> Any:
  """Replaces numbers that are not finite by None, at any depth: JSON has no NaN.

  Args:
    content: of a file. It is not changed.
    reasons: why a number can be undefined, by a key above it; the nearest key counts.

  Returns:
    The content. If numbers were replaced in a mapping, `undefined` has the reason of each, by its keys with spaces
    between them, such as "samples actor diversity".
  """
  found: dict[str, str] = {}
  plain = _strict(content, (), reasons, found)
  return plain | {UNDEFINED: plain.get(UNDEFINED, {}) | found} if found and isinstance(plain, dict) else plain


def _strict(content: Any, path: tuple[str, ...], reasons: Mapping[str, str], found: dict[str, str]) -> Any:
  """Does the work of `strict`, and adds to `found` what it has replaced."""
  if isinstance(content, Mapping):
    return {key: _strict(value, (*path, str(key)), reasons, found) for key, value in content.items()}
  if isinstance(content, list | tuple):
    return [_strict(value, path, reasons, found) for value in content]
  if not isinstance(content, float) or math.isfinite(content):
    return content
  words = "not a number" if math.isnan(content) else "infinite"
  found[" ".join(path)] = next((reasons[key] for key in reversed(path) if key in reasons), words)
  return None


def write_text(path: epath.Path, text: str) -> None:
  """Writes a text whole or not at all."""
  write_bytes(path, text.encode())


def read_arrays(path: epath.Path) -> dict[str, np.ndarray]:
  """Reads the arrays of an `.npz` of a finished run.

  Raises:
    InputError: the file is missing or cannot be read, as after a copy that was cut short.
  """
  try:
    with path.open("rb") as file, np.load(file) as arrays:
      return dict(arrays)
  except FileNotFoundError as error:
    raise errors.InputError(f"{path.parent}: there is no {path.name}; run --stage=evaluate on that workdir") from error
  except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
    raise errors.InputError(f"{path} cannot be read ({error}); run --stage=evaluate on that workdir again") from error


def write_arrays(path: epath.Path, arrays: Mapping[str, np.ndarray]) -> None:
  """Writes a compressed `.npz` whole or not at all."""
  buffer = io.BytesIO()
  np.savez_compressed(buffer, **arrays)
  write_bytes(path, buffer.getvalue())


def write_bytes(path: epath.Path, content: bytes) -> None:
  """Writes a file whole or not at all; the first of several processes does."""
  if not is_writer():
    return
  path.parent.mkdir(parents=True, exist_ok=True)
  unfinished = path.with_name(path.name + ".unfinished")
  unfinished.write_bytes(content)
  unfinished.replace(path)


class MetricsFile:
  """`metrics.jsonl`: one JSON object a line, `{"phase", "kind", "step", "epoch", "terms": {name: [one a seed]}}`.

  The terms of classifiers are nested by their arms.
  """

  def __init__(self, path: epath.Path):
    self._path = path

  def write(self, record: Mapping[str, Any]) -> None:
    """Adds a record."""
    if is_writer():
      with self._path.open("a") as file:
        file.write(json.dumps(strict(record), allow_nan=False) + "\n")

  def read(self) -> list[dict[str, Any]]:
    """Reads all records, also those of older versions.

    Skips a line that a killed run left unfinished, and lines that a crash of the machine or a full disk has spoilt.
    """
    lines = self._path.read_bytes().splitlines(keepends=True) if self._path.exists() else []
    found = [_record(line) for line in lines if line.endswith(b"\n")]
    if spoilt := found.count(None):
      _log.warning("%s: %d broken lines are passed over; the figures go without them", self._path, spoilt)
    return [record for record in found if record is not None]

  def truncate(self, phase: str, step: int) -> None:
    """Removes the records that a killed run wrote of this phase after `step`, the step it is resumed from."""
    kept = [record for record in self.read() if record["phase"] != phase or record["step"] <= step]
    write_text(self._path, "".join(json.dumps(strict(record), allow_nan=False) + "\n" for record in kept))


def _record(line: bytes) -> dict[str, Any] | None:
  """Reads a line of metrics; None if it is no record."""
  try:
    return old_results.record(json.loads(line))
  except (ValueError, AttributeError, KeyError, TypeError):
    return None
