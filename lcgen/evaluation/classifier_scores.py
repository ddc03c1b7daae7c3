"""Scores of trained classifiers on test sets: exact sums, compiled once for all sets and seeds."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent import futures
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lcgen.data import batching, ranges, sources, test_sets
from lcgen.evaluation import metrics, robustness
from lcgen.runtime import parallel
from lcgen.training.context import Context
from lcgen.training.train_state import TrainState

Scores = dict[str, dict[str, dict[str, list[float]]]]


class Scorer:
  """Scores the classifiers of one run.

  Args:
    context: the run's context.
    data: the data set; its validation and test images are scored.
    directory: folder of TFDS sets, with the published test sets.
    confirm: called with name and images of each published test set before it is scored on; may refuse it.
  """

  def __init__(
    self,
    context: Context,
    data: sources.Dataset,
    directory: str = "",
    confirm: Callable[[str, sources.Split], None] = lambda name, split: None,
  ):
    self._context, self._data, self._directory, self._confirm = context, data, directory, confirm
    self._local_mesh = parallel.local_mesh(context.mesh, len(context.seeds))

  def test(self, model: Any, classifiers: Mapping[str, Any], wanted: Sequence[test_sets.TestSet]) -> dict[str, Any]:
    """Scores classifiers on test sets; every process scores all sets by itself.

    Args:
      model: the network of all classifiers.
      classifiers: their variables by name, `[S, ...]`.
      wanted: the test sets.

    Returns:
      `arms`, `test_sets` and `robustness`, as in `results.json`.
    """
    size, stored = self._context.batch_size, any(one.tfds_name for one in wanted)
    batching_ = Batching(
      classes=len(self._data.class_names),
      size=size if stored else min(size, len(self._data.test)),
      sharding=parallel.replicated(self._local_mesh),
    )
    arms, known = score_all(self.scores(model, classifiers), wanted, self._read, batching_)
    summaries = {
      arm: robustness.summarize({one: np.array(scores[one.name]["accuracy"]) for one in wanted})
      for arm, scores in arms.items()
    }
    in_order = lambda of_arms: {arm: of_arms[arm] for arm in classifiers}  # JAX sorts the keys of dicts
    arms, summaries = in_order(arms), in_order(summaries)
    return {"arms": arms, "test_sets": known, "robustness": summaries}

  def _read(self, test_set: test_sets.TestSet) -> sources.Split:
    split = test_sets.read(test_set, self._data.test, self._directory)
    if test_set.tfds_name:
      self._confirm(test_set.name, split)
    return split

  def scores(self, model: Any, classifiers: Mapping[str, Any]) -> Callable[[batching.Batch], dict[str, Any]]:
    """Gives `batch -> {classifier: {score: sums [S]}}`, compiled once for all classifiers, test sets and seeds."""
    each = [parallel.local(variables, self._local_mesh) for variables in classifiers.values()]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves, axis=1), *each)  # [S, classifiers, ...]

    def score(variables, batch):
      images = self._context.prepare(batch)["image"]
      own = lambda one: metrics.soft_scores(model.apply(one, images), batch["label"], batch["target"], batch["mask"])
      return jax.vmap(own)(variables)  # the first layers of all classifiers are one matrix product

    mapped = jax.jit(parallel.over_seeds(score, self._local_mesh, (0, None)))

    def scores(batch):
      sums = mapped(stacked, batch)
      return {name: {score: value[:, place] for score, value in sums.items()} for place, name in enumerate(classifiers)}

    return scores

  def validation_accuracy(self, model: Any) -> Callable[[TrainState], jax.Array]:
    """Gives a function `state -> [S]` that computes the accuracy on the validation images."""

    def count(variables, batch):
      logits = model.apply(variables, self._context.prepare(batch)["image"])
      return metrics.count_correct(logits, batch["label"], batch["mask"])

    mapped, validation = self._context.over_seeds(count, 0, None), self._data.validation
    batches = self._context.batches(validation)
    return lambda state: batching.total(lambda batch: mapped(state.variables, batch), batches) / len(validation)


@dataclasses.dataclass(frozen=True)
class Batching:
  """Number of classes, size and sharding of the batches of test sets.

  Attributes:
    classes: number of classes K.
    size: batch size.
    sharding: sharding of the batches.
  """

  classes: int
  size: int
  sharding: Any


def changed_batches(test_set: test_sets.TestSet, split: sources.Split, cut: Batching) -> Iterator[batching.Batch]:
  """Yields the changed images of a test set as `Unit`, with their label distributions, `target` `[B, K]`.

  Batches of all sets have the same form, so that the scores compile once.
  """
  rows = np.arange(len(split), dtype=np.uint32)
  targets = np.eye(cut.classes, dtype=np.float32)[split.labels] if split.targets is None else split.targets
  arrays = {"image": split.images, "label": split.labels, "mask": np.ones(len(split), bool)}
  arrays |= {"row": rows, "target": targets}
  key, change = test_sets.key(test_set), test_sets.change(test_set)

  def changed(batch: batching.Batch) -> batching.Batch:
    images = change(key, batch.pop("row"), batch["image"])
    return batch | {"image": ranges.Unit(ranges.to_unit(images))}

  with futures.ThreadPoolExecutor() as pool:  # on a CPU one call keeps only a few cores busy
    yield from pool.map(changed, batching.padded_arrays(arrays, cut.size, cut.sharding))


def score_all(
  score: Callable[[batching.Batch], Mapping[str, Mapping[str, jax.Array]]],
  wanted: Sequence[test_sets.TestSet],
  read: Callable[[test_sets.TestSet], sources.Split],
  cut: Batching,
) -> tuple[Scores, dict[str, dict[str, Any]]]:
  """Scores several classifiers on the same test sets.

  Args:
    score: `batch -> {classifier: scores}` of `metrics.soft_scores` for all seeds, each `[S]` or `[S, bins]`.
    wanted: the test sets.
    read: reads the stored images of a set; called once for each, so that only one set is held at a time.
    cut: the batches of the sets.

  Returns:
    `{classifier: {test set: {score: [one a seed]}}}`, and the facts of each set: `family`, `part`, `severity`,
    `origin` and `images`. Scores are `accuracy`, `nll`, `brier`, the expected calibration error `ece`, and every
    registered metric of logits. A set with drawn labels also has the score `kl`, from the label distribution to the
    classifier's, in nats. Its facts include `ceiling` and `label_entropy`, the best classifier's accuracy and NLL.
    The set `corrupted` has the mean accuracy over all sets of CIFAR-10-C and MNIST-C that are generated. Both halves
    of a Dirty-MNIST family are joined under its name.
  """
  results, facts = {}, {}
  for test_set in wanted:
    split = read(test_set)
    known = facts[test_set.name] = dataclasses.asdict(test_set) | {"origin": test_set.origin, "images": len(split)}
    if split.targets is not None:
      known |= {"ceiling": test_sets.ceiling(split), "label_entropy": test_sets.label_entropy(split)}
    parts = list(changed_batches(test_set, split, cut))
    for classifier, sums in jax.device_get(batching.total(score, parts)).items():
      means = {name: value.astype(np.float64) / len(split) for name, value in sums.items()}
      if split.targets is not None:
        means["kl"] = means["nll"] - known["label_entropy"]
      results.setdefault(classifier, {})[test_set.name] = means
  generated = [test_set.name for test_set in wanted if test_set.family in test_sets.GENERATED]
  for by_set in results.values() if generated else ():
    by_set[test_sets.CORRUPTED] = {"accuracy": np.mean([by_set[name]["accuracy"] for name in generated], axis=0)}
  for family in test_sets.DIRTY:
    halves = [f"{family}/{half}" for half in test_sets.HALVES]
    if set(halves) <= set(facts):
      _join(results, facts, family, halves)
  listed = lambda by_set: {name: _listed(means) for name, means in by_set.items()}
  return {classifier: listed(by_set) for classifier, by_set in results.items()}, facts


def _listed(means: dict[str, np.ndarray]) -> dict[str, list[float]]:
  """Converts scores to lists, and `gaps` to `ece`, for `results.json`."""
  errors = {"ece": metrics.calibration_error(means["gaps"])} if "gaps" in means else {}
  return {name: values.tolist() for name, values in (means | errors).items() if name != "gaps"}


def _join(results: Scores, facts: dict[str, dict[str, Any]], name: str, parts: Sequence[str]) -> None:
  """Adds a set that joins others: the mean of each score and fact, weighted by number of images."""
  sizes = [facts[part]["images"] for part in parts]
  mean = lambda values: np.average(values, axis=0, weights=sizes)
  facts[name] = facts[parts[0]] | {"part": "", "images": sum(sizes)}
  for fact in ("ceiling", "label_entropy"):
    facts[name][fact] = float(mean([facts[part][fact] for part in parts]))
  for by_set in results.values():
    by_set[name] = {score: mean([by_set[part][score] for part in parts]) for score in by_set[parts[0]]}
