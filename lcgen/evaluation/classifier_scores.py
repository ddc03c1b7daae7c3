"""Scores of trained classifiers and VAEs on the images of one data set, all repetitions."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lcgen.data import sources, test_sets
from lcgen.evaluation import evaluate, metrics, robustness
from lcgen.runtime import parallel
from lcgen.training import train_state as states
from lcgen.training.context import Phases


class Scorer:
  """Evaluates networks of one config.

  Args:
    phases: of the config.
    mesh: from `parallel.make_mesh`.
    data: its validation and test images are scored.
  """

  def __init__(self, phases: Phases, mesh: jax.sharding.Mesh, data: sources.Dataset):
    self._phases, self._mesh, self._data = phases, mesh, data
    self._local_mesh = parallel.local_mesh(mesh, len(phases.seeds))

  def test(self, model: Any, classifiers: Mapping[str, Any], wanted: Sequence[test_sets.TestSet]) -> dict[str, Any]:
    """What `results.json` has of classifiers: `arms`, `test_sets` and `robustness`; every process finds it by itself.

    Args:
      model: the network of all classifiers.
      classifiers: their variables, `[S, ...]`.
      wanted: the test sets.
    """
    size, stored = self._phases.config["evaluate"]["batch_size"], any(one.tfds_name for one in wanted)
    arms, known = evaluate.scores(
      self.scores(model, classifiers),
      wanted,
      lambda one: test_sets.read(one, self._data.test, self._phases.config["data"]["dir"]),
      classes=len(self._data.class_names),
      size=size if stored else min(size, len(self._data.test)),
      sharding=parallel.replicated(self._local_mesh),
    )
    summaries = {
      arm: robustness.summarize({one: np.array(scores[one.name]["accuracy"]) for one in wanted})
      for arm, scores in arms.items()
    }
    in_order = lambda of_arms: {arm: of_arms[arm] for arm in classifiers}  # JAX sorts what is named
    arms, summaries = in_order(arms), in_order(summaries)
    return {"arms": arms, "test_sets": known, "robustness": summaries}

  def scores(self, model: Any, classifiers: Mapping[str, Any]) -> Callable[[evaluate.Batch], dict[str, Any]]:
    """`batch -> {classifier: {score: [S]}}`, sums; compiled once for all classifiers, test sets and repetitions."""
    each = [parallel.local(variables, self._local_mesh) for variables in classifiers.values()]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves, axis=1), *each)  # [S, classifiers, ...]

    def score(variables, batch):
      images = self._phases.prepare(batch)["image"]
      own = lambda one: metrics.soft_scores(model.apply(one, images), batch["label"], batch["target"], batch["mask"])
      return jax.vmap(own)(variables)  # the first layers of all classifiers are one matrix product

    mapped = jax.jit(parallel.over_seeds(score, self._local_mesh, (0, None)))

    def scores(batch):
      sums = mapped(stacked, batch)
      return {name: {score: value[:, place] for score, value in sums.items()} for place, name in enumerate(classifiers)}

    return scores

  def validation_accuracy(self, model: Any) -> Callable[[states.TrainState], jax.Array]:
    """`state -> [S]` on validation images."""

    def count(variables, batch):
      logits = model.apply(variables, self._phases.prepare(batch)["image"])
      return metrics.count_correct(logits, batch["label"], batch["mask"])

    mapped, batches, size = self._mapped(count, 0, None), self._validation(), len(self._data.validation)
    return lambda state: evaluate.total(lambda batch: mapped(state.variables, batch), batches) / size

  def validation_loss(self) -> Callable[[states.TrainState], jax.Array]:
    """`state -> [S]`: the VAE's training objective on validation images, with the same noise in every epoch."""
    model, objective = self._phases.networks.vae, self._phases.objective()

    def loss(variables, key, batch):
      images = self._phases.prepare(batch)["image"]
      per_image, _ = objective(images, model.apply(variables, images, key))
      return jnp.where(batch["mask"], per_image, 0).sum()

    mapped, keys = self._mapped(loss, 0, 0, None), self._phases.keys("evaluate")
    batches, size = self._validation(), len(self._data.validation)
    return lambda state: evaluate.total(lambda batch: mapped(state.variables, keys, batch), batches) / size

  def _validation(self) -> list[evaluate.Batch]:
    split = self._data.validation
    size = min(self._phases.config["evaluate"]["batch_size"], len(split))
    return evaluate.batches(split, size, parallel.replicated(self._mesh))

  def _mapped(self, function: Callable[..., Any], *in_axes: int | None) -> Callable[..., Any]:
    return jax.jit(parallel.over_seeds(function, self._mesh, in_axes))
