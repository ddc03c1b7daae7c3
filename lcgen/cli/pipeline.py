"""The phases in order, and what each hands to the next."""

import dataclasses
import functools
import logging
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from lcgen.api import export
from lcgen.classifiers import arm_training, policies
from lcgen.cli import preflight, use_run
from lcgen.constraints import algebra, learning, rule_spec
from lcgen.data import ranges, sources, test_sets
from lcgen.evaluation import classifier_scores, gallery, sample_scores
from lcgen.generator import statistics as vae_statistics
from lcgen.reporting import expectations, report
from lcgen.runtime import compilation_cache, errors, parallel
from lcgen.runtime.interruption import Interruption
from lcgen.studies import audit, benchmark, inspection, learning_curve
from lcgen.training import checkpoint, loop
from lcgen.training import train_state as states
from lcgen.training.context import Phases
from lcgen.training.trainer import Trainer

_log = logging.getLogger(__name__)

_ASIDE = ("audit", "learning_curve")  # stages that leave the run's own results as they are
_TRAINING = ("all", "vae", "actor_critic", "classifier", "evaluate", *_ASIDE)
STAGES = (*_TRAINING, "data", "report", "export", "verify", "inspect", "benchmark", *use_run.STAGES)


def run(config: dict[str, Any], workdir: epath.Path, stage: str, interruption: Interruption | None = None) -> None:
  """Runs one stage, or all of them, in a workdir; finished work is not done again.

  Args:
    config: from `config.checked`.
    workdir: where everything goes; made if it is not there.
    stage: one of `STAGES`.
    interruption: ends training early, where it is given and requested.

  Raises:
    Interrupted: where that was requested; the same call goes on from there.
    InputError: where config, workdir and data do not fit together; nothing has been written then.
    NonFiniteError: where training broke down; the last good checkpoint is kept.
  """
  compilation_cache.keep(workdir.absolute().parent / ".compiled")
  known, results = preflight.check_workdir(config, workdir, stage), workdir / "results.json"
  labels = config["actor_critic"]["constraint"] == "labels"
  if stage in use_run.STAGES:
    use_run.run(config, workdir, stage)
  elif stage == "report" or (stage == "all" and known == config and labels and results.exists()):
    report.build(workdir)
  elif stage == "export":
    export.write(workdir)
  elif stage == "verify":
    expectations.check(config["expected"], workdir)
  elif stage == "inspect":
    _inspect(config, workdir)
  elif stage == "benchmark":
    _benchmark(config, workdir)
  elif stage == "data":
    data = preflight.load_data(config, stage)
    print(inspection.data_words(data.facts, preflight.wanted_test_sets(config, stage), config["data"]["dir"]))
  else:
    data = preflight.load_data(config, stage)
    phases = Phases(config, data.facts)
    preflight.check_fit(phases)
    with preflight.claimed(workdir):
      if known is None or (known != config and labels and stage not in _ASIDE):
        results.unlink(missing_ok=True)
        report.write_json(workdir / "config.json", config)
      _log.info("%s", parallel.described(phases.mesh))
      _log.info("VAE: %s", inspection.likelihood_words(phases, inspection.reconstruction_floor(phases, data.train)))
      Experiment(phases, workdir, data, interruption).run(stage)
      if results.exists() and labels:
        report.build(workdir, quiet=stage in _ASIDE)


def _benchmark(config: dict[str, Any], workdir: epath.Path) -> None:
  """Times every phase on random images; the data set need not be there."""
  facts, _ = _facts(config)
  found = benchmark.run(Phases(config, facts))
  report.write_json(workdir / "benchmark.json", found)
  report.build_tables(workdir, "benchmark")


def _facts(config: dict[str, Any]) -> tuple[sources.Facts, sources.Split | None]:
  """What is known of the data set, and its training images where they are there."""
  try:
    data = preflight.read_data(config)
    return data.facts, data.train
  except errors.MissingDataError as error:
    print(f"{error}\nGoing on without the images.\n")
    return sources.announced(config["data"]["name"], config["data"]["dir"]), None


def _inspect(config: dict[str, Any], workdir: epath.Path) -> None:
  """Builds everything, trains and downloads nothing; of a set that is not there, all but what needs its images."""
  facts, training = _facts(config)
  phases = Phases(config, facts)
  if training is not None:
    preflight.check_fit(phases)
  found = inspection.find(phases, training)
  print(inspection.parameter_tables(phases.networks))
  print(inspection.findings_words(phases, found))
  inspection.check_memory(found)
  report.write_json(workdir / "inspect.json", found)


class Experiment:
  """The phases of one config in one workdir, the data on the devices."""

  def __init__(
    self, phases: Phases, workdir: epath.Path, data: sources.Dataset, interruption: Interruption | None = None
  ):
    self._phases, self._config, self._workdir, self._data = phases, phases.config, workdir, data
    self._trainer = Trainer(phases, workdir, lambda: data.train, interruption)
    self._mesh, self._local_mesh = phases.mesh, parallel.local_mesh(phases.mesh, len(phases.seeds))
    self._comparison = arm_training.Comparison(phases, self._trainer)
    self._scorer = classifier_scores.Scorer(phases, self._mesh, data)

  def run(self, stage: str) -> None:
    """Trains what the stage asks for; `evaluate` and `all` end with `results.json` and `samples.npz`."""
    phases, trainer, asked = self._phases, self._trainer, lambda name: stage in ("all", name)
    loss = self._scorer.validation_loss()
    vae_state = self._state(phases.vae(), asked("vae"), lambda state: {"validation_loss": loss(state)})
    frozen = self._freeze(vae_state.variables)
    if stage == "vae":
      return
    learner = learning.Learner(phases, trainer, frozen)
    if self._config["actor_critic"]["constraint"] != "labels":
      return self._learn(learner, frozen, stage)
    if stage == "learning_curve":
      return self._write("learning_curve", learning_curve.run(phases, trainer, self._data, frozen))
    pair = learner.labels(train=asked("actor_critic"))
    if stage == "actor_critic":
      return
    frozen = frozen.replace(actor={"params": pair.actor}, energy={"params": pair.energy}, labelled=self._labelled())
    if stage == "audit":
      wanted = preflight.wanted_test_sets(self._config, stage)
      return self._write("audit", audit.Audit(phases, trainer, self._data, frozen, wanted).run())
    arms = dict.fromkeys((*self._config["classifier"]["arms"], policies.ALONE))
    if asked("classifier"):
      classifiers = self._comparison.train(list(arms), frozen, self._scorer)
    else:
      classifiers = self._comparison.load(list(arms))
    if stage == "classifier":
      return
    self._evaluate(frozen, pair, classifiers, self._judge())

  def _judge(self) -> Any:
    accuracy = self._scorer.validation_accuracy(self._phases.networks.judge)
    return self._state(self._phases.judge(), True, lambda state: {"validation_accuracy": accuracy(state)}).variables

  def _state(self, phase: loop.Phase, train: bool, validate: loop.Validate | None = None) -> Any:
    """The phase's final state: trained to its end where asked for, else as it was saved."""
    if train:
      return self._trainer.train(phase, self._trainer.images if phase.name == "vae" else self._trainer.rows, validate)
    return self._trainer.finished(phase)

  def _freeze(self, variables: Any) -> states.Frozen:
    """The trained VAE with its latents' statistics, which are found once and stored beside it."""
    with checkpoint.Checkpoints(self._workdir / "checkpoints" / "statistics") as saved:
      if saved.latest is None:
        statistics = vae_statistics.find(self._phases, self._mesh, variables, self._data)
        saved.save(0, statistics, dataclasses.asdict(self._data.facts))
      else:
        statistics = saved.restore(checkpoint.abstract(self._phases.statistics(), parallel.per_seed(self._mesh)))
    return states.Frozen(variables, **statistics)

  def _labelled(self) -> states.Labelled:
    everything = [np.arange(len(self._data.train))] * len(self._phases.seeds)
    labelled = vae_statistics.labelled(self._data.train.labels, len(self._data.class_names), everything)
    return parallel.put(labelled, parallel.per_seed(self._mesh))

  def _write(self, name: str, found: dict[str, Any]) -> None:
    report.write_json(self._workdir / f"{name}.json", found)
    report.build_tables(self._workdir, name)

  def _evaluate(self, frozen: states.Frozen, pair: learning.Pair, classifiers: dict[str, Any], judge: Any) -> None:
    """Scores classifiers, samples and edits; writes `samples.npz`, then `results.json`.

    What has been trained on the devices of all processes each of them scores by itself; the first one writes.
    """
    frozen, pair, judge = parallel.local((frozen, pair, judge), self._local_mesh)
    networks, wanted = self._phases.networks, preflight.wanted_test_sets(self._config, "evaluate")
    _log.info("evaluating on %d test sets: %s", len(wanted), ", ".join(self._config["evaluate"]["sets"]))
    scored = self._scorer.test(networks.classifier, classifiers, wanted)
    judged = self._scorer.test(networks.judge, {"judge": judge}, [test_sets.TestSet(test_sets.TEST)])
    of_conditions = functools.partial(learning.constraint, self._phases, pair)
    scorer = self._quality(frozen, judge)
    samples = scorer.methods(
      list(map(of_conditions, jnp.eye(len(self._data.class_names)))), sample_scores.labels_by_judge
    )
    samples["actor"]["classification_accuracy"] = scored["arms"][policies.ALONE][test_sets.TEST]["accuracy"]
    shown = lambda of_arms: {arm: of_arms[arm] for arm in self._config["classifier"]["arms"]}
    results = {
      "seeds": list(self._phases.seeds),
      "data": dataclasses.asdict(self._data.facts),
      "about": inspection.about(self._phases, self._data),
      "samples": samples,
      "edits": scorer.edits(of_conditions),
      "judge": judged["arms"]["judge"],
      "arms": shown(scored["arms"]),
      "test_sets": scored["test_sets"],
      "robustness": shown(scored["robustness"]),
      "timing": self._timing_summary(),
    }
    self._write_samples(frozen, of_conditions)
    report.write_json(self._workdir / "results.json", results)

  def _timing_summary(self) -> dict[str, dict[str, float]]:
    """Seconds and steps of every phase, and of all arms of the classifier together."""
    total = loop.summed(self._comparison.timing.values())
    return {name: timing.summary() for name, timing in (self._trainer.timing | {"classifier": total}).items()}

  def _quality(self, frozen: states.Frozen, judge: Any) -> sample_scores.Quality:
    return sample_scores.Quality(self._phases, self._local_mesh, frozen, judge, self._data.test, self._data.train)

  def _write_samples(self, frozen: states.Frozen, of_conditions: Callable[[jax.Array], algebra.Learnt]) -> None:
    """Images of the first repetition for the figures."""
    phases, test, classes = self._phases, self._data.test, jnp.eye(len(self._data.class_names))
    first = functools.partial(jax.tree.map, lambda leaf: leaf[0])
    frozen, across = first(frozen), gallery.ACROSS
    by_class = first(of_conditions(jnp.repeat(classes, across, axis=0)))
    every_edit = first(of_conditions(jnp.tile(classes, (len(classes), 1))))
    images = gallery.reconstructions(phases, frozen, test)
    images |= gallery.samples(phases, frozen, by_class, len(classes) * across)
    images |= gallery.edits(phases, frozen, every_edit, test)
    report.write_arrays(self._workdir / "samples.npz", images)

  def _learn(self, learner: learning.Learner, frozen: states.Frozen, stage: str) -> None:
    """Realism or a rule in place of labels: its pair, and in `rules/` what samples of it are worth.

    As in `_evaluate`, every process finds that by itself.
    """
    text, real = self._config["actor_critic"]["constraint"], None
    if text == "realism":
      constraint = learning.constraint(self._phases, learner.realism(), jnp.ones(1))
      results, verdicts = {"name": text}, sample_scores.looks_like_a_class
    else:
      learnt = learner.rule(rule_spec.parse(text))
      constraint = learning.constraint(self._phases, learnt.pair, learning.HOLDS)
      results = {"name": learnt.name, "bound": learnt.rule.bound, "value": learnt.rule.value}
      verdicts = lambda images, logits, target: learnt.holds(images)
    if stage == "actor_critic":
      return
    if text != "realism":
      test = self._phases.prepare({"image": jnp.asarray(self._data.test.images)})["image"]
      real = learnt.holds(ranges.from_model(test))
    frozen, constraint, judge = parallel.local((frozen, constraint, self._judge()), self._local_mesh)
    results |= {
      "seeds": list(self._phases.seeds),
      "samples": self._quality(frozen, judge).methods([constraint], verdicts, real),
    }
    first = functools.partial(jax.tree.map, lambda leaf: leaf[0])
    directory = self._workdir / "rules" / learning.plain(results["name"])
    images = gallery.samples(self._phases, first(frozen), first(constraint), 2 * gallery.ACROSS)
    report.write_arrays(directory / "samples.npz", images)
    report.write_json(directory / "results.json", results)
    report.build_rule(directory)
