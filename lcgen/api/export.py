"""Writes all networks of a run to one file, `networks.safetensors`, and reads them without workdir or Orbax.

Arrays are float32 with a leading seed axis, `[S, ...]`. Each is named by its path, as in
`vae/params/decoder/Dense_0/kernel`. The header's metadata has a JSON text under `lcgen`. It holds the versions of the
format and of lcgen, the config, the facts of the data set, the networks, the meaning of each group of arrays, and a
digest of all of this.
"""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import safetensors
from etils import epath
from safetensors import numpy as safetensors_numpy

from lcgen import config as configs
from lcgen.api import build
from lcgen.api import workdir as workdirs
from lcgen.api.run import GENERATOR
from lcgen.constraints import learning
from lcgen.constraints.mixture import Mixture, trimmed
from lcgen.constraints.settings import ConstraintSettings
from lcgen.data import sources
from lcgen.generator.frozen import Frozen
from lcgen.runtime import errors, files, parallel, places
from lcgen.runtime.version import VERSION

NAME = "networks.safetensors"
_FORMAT = 1  # raised when older files can no longer be read
_LENGTH = 8  # bytes at the start of a safetensors file, which hold the length of its header
_WORDS = {
  GENERATOR: "the generator: of a VAE encoder and decoder",
  workdirs.STATISTICS: "posterior_scale: standard deviation of q(z|x), averaged; calibration: map of decoded pixel "
  "values to the data's; decoder_gain and decoder_error: amplitudes by frequency and error of decoded images",
  "actor": "G(z, y), moves latents to where a label holds; moving average of the game's",
  "critic": "D(z, y), the game's critic",
  "energy": "D(z, y), whose -log is the energy of a label; moving average",
  "judge": "scores samples; trained on real images alone",
  "classifier": "one an arm, trained on images and what the arm adds to them",
  "realism": "actor, critic and energy as above, where the condition is to look like the data",
  workdirs.MIXTURE: "density of latents of each class: weights, means, and covariances by eigenvectors and eigenvalues",
}


def write(workdir: epath.Path) -> None:
  """Writes the networks that are trained so far in a workdir to its `networks.safetensors`, and prints where.

  Raises:
    InputError: if not even the generator is trained.
  """
  workdir = places.expanded(workdir, "workdir")
  run = workdirs.Workdir(workdir)
  trained = [name for name in workdirs.names(run.config) if run.has(name)]
  arrays: dict[str, np.ndarray] = {}
  for name in trained:
    arrays |= _by_path(name, parallel.fetch(run.read(name)))
  about = {
    "format": _FORMAT,
    "lcgen": VERSION,
    "config": configs.to_dict(run.config),
    "facts": dataclasses.asdict(run.context.facts),
    "networks": trained,
    "groups": {group: _WORDS[group] for group in dict.fromkeys(name.partition("/")[0] for name in trained)},
  }
  # There is only one key, because safetensors writes several in a changing order.
  metadata = {"lcgen": json.dumps(about | {"sha256": _digest(about, arrays)}, allow_nan=False)}
  files.write_bytes(workdir / NAME, safetensors_numpy.save(arrays, metadata))
  if jax.process_index() == 0:
    print(f"{len(arrays)} arrays of {', '.join(trained)}: {workdir / NAME}")


class Export:
  """An export, with the interface of `workdir.Workdir`.

  Args:
    path: the file.

  Raises:
    InputError: if the file is missing, damaged or no export, or if this version of lcgen cannot read it.
  """

  def __init__(self, path: epath.Path):
    path = places.expanded(path, "path")
    self._path = path
    self._about, self._arrays = _read(path)
    try:
      config = configs.stored(self._about["config"])
    except ValueError as error:
      raise self._refused(f"its config is not one of this version, {VERSION} ({error})") from error
    # The mesh of the machine that trained need not fit this one's devices.
    self.config = dataclasses.replace(config, train=dataclasses.replace(config.train, seed_axis=0))
    self.context = build.context(self.config, sources.Facts(**self._about["facts"]))

  def has(self, name: str) -> bool:
    """Tells whether the file has a network, one of `workdir.names`."""
    return name in self._about["networks"]

  def read(self, name: str) -> Any:
    """Reads the variables of one of `workdir.names`, `[S, ...]`.

    Raises:
      InputError: if the file lacks them, or has them in other shapes.
    """
    if not self.has(name):
      raise self._refused(f"{name} had not been trained; it has {', '.join(self._about['networks'])}")
    abstract = workdirs.abstract(self.context, self.config, name)
    wanted, found = _by_path(name, abstract), {key for key in self._arrays if key.startswith(f"{name}/")}
    for key in sorted(wanted.keys() | found):
      shapes = [group[key].shape if key in group else "not there" for group in (self._arrays, wanted)]
      if shapes[0] != shapes[1]:
        raise self._refused(f"{key} is {shapes[0]} and should be {shapes[1]}")
    arrays = [self._arrays[key] for key in wanted]
    return parallel.put(jax.tree.unflatten(jax.tree.structure(abstract), arrays), parallel.per_seed(self.context.mesh))

  @functools.cached_property
  def constraint(self) -> ConstraintSettings:
    """Settings that constraints were learnt with."""
    return build.constraint(self.config)

  def learner(self, frozen: Frozen) -> learning.Learner:
    """Refuses, because learning needs training images, and a workdir for the networks."""
    del frozen
    raise self._refused("it has networks and no place to learn others; load the workdir instead")

  def mixture(self, frozen: Frozen) -> Mixture:
    """Reads the mixture of each class, `[S, ...]`.

    Raises:
      InputError: if the workdir had none when the file was written.
    """
    del frozen
    if not self.has(workdirs.MIXTURE):
      raise self._refused("it has no mixture of each class; draw by it from the workdir once, and export that again")
    return trimmed(self.read(workdirs.MIXTURE))

  def _refused(self, reason: str) -> errors.InputError:
    return errors.InputError(f"{self._path}, written by lcgen {self._about['lcgen']}: {reason}")


def _read(path: epath.Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
  """Reads metadata and arrays of a file, and checks their digest."""
  if not path.exists():
    raise errors.InputError(f"{path} is not there; --stage=export writes it")
  content = path.read_bytes()
  try:
    arrays = safetensors_numpy.load(content)
  except (safetensors.SafetensorError, KeyError) as error:  # KeyError: a type that NumPy lacks
    raise errors.InputError(f"{path} is damaged, or no safetensors file with arrays of NumPy ({error})") from error
  header = json.loads(content[_LENGTH : _LENGTH + int.from_bytes(content[:_LENGTH], "little")])
  if "lcgen" not in header.get("__metadata__", {}):
    raise errors.InputError(f"{path} is not an export of lcgen; --stage=export writes one")
  damaged = errors.InputError(f"{path} is damaged; write it again by --stage=export, or copy it again")
  try:
    about = json.loads(header["__metadata__"]["lcgen"])
    digest = about.pop("sha256")
  except (ValueError, KeyError) as error:
    raise damaged from error
  if digest != _digest(about, arrays):
    raise damaged
  if about["format"] != _FORMAT:
    raise errors.InputError(
      f"{path} has format {about['format']}, written by lcgen {about['lcgen']}; this version, {VERSION}, "
      f"reads format {_FORMAT}"
    )
  return about, arrays


def _by_path(name: str, tree: Any) -> dict[str, Any]:
  """Names the leaves of a network by their paths."""
  path = functools.partial(jax.tree_util.keystr, simple=True, separator="/")
  return {f"{name}/{path(keys)}": leaf for keys, leaf in jax.tree.leaves_with_path(tree)}


def _digest(about: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> str:
  """Computes a digest of the metadata and of every array's name, type, shape and values."""
  digest = hashlib.sha256(json.dumps(about, allow_nan=False).encode())
  for name, array in sorted(arrays.items()):
    digest.update(f"\n{name} {array.dtype} {array.shape}\n".encode())
    digest.update(np.ascontiguousarray(array))
  return digest.hexdigest()
