"""Drawing latents where a constraint holds, and turning latents into images.

There are four methods, and each is called alike: `METHODS[name](key, constraint, latents, **settings)` takes
latents from the prior to where the constraint holds. `edit` starts from encodings instead, and pays for the way.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from lcgen.constraints.algebra import Constraint
from lcgen.data import ranges
from lcgen.generator import calibration
from lcgen.models import losses, vae
from lcgen.training import train_state as states


class Moved(NamedTuple):
  """Latents `[B, L]` and where they came from, `[B, L]`."""

  latents: jax.Array
  start: jax.Array

  @property
  def distance(self) -> jax.Array:
    """Root mean square over latents of how far each has moved, `[B]`; two draws from the prior are 1.41 apart."""
    return jnp.sqrt(jnp.square(self.latents - self.start).mean(axis=-1))


def prior(key: jax.Array, count: int, latent_dim: int) -> jax.Array:
  """Latents from N(0, I), `[count, latent_dim]`."""
  return jax.random.normal(key, (count, latent_dim))


def actor(key: jax.Array, constraint: Constraint, latents: jax.Array) -> Moved:
  """The actor's proposals, one evaluation (Eq. 5)."""
  del key
  return Moved(constraint.propose(latents), latents)


def optimize(key: jax.Array, constraint: Constraint, latents: jax.Array, *, steps: int, learning_rate: float) -> Moved:
  """Adam on the latents themselves, down the energy (Engel et al. 2018, section 3)."""
  del key
  return Moved(_descend(lambda z: constraint.energy(z).sum(), latents, steps, learning_rate), latents)


def langevin(
  key: jax.Array, constraint: Constraint, latents: jax.Array, *, steps: int, step_size: float, noise: float
) -> Moved:
  """Gradient steps down the energy with normal noise added, whose standard deviation falls from `noise` to 0.

  Annealed Langevin dynamics; step by step at the temperature (standard deviation)^2 / (2 step_size).
  """
  slope = jax.grad(lambda z: constraint.energy(z).sum())

  def step(z, inputs):
    step_key, scale = inputs
    return z - step_size * slope(z) + scale * jax.random.normal(step_key, z.shape), None

  scales = noise * jnp.linspace(0.0, 1.0, steps)[::-1]  # one step has no noise
  return Moved(jax.lax.scan(step, latents, (jax.random.split(key, steps), scales))[0], latents)


def refine(
  key: jax.Array,
  constraint: Constraint,
  latents: jax.Array,
  *,
  steps: int,
  step_size: float,
  noise: float,
  rounds: int,
) -> Moved:
  """The actor's proposals, Langevin steps from there, and another draw from the prior for what the critics refuse.

  At most `rounds` draws in all; of a latent that is refused every time the attempt of least energy stays.
  """

  def attempt(key, start):
    moved = langevin(key, constraint, constraint.propose(start), steps=steps, step_size=step_size, noise=noise).latents
    return Moved(moved, start), constraint.energy(moved), constraint.holds(moved)

  def another(carry):
    round_, kept, energy, accepted = carry
    prior_key, attempt_key = jax.random.split(jax.random.fold_in(key, round_))
    moved, new_energy, new_accepted = attempt(attempt_key, jax.random.normal(prior_key, latents.shape))
    better = ~accepted & (new_accepted | (new_energy < energy) | jnp.isnan(energy))
    kept = jax.tree.map(lambda new, old: jnp.where(better[:, None], new, old), moved, kept)
    return round_ + 1, kept, jnp.where(better, new_energy, energy), accepted | new_accepted

  first = (jnp.int32(1), *attempt(jax.random.fold_in(key, 0), latents))
  wanting = lambda carry: (carry[0] < rounds) & ~carry[3].all()
  return jax.lax.while_loop(wanting, another, first)[1]


METHODS = {"actor": actor, "optimize": optimize, "langevin": langevin, "refine": refine}


def with_settings(settings: Mapping[str, Any]) -> dict[str, Callable[..., Moved]]:
  """`METHODS`, each with its settings bound: `{name: (key, constraint, latents) -> Moved}`.

  Args:
    settings: of each method by its name, as in a config's section `sample`; the actor has none.
  """
  return {name: functools.partial(method, **settings.get(name, {})) for name, method in METHODS.items()}


def edit(
  constraint: Constraint,
  latents: jax.Array,
  posterior_scale: jax.Array,
  *,
  steps: int,
  learning_rate: float,
  distance_weight: float | jax.Array,
) -> Moved:
  """Adam from encodings down the energy plus `distance_weight` times the penalty of Eq. 3, mean over latents.

  Args:
    constraint: what is to hold.
    latents: encodings, `[B, L]`.
    posterior_scale: standard deviation of q(z|x) averaged over the training set, `[L]`.
    steps: of Adam.
    learning_rate: of Adam, in units of the prior's standard deviation.
    distance_weight: lambda_dist; more stays closer to the encoding.
  """

  def objective(z):
    distance = losses.distance_penalty(z, latents, posterior_scale, "mean")
    return (constraint.energy(z) + distance_weight * distance).sum()

  return Moved(_descend(objective, latents, steps, learning_rate), latents)


def interpolate(a: jax.Array, b: jax.Array, count: int) -> jax.Array:
  """`count` latents from each of `a` to that of `b`, both included; `[B, L]` twice -> `[B, count, L]`.

  Along the great circle between them (Shoemake 1985), since draws from the prior lie near a sphere and the middle of a
  straight line does not; lengths change linearly. Parallel latents, and zeros, are joined by a straight line.
  """
  shares = jnp.linspace(0.0, 1.0, count)[None, :, None]
  length = lambda z: jnp.linalg.norm(z, axis=-1, keepdims=True)[:, None]  # [B, 1, 1]
  of_a, of_b = length(a), length(b)
  unit_a, unit_b = a[:, None] / jnp.maximum(of_a, 1e-12), b[:, None] / jnp.maximum(of_b, 1e-12)
  angle = jnp.arccos(jnp.clip((unit_a * unit_b).sum(axis=-1, keepdims=True), -1.0, 1.0))
  flat = (jnp.sin(angle) < 1e-4) | (jnp.minimum(of_a, of_b) == 0)
  sine = jnp.where(flat, 1.0, jnp.sin(angle))
  directions = (jnp.sin((1 - shares) * angle) * unit_a + jnp.sin(shares * angle) * unit_b) / sine
  along = ((1 - shares) * of_a + shares * of_b) * directions
  return jnp.where(flat, (1 - shares) * a[:, None] + shares * b[:, None], along)


def _descend(objective, latents: jax.Array, steps: int, learning_rate: float) -> jax.Array:
  optimizer = optax.adam(learning_rate)
  slope = jax.grad(objective)

  def step(carry, _):
    z, opt_state = carry
    updates, opt_state = optimizer.update(slope(z), opt_state)
    return (z + updates, opt_state), None

  return jax.lax.scan(step, (latents, optimizer.init(latents)), None, length=steps)[0][0]


def decode(latents: jax.Array, frozen: states.Frozen, *, model: vae.VAE, calibrate: bool = True) -> jax.Array:
  """Decoded and calibrated images as floats in [0, 1]; latents `[B, L]` -> `[B, H, W, C]`."""
  unit = ranges.from_model(model.apply(frozen.vae, latents, method="decode"))
  return calibration.apply(frozen.calibration, unit) if calibrate else unit
