"""Checkpoints by Orbax, each sealed with the digests of its files, which are verified before use."""

import functools
import hashlib
import json
import logging
from collections.abc import Mapping
from concurrent import futures
from typing import Any

import jax
from etils import epath

from lcgen.runtime import cluster, errors, files, parallel
from lcgen.runtime.version import VERSION

_log = logging.getLogger(__name__)

_SEAL = "seal.json"  # beside each checkpoint. Line 1: SHA-256 of line 2. Line 2: JSON with the digest of every file.
_KEPT = 3  # checkpoints, so that two whole ones are left if a run is killed before it seals the third


def check_place(directory: epath.PathLike) -> None:
  """Checks that Orbax can read what it writes in a folder; it takes the folder's name for a pattern.

  Raises:
    InputError: if it cannot.
  """
  if found := [character for character in "[\\" if character in str(epath.Path(directory).absolute())]:
    raise errors.InputError(
      f"{directory}: checkpoints cannot be read again from a folder with {found[0]} in its path; choose another, or "
      "rename that folder"
    )


class Checkpoints:
  """The checkpoints of one phase, `<directory>/<step>/`, each written whole or not at all.

  Saving runs in the background. A checkpoint counts once it is sealed, and as long as every file matches its digest.
  An unfinished or damaged one is skipped in favour of the one before, and written again.

  Raises:
    InputError: as `check_place`.
  """

  def __init__(self, directory: epath.PathLike):
    check_place(directory)
    self._directory = epath.Path(directory).absolute()
    self.latest = _agreed(_newest_whole(self._directory) if jax.process_index() == 0 else None)
    self._sealer = futures.ThreadPoolExecutor(1)
    self._sealing: futures.Future[None] | None = None

  @functools.cached_property
  def _checkpointer(self) -> Any:
    from orbax.checkpoint import v1 as ocp  # takes 0.3 s, which a look at a run need not wait for

    policy = ocp.training.preservation_policies.LatestN(_KEPT)
    return ocp.training.Checkpointer(self._directory, preservation_policy=policy, cleanup_tmp_directories=True)

  def save(self, step: int, state: Any, record: Mapping[str, Any]) -> None:
    """Saves a pytree of arrays and a JSON-able record beside it, in the background."""
    self._wait()
    about = {"lcgen": VERSION, "leaves": _described(state), "record": dict(record)}
    written = self._checkpointer.save_async(step, state, force=True, overwrite=True)
    self._sealing = self._sealer.submit(self._seal, written, step, about)
    self.latest = step

  @property
  def record(self) -> dict[str, Any]:
    """The record that was saved beside the newest state."""
    return self._about["record"]

  def restore(self, abstract: Any) -> Any:
    """Restores the newest state in the structure, shapes and shardings of `abstract`.

    Raises:
      InputError: if it has another structure. It names the first difference and the version that wrote the state.
    """
    about, wanted = self._about, _described(abstract)
    if about["leaves"] != wanted:
      path = min(path for path, _ in about["leaves"].items() ^ wanted.items())
      raise errors.InputError(
        f"{self._directory / str(self.latest)}, written by lcgen {about['lcgen']}: {path} is "
        f"{about['leaves'].get(path, 'not there')} and should be {wanted.get(path, 'not there')}; "
        "choose another --workdir, or that version"
      )
    return self._checkpointer.load(self.latest, abstract)

  @property
  def _about(self) -> dict[str, Any]:
    self._wait()
    return _read_seal(self._directory / str(self.latest))

  def _seal(self, written: Any, step: int, about: dict[str, Any]) -> None:
    """Waits until a state is on disk, then writes its seal."""
    folder = self._directory / str(step)
    try:
      written.result()
    except ValueError as error:  # TensorStore's error for a failed write
      raise OSError(f"{folder} could not be written: {error}") from error
    if jax.process_index() != 0:
      return
    digests = {name: _digest(folder / name) for name in _files(folder)}
    text = json.dumps(files.strict(about) | {"files": digests}, allow_nan=False)
    files.write_text(folder / _SEAL, f"{hashlib.sha256(text.encode()).hexdigest()}\n{text}")

  def _wait(self) -> None:
    if self._sealing is not None:
      self._sealing.result()
      self._sealing = None
      parallel.barrier()

  def close(self) -> None:
    """Waits until the last state is on disk."""
    self._wait()
    self._sealer.shutdown()
    if "_checkpointer" in vars(self):
      self._checkpointer.close()

  def __enter__(self) -> "Checkpoints":
    return self

  def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, *_) -> None:
    if error is None or not cluster.is_of_lost(error):  # to wait for a lost process would never end
      self.close()


def abstract(state: Any, sharding: jax.sharding.Sharding) -> Any:
  """Gives the shapes, types and sharding of a state, for `Checkpoints.restore`."""
  return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), state)


def _agreed(step: int | None) -> int | None:
  """Gives every process the step that the first one has found. Collective."""
  found = parallel.of_first(-1 if step is None else step)
  return None if found < 0 else found


def _described(state: Any) -> dict[str, str]:
  """Gives type and shape of every leaf by its path."""
  named = functools.partial(jax.tree_util.keystr, simple=True, separator="/")
  return {named(path): f"{leaf.dtype}{[*leaf.shape]}" for path, leaf in jax.tree.leaves_with_path(state)}


def _newest_whole(directory: epath.Path) -> int | None:
  """Finds the newest step whose files all match their digests."""
  steps = [int(path.name) for path in directory.iterdir() if path.name.isdecimal()] if directory.exists() else []
  for step in sorted(steps, reverse=True):
    damage = _damage(directory / str(step))
    if damage is None:
      return step
    _log.warning("%s is passed over: %s", directory / str(step), damage)
  return None


def _damage(folder: epath.Path) -> str | None:
  """Says what is wrong with a checkpoint; None if nothing is."""
  if not (folder / _SEAL).exists():
    return "it was not finished"
  try:
    digests = _read_seal(folder)["files"]
  except ValueError:
    return f"{_SEAL} is damaged"
  for name, digest in digests.items():
    if not (folder / name).exists():
      return f"{name} is missing"
    if _digest(folder / name) != digest:
      return f"{name} is damaged"
  return None


def _read_seal(folder: epath.Path) -> dict[str, Any]:
  """Reads a checkpoint's seal; raises a ValueError if it is damaged."""
  digest, _, text = (folder / _SEAL).read_bytes().partition(b"\n")
  if digest != hashlib.sha256(text).hexdigest().encode():
    raise ValueError(f"{folder / _SEAL} is damaged")
  return json.loads(text)


def _files(folder: epath.Path) -> list[str]:
  """Lists all files in a checkpoint's folder but the seal, relative to it."""
  found = ((epath.Path(place), name) for place, _, names in folder.walk() for name in names)
  return sorted(str((place / name).relative_to(folder)) for place, name in found if name != _SEAL)


def _digest(path: epath.Path) -> str:
  with path.open("rb") as file:
    return hashlib.file_digest(file, "sha256").hexdigest()
