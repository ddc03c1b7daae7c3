"""Opens a trained run: `run = lcgen.load(workdir)`."""

from etils import epath

from lcgen.api import export
from lcgen.api.run import Run
from lcgen.api.workdir import Workdir
from lcgen.runtime import environment, places


def load(path: epath.PathLike) -> Run:
  """Opens a run that `run.py` trained: its workdir, or the `networks.safetensors` that `--stage=export` wrote.

  An export gives the same numbers, but learning needs the workdir.

  Raises:
    InputError: if the generator is not trained to its end there, or the file is no export that this version reads; if
      JAX has no devices, or computes in float64.
  """
  path = places.expanded(path, "path")
  environment.check()
  is_export = path.suffix == epath.Path(export.NAME).suffix or path.is_file()
  return Run(export.Export(path) if is_export else Workdir(path))
