"""The protocol of generators: all that other packages know of the network that makes images.

A generator is a static object; its variables are a separate pytree. Its latents have a standard normal prior.
Any class that follows `Generator` can replace the VAE: `docs/extending.md` has a recipe.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from lcgen.data import ranges
from lcgen.models.posterior import Posterior
from lcgen.runtime import errors


def prior(key: jax.Array, count: int, latent_dim: int) -> jax.Array:
  """Draws latents from N(0, I), `[count, latent_dim]`."""
  return jax.random.normal(key, (count, latent_dim))


class Generator:
  """Turns latents into images and images into latents.

  A subclass writes `init`, `encode` and `decode`. It also writes `phase` if the training loop trains it, or `fit` if
  its variables are computed or read at once.

  Attributes:
    name: in the registry.
    latent_dim: L.
    image_shape: `(H, W, C)` of the images that it decodes.
    output_limit: largest absolute pixel value that it can decode, in model space.
    calibrate: whether decoded pixel values are fitted to the data's.
  """

  name: str = ""
  output_limit: float = ranges.MODEL_LIMIT
  calibrate: bool = True

  def __init__(self, settings: Any, image_shape: tuple[int, int, int], compute: Any):
    del compute
    self.settings, self.image_shape = settings, tuple(image_shape)
    if not hasattr(settings, "latent_dim"):
      raise errors.InputError(f"generator {self.name}: its settings need a field latent_dim")
    self.latent_dim: int = settings.latent_dim

  def prior(self, key: jax.Array, count: int) -> jax.Array:
    """Draws latents from the prior, `[count, L]`."""
    return prior(key, count, self.latent_dim)

  def init(self, key: jax.Array) -> Any:
    """Makes untrained variables of the right shapes."""
    raise NotImplementedError

  def encode(self, variables: Any, images: jax.Array) -> Posterior:
    """Gives q(z|x) for model-space images `[B, H, W, C]`."""
    raise NotImplementedError

  def decode(self, variables: Any, latents: jax.Array) -> jax.Array:
    """Gives model-space images `[B, H, W, C]` for latents `[B, L]`."""
    raise NotImplementedError

  def phase(self, context: Any) -> Any:
    """Gives the `training.loop.Phase` that trains it on images alone; None if `fit` computes the variables.

    Args:
      context: the `training.context.Context` of the run.
    """
    del context
    return None

  def fit(self, images: np.ndarray) -> Any:
    """Computes the variables without the training loop, the same for every seed.

    Args:
      images: the training images as they are stored, uint8 `[N, H, W, C]`.
    """
    raise NotImplementedError

  def validate(self, context: Any, images: Any) -> Callable[[Any], dict[str, jax.Array]]:
    """Gives a function `state -> {name: [S]}` that scores it on validation images after every epoch."""
    del context, images
    return lambda state: {}

  def facts(self) -> dict[str, Any]:
    """Gives its own entries of `--stage=inspect`, beside its parameters."""
    return {}

  def words(self) -> str:
    """Says in one sentence how it is trained."""
    return ""
