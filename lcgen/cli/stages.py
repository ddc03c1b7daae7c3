"""Runs the stages of `run.py` in a workdir."""

import logging
from collections.abc import Callable

from etils import epath

from lcgen import config as configs
from lcgen.api import build, export
from lcgen.cli import pipeline, preflight, try_plugins, use_run, wanted, words
from lcgen.cli.flags import ASIDE
from lcgen.data import sources
from lcgen.reporting import expectations, report
from lcgen.runtime import cluster, compilation_cache, environment, errors, files, results
from lcgen.runtime.interruption import Interruption
from lcgen.studies import benchmark, inspection
from lcgen.training import checkpoint, identity
from lcgen.training.context import Context

_log = logging.getLogger(__name__)


def run(config: configs.Config, workdir: epath.Path, stage: str, interruption: Interruption | None = None) -> None:
  """Runs one stage, or all of them, in a workdir; finished work is not done again.

  Args:
    config: config of the run.
    workdir: folder that everything is written to; made if it is missing.
    stage: one of `lcgen.cli.flags.STAGES`.
    interruption: ends training early, if it is requested.

  Raises:
    Interrupted: if that was requested; the same call goes on from there.
    InputError: if config, workdir and data do not fit together; nothing has been written then.
    NonFiniteError: if numbers in training are no longer finite; the last good checkpoint is kept.
    MissedError: if the stage `verify` finds an expectation that is not met.
  """
  environment.check()
  compilation_cache.keep(workdir.absolute().parent / ".compiled")
  known = preflight.check_workdir(config, workdir, stage)
  finished = known == config and config.constraint == "labels" and (workdir / "results.json").exists()
  if stage in use_run.STAGES:
    use_run.run(config, workdir, stage)
  elif stage == "all" and finished:
    _check_data(config, workdir)
    report.build(workdir)
  elif stage in _OTHERS:
    _OTHERS[stage](config, workdir)
  else:
    _train(config, workdir, stage, known, interruption)


def _check_data(config: configs.Config, workdir: epath.Path) -> None:
  """Checks that a finished run would still get the data that it was made with, where they can be read."""
  try:
    data = sources.load(config.data)
  except errors.InputError as error:
    _log.info("reporting the finished run without a look at its data: %s", error)
    return
  identity.confirm(workdir, data)


def _train(
  config: configs.Config,
  workdir: epath.Path,
  stage: str,
  known: configs.Config | None,
  interruption: Interruption | None,
) -> None:
  """Runs a stage that trains; `known` is the config that the workdir was made with."""
  checkpoint.check_place(workdir)
  data = preflight.load_data(config, stage)
  digests = identity.check(workdir, data)
  context = build.context(config, data.facts)
  try_plugins.check(config, context)
  preflight.check_fit(config, context)
  path, labels = workdir / "results.json", config.constraint == "labels"
  with preflight.claimed(workdir):
    if known is None or (known != config and labels and stage not in ASIDE):
      path.unlink(missing_ok=True)
      files.write_json(workdir / "config.json", configs.to_dict(config))
    identity.record(workdir, digests)
    _log.info("%s", cluster.described(context.mesh))
    _log.info("generator: %s", words.generator(context, inspection.reconstruction_floor(context, data.train)))
    pipeline.Pipeline(config, context, workdir, data, interruption).run(stage)
    if path.exists() and labels:
      report.build(workdir, quiet=stage in ASIDE)


def _data(config: configs.Config, workdir: epath.Path) -> None:
  """Finds all data that the config reads, downloads and prepares missing sets, and trains nothing."""
  del workdir
  data = preflight.load_data(config, "data")
  print(words.data(data.facts, wanted.test_sets(config, "data"), config.data.dir))


def _benchmark(config: configs.Config, workdir: epath.Path) -> None:
  """Times every phase on random images; the data set may be missing."""
  context, _ = _with_images(config)
  found = benchmark.run(benchmark.Bench(context, build.sections(config), config.benchmark))
  results.write_study(workdir / "benchmark.json", found)
  report.build_tables(workdir, "benchmark")


def _inspect(config: configs.Config, workdir: epath.Path) -> None:
  """Reports on all networks without training or downloading; without the data set it skips facts that need images."""
  context, training = _with_images(config)
  sections = build.sections(config)
  if training is not None:
    preflight.check_fit(config, context)
  found = inspection.find(context, sections, training)
  print(words.parameters(inspection.parameter_shapes(context, sections)))
  print(words.findings(context, sections.classifier, found))
  inspection.check_memory(found)
  files.write_json(workdir / "inspect.json", found)


def _with_images(config: configs.Config) -> tuple[Context, sources.Split | None]:
  """Builds the context, and reads the training images if they are there."""
  try:
    data = sources.load(config.data)
  except errors.MissingDataError as error:
    print(f"{error}\nGoing on without the images.\n")
    return build.context(config, sources.announced(config.data.name, config.data.dir)), None
  return build.context(config, data.facts), data.train


_OTHERS: dict[str, Callable[[configs.Config, epath.Path], None]] = {
  "report": lambda config, workdir: report.build(workdir),
  "export": lambda config, workdir: export.write(workdir),
  "verify": lambda config, workdir: expectations.check(config.expected, workdir),
  "data": _data,
  "benchmark": _benchmark,
  "inspect": _inspect,
}
