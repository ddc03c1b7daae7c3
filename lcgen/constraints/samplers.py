"""Samplers, which move latents from the prior to where a constraint holds; and edits, which start from encodings.

A sampler is a function `(key, constraint, latents, settings) -> Moved`, registered by name with its settings. If it
draws from the prior again, it also takes the keyword `prior`, `(key, count) -> latents`. If it draws from the mixture
of each class, its constraint must be a `lcgen.constraints.algebra.Drawable`.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from lcgen.constraints import mixture_flow, mixture_map
from lcgen.constraints import settings as own_settings
from lcgen.constraints.algebra import Constraint
from lcgen.constraints.settings import SAMPLERS, EditSettings
from lcgen.models import losses
from lcgen.runtime import errors
from lcgen.runtime.registry import Registry
from lcgen.runtime.results import PRIOR, REAL, RECONSTRUCTED


class Moved(NamedTuple):
  """Latents `[B, L]` and the latents that they started from, `[B, L]`."""

  latents: jax.Array
  start: jax.Array

  @property
  def distance(self) -> jax.Array:
    """Root mean square move over latent dimensions, `[B]`; two draws from the prior are 1.41 apart."""
    return jnp.sqrt(jnp.square(self.latents - self.start).mean(axis=-1))


Prior = Callable[[jax.Array, int], jax.Array]
Sampler = Callable[..., Moved]
_SAMPLERS = Registry("sampler")  # name -> (function, whether it takes `prior`, whether it draws from the mixture)


def register(
  name: str, settings: type, redraws: bool = False, of_mixture: bool = False
) -> Callable[[Sampler], Sampler]:
  """Registers a sampler under a name, so that `--config.sample.method=NAME` chooses it.

  Args:
    name: of the sampler and of its section `config.sample.NAME`.
    settings: a frozen dataclass, passed to the sampler; `lcgen.runtime.fields` declares its fields.
    redraws: whether the sampler takes the keyword `prior`.
    of_mixture: whether the sampler needs `constraint.mixture`.

  Raises:
    InputError: if the name belongs to another row of the samples' scores.
  """
  if name in (PRIOR, REAL, RECONSTRUCTED):
    raise errors.InputError(f"sampler {name!r}: a row of the samples' scores has this name; choose another name")
  if name not in SAMPLERS:
    SAMPLERS.add(name, settings)

  def decorate(function: Sampler) -> Sampler:
    _SAMPLERS.add(name, (function, redraws, of_mixture))
    return function

  return decorate


def bind(settings: Any, prior: Prior) -> dict[str, Callable[[jax.Array, Constraint, jax.Array], Moved]]:
  """Binds every registered sampler to its settings: `{name: (key, constraint, latents) -> Moved}`.

  Args:
    settings: the config's section `sample`, with the settings of each sampler under its name.
    prior: of the generator, `(key, count) -> latents`.
  """
  bound = {}
  for name, (function, redraws, _) in _SAMPLERS.items():
    given = {"settings": getattr(settings, name, None) or SAMPLERS[name]()}
    bound[name] = functools.partial(function, **given, **({"prior": prior} if redraws else {}))
  return bound


def names() -> list[str]:
  """Lists the names of all samplers in the order of their registration."""
  return list(_SAMPLERS.names())


def draws_from_mixture(name: str) -> bool:
  """Tells whether a sampler needs the mixture of each class."""
  return _SAMPLERS[name][2]


@register("actor", own_settings.Actor)
def actor(key: jax.Array, constraint: Constraint, latents: jax.Array, settings: own_settings.Actor) -> Moved:
  """Applies the actor once (Eq. 5)."""
  del key, settings
  return Moved(constraint.propose(latents), latents)


@register("optimize", own_settings.Optimize)
def optimize(key: jax.Array, constraint: Constraint, latents: jax.Array, settings: own_settings.Optimize) -> Moved:
  """Runs Adam on the latents themselves, down the energy (Engel et al. 2018, section 3)."""
  del key
  energy = lambda z: constraint.energy(z).sum()
  return Moved(_descend(energy, latents, settings.steps, settings.learning_rate), latents)


@register("langevin", own_settings.Langevin)
def langevin(key: jax.Array, constraint: Constraint, latents: jax.Array, settings: own_settings.Langevin) -> Moved:
  """Takes gradient steps down the energy and adds normal noise, whose standard deviation falls from `noise` to 0.

  This is annealed Langevin dynamics. Each step has the temperature (standard deviation)^2 / (2 step_size).
  """
  slope = jax.grad(lambda z: constraint.energy(z).sum())

  def step(z, inputs):
    step_key, scale = inputs
    return z - settings.step_size * slope(z) + scale * jax.random.normal(step_key, z.shape), None

  scales = settings.noise * jnp.linspace(0.0, 1.0, settings.steps)[::-1]  # a single step has no noise
  return Moved(jax.lax.scan(step, latents, (jax.random.split(key, settings.steps), scales))[0], latents)


@register("refine", own_settings.Refine, redraws=True)
def refine(
  key: jax.Array, constraint: Constraint, latents: jax.Array, settings: own_settings.Refine, *, prior: Prior
) -> Moved:
  """Applies the actor, then Langevin steps, and draws again for the latents that the critics refuse."""
  return _redrawn(
    lambda key, start: langevin(key, constraint, constraint.propose(start), settings).latents,
    key,
    constraint,
    latents,
    settings.rounds,
    prior,
  )


@register("mixture", own_settings.Mixture, redraws=True, of_mixture=True)
def mixture(
  key: jax.Array, constraint: Constraint, latents: jax.Array, settings: own_settings.Mixture, *, prior: Prior
) -> Moved:
  """Moves each draw to a component of a class that the constraint allows, and draws again for what critics refuse."""

  def attempt(key, start):
    label_key, component_key = jax.random.split(key)
    labels = _labels(label_key, constraint, start, "mixture")
    return constraint.mixture.sample(component_key, labels, start)

  return _redrawn(attempt, key, constraint, latents, settings.rounds, prior)


@register("flow", own_settings.Flow, redraws=True, of_mixture=True)
def flow(
  key: jax.Array, constraint: Constraint, latents: jax.Array, settings: own_settings.Flow, *, prior: Prior
) -> Moved:
  """Moves each draw along the flow of a class that the constraint allows, guided by the energies of its rules.

  It draws again for what critics refuse.
  """
  energy = None if constraint.guidance(latents) is None else constraint.guidance

  def attempt(key, start):
    labels = _labels(key, constraint, start, "flow")
    return mixture_flow.flow(constraint.mixture, labels, settings.steps, energy, settings.guidance).forward(start)

  return _redrawn(attempt, key, constraint, latents, settings.rounds, prior)


def _redrawn(
  attempt: Callable[[jax.Array, jax.Array], jax.Array],
  key: jax.Array,
  constraint: Constraint,
  latents: jax.Array,
  rounds: int,
  prior: Prior,
) -> Moved:
  """Draws again for the latents that the critics refuse, `rounds` draws in all at most.

  A latent that is refused every time keeps its attempt of least energy.

  Args:
    attempt: moves draws from the prior, `(key, [B, L]) -> [B, L]`.
    key: of all rounds.
    constraint: whose critics decide.
    latents: the first draws, `[B, L]`.
    rounds: most draws of each latent.
    prior: `(key, count) -> latents`.
  """

  def judged(key, start):
    moved = attempt(key, start)
    return Moved(moved, start), constraint.energy(moved), constraint.holds(moved)

  def another(carry):
    round_, kept, energy, accepted = carry
    prior_key, attempt_key = jax.random.split(jax.random.fold_in(key, round_))
    moved, new_energy, new_accepted = judged(attempt_key, prior(prior_key, len(latents)))
    better = ~accepted & (new_accepted | (new_energy < energy) | jnp.isnan(energy))
    kept = jax.tree.map(lambda new, old: jnp.where(better[:, None], new, old), moved, kept)
    return round_ + 1, kept, jnp.where(better, new_energy, energy), accepted | new_accepted

  wanting = lambda carry: (carry[0] < rounds) & ~carry[3].all()
  return jax.lax.while_loop(wanting, another, (jnp.int32(1), *judged(jax.random.fold_in(key, 0), latents)))[1]


def _labels(key: jax.Array, constraint: Constraint, latents: jax.Array, name: str) -> jax.Array:
  """Draws the class of each sample, by their shares among those that the constraint allows, `[B]`."""
  allowed = _allowed(constraint, latents, f"sampler {name}")
  return constraint.mixture.draw_labels(key, allowed)


def _allowed(constraint: Constraint, latents: jax.Array, name: str) -> jax.Array:
  """Weighs the classes that each latent may belong to, `[B, K]`; the name is that of who asks."""
  if constraint.mixture is None:
    raise errors.InputError(f"{name}: the constraint has no mixture; pass it as Drawable(constraint, mixture)")
  allowed = constraint.allowed(constraint.mixture.classes)
  return jnp.broadcast_to(allowed, (len(latents), allowed.shape[-1]))


def edit(
  constraint: Constraint,
  latents: jax.Array,
  posterior_scale: jax.Array,
  settings: EditSettings,
  distance_weight: float | jax.Array | None = None,
) -> Moved:
  """Moves encodings to where a constraint holds, and keeps them close.

  The method `adam` runs Adam down the energy plus a weight times the penalty of Eq. 3, averaged over latents. The
  others take the encoding from its most probable class to the most probable one that the constraint allows: `flow`
  back along the flow of the one to a draw of the prior, and from there along the flow of the other; `map` by the
  optimal-transport map.

  Args:
    constraint: what is to hold; a `Drawable` for `flow` and `map`.
    latents: encodings, `[B, L]`.
    posterior_scale: standard deviation of q(z|x) averaged over the training set, `[L]`.
    settings: the method, and its steps.
    distance_weight: lambda_dist of Adam, by default that of the settings; a larger one stays closer to the encoding.
  """
  if settings.method != "adam":
    return Moved(_carried(constraint, latents, settings), latents)
  weight = settings.distance_weight if distance_weight is None else distance_weight

  def objective(z):
    distance = losses.distance_penalty(z, latents, posterior_scale, "mean")
    return (constraint.energy(z) + weight * distance).sum()

  return Moved(_descend(objective, latents, settings.steps, settings.learning_rate), latents)


def _carried(constraint: Constraint, latents: jax.Array, settings: EditSettings) -> jax.Array:
  """Takes latents from their own classes to those that a constraint allows, along the flow or by the map."""
  allowed = _allowed(constraint, latents, f"edit.method={settings.method}")
  mixture, guided = constraint.mixture, constraint.guidance(latents) is not None
  log_density = mixture.log_density(latents)
  own = (log_density + mixture.log_shares[None]).argmax(axis=-1)
  wanted = (log_density + jnp.log(allowed)).argmax(axis=-1)
  if settings.method == "map":
    if guided:
      raise errors.InputError("edit.method=map: moves images to classes alone, and there is a rule; take flow or adam")
    return mixture_map.transport(mixture, latents, own, wanted)
  draws = mixture_flow.flow(mixture, own, settings.flow_steps).backward(latents)
  energy = constraint.guidance if guided else None
  return mixture_flow.flow(mixture, wanted, settings.flow_steps, energy, settings.flow_guidance).forward(draws)


def interpolate(a: jax.Array, b: jax.Array, count: int) -> jax.Array:
  """Interpolates `count` latents between `a` and `b`, both included; `[B, L]` twice -> `[B, count, L]`.

  They lie along the great circle (Shoemake 1985): draws from the prior lie near a sphere, and the middle of a straight
  line does not. Lengths change linearly. A straight line joins parallel latents, and zeros.
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
