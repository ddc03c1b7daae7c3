"""One update of a classifier (Eq. 4), which the arms and the judge share."""

import dataclasses

import jax
import optax

from lcgen.models import classifier, losses
from lcgen.training.train_state import Metrics, TrainState


@dataclasses.dataclass(frozen=True)
class Update:
  """One update of a classifier.

  Attributes:
    model: the network.
    optimizer: the optimiser of its parameters.
    views: images that a batch holds for each label.
    consistency: weight of the Jensen-Shannon divergence between the predictions for the views of an image.
  """

  model: classifier.Classifier | classifier.Judge
  optimizer: optax.GradientTransformation
  views: int = 1
  consistency: float = 0.0

  def __call__(
    self, state: TrainState, images: jax.Array, labels: jax.Array, weights: jax.Array
  ) -> tuple[TrainState, Metrics]:
    """Updates the classifier on images and label distributions `[B, K]`, whose losses have weights `[B]`.

    The loss is the weighted cross-entropy, plus a consistency loss between the views of each image.
    """

    def loss(params):
      variables = {"params": params, "batch_stats": state.batch_stats}
      logits, updated = self.model.apply(variables, images, train=True, mutable=["batch_stats"])
      mean = lambda values: (weights * values).sum() / weights.sum()
      total = mean(losses.cross_entropy(logits, labels))
      if self.consistency:
        views = logits.reshape(self.views, -1, logits.shape[-1])
        total += self.consistency * losses.jensen_shannon_divergence(views).mean()
      metrics = {"loss": total, "accuracy": mean(logits.argmax(-1) == labels.argmax(-1))}
      return total, (metrics, updated)

    gradients, (metrics, updated) = jax.grad(loss, has_aux=True)(state.params)
    return state.update(gradients, self.optimizer, updated), metrics
