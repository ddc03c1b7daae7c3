"""Reads, checks and explains the flags of run.py, without JAX, so that --help and mistakes answer at once."""

import dataclasses
import importlib.util
import pathlib
import re
import sys
import textwrap
import traceback
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

from absl import flags
from etils import epath
from ml_collections import config_flags

from lcgen import config
from lcgen.runtime import errors, fields, places, registry

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
_KEY = re.compile(r'[Kk]ey "([^"]+)"')  # in messages of ml_collections
_ILLEGAL = re.compile(r"flag --([\w.]+)=(.*?): ", re.DOTALL)  # a message of absl
_CLASS = re.compile(r"^(\w+\.)*\w*(Error|Exception): ")
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
        self._read(places.expanded(given["workdir"], "--workdir"))  # loads the plug-ins that the run was made with
      wants_help = any(argument.startswith("-") and argument.lstrip("-") in _HELP for argument in argv[1:])
      # A default of the flag itself would be read, and could fail, before its errors can be caught here.
      self._from_file = "config" in given
      if not self._from_file:
        argv = [argv[0], f"--config={self._default}", *argv[1:]]
      elif not wants_help:
        argv = _with_file(argv, _file(given["config"]))
    except errors.InputError as error:
      return refuse(str(error))
    if wants_help:
      print(self._help())
      sys.exit(0)
    try:
      rest = flags.FLAGS(argv)
      self._config.value.to_dict()  # raises if the config file fails, which nothing has noticed yet
      return rest
    except Exception as error:  # the user's config file may raise anything
      return refuse(_unknown(argv) or _illegal(error) or _wrong_file(dict(_given(argv))["config"]) or _reason(error))

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
        near = registry.nearest(stage, STAGES)
        raise errors.InputError(f"--stage={stage}: unknown stage{near}; there are {', '.join(STAGES)}")
      file, _, variant = config_flags.get_config_filename(flags.FLAGS["config"]).partition(":")
      # `mnist` for configs/mnist.py, `mnist-paper` for configs/mnist.py:paper, `mnist-3` for point 3 of its sweep.
      point = "" if self._sweep.value is None else str(self._sweep.value)
      name = "-".join(filter(None, (pathlib.Path(file).stem, variant, point)))
      workdir = places.expanded(self._workdir.value or f"runs/{name}", "--workdir")
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
        inside = there if isinstance(there, dict) else ()
        if path in config.RENAMED:
          return str(fields.unknown(path, inside, config.RENAMED))
        full = name.removeprefix("config.")
        near = registry.nearest(full, config.flat(config.defaults())) if path != full else ""
        return str(fields.unknown(full, inside, near=near or registry.nearest(part, inside)))
      there = there[part]
    if isinstance(there, dict):
      return f"--{name}: is a section; set its keys, {', '.join(sorted(there))}"
  return None


def _illegal(error: Exception) -> str | None:
  """Returns the message for a value that a flag's type does not have; None for other errors."""
  found = _ILLEGAL.match(str(error)) if isinstance(error, flags.IllegalFlagValueError) else None
  if not found:
    return None
  name, value = found.groups()
  for key in fields.keys(config.config_class()):
    if name == f"config.{key.name}":
      return f"{name}={value}: must be {key.check.text}"
  if name in ("config", "workdir", "stage"):
    return None
  return f"--{name}={value}: must be {'true or false' if name == 'multihost' else 'a whole number'}"


def _file(given: str) -> str:
  """Gives the path of a config file, with its variant.

  Raises:
    InputError: if there is no such file; it names the nearest.
  """
  name, colon, variant = given.partition(":")
  if not name:
    raise errors.InputError("--config=: name a config file, such as configs/mnist5k.py")
  path = pathlib.Path(places.expanded(name, "--config"))
  if path.is_file():
    return f"{path}{colon}{variant}"
  folders = filter(pathlib.Path.is_dir, (pathlib.Path("configs"), path.parent))
  known = sorted(str(entry) for folder in folders for entry in folder.iterdir() if entry.suffix == ".py")
  near = registry.nearest(f"{path.with_suffix('.py')}", known) or registry.nearest(f"configs/{path.stem}.py", known)
  kind = "is a folder; name a file in it" if path.is_dir() else "there is no such file"
  raise errors.InputError(f"--config={given}: {kind}{near}")


def _with_file(argv: Sequence[str], file: str) -> list[str]:
  """Replaces the config file in the arguments, written as one argument or as two."""
  changed, is_value = [argv[0]], False
  for argument in argv[1:]:
    name, sign, _ = argument.partition("=")
    if argument.startswith("-") and name.lstrip("-") == "config":
      changed.append(f"--config={file}")
      is_value = not sign
    elif is_value:
      is_value = False
    else:
      changed.append(argument)
  return changed


def _wrong_file(given: str) -> str | None:
  """Says where and why a config file fails; None if it does not."""
  name, _, variant = given.partition(":")
  try:
    spec = importlib.util.spec_from_file_location("tried", name)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not hasattr(module, "get_config"):
      return f"--config={given}: has no get_config(); see configs/mnist5k.py for one"
    module.get_config(*([variant] if variant else []))
  except Exception as error:  # it may raise anything
    own = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == name]
    # A file that refuses a variant itself, as those of this repository do, says all in its sentence.
    place = f", line {own[-1].lineno} ({own[-1].line})" if own and not (variant and type(error) is ValueError) else ""
    if key := _KEY.search(str(error)):
      near = registry.nearest(key[1], {known.rpartition(".")[2] for known in config.flat(config.defaults())})
      return f"--config={given}{place}: the config has no key {key[1]!r}{near}"
    return f"--config={given}{place}: {errors.reason(error)}"
  return None


def _reason(error: BaseException) -> str:
  """Gives the reason in absl's message, whose last line it is, without the name of a Python class."""
  last = (str(error).strip().splitlines() or [errors.reason(error)])[-1].strip()
  return _CLASS.sub("", last)
