"""All networks of a run in one file, `networks.safetensors`, that needs neither the workdir nor Orbax to be read.

Arrays are float32, `[S, ...]` with a leading axis of repetitions, named by their path as in
`vae/params/decoder/Dense_0/kernel`. The header's metadata has, under `lcgen`, a JSON text: versions of the format and
of lcgen, the config, the facts of the data set, what each group of arrays is, and a digest of it all.
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

import lcgen
from lcgen import config
from lcgen.api import workdir as workdirs
from lcgen.constraints import learning
from lcgen.data import sources
from lcgen.reporting import report
from lcgen.runtime import errors, parallel
from lcgen.training import train_state as states
from lcgen.training.context import Phases

NAME = "networks.safetensors"
_FORMAT = 1  # raised where what an older version wrote can no longer be read
_LENGTH = 8  # bytes of the number that a safetensors file begins with, the length of its header
_WORDS = {
  "vae": "encoder and decoder",
  workdirs.STATISTICS: "posterior_scale: standard deviation of q(z|x), averaged; calibration: map of decoded pixel "
  "values to the data's; decoder_gain and decoder_error: amplitudes by frequency and error of decoded images",
  "actor": "G(z, y), moves latents to where a label holds; moving average of the game's",
  "critic": "D(z, y), the game's critic",
  "energy": "D(z, y), whose -log is the energy of a label; moving average",
  "judge": "scores samples; trained on real images alone",
  "classifier": "one an arm, trained on images and what the arm adds to them",
  "realism": "actor, critic and energy as above, where the condition is to look like the data",
}


def write(workdir: epath.Path) -> None:
  """Writes all networks that a workdir has so far to `networks.safetensors`, and says where.

  Raises:
    InputError: where not even the VAE is trained.
  """
  run = workdirs.Workdir(workdir)
  trained = [name for name in workdirs.names(run.values) if name == "vae" or run.has(name)]
  arrays: dict[str, np.ndarray] = {}
  for name in trained:
    arrays |= _by_path(name, parallel.fetch(run.read(name)))
  about = {
    "format": _FORMAT,
    "lcgen": lcgen.__version__,
    "config": run.values,
    "facts": dataclasses.asdict(run.phases.facts),
    "networks": trained,
    "groups": {group: _WORDS[group] for group in dict.fromkeys(name.partition("/")[0] for name in trained)},
  }
  # One key alone: safetensors writes several in an order that changes.
  metadata = {"lcgen": json.dumps(about | {"sha256": _digest(about, arrays)})}
  report.write_bytes(workdir / NAME, safetensors_numpy.save(arrays, metadata))
  if jax.process_index() == 0:
    print(f"{len(arrays)} arrays of {', '.join(trained)}: {workdir / NAME}")


class Export:
  """What `write` has written, as `stored.Workdir` has it.

  Args:
    path: of the file.

  Raises:
    InputError: where it is not there, is no such file, is damaged, or was written by another version of lcgen.
  """

  def __init__(self, path: epath.Path):
    self._path = path
    self._about, self._arrays = _read(path)
    try:
      self.values = config.checked(self._about["config"])
    except ValueError as error:
      raise self._refused(f"its config is not one of this version, {lcgen.__version__} ({error})") from error
    self.values["train"]["seed_axis"] = 0  # that of the machine that trained need not fit this one's devices
    self.phases = Phases(self.values, sources.Facts(**self._about["facts"]))

  def has(self, name: str) -> bool:
    """Whether the file has one of `stored.names`."""
    return name in self._about["networks"]

  def read(self, name: str) -> Any:
    """Variables of one of `stored.names`, `[S, ...]`.

    Raises:
      InputError: where the file lacks it, or has it in other shapes.
    """
    if not self.has(name):
      raise self._refused(f"{name} had not been trained; it has {', '.join(self._about['networks'])}")
    abstract = workdirs.abstract(self.phases, name)
    wanted, found = _by_path(name, abstract), {key for key in self._arrays if key.startswith(f"{name}/")}
    for key in sorted(wanted.keys() | found):
      shapes = [group[key].shape if key in group else "not there" for group in (self._arrays, wanted)]
      if shapes[0] != shapes[1]:
        raise self._refused(f"{key} is {shapes[0]} and should be {shapes[1]}")
    arrays = [self._arrays[key] for key in wanted]
    return parallel.put(jax.tree.unflatten(jax.tree.structure(abstract), arrays), parallel.per_seed(self.phases.mesh))

  def learner(self, frozen: states.Frozen) -> learning.Learner:
    """Nothing can be learnt here: what has been learnt is kept in a workdir, and needs training images."""
    del frozen
    raise self._refused("it has networks and no place to learn others; load the workdir instead")

  def _refused(self, reason: str) -> errors.InputError:
    return errors.InputError(f"{self._path}, written by lcgen {self._about['lcgen']}: {reason}")


def _read(path: epath.Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
  """Metadata and arrays of a file, as they were written."""
  if not path.exists():
    raise errors.InputError(f"{path} is not there; --stage=export writes it")
  content = path.read_bytes()
  try:
    arrays = safetensors_numpy.load(content)
  except (safetensors.SafetensorError, KeyError) as error:  # the latter for types that NumPy lacks
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
      f"{path} has format {about['format']}, written by lcgen {about['lcgen']}; this version, {lcgen.__version__}, "
      f"reads format {_FORMAT}"
    )
  return about, arrays


def _by_path(name: str, tree: Any) -> dict[str, Any]:
  """The leaves of a network by their paths."""
  path = functools.partial(jax.tree_util.keystr, simple=True, separator="/")
  return {f"{name}/{path(keys)}": leaf for keys, leaf in jax.tree.leaves_with_path(tree)}


def _digest(about: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> str:
  """Of the metadata, and of every array's name, type, shape and values; the same in every format."""
  digest = hashlib.sha256(json.dumps(about).encode())
  for name, array in sorted(arrays.items()):
    digest.update(f"\n{name} {array.dtype} {array.shape}\n".encode())
    digest.update(np.ascontiguousarray(array))
  return digest.hexdigest()
