"""Reads, checks and explains the flags of run.py, without JAX, so that --help and mistakes answer at once."""

import dataclasses
import pathlib
import sys
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

from absl import flags
from etils import epath
from ml_collections import config_flags

from lcgen import config
from lcgen.runtime import errors, fields

STAGES = (
  *(
    "all",
    "vae",
    "generator",
    "actor_critic",
    "classifier",
    "evaluate",
    "audit",
    "learning_curve",
    "data",
    "report",
    "export",
  ),
  *("verify", "inspect", "benchmark", "sample", "edit", "traverse"),
)
GENERATOR = "vae"  # stage of phase 1 with any generator; `--stage=generator` is the same
ASIDE = ("audit", "learning_curve")  # stages that leave the run's own results as they are
# Stages that use a finished run: without --config they take the config from the workdir.
USING = ("sample", "edit", "traverse", "report", "export", "verify", *ASIDE)
# Stages that learn realism or a rule, where one is given: a finished run lends its generator.
_LEARNING = ("all", "actor_critic", "evaluate")
_HELP = ("help", "helpshort", "helpfull", "h", "?")


@dataclasses.dataclass(frozen=True)
class Request:
  """The run that the flags ask for.

  Attributes:
    config: the checked config.
    workdir: folder of the run.
    stage: one of `STAGES`; `generator` has become `GENERATOR`.
    cluster: arguments of `cluster.initialize`.
  """

  config: config.Config
  workdir: epath.Path
  stage: str
  cluster: tuple[Any, ...]


class Flags:
  """The flags of run.py.

  Args:
    usage: first lines of the help.
    default: the config file to use without --config.
  """

  def __init__(self, usage: str, default: pathlib.Path):
    self._usage, self._default, self._from_file = usage, default, False
    self._without = False
    _with_flag_files(sys.argv)  # the next line reads these files too, and lets their errors through
    self._config = config_flags.DEFINE_config_file(
      "config", None, f"Config file; a variant follows a colon; default: {default.name}."
    )
    self._workdir = flags.DEFINE_string("workdir", None, "Folder of the run; default: runs/ and the config's name.")
    self._stage = flags.DEFINE_string("stage", "all", f"One of {', '.join(STAGES)}.")
    self._sweep = flags.DEFINE_integer("sweep_index", None, "Point of the config file's sweep() to run, from 0.")
    self._cluster = (
      flags.DEFINE_bool("multihost", False, "Join the cluster that JAX detects."),
      flags.DEFINE_string("coordinator", None, "Address and port of process 0, if JAX detects none."),
      flags.DEFINE_integer("num_processes", None, "Number of processes, with --coordinator."),
      flags.DEFINE_integer("process_id", None, "Number of this process, from 0."),
      flags.DEFINE_integer("initialization_timeout", 300, "Seconds that processes wait for each other."),
    )

  def parse(self, argv: Sequence[str]) -> list[str]:
    """Parses the flags, and returns the other arguments.

    Prints the help and exits if a flag asks for it. Exits with a message if a flag is wrong.
    """
    argv = _with_flag_files(argv)
    try:
      config.load_plugins(_plugins(argv))  # before the config file, whose sections come from them
      given = dict(_given(argv))
      self._without = given.get("config.plugins") == ""  # an empty list goes without the plug-ins of a finished run
      if "workdir" in given and "config" not in given:
        self._read(epath.Path(given["workdir"]))  # loads the plug-ins that the run was made with
      if any(argument.startswith("-") and argument.lstrip("-") in _HELP for argument in argv[1:]):
        print(self._help())
        sys.exit(0)
      # A default of the flag itself would be read, and could fail, before its errors can be caught here.
      self._from_file = any(name == "config" for name, _ in _given(argv))
      if not self._from_file:
        argv = [argv[0], f"--config={self._default}", *argv[1:]]
      rest = flags.FLAGS(argv)
      self._config.value.to_dict()  # raises if the config file is missing, which nothing has noticed yet
      return rest
    except (flags.Error, OSError, ValueError) as error:
      return refuse(str(error).strip().splitlines()[-1].strip())
    except (AttributeError, KeyError) as error:  # config_flags raises these for an unknown key
      return refuse(_unknown(argv) or str(error))

  def request(self, rest: Sequence[str]) -> Request:
    """Checks the parsed flags; returns the run that they ask for, or exits with a message if a value is wrong.

    Args:
      rest: from `parse`.
    """
    try:
      if rest[1:]:
        raise errors.InputError(f"{rest[1]!r}: unknown argument; everything is a flag, as in --config.vae.epochs=3")
      stage = self._stage.value
      if stage not in STAGES:
        raise errors.InputError(f"--stage={stage}: unknown stage; there are {', '.join(STAGES)}")
      file, _, variant = config_flags.get_config_filename(flags.FLAGS["config"]).partition(":")
      # `mnist` for configs/mnist.py, `mnist-paper` for configs/mnist.py:paper, `mnist-3` for point 3 of its sweep.
      point = "" if self._sweep.value is None else str(self._sweep.value)
      name = "-".join(filter(None, (pathlib.Path(file).stem, variant, point)))
      workdir = epath.Path(self._workdir.value or f"runs/{name}")
      checked = self._checked(workdir, stage, file)
    except errors.InputError as error:
      return refuse(str(error))
    stage = GENERATOR if stage == "generator" else stage
    return Request(checked, workdir, stage, tuple(flag.value for flag in self._cluster))

  def _checked(self, workdir: epath.Path, stage: str, file: str) -> config.Config:
    """Returns the config of the run: the workdir's if the stage uses a finished run, else the config file's."""
    given = config_flags.get_override_values(flags.FLAGS["config"])
    learns = stage in _LEARNING and given.get("constraint", "labels") != "labels"
    if (stage in USING or learns) and not self._from_file and self._sweep.value is None:
      known = self._read(workdir)
      if known is not None:
        changed = config.changed(known, given)
        return dataclasses.replace(changed, plugins=tuple(dict.fromkeys((*known.plugins, *changed.plugins))))
    values = config.sweep_point(self._config.value.to_dict(), file, self._sweep.value, given)
    checked = config.parse(values)
    return dataclasses.replace(checked, plugins=config.load_plugins(()))  # those of the config file and of the flag

  def _read(self, workdir: epath.Path) -> config.Config | None:
    """Reads the config of a workdir, with its plug-ins unless the flag gives an empty list."""
    return config.read(workdir, () if self._without else None)

  def _help(self) -> str:
    lines = [self._usage, "", "Flags:"]
    for flag in (self._config, self._workdir, self._stage, self._sweep, *self._cluster):
      lines += textwrap.wrap(f"--{flag.name}: {flags.FLAGS[flag.name].help}", 100, subsequent_indent=" " * 6)
    return "\n".join([*lines, "", "Every key of the config is a flag:", "", config.help_text()])


def refuse(reason: str) -> NoReturn:
  """Prints a message and exits with the code of wrong input."""
  print(f"run.py: {reason}", file=sys.stderr)
  sys.exit(2)


def _with_flag_files(argv: Sequence[str]) -> list[str]:
  """Puts the flags that stand in a file in the place of `--flagfile=FILE`; those of the config are flags as others."""
  try:
    return [*argv[:1], *flags.FLAGS.read_flags_from_files(list(argv[1:]))]
  except (flags.Error, UnicodeDecodeError) as error:
    return refuse(f"--flagfile: {str(error).removeprefix('ERROR:: ')}; name a file with one flag a line")


def _given(argv: Sequence[str]) -> Iterator[tuple[str, str]]:
  """Yields name and value of each flag, written as one argument or as two."""
  for argument, following in zip(argv[1:], [*argv[2:], ""], strict=False):  # without flags there is nothing
    name, sign, value = argument.lstrip("-").partition("=")
    yield name, value if sign else following


def _plugins(argv: Sequence[str]) -> tuple[str, ...]:
  given = [value for name, value in _given(argv) if name == "config.plugins"]
  names = given[-1].translate(str.maketrans("", "", "()[]'\" ")).strip(",") if given else ""
  return fields.modules.value(names, "plugins") if names else ()


def _unknown(argv: Sequence[str]) -> str | None:
  """Returns the message for the first flag whose key the config does not have; None if there is none."""
  for name, _ in _given(argv):
    if not name.startswith("config."):
      continue
    path, there = "", config.defaults()
    for part in name.removeprefix("config.").split("."):
      path = f"{path}.{part}".lstrip(".")
      if not isinstance(there, dict) or part not in there:
        return str(fields.unknown(path, there if isinstance(there, dict) else (), config.RENAMED))
      there = there[part]
  return None
