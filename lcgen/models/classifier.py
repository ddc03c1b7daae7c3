"""The classifier of phase 3 (paper, section 4, Fig. 17) and the judge that scores samples."""

from collections.abc import Sequence
from typing import Any

import jax
from flax import linen as nn

from lcgen.models import layers


class Classifier(nn.Module):
  """The encoder's trunk and a linear layer; `[B, H, W, C]` in model space -> logits `[B, classes]`.

  Attributes:
    classes: number of classes K.
    architecture: `"dense"` or `"conv"`.
    widths: layers of the dense trunk.
    channels: layers of the convolutional trunk, each halving the image.
    activate_logits: whether leaky ReLU follows the logits, a flaw of the published code that is kept for comparison.
    form: form of the convolutions, one of `layers.FORMS`.
    dtype: type that the layers compute in.
    style: whose first weights and batch norm the layers have, one of `layers.STYLES`.
  """

  classes: int
  architecture: str
  widths: Sequence[int]
  channels: Sequence[int]
  activate_logits: bool = False
  form: str = "native"
  dtype: Any = None
  style: str = "flax"

  @nn.compact
  def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
    if self.architecture == "conv":
      trunk = layers.ConvBlocks(self.channels, self.form, self.dtype, self.style)
    else:
      trunk = layers.DenseBlocks(self.widths, self.dtype, self.style)
    logits = layers.Head(self.classes, self.dtype, self.style)(trunk(images, train))
    return layers.leaky_relu(logits) if self.activate_logits else logits


class Judge(nn.Module):
  """A small convolutional classifier, trained on real images alone and used only for scoring.

  `features` gives the activations before its last layer, `[B, feature_dim]`, in which diversity is measured. Its layers
  are Flax's in every config, so that scores of all configs come from the same judge.
  """

  classes: int
  channels: Sequence[int]
  feature_dim: int
  form: str = "native"

  def setup(self):
    self.trunk = layers.ConvBlocks(self.channels, self.form)
    self.head = layers.DenseBlocks((self.feature_dim,))
    self.logits = layers.Dense(self.classes)

  def features(self, images: jax.Array, train: bool = False) -> jax.Array:
    return self.head(self.trunk(images, train), train)

  def score(self, images: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Computes features, `[B, feature_dim]`, and logits, `[B, classes]`."""
    features = self.features(images)
    return features, self.logits(features)

  def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
    return self.logits(self.features(images, train))
