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

from lcgen import (
  calibration,
  checkpoint,
  commands,
  constraints,
  door,
  errors,
  evaluate,
  exemplars,
  gallery,
  inspection,
  learning,
  loop,
  metrics,
  parallel,
  quality,
  report,
  robustness,
  test_sets,
)
from lcgen import state as states
from lcgen.data import images as ranges
from lcgen.data import sources
from lcgen.phases import Phases
from lcgen.trainer import Trainer

_log = logging.getLogger(__name__)

STAGES = ("all", "data", "vae", "actor_critic", "classifier", "evaluate", "report", "inspect", *commands.STAGES)


def run(config: dict[str, Any], workdir: epath.Path, stage: str) -> None:
  """Runs one stage, or all of them, in a workdir; finished work is not done again.

  Args:
    config: from `config.checked`.
    workdir: where everything goes; made if it is not there.
    stage: one of `STAGES`.

  Raises:
    InputError: where config, workdir and data do not fit together; nothing has been written then.
    NonFiniteError: where training broke down; the last good checkpoint is kept.
  """
  known, results = door.check_workdir(config, workdir, stage), workdir / "results.json"
  labels = config["actor_critic"]["constraint"] == "labels"
  if stage in commands.STAGES:
    commands.run(config, workdir, stage)
  elif stage == "report" or (stage == "all" and known == config and labels and results.exists()):
    report.build(workdir)
  elif stage == "inspect":
    _inspect(config, workdir)
  elif stage == "data":
    data = door.load_data(config, stage)
    print(inspection.data_words(data.facts, door.wanted_test_sets(config, stage), config["data"]["dir"]))
  else:
    data = door.load_data(config, stage)
    phases = Phases(config, data.facts)
    door.check_fit(phases)
    if known is None or (known != config and labels):
      results.unlink(missing_ok=True)
      report.write_json(workdir / "config.json", config)
    _log.info("VAE: %s", inspection.likelihood_words(phases, inspection.reconstruction_floor(phases, data.train)))
    Experiment(phases, workdir, data).run(stage)
    if results.exists() and labels:
      report.build(workdir)


def _inspect(config: dict[str, Any], workdir: epath.Path) -> None:
  """Builds everything, trains and downloads nothing; of a set that is not there, all but what needs its images."""
  training = None
  try:
    data = door.read_data(config)
    training, facts = data.train, data.facts
  except errors.MissingDataError as error:
    print(f"{error}\nInspecting without the images.\n")
    facts = sources.announced(config["data"]["name"], config["data"]["dir"])
  phases = Phases(config, facts)
  if training is not None:
    door.check_fit(phases)
  found = inspection.find(phases, training)
  print(inspection.parameter_tables(phases.networks))
  print(inspection.findings_words(phases, found))
  report.write_json(workdir / "inspect.json", found)


class Experiment:
  """The phases of one config in one workdir, the data on the devices."""

  def __init__(self, phases: Phases, workdir: epath.Path, data: sources.Dataset):
    self._phases, self._config, self._workdir, self._data = phases, phases.config, workdir, data
    self._trainer = Trainer(phases, workdir, lambda: data.train)
    self._mesh = self._trainer.mesh

  def run(self, stage: str) -> None:
    """Trains what the stage asks for; `evaluate` and `all` end with `results.json` and `samples.npz`."""
    phases, trainer, asked = self._phases, self._trainer, lambda name: stage in ("all", name)
    vae_state = self._state(phases.vae(), asked("vae"), self._validation_elbo())
    frozen = self._freeze(vae_state.variables)
    if stage == "vae":
      return
    learner = learning.Learner(phases, trainer, frozen)
    if self._config["actor_critic"]["constraint"] != "labels":
      return self._learn(learner, frozen, stage)
    pair = learner.labels(train=asked("actor_critic"))
    if stage == "actor_critic":
      return
    frozen = frozen.replace(actor={"params": pair.actor})
    accuracy = self._validation_accuracy(phases.networks.classifier)
    classifiers = {
      arm: self._state(phases.classifier(arm, frozen), asked("classifier"), accuracy).variables
      for arm in self._config["classifier"]["arms"]
    }
    if stage == "classifier":
      return
    alone = self._state(phases.samples_alone(frozen), True).variables
    self._evaluate(frozen, pair, classifiers, alone, self._judge())

  def _judge(self) -> Any:
    model = self._phases.networks.judge
    return self._state(self._phases.judge(), True, self._validation_accuracy(model)).variables

  def _state(self, phase: loop.Phase, train: bool, validate: loop.Validate | None = None) -> Any:
    """The phase's final state: trained to its end where asked for, else as it was saved."""
    if train:
      return self._trainer.train(phase, self._trainer.images if phase.name == "vae" else self._trainer.rows, validate)
    return self._trainer.finished(phase, len(self._data.train))

  def _mapped(self, function: Callable[..., Any], *in_axes: int | None) -> Callable[..., Any]:
    return jax.jit(parallel.over_seeds(function, self._mesh, in_axes))

  def _batches(self, split: sources.Split) -> list[evaluate.Batch]:
    size = min(self._config["evaluate"]["batch_size"], len(split))
    return evaluate.batches(split, size, parallel.replicated(self._mesh))

  def _correct(self, model: Any) -> Callable[[Any, evaluate.Batch], jax.Array]:
    """`(variables, batch) -> [S]` correct predictions."""

    def count(variables, batch):
      logits = model.apply(variables, self._phases.prepare(batch)["image"])
      return metrics.count_correct(logits, batch["label"], batch["mask"])

    return self._mapped(count, 0, None)

  def _scores(self, model: Any) -> Callable[[Any, evaluate.Batch], dict[str, jax.Array]]:
    """`(variables, batch) -> {score: [S]}`, sums; compiled once for all test sets and repetitions."""

    def score(variables, batch):
      logits = model.apply(variables, self._phases.prepare(batch)["image"])
      return metrics.soft_scores(logits, batch["label"], batch["target"], batch["mask"])

    return self._mapped(score, 0, None)

  def _validation_accuracy(self, model: Any) -> loop.Validate:
    count, batches = self._correct(model), self._batches(self._data.validation)
    size = len(self._data.validation)
    return lambda state: {"accuracy": evaluate.total(lambda batch: count(state.variables, batch), batches) / size}

  def _validation_elbo(self) -> loop.Validate:
    """The training objective on the validation images, with the same noise in every epoch."""
    model, objective = self._phases.networks.vae, self._phases.objective()

    def loss(variables, key, batch):
      images = self._phases.prepare(batch)["image"]
      per_image, _ = objective(images, model.apply(variables, images, key))
      return jnp.where(batch["mask"], per_image, 0).sum()

    mapped, keys = self._mapped(loss, 0, 0, None), self._phases.keys("evaluate")
    batches, size = self._batches(self._data.validation), len(self._data.validation)
    return lambda state: {"loss": evaluate.total(lambda batch: mapped(state.variables, keys, batch), batches) / size}

  def _freeze(self, variables: Any) -> states.Frozen:
    """The trained VAE with its latents' statistics, which are found once and stored beside it."""
    phases, calibrate = self._phases, self._config["vae"]["calibrate"]

    def count(variables, key, batch):
      images = phases.prepare(batch)["image"]
      output = phases.networks.vae.apply(variables, images, key)
      return {
        "scale": jnp.where(batch["mask"][:, None], output.posterior.scale, 0).sum(axis=0),
        "decoded": calibration.histogram(ranges.from_model(output.images), batch["mask"]),
        "data": calibration.histogram(ranges.from_model(images), batch["mask"]),
      }

    def conclude(counts):
      table = calibration.fit(counts["decoded"], counts["data"]) if calibrate else calibration.identity()
      return {"posterior_scale": counts["scale"] / len(self._data.train), "calibration": table}

    def find():
      counted, keys = self._mapped(count, 0, 0, None), phases.keys("statistics")
      counts = evaluate.total(lambda batch: counted(variables, keys, batch), self._batches(self._data.train))
      return self._mapped(conclude, 0)(counts)

    with checkpoint.Checkpoints(self._workdir / "checkpoints" / "statistics") as saved:
      if saved.latest is None:
        statistics = find()
        saved.save(0, statistics, dataclasses.asdict(self._data.facts))
      else:
        statistics = saved.restore(checkpoint.abstract(phases.statistics(), parallel.per_seed(self._mesh)))
    return states.Frozen(variables, **statistics)

  def _evaluate(
    self, frozen: states.Frozen, pair: learning.Pair, classifiers: dict[str, Any], alone: Any, judge: Any
  ) -> None:
    """Scores classifiers, samples and edits; writes `samples.npz`, then `results.json`."""
    networks, wanted = self._phases.networks, door.wanted_test_sets(self._config, "evaluate")
    _log.info("evaluating on %d test sets: %s", len(wanted), ", ".join(self._config["evaluate"]["sets"]))
    score, judge_score = self._scores(networks.classifier), self._scores(networks.judge)
    arms, known = self._scored({arm: functools.partial(score, own) for arm, own in classifiers.items()}, wanted)
    plain = [test_sets.TestSet(test_sets.TEST)]
    judged, _ = self._scored({"judge": functools.partial(judge_score, judge)}, plain)
    taught, _ = self._scored({"alone": functools.partial(score, alone)}, plain)
    of_conditions = functools.partial(learning.constraint, self._phases, pair)
    scorer = self._quality(frozen, judge)
    samples = scorer.methods(list(map(of_conditions, jnp.eye(len(self._data.class_names)))), quality.labels_by_judge)
    samples["actor"]["classification_accuracy"] = taught["alone"][test_sets.TEST]["accuracy"]
    results = {
      "seeds": list(self._phases.seeds),
      "data": dataclasses.asdict(self._data.facts),
      "samples": samples,
      "edits": scorer.edits(of_conditions),
      "judge": judged["judge"],
      "arms": arms,
      "test_sets": known,
      "robustness": {
        arm: robustness.summarize({one: np.array(scores[one.name]["accuracy"]) for one in wanted})
        for arm, scores in arms.items()
      },
      "timing": self._timing_summary(),
    }
    self._write_samples(frozen, of_conditions)
    report.write_json(self._workdir / "results.json", results)

  def _scored(
    self, classifiers: dict[str, Callable[[evaluate.Batch], dict[str, jax.Array]]], wanted: list[test_sets.TestSet]
  ) -> tuple[evaluate.Scores, dict[str, dict[str, Any]]]:
    size, stored = self._config["evaluate"]["batch_size"], any(one.tfds_name for one in wanted)
    return evaluate.scores(
      classifiers,
      wanted,
      lambda one: test_sets.read(one, self._data.test, self._config["data"]["dir"]),
      classes=len(self._data.class_names),
      size=size if stored else min(size, len(self._data.test)),
      sharding=parallel.replicated(self._mesh),
    )

  def _timing_summary(self) -> dict[str, dict[str, float]]:
    """Seconds and steps of every phase, and of all arms of the classifier together."""
    known = self._trainer.timing
    arms = [timing for name, timing in known.items() if name.startswith("classifier/")]
    total = loop.Timing(*(sum(getattr(arm, field.name) for arm in arms) for field in dataclasses.fields(loop.Timing)))
    return {name: timing.summary() for name, timing in (known | {"classifier": total}).items()}

  def _quality(self, frozen: states.Frozen, judge: Any) -> quality.Quality:
    return quality.Quality(self._phases, self._mesh, frozen, judge, self._data.test, self._data.train)

  def _write_samples(self, frozen: states.Frozen, of_conditions: Callable[[jax.Array], constraints.Learnt]) -> None:
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
    """Realism or a rule in place of labels: its pair, and in `rules/` what samples of it are worth."""
    text, real = self._config["actor_critic"]["constraint"], None
    if text == "realism":
      constraint = learning.constraint(self._phases, learner.realism(), jnp.ones(1))
      results, verdicts = {"name": text}, quality.looks_like_a_class
    else:
      learnt = learner.rule(exemplars.parse(text))
      constraint = learning.constraint(self._phases, learnt.pair, learning.HOLDS)
      results = {"name": learnt.name, "bound": learnt.rule.bound, "value": learnt.rule.value}
      verdicts = lambda images, logits, target: learnt.holds(images)
    if stage == "actor_critic":
      return
    if text != "realism":
      test = self._phases.prepare({"image": jnp.asarray(self._data.test.images)})["image"]
      real = learnt.holds(ranges.from_model(test))
    results |= {
      "seeds": list(self._phases.seeds),
      "samples": self._quality(frozen, self._judge()).methods([constraint], verdicts, real),
    }
    first = functools.partial(jax.tree.map, lambda leaf: leaf[0])
    directory = self._workdir / "rules" / learning.plain(results["name"])
    images = gallery.samples(self._phases, first(frozen), first(constraint), 2 * gallery.ACROSS)
    report.write_arrays(directory / "samples.npz", images)
    report.write_json(directory / "results.json", results)
    report.build_rule(directory)
