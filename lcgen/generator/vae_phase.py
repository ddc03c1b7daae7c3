"""Phase 1: the VAE as a generator, its step (Eq. 1) and its phase."""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from lcgen.data import batching, ranges, sources
from lcgen.generator import base
from lcgen.generator.registration import register
from lcgen.generator.settings import VAESettings
from lcgen.models import losses, vae
from lcgen.models.posterior import Posterior
from lcgen.training import loop, optimizers
from lcgen.training.context import Compute, Context
from lcgen.training.train_state import Batch, Metrics, TrainState

Objective = Callable[[jax.Array, vae.VAEOutput], tuple[jax.Array, dict[str, jax.Array]]]


def vae_step(
  state: TrainState,
  frozen: None,
  batch: Batch,
  key: jax.Array,
  *,
  model: vae.VAE,
  optimizer: optax.GradientTransformation,
  objective: Objective,
) -> tuple[TrainState, Metrics]:
  """Updates encoder and decoder on images alone (Eq. 1); it reads no labels."""
  del frozen

  def loss(params):
    variables = {"params": params, "batch_stats": state.batch_stats}
    output, updated = model.apply(variables, batch["image"], key, train=True, mutable=["batch_stats"])
    per_image, terms = objective(batch["image"], output)
    metrics = {name: term.mean() for name, term in terms.items()} | {"loss": per_image.mean()}
    return metrics["loss"], (metrics, updated)

  gradients, (metrics, updated) = jax.grad(loss, has_aux=True)(state.params)
  return state.update(gradients, optimizer, updated), metrics


@register("vae", VAESettings)
class VAE(base.Generator):
  """The paper's generator: a variational autoencoder, trained on images alone."""

  def __init__(self, settings: VAESettings, image_shape: tuple[int, int, int], compute: Compute):
    super().__init__(settings, image_shape, compute)
    self.output_limit, self.calibrate = settings.output_limit, settings.calibrate
    self.model = vae.VAE(
      image_shape=self.image_shape,
      latent_dim=settings.latent_dim,
      architecture=settings.architecture,
      widths=(settings.hidden_dim,) * settings.depth,
      channels=settings.channels,
      output_limit=settings.output_limit,
      form=compute.form,
      dtype=compute.dtype,
      style=compute.style,
    )

  def init(self, key: jax.Array) -> Any:
    return self.model.init(key, jnp.zeros((1, *self.image_shape)), key)

  def encode(self, variables: Any, images: jax.Array) -> Posterior:
    return self.model.apply(variables, images, method="encode")

  def decode(self, variables: Any, latents: jax.Array) -> jax.Array:
    return self.model.apply(variables, latents, method="decode")

  @property
  def objective(self) -> Objective:
    """The loss of phase 1: Eq. 1 in the form that the settings name."""
    if self.settings.likelihood == "gaussian":
      return functools.partial(losses.gaussian_elbo, sigma=ranges.model_scale(self.settings.sigma))
    return functools.partial(losses.weighted_elbo, kl_weight=self.settings.kl_weight)

  def phase(self, context: Context) -> loop.Phase:
    steps = context.facts.train // self.settings.batch_size * self.settings.epochs
    optimizer = optimizers.adam(self.settings, steps)
    step = functools.partial(vae_step, model=self.model, optimizer=optimizer, objective=self.objective)
    return loop.Phase(
      name="vae",
      kind="vae",
      run_steps=loop.OneByOne(step, context.prepare),
      init=lambda key: TrainState.create(self.init(key), optimizer),
      frozen=None,
      keys=context.keys("vae"),
      batch_size=self.settings.batch_size,
      epoch_size=context.facts.train,
      epochs=self.settings.epochs,
      stage="vae",
    )

  def validate(self, context: Context, images: sources.Split) -> Callable[[TrainState], dict[str, jax.Array]]:
    """Scores the training objective on validation images, with the same noise in every epoch."""

    def loss(variables, key, batch):
      prepared = context.prepare(batch)["image"]
      per_image, _ = self.objective(prepared, self.model.apply(variables, prepared, key))
      return jnp.where(batch["mask"], per_image, 0).sum()

    mapped, keys = context.over_seeds(loss, 0, 0, None), context.keys("evaluate")
    batches = context.batches(images)
    total = lambda state: batching.total(lambda batch: mapped(state.variables, keys, batch), batches)
    return lambda state: {"validation_loss": total(state) / len(images)}

  @property
  def observation_sigma(self) -> float:
    """Standard deviation of its Gaussian likelihood, in units of [0, 1] images."""
    if self.settings.likelihood == "gaussian":
      return self.settings.sigma
    pixels = math.prod(self.image_shape)
    return losses.observation_sigma(self.settings.kl_weight, pixels) / ranges.model_scale(1.0)

  def facts(self) -> dict[str, Any]:
    return {"observation_sigma": self.observation_sigma}

  def words(self) -> str:
    weighted = self.settings.likelihood == "weighted"
    given = f"kl_weight={self.settings.kl_weight} amounts to" if weighted else "likelihood:"
    return f"{given} a Gaussian of standard deviation {self.observation_sigma:.3f} on [0, 1] images"
