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
  door,
  errors,
  evaluate,
  inspection,
  loop,
  metrics,
  parallel,
  report,
  robustness,
  sampling,
  test_sets,
)
from lcgen import state as states
from lcgen.data import images as ranges
from lcgen.data import sources
from lcgen.phases import Phases

_log = logging.getLogger(__name__)

STAGES = ("all", "data", "vae", "actor_critic", "classifier", "evaluate", "report", "inspect")
_GRID = 10  # images a side in the figures


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
  if stage == "report" or (stage == "all" and known == config and results.exists()):
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
    if known != config:
      results.unlink(missing_ok=True)
      report.write_json(workdir / "config.json", config)
    _log.info("VAE: %s", inspection.likelihood_words(phases, inspection.reconstruction_floor(phases, data.train)))
    Experiment(phases, workdir, data).run(stage)
    if results.exists():
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
    self._mesh = parallel.make_mesh(self._config["seeds"])
    self._metrics = report.MetricsFile(workdir / "metrics.jsonl")
    self._timing: dict[str, loop.Timing] = {}
    rows = {"image": data.train.images, "label": data.train.labels}
    self._rows = jax.device_put(rows, parallel.replicated(self._mesh))

  def run(self, stage: str) -> None:
    """Trains what the stage asks for; `evaluate` and `all` end with `results.json` and `samples.npz`."""
    phases, asked = self._phases, lambda name: stage in ("all", name)
    vae_state = self._state(phases.vae(), asked("vae"), self._validation_elbo())
    frozen = self._freeze(vae_state.variables)
    if stage == "vae":
      return
    game = self._state(phases.actor_critic(frozen), asked("actor_critic"))
    if stage == "actor_critic":
      return
    frozen = frozen.replace(actor={"params": game.actor_average})
    accuracy = self._validation_accuracy(phases.networks.classifier)
    classifiers = {
      arm: self._state(phases.classifier(arm, frozen), asked("classifier"), accuracy).variables
      for arm in self._config["classifier"]["arms"]
    }
    if stage == "classifier":
      return
    judge = self._state(phases.judge(), True, self._validation_accuracy(phases.networks.judge))
    self._evaluate(frozen, classifiers, judge.variables)

  def _state(self, phase: loop.Phase, train: bool, validate: loop.Validate | None = None) -> Any:
    """The phase's final state: trained to its end where asked for, else as it was saved."""
    directory = self._workdir / "checkpoints" / phase.name
    if train:
      state, timing = loop.train(
        phase,
        self._rows,
        self._phases.prepare,
        validate,
        seeds=self._phases.seeds,
        mesh=self._mesh,
        pace=loop.Pace(**{name: self._config["train"][name] for name in ("chunk_steps", "checkpoint_steps")}),
        directory=directory,
        metrics=self._metrics,
      )
    else:
      state, timing = loop.finished(phase, len(self._data.train), self._mesh, directory)
    self._timing[phase.name] = timing
    return state

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

  def _evaluate(self, frozen: states.Frozen, classifiers: dict[str, Any], judge: Any) -> None:
    """Scores classifiers and samples; writes `samples.npz`, then `results.json`."""
    networks, wanted = self._phases.networks, door.wanted_test_sets(self._config, "evaluate")
    _log.info("evaluating on %d test sets: %s", len(wanted), ", ".join(self._config["evaluate"]["sets"]))
    score, judge_score = self._scores(networks.classifier), self._scores(networks.judge)
    arms, known = self._scored({arm: functools.partial(score, own) for arm, own in classifiers.items()}, wanted)
    judged, _ = self._scored({"judge": functools.partial(judge_score, judge)}, [test_sets.TestSet(test_sets.TEST)])
    results = {
      "seeds": list(self._phases.seeds),
      "data": dataclasses.asdict(self._data.facts),
      "samples": {"actor": self._sample_scores(frozen, judge, self._batches(self._data.test))},
      "judge": judged["judge"],
      "arms": arms,
      "test_sets": known,
      "robustness": {
        arm: robustness.summarize({one: np.array(scores[one.name]["accuracy"]) for one in wanted})
        for arm, scores in arms.items()
      },
      "timing": self._timing_summary(),
    }
    self._write_samples(frozen)
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
    arms = [timing for name, timing in self._timing.items() if name.startswith("classifier/")]
    total = loop.Timing(*(sum(getattr(arm, field.name) for arm in arms) for field in dataclasses.fields(loop.Timing)))
    return {name: timing.summary() for name, timing in (self._timing | {"classifier": total}).items()}

  def _sample_scores(self, frozen: states.Frozen, judge: Any, test: list[evaluate.Batch]) -> dict[str, Any]:
    """What the judge says of actor samples, one value a seed."""
    networks, facts = self._phases.networks, self._data.facts
    classes, per_class = len(facts.class_names), self._config["evaluate"]["samples_per_class"]

    def score(frozen, judge, key, label):
      labels = jnp.full(per_class, label)
      key = jax.random.fold_in(key, label)
      images = sampling.actor_images(key, labels, frozen, model=networks.vae, actor=networks.actor, classes=classes)
      features, logits = networks.judge.apply(judge, ranges.to_model(ranges.Unit(images)), method="score")
      return features, logits.argmax(-1) == labels

    def look(judge, batch):
      return networks.judge.apply(judge, self._phases.prepare(batch)["image"], method="features")

    scored, keys = self._mapped(score, 0, 0, 0, None), self._phases.keys("evaluate")
    features, hits = zip(*(scored(frozen, judge, keys, label) for label in range(classes)), strict=True)
    looked = self._mapped(look, 0, None)
    real = jnp.concatenate([looked(judge, batch) for batch in test], axis=1)[:, : facts.test]
    spread = jax.vmap(functools.partial(metrics.within_class_spread, classes=classes), in_axes=(0, None))
    drawn_labels = jnp.repeat(jnp.arange(classes), per_class)
    drawn_spread = spread(jnp.concatenate(features, axis=1), drawn_labels)
    real_spread = spread(real, jnp.asarray(self._data.test.labels))
    by_class = np.stack([np.asarray(hit).mean(axis=1) for hit in hits], axis=1)  # [S, K]
    return {
      "conditional_accuracy": by_class.mean(axis=1).tolist(),
      "conditional_accuracy_by_class": by_class.tolist(),
      "diversity": np.asarray(drawn_spread / real_spread).tolist(),
    }

  def _write_samples(self, frozen: states.Frozen) -> None:
    """Images of the first repetition for the figures, uint8."""
    networks, classes = self._phases.networks, len(self._data.facts.class_names)
    frozen = jax.tree.map(lambda leaf: leaf[0], frozen)
    prior_key, actor_key = jax.random.split(self._phases.keys("evaluate")[0])
    shown = np.linspace(0, len(self._data.test) - 1, 2 * _GRID).astype(int)  # spread, for sets that come class by class
    stored = self._data.test.images[shown]
    originals = self._phases.prepare({"image": jnp.asarray(stored)})["image"]
    latents = networks.vae.apply(frozen.vae, originals, method="encode").mean
    prior = sampling.prior(prior_key, _GRID**2, networks.vae.latent_dim)
    labels = jnp.repeat(jnp.arange(classes), _GRID)
    decode = functools.partial(sampling.decode, frozen=frozen, model=networks.vae)
    moved = sampling.actor_latents(actor_key, labels, frozen, actor=networks.actor, classes=classes)
    images = {
      "originals": ranges.from_model(originals),
      "reconstructions": decode(latents),
      "prior": decode(prior),
      "actor": decode(moved),
    }
    report.write_arrays(
      self._workdir / "samples.npz", {name: np.asarray(ranges.to_uint8(unit)) for name, unit in images.items()}
    )
