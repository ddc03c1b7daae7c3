"""Runs an experiment: python run.py --config=configs/mnist5k.py --workdir=runs/mnist5k [--config.key=value ...]"""

import logging
import pathlib
import sys
from collections.abc import Sequence

from absl import app, flags
from absl import logging as absl_logging
from etils import epath
from ml_collections import config_flags

from lcgen import config, sweeps
from lcgen.cli import pipeline
from lcgen.runtime import errors, exit_codes, interruption, parallel

_DEFAULT = pathlib.Path(__file__).parent / "configs" / "mnist5k.py"
_CONFIG = config_flags.DEFINE_config_file(
  "config", None, "Config file; a variant follows a colon; default: mnist5k.py."
)
_WORKDIR = flags.DEFINE_string("workdir", None, "Where everything goes; by default runs/ and the config's name.")
_STAGE = flags.DEFINE_string("stage", "all", ", ".join(pipeline.STAGES) + ".")
_SWEEP = flags.DEFINE_integer("sweep_index", None, "Which point of the config file's sweep() to run, from 0.")
_MULTIHOST = flags.DEFINE_bool("multihost", False, "Join the cluster that JAX detects.")
_COORDINATOR = flags.DEFINE_string("coordinator", None, "Address and port of process 0, where none is detected.")
_PROCESSES = flags.DEFINE_integer("num_processes", None, "Processes, with --coordinator.")
_PROCESS = flags.DEFINE_integer("process_id", None, "Which of them this is, from 0.")
_TIMEOUT = flags.DEFINE_integer("initialization_timeout", 300, "Seconds that processes wait for each other.")


def _parse(argv: Sequence[str]) -> list[str]:
  # The default stands here and not in the flag, which would read it, and fail, before its errors can be caught.
  if not any(argument.lstrip("-").partition("=")[0] == "config" for argument in argv[1:]):
    argv = [argv[0], f"--config={_DEFAULT}", *argv[1:]]
  try:
    rest = flags.FLAGS(argv)
    _CONFIG.value.to_dict()  # a config file that is not there is only missed when it is asked for
    return rest
  except (flags.Error, OSError, ValueError) as error:
    return _refuse(str(error).strip().splitlines()[-1].strip())
  except (AttributeError, KeyError) as error:  # how config_flags answers a key that is not there
    key = str(error).strip("\"'")
    return _refuse(f"{key}: a --config.… flag names this key, which the config does not have; see configs/common.py")


def _refuse(reason: str) -> None:
  print(f"run.py: {reason}", file=sys.stderr)
  sys.exit(2)


def main(argv: Sequence[str]) -> None:
  logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", force=True)
  logging.getLogger("lcgen").setLevel(logging.INFO)
  # Orbax reports every file at level INFO, and at level ERROR what is raised again where it is waited for.
  absl_logging.set_verbosity(absl_logging.FATAL)
  try:
    if argv[1:]:
      raise errors.InputError(f"{argv[1]!r}: unknown argument; everything is a flag, as in --config.vae.epochs=3")
    if _STAGE.value not in pipeline.STAGES:
      raise errors.InputError(f"--stage={_STAGE.value}: unknown stage; there are {', '.join(pipeline.STAGES)}")
    given = config_flags.get_override_values(flags.FLAGS["config"])
    values = config.checked(sweeps.applied(_CONFIG.value.to_dict(), _config_file()[0], _SWEEP.value, given))
    parallel.initialize(_MULTIHOST.value, _COORDINATOR.value, _PROCESSES.value, _PROCESS.value, _TIMEOUT.value)
    workdir = epath.Path(_WORKDIR.value or f"runs/{_config_name()}")
    stop = interruption.Interruption()
    with stop.handled(values["train"]["grace_s"]):
      pipeline.run(values, workdir, _STAGE.value, stop)
  except Exception as error:
    ended = exit_codes.of(error)
    if ended is None:
      raise
    exit_codes.leave(error, *ended)


def _config_file() -> tuple[str, str]:
  """Its path and the variant, which may be empty."""
  path, _, variant = config_flags.get_config_filename(flags.FLAGS["config"]).partition(":")
  return path, variant


def _config_name() -> str:
  """`mnist` for `configs/mnist.py`, `mnist-paper` for `configs/mnist.py:paper`, `mnist-3` for point 3 of its sweep."""
  path, variant = _config_file()
  point = "" if _SWEEP.value is None else str(_SWEEP.value)
  return "-".join(filter(None, (pathlib.Path(path).stem, variant, point)))


if __name__ == "__main__":
  app.run(main, flags_parser=_parse)
