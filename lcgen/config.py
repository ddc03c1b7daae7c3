"""The config: one settings dataclass, built from the fields that each wing declares in its `settings.py`.

A config file fills a `ConfigDict` from `defaults()`. `parse` checks it, and a workdir keeps it as `config.json`.
"""

import dataclasses
import functools
import importlib
import importlib.util
import json
import os
import textwrap
import traceback
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from etils import epath

from lcgen.classifiers.settings import ClassifierSettings
from lcgen.constraints import settings as constraints
from lcgen.data.settings import DataSettings
from lcgen.evaluation.settings import EvaluateSettings
from lcgen.generator.settings import GENERATORS, PCASettings, VAESettings
from lcgen.runtime import errors, expectation, fields, registry
from lcgen.runtime.fields import MOST_SEED, Check, at_least, field, flat, modules, one_of, section
from lcgen.studies.settings import AuditSettings, BenchmarkSettings, LearningCurveSettings
from lcgen.training.settings import TrainSettings

RENAMED = {"actor_critic.constraint": "constraint"}
"""New names of renamed keys. Workdirs with an old name are read; flags and config files with one are refused."""

_WIDTH = 100  # columns of the help
_loaded: dict[str, None] = {}  # plug-ins, in the order of their import

_expectations = Check(
  tuple,
  lambda value: all(map(expectation.known, map(str, value))),
  "texts such as 'samples actor conditional_accuracy > 0.97', a path in results.json, < or >, and a number",
)


@dataclasses.dataclass(frozen=True)
class Config:
  """All settings of a run. `config_class` adds the sections of plug-ins."""

  seed: int = field(0, at_least(0, MOST_SEED), "The first seed; the others follow it.")
  seeds: int = field(
    3, at_least(1, 1000), "Number of seeds: independent runs of the whole pipeline, trained side by side."
  )
  generator: str = field(
    "vae", one_of(GENERATORS), "The generator of phase 1; the section of its name has its settings."
  )
  constraint: str = field(
    "labels",
    constraints.constraint,
    "Constraint to learn: labels, realism, or a function of images, as in rule:module.function.",
    free=True,
  )
  plugins: tuple[str, ...] = field((), modules, "Modules to import first, which register what they add.", free=True)
  data: DataSettings = section(DataSettings)
  vae: VAESettings = section(VAESettings)
  pca: PCASettings = section(PCASettings)
  actor_critic: constraints.GameSettings = section(constraints.GameSettings)
  energy: constraints.EnergySettings = section(constraints.EnergySettings)
  mixture: constraints.MixtureSettings = section(constraints.MixtureSettings)
  rule: constraints.RuleSettings = section(constraints.RuleSettings, free=True)
  classifier: ClassifierSettings = section(ClassifierSettings)
  evaluate: EvaluateSettings = section(EvaluateSettings)
  audit: AuditSettings = section(AuditSettings, free=True)
  learning_curve: LearningCurveSettings = section(LearningCurveSettings, free=True)
  expected: tuple[str, ...] = field(
    (), _expectations, "Expected results, for --stage=verify, such as ('arms none test accuracy > 0.9',).", free=True
  )
  sample: constraints.SampleSettings = section(constraints.SampleSettings, free=True)
  edit: constraints.EditSettings = section(constraints.EditSettings, free=True)
  traverse: constraints.TraverseSettings = section(constraints.TraverseSettings, free=True)
  benchmark: BenchmarkSettings = section(BenchmarkSettings, free=True)
  train: TrainSettings = section(TrainSettings)


def config_class() -> type[Config]:
  """Returns `Config` with a section for each generator and, inside `sample`, for each sampler that has settings.

  Raises:
    InputError: if a plug-in took the name of another field.
  """
  return _config_class(tuple(GENERATORS.items()), tuple(constraints.SAMPLERS.items()))


@functools.cache
def _config_class(generators: tuple[tuple[str, type], ...], samplers: tuple[tuple[str, type], ...]) -> type[Config]:
  sections = lambda entries, free: {name: (own, free) for name, own in entries if dataclasses.fields(own)}
  sample = fields.extended(constraints.SampleSettings, sections(samplers, True))
  return fields.extended(Config, sections(generators, False) | {"sample": (sample, True)})


def defaults() -> dict[str, Any]:
  """Returns every key's default as nested dicts, in the notation of config files and flags."""
  result: dict[str, Any] = {}
  for key in fields.keys(config_class()):
    *sections, last = key.name.split(".")
    functools.reduce(lambda inner, name: inner.setdefault(name, {}), sections, result)[last] = key.default
  return result


def parse(values: Mapping[str, Any], of_workdir: bool = False) -> Config:
  """Builds the config from nested mappings, and imports the plug-ins that they name.

  Missing keys take their defaults. A tuple of names may be one text with commas, as on the command line.

  Raises:
    InputError: if a key is unknown, of the wrong type or out of range. It names the key and the allowed values.
  """
  load_plugins(modules.value(values.get("plugins", ()), "plugins"), of_workdir)
  parsed = fields.parse(config_class(), values, renamed=RENAMED)
  if (last := parsed.seed + parsed.seeds - 1) > MOST_SEED:
    raise errors.InputError(f"config.seed={parsed.seed}: the last of {parsed.seeds} is {last}; seeds go to {MOST_SEED}")
  return parsed


def to_dict(config: Config) -> dict[str, Any]:
  """Returns the config as nested dicts that JSON can hold."""
  return dataclasses.asdict(config)


def load_plugins(names: Iterable[str], of_workdir: bool = False) -> tuple[str, ...]:
  """Imports plug-ins, which register their entries.

  Args:
    names: of modules.
    of_workdir: whether a workdir names them, and not the command.

  Returns:
    Names of all plug-ins that the command has asked for so far.

  Raises:
    InputError: if one cannot be imported.
  """
  for name in names:
    try:
      importlib.import_module(name)
    except (Exception, SystemExit) as error:  # a user's module may raise anything
      raise errors.InputError(f"config.plugins={name[:100]}: {_failure(name, error)}") from error
    if not of_workdir:
      _loaded[name] = None
  return tuple(_loaded)


def _failure(name: str, error: BaseException) -> str:
  """Says why a plug-in cannot be imported, and where."""
  if isinstance(error, ModuleNotFoundError) and error.name == name.partition(".")[0]:
    return "there is no module of this name; put it beside run.py, or on PYTHONPATH"
  file = f"{name.rpartition('.')[2]}.py"
  own = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename.endswith(file)]
  place = f"{own[-1].filename}, line {own[-1].lineno}: " if own else ""
  return f"{place}{errors.reason(error)}"


def stored(values: Mapping[str, Any], plugins: tuple[str, ...] | None = None) -> Config:
  """Checks the content of a `config.json` of this or an older version, in which keys may have their old names.

  Args:
    values: of the file.
    plugins: take the place of the file's; settings of the others are left out.

  Raises:
    InputError: as `parse`.
  """
  for old, new in RENAMED.items():
    name, _, last = old.rpartition(".")
    if isinstance(section := values.get(name), Mapping) and last in section:
      values = {new: section[last]} | values | {name: {key: kept for key, kept in section.items() if key != last}}
  data = values.get("data")
  if (
    isinstance(data, Mapping)
    and "fit" not in data
    and data.get("source") in ("folder", "npz")
    and data.get("image_size")
  ):
    values = {**values, "data": {**data, "fit": "stretch"}}  # as versions without the key did
  if plugins is not None:
    load_plugins(plugins, of_workdir=True)
    values = _without_plugins({**values, "plugins": plugins})
  return parse(values, of_workdir=True)


def _without_plugins(values: dict[str, Any]) -> dict[str, Any]:
  """Leaves out sections of generators and samplers that are not registered."""
  known = {field.name for field in dataclasses.fields(config_class())}
  kept = {key: value for key, value in values.items() if key in known or not isinstance(value, Mapping)}
  if isinstance(sample := kept.get("sample"), Mapping):
    own = lambda key, value: key in constraints.SAMPLERS or not isinstance(value, Mapping)
    kept["sample"] = {key: value for key, value in sample.items() if own(key, value)}
  return kept


def read(workdir: epath.Path, plugins: tuple[str, ...] | None = None) -> Config | None:
  """Reads the config of a workdir and imports its plug-ins; returns None for a new workdir.

  Args:
    workdir: its folder.
    plugins: take the place of the workdir's.

  Raises:
    InputError: if the workdir is not a folder, or its `config.json` cannot be read by this version.
  """
  if os.path.islink(workdir) and not workdir.exists():
    raise errors.InputError(
      f"--workdir={workdir}: a link to {os.readlink(workdir)}, which is not there; make that folder, or mend the link"
    )
  if workdir.exists() and not workdir.is_dir():
    raise errors.InputError(f"--workdir={workdir} is not a folder; choose another")
  path = workdir / "config.json"
  if not path.exists():
    return None
  try:
    values = json.loads(path.read_text())
    if not isinstance(values, dict):
      raise ValueError("it holds no section")
    return stored(values, plugins)
  except ValueError as error:
    raise errors.InputError(
      f"{path} is not a config of this version of lcgen and its plug-ins ({error}); --config.plugins= goes "
      "without its plug-ins; or choose another --workdir"
    ) from error


def differences(old: Config, new: Config) -> list[str]:
  """Lists the differing keys that decide what is trained, each as `key: old -> new`."""
  before, after = flat(to_dict(old)), flat(to_dict(new))
  fixed = [key.name for key in fields.keys(config_class()) if not key.free]
  return [
    f"{key}: {before[key]!r} -> {after[key]!r}"
    for key in fixed
    if key in before and key in after and before[key] != after[key]  # a plug-in's keys may be in one only
  ]


def changed(config: Config, given: Mapping[str, Any]) -> Config:
  """Returns a config with some keys changed.

  Args:
    config: the original, which is not changed.
    given: new values by their dotted keys.

  Raises:
    InputError: as `parse`.
  """
  values = to_dict(config)
  for key, value in given.items():
    values = _with(values, key, value)
  return parse(values)


def sweep_point(values: Mapping[str, Any], path: str, index: int | None, given: Collection[str]) -> dict[str, Any]:
  """Returns a config's values at one point of the sweep that its file defines.

  The file's `sweep()` returns a list or an iterator of points such as `{"vae.epochs": 20, "seed": 3}`.

  Args:
    values: the config's values from its file and the command line; they are not changed.
    path: of that file.
    index: of the point, from 0; None for no sweep.
    given: dotted keys set on the command line, which override the point.

  Raises:
    InputError: if the file has no sweep, the sweep has no such point, or the point sets an unknown key.
  """
  if index is None:
    return dict(values)
  point = _point(path, index)
  known = flat(values)
  for key, value in point.items():
    if key not in known:
      near = registry.nearest(key, known)
      raise errors.InputError(f"--sweep_index={index}: {path} sets config.{key}, which the config does not have{near}")
    if key not in given:
      values = _with(values, key, value)
  return dict(values)


def _with(values: Mapping[str, Any], key: str, value: Any) -> dict[str, Any]:
  first, _, rest = key.partition(".")
  return {**values, first: _with(values.get(first, {}), rest, value) if rest else value}


def _point(path: str, index: int) -> Mapping[str, Any]:
  spec = importlib.util.spec_from_file_location("swept", path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  if not hasattr(module, "sweep"):
    raise errors.InputError(f"--sweep_index={index}: {path} has no sweep(); see configs/mnist5k.py for one")
  points = list(module.sweep())
  if not 0 <= index < len(points):
    raise errors.InputError(f"--sweep_index={index}: {path} has {len(points)} points, counted from 0")
  if not isinstance(points[index], Mapping):
    raise errors.InputError(f"--sweep_index={index}: {path} has {points[index]!r} there, not a dict of dotted keys")
  return points[index]


def help_text() -> str:
  """Lists every key with its default, its help and its allowed values, section by section."""
  lines, indent = [], {"initial_indent": " " * 6, "subsequent_indent": " " * 6}
  for name, words, keys in _sections():
    lines += ["", *textwrap.wrap(f"{name}: {words}" if name else words, _WIDTH)]
    for key in keys:
      lines.append(f"  --config.{key.name}={_written(key.default)}")
      lines += textwrap.wrap(f"{key.field.metadata['help']} Must be {key.check.text}.".strip(), _WIDTH, **indent)
  return "\n".join(lines[1:])


def markdown_table() -> str:
  """Returns a Markdown table for each section, for `docs/configuration.md`."""
  lines = []
  for name, words, keys in _sections():
    lines += ["", f"## `{name}`" if name else "## The whole run", "", words, ""]
    lines += ["| key | default | must be | fixed once trained | |", "| --- | --- | --- | --- | --- |"]
    for key in keys:
      default, fixed = _written(key.default), "" if key.free else "yes"
      shown = f"`{default}`" if default else ""
      cells = [f"`{key.name}`", shown, key.check.text, fixed, key.field.metadata["help"]]
      lines.append(f"| {' | '.join(cells)} |")
  return "\n".join(lines[1:]) + "\n"


def _sections() -> Iterator[tuple[str, str, list[fields.Key]]]:
  """Yields each section's name, its summary, and the keys directly in it."""
  by_section: dict[str, list[fields.Key]] = {}
  for key in fields.keys(config_class()):
    by_section.setdefault(key.name.rpartition(".")[0], []).append(key)
  for name, keys in by_section.items():
    yield name, fields.summary(keys[0].owner) if name else "Fields of the whole run.", keys


def _written(value: Any) -> str:
  return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
