"""Runs the phases in order, and hands the result of each to the next."""

import dataclasses
import functools
import logging
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from lcgen import config as configs
from lcgen.api import build
from lcgen.classifiers import arm_phase, arm_training, judge_phase, policies
from lcgen.classifiers.arms import ALONE, draws_from_mixture, role
from lcgen.classifiers.labelled import Labelled, by_class
from lcgen.cli import wanted
from lcgen.cli.flags import GENERATOR
from lcgen.constraints import algebra, learning, mixture_phase, rule_spec, samplers
from lcgen.constraints.mixture import Mixture
from lcgen.data import ranges, sources, test_sets
from lcgen.evaluation import gallery, metrics, provenance, sample_scores
from lcgen.evaluation.classifier_scores import Scorer
from lcgen.generator import trained
from lcgen.generator.frozen import Frozen
from lcgen.reporting import report
from lcgen.runtime import files, parallel, results
from lcgen.runtime.interruption import Interruption
from lcgen.studies import audit, learning_curve
from lcgen.studies.study import Study
from lcgen.training import identity, loop
from lcgen.training.context import Context
from lcgen.training.trainer import Trainer

_log = logging.getLogger(__name__)


class Pipeline:
  """The phases of one config in one workdir.

  Args:
    config: config of the run.
    context: context built from the config and the data set.
    workdir: folder that everything is written to.
    data: the data set; its training images go to the devices once they are needed.
    interruption: ends training early, if it is requested.
  """

  def __init__(
    self,
    config: configs.Config,
    context: Context,
    workdir: epath.Path,
    data: sources.Dataset,
    interruption: Interruption | None = None,
  ):
    self._config, self._context, self._workdir, self._data = config, context, workdir, data
    self._sections = build.sections(config)
    self._trainer = Trainer(context, workdir, lambda: data.train, interruption)
    self._local_mesh = parallel.local_mesh(context.mesh, len(context.seeds))
    sections = self._sections
    share = config.classifier.share
    tools = policies.tools(context, sections.constraint, sections.sample, sections.edit, share)
    self._arms = arm_training.ArmTraining(context, self._trainer, config.classifier, tools)
    self._scorer = Scorer(context, data, config.data.dir, functools.partial(identity.confirm_set, workdir))
    self._ways = samplers.bind(config.sample, context.generator.prior)

  def run(self, stage: str) -> None:
    """Trains what the stage asks for; `evaluate` and `all` write results and samples at their end.

    Args:
      stage: a stage of `flags.STAGES` that trains.
    """
    context, config, trainer, data = self._context, self._config, self._trainer, self._data
    asked = lambda name: stage in ("all", name)
    variables = trained.learn(context, trainer, data.validation) if asked(GENERATOR) else trained.read(context, trainer)
    frozen = trained.freeze(context, trainer, variables, data)
    if stage == GENERATOR:
      return
    learner = learning.Learner(context, trainer, frozen, self._sections.constraint)
    if config.constraint != "labels":
      return self._learn(learner, frozen, stage)
    if stage == "learning_curve":
      return self._write(stage, learning_curve.run(self._study(frozen), config.learning_curve))
    pair = learner.labels(train=asked("actor_critic"))
    if stage == "actor_critic":
      self._mixture(frozen)
      return
    if any(map(draws_from_mixture, config.classifier.arms)):
      frozen = frozen.replace(mixture=self._mixture(frozen))
    frozen = frozen.replace(actor={"params": pair.actor}, energy={"params": pair.energy}, labelled=self._labelled())
    if stage == "audit":
      sets = wanted.test_sets(config, stage)
      return self._write(stage, audit.Audit(self._study(frozen), config.audit, sets).run())
    arms = list(dict.fromkeys((*config.classifier.arms, ALONE)))
    if asked("classifier"):
      accuracy = self._scorer.validation_accuracy(arm_phase.network(context, config.classifier))
      classifiers = self._arms.train(arms, frozen, accuracy)
    else:
      classifiers = self._arms.load(arms)
    if stage == "classifier":
      return
    self._evaluate(frozen, learner, pair, classifiers)

  def _study(self, frozen: Frozen) -> Study:
    directory = self._config.data.dir
    return Study(self._context, self._trainer, self._data, frozen, self._sections, directory)

  def _mixture(self, frozen: Frozen) -> Mixture:
    """Fits or restores the mixture of each class, `[S, ...]`."""
    read = lambda: self._data
    return mixture_phase.learn(self._context, self._trainer, frozen, self._sections.constraint.mixture, read)

  def _judge(self) -> Any:
    """Trains the judge; returns its variables, `[S, ...]`."""
    settings = self._config.evaluate.judge
    accuracy = self._scorer.validation_accuracy(judge_phase.network(self._context, settings))
    validate = lambda state: {"validation_accuracy": accuracy(state)}
    return self._trainer.train(judge_phase.phase(self._context, settings), self._trainer.rows, validate).variables

  def _labelled(self) -> Labelled:
    every = [np.arange(len(self._data.train))] * len(self._context.seeds)
    table = by_class(self._data.train.labels, self._context.classes, every)
    return parallel.put(table, parallel.per_seed(self._context.mesh))

  def _write(self, name: str, found: dict[str, Any]) -> None:
    """Writes what a study found, with what reports need beside it, and its tables."""
    scored = found["points"] if "points" in found else [found["explained"]]
    roles = {arm: role(arm) for one in scored for arm in one["arms"]}
    results.write_study(self._workdir / f"{name}.json", found | {"seeds": list(self._context.seeds)}, roles)
    report.build_tables(self._workdir, name)

  def _evaluate(
    self, frozen: Frozen, learner: learning.Learner, pair: learning.Pair, classifiers: dict[str, Any]
  ) -> None:
    """Scores classifiers, samples and edits; writes `samples.npz`, then `results.json`.

    Every process scores all networks on its own devices. The first process writes.
    """
    config, context, data = self._config, self._context, self._data
    everything = frozen, pair, self._judge(), self._mixture(frozen)
    frozen, pair, judge, mixture = parallel.local(everything, self._local_mesh)
    sets = wanted.test_sets(config, "evaluate")
    _log.info("evaluating on %d test sets: %s", len(sets), ", ".join(config.evaluate.sets))
    scored = self._scorer.test(arm_phase.network(context, config.classifier), classifiers, sets)
    model = judge_phase.network(context, config.evaluate.judge)
    judged = self._scorer.test(model, {"judge": judge}, [test_sets.TestSet(test_sets.TEST)])
    of_conditions = lambda conditions: algebra.Drawable(learner.constraint(pair, conditions), mixture)
    scorer = self._sample_scorer(frozen, judge)
    targets = list(map(of_conditions, jnp.eye(context.classes)))
    count = config.evaluate.samples_per_class
    samples = scorer.all_samplers(self._ways, targets, sample_scores.labels_by_judge, count)
    samples["actor"]["classification_accuracy"] = scored["arms"][ALONE][test_sets.TEST]["accuracy"]
    shown = lambda of_arms: {arm: of_arms[arm] for arm in config.classifier.arms}
    found = results.Results(
      seeds=list(context.seeds),
      data=dataclasses.asdict(data.facts),
      about=provenance.about(context, data),
      metrics=metrics.about(),
      samples=samples,
      edits=scorer.edits(of_conditions, config.edit, self._ways["refine"]),
      judge=judged["arms"]["judge"],
      arms=shown(scored["arms"]),
      roles={arm: role(arm) for arm in config.classifier.arms},
      test_sets={name: results.TestSetFacts(**facts) for name, facts in scored["test_sets"].items()},
      robustness=shown(scored["robustness"]),
      timing=self._timing_summary(),
      phases={arm: self._arms.phases[arm] for arm in config.classifier.arms},
    )
    self._write_samples(frozen, of_conditions)
    results.write(self._workdir / "results.json", found)

  def _timing_summary(self) -> dict[str, dict[str, Any]]:
    """Gives seconds and steps of every phase, and of all arms of the classifier together."""
    total = loop.summed(self._arms.timing.values())
    return {name: timing.summary() for name, timing in (self._trainer.timing | {"classifier": total}).items()}

  def _sample_scorer(self, frozen: Frozen, judge: Any) -> sample_scores.SampleScorer:
    model = judge_phase.network(self._context, self._config.evaluate.judge)
    data = self._data
    judged = sample_scores.Judged(model, judge, data.test, data.train, data.validation)
    return sample_scores.SampleScorer(self._context, self._local_mesh, frozen, judged)

  def _write_samples(self, frozen: Frozen, of_conditions: Callable[[jax.Array], algebra.Drawable]) -> None:
    """Writes images of the first seed to `samples.npz`, for the figures."""
    context, test, across = self._context, self._data.test, gallery.ACROSS
    shown = gallery.shown_classes(context.classes)
    classes = jnp.eye(context.classes)[shown]
    first = functools.partial(jax.tree.map, lambda leaf: leaf[0])
    frozen = first(frozen)
    by_label = first(of_conditions(jnp.repeat(classes, across, axis=0)))
    every_edit = first(of_conditions(jnp.tile(classes, (len(classes), 1))))
    images = gallery.reconstructions(context, frozen, test)
    images |= gallery.samples(context, self._ways, frozen, by_label, len(classes) * across)
    images |= gallery.edits(context, frozen, every_edit, test, self._config.edit)
    files.write_arrays(self._workdir / "samples.npz", images | {"shown_classes": shown})

  def _learn(self, learner: learning.Learner, frozen: Frozen, stage: str) -> None:
    """Learns realism or a rule in place of labels, and writes the scores of its samples to `rules/`.

    As in `_evaluate`, every process scores on its own devices.
    """
    text, like, context = self._config.constraint, None, self._context
    if text == "realism":
      constraint = learner.constraint(learner.realism(), jnp.ones(1), "realism")
      about, verdicts = {"name": text, "bound": "", "value": None}, sample_scores.looks_like_a_class
    else:
      learnt = learner.rule(rule_spec.parse(text))
      constraint = learner.constraint(learnt.pair, learning.HOLDS, "rule")
      about = {"name": learnt.name, "bound": learnt.rule.bound, "value": learnt.rule.value}
      verdicts = lambda images, logits, target: learnt.holds(images)
    if stage == "actor_critic":
      return
    if text != "realism":
      prepared = lambda images: context.prepare({"image": jnp.asarray(images)})["image"]
      like = lambda images: learnt.holds(ranges.from_model(prepared(images)))
    constraint = algebra.Drawable(constraint, self._mixture(frozen))
    frozen, constraint, judge = parallel.local((frozen, constraint, self._judge()), self._local_mesh)
    count = self._config.evaluate.samples_per_class
    scored = self._sample_scorer(frozen, judge).all_samplers(self._ways, [constraint], verdicts, count, like)
    found = results.RuleResults(**about, seeds=list(context.seeds), samples=scored, metrics=metrics.about())
    first = functools.partial(jax.tree.map, lambda leaf: leaf[0])
    directory = self._workdir / "rules" / learning.plain(found.name)
    images = gallery.samples(context, self._ways, first(frozen), first(constraint), 2 * gallery.ACROSS)
    files.write_arrays(directory / "samples.npz", images)
    results.write(directory / "results.json", found)
    report.build_rule(directory)
