"""Constraints: an energy on latents that a critic has learnt, and an actor that moves latents down it.

Labels, realism and rules are learnt alike (`lcgen.constraints.learning`); they differ in the critic's training data.
Constraints compose, `a & b`, `a | b`, `~a`, `2.0 * a`, into constraints that every sampler takes. They are pytrees:
jitted functions take them as arguments, and compile once for each structure with its weights.

The energy of one critic is -log D, of a probability. Composed energies are those of products and sums of D (products of
experts; Du et al. 2020, Nie et al. 2021): E(a & b) = E(a) + E(b), E(a | b) = -log(exp(-E(a)) + exp(-E(b))). The sum of
n values of D lies between 0 and n and is no probability: the energy of a union goes down to -log n, below 0, where all
its parts hold. Only differences of an energy between latents count, and samplers use nothing else.

A negation stays among real latents: it is the union of the other classes, so that "not a 3" is another digit and not
noise. A critic with one class, as for realism, has no others; there a negation reverses the logit.

`holds`, which samples show as `accepted`, is a decision of its own, no threshold on the energy. A constraint of one
critic holds if D > 1/2 and its class is `CERTAIN` among all classes of the critic; `&` and `|` join these decisions.
So `~a` holds for latents that are certain to be of another class. It is not the complement of `a`: never do both hold,
and for latents of which the critic is uncertain, or which look like no class, neither does. Only realism, which has no
other class, and its negation are complements.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from lcgen.constraints.mixture import Mixture
from lcgen.models import actor_critic, losses
from lcgen.runtime import fields

CERTAIN = 0.95  # the least probability of a class, among all classes of its critic, for a latent to belong to it


class Constraint:
  """The interface of all constraints; latents are `[B, L]`.

  Attributes:
    mixture: the density of each class's latents, which some samplers draw from; only a `Drawable` has it.
  """

  mixture = None

  def energy(self, latents: jax.Array) -> jax.Array:
    """Computes the energy, `[B]`, which is low if the constraint holds: -log D for one critic, below 0 for unions."""
    raise NotImplementedError

  def holds(self, latents: jax.Array) -> jax.Array:
    """Tells whether the critics accept the latents, bool `[B]`; if they are uncertain, neither `a` nor `~a` holds."""
    raise NotImplementedError

  def logits(self, latents: jax.Array) -> jax.Array:
    """Computes the logit of each critic, in the order in which the constraint was composed, `[B, critics]`."""
    raise NotImplementedError

  def propose(self, latents: jax.Array) -> jax.Array:
    """Applies the actors' amortised moves (Eq. 5), `[B, L]`."""
    raise NotImplementedError

  def allowed(self, classes: int) -> jax.Array:
    """Weighs the classes that samples may come from, `[K]`, or `[B, K]` with weights for each; by default all alike."""
    return jnp.ones(classes)

  def guidance(self, latents: jax.Array) -> jax.Array | None:
    """Computes the energy, `[B]`, of all that `allowed` does not see to; None if there is nothing of this kind.

    A class is held by samples of its mixture, and so is realism. A rule is not.
    """
    return self.energy(latents)

  def __and__(self, other: "Constraint") -> "Constraint":
    return All((self, _checked(other)))

  def __or__(self, other: "Constraint") -> "Constraint":
    return Any((self, _checked(other)))

  def __invert__(self) -> "Constraint":
    raise NotImplementedError

  def __mul__(self, weight: float) -> "Constraint":
    if isinstance(weight, bool) or not isinstance(weight, int | float | np.number):
      raise TypeError(f"weight of type {type(weight).__name__}: must be a number; join constraints by & and |")
    if not 0 < weight <= fields.LARGEST:
      raise ValueError(f"weight {weight}: must be a finite number above 0; ~constraint is the negation")
    return Weighted(self, float(weight))

  __rmul__ = __mul__

  def __bool__(self) -> bool:
    raise TypeError("a constraint is neither true nor false; join constraints by &, | and ~, not by and, or and not")


def _checked(other: object) -> Constraint:
  if not isinstance(other, Constraint):
    raise TypeError(f"{other!r} is no constraint; write run.label(...) for a class")
  return other


@struct.dataclass
class Learnt(Constraint):
  """One condition of one critic, and the actor that was trained for it.

  Attributes:
    critic: the network of the energy, -log D(z, y).
    actor: the network that proposes, G(z, y).
    energy_variables: the critic's.
    actor_variables: the actor's.
    condition: y, `[K]` for all latents or `[B, K]` with one for each.
    negated: whether the logit is reversed; only for K = 1, which has no other class.
    kind: "" if the conditions are the data set's labels, else "realism" or "rule".
  """

  critic: actor_critic.Critic = struct.field(pytree_node=False)
  actor: actor_critic.Actor = struct.field(pytree_node=False)
  energy_variables: dict
  actor_variables: dict
  condition: jax.Array
  negated: bool = struct.field(pytree_node=False, default=False)
  kind: str = struct.field(pytree_node=False, default="")

  def energy(self, latents: jax.Array) -> jax.Array:
    return losses.constraint_loss(self.logits(latents)[:, 0], True)

  def holds(self, latents: jax.Array) -> jax.Array:
    """Tells whether D(z, y) > 1/2 and y is `CERTAIN` among all conditions of this critic."""
    conditions = self._conditions(latents)
    classes = conditions.shape[1]
    of_class = lambda shift: self._logit(latents, jnp.roll(conditions, shift, axis=1))
    logits = jax.vmap(of_class)(jnp.arange(classes))  # [K, B], the condition's own first
    accepted = (logits[0] > 0) & (jax.nn.softmax(logits, axis=0)[0] >= CERTAIN)
    return ~accepted if self.negated else accepted

  def logits(self, latents: jax.Array) -> jax.Array:
    logit = self._logit(latents, self._conditions(latents))
    return (-logit if self.negated else logit)[:, None]

  def propose(self, latents: jax.Array) -> jax.Array:
    if self.negated:  # draws from the prior are not real anyway
      return latents
    return self.actor.apply(self.actor_variables, latents, self._conditions(latents))

  def allowed(self, classes: int) -> jax.Array:
    return super().allowed(classes) if self.kind else self.condition

  def guidance(self, latents: jax.Array) -> jax.Array | None:
    return self.energy(latents) if self.negated or self.kind == "rule" else None

  def __invert__(self) -> Constraint:
    classes = self.condition.shape[-1]
    if classes == 1:
      return self.replace(negated=not self.negated)
    others = tuple(self.replace(condition=jnp.roll(self.condition, shift, axis=-1)) for shift in range(1, classes))
    return others[0] if classes == 2 else Others(others)

  def _conditions(self, latents: jax.Array) -> jax.Array:
    return jnp.broadcast_to(jnp.atleast_2d(self.condition), (latents.shape[0], self.condition.shape[-1]))

  def _logit(self, latents: jax.Array, conditions: jax.Array) -> jax.Array:
    return self.critic.apply(self.energy_variables, latents, conditions)


@struct.dataclass
class _Several(Constraint):
  parts: tuple[Constraint, ...]

  def logits(self, latents: jax.Array) -> jax.Array:
    return jnp.concatenate([part.logits(latents) for part in self.parts], axis=1)

  def _energies(self, latents: jax.Array) -> jax.Array:
    return jnp.stack([part.energy(latents) for part in self.parts])  # [parts, B]

  def _holding(self, latents: jax.Array) -> jax.Array:
    return jnp.stack([part.holds(latents) for part in self.parts])  # [parts, B]


@struct.dataclass
class All(_Several):
  """Holds if all parts hold. Their actors propose one after another."""

  def energy(self, latents: jax.Array) -> jax.Array:
    return self._energies(latents).sum(axis=0)

  def holds(self, latents: jax.Array) -> jax.Array:
    return self._holding(latents).all(axis=0)

  def propose(self, latents: jax.Array) -> jax.Array:
    return functools.reduce(lambda moved, part: part.propose(moved), self.parts, latents)

  def allowed(self, classes: int) -> jax.Array:
    """Weighs the classes that all parts allow; if there is none, those that any part does."""
    weights = [part.allowed(classes) for part in self.parts]
    together = functools.reduce(jnp.multiply, weights)
    return jnp.where((together > 0).any(axis=-1, keepdims=True), together, functools.reduce(jnp.maximum, weights))

  def guidance(self, latents: jax.Array) -> jax.Array | None:
    found = [energy for part in self.parts if (energy := part.guidance(latents)) is not None]
    return sum(found) if found else None

  def __and__(self, other: Constraint) -> Constraint:
    return All((*self.parts, _checked(other)))

  def __invert__(self) -> Constraint:
    return Any(tuple(~part for part in self.parts))


@struct.dataclass
class Any(_Several):
  """Holds if any part holds. For each latent the actor of the part with the least energy proposes.

  The energy of n parts is at most that of each, and at most log n below the least: where all hold it is below 0.
  """

  def energy(self, latents: jax.Array) -> jax.Array:
    return -jax.nn.logsumexp(-self._energies(latents), axis=0)

  def holds(self, latents: jax.Array) -> jax.Array:
    return self._holding(latents).any(axis=0)

  def allowed(self, classes: int) -> jax.Array:
    return functools.reduce(jnp.maximum, [part.allowed(classes) for part in self.parts])

  def guidance(self, latents: jax.Array) -> jax.Array | None:
    """Computes the whole energy if a part has any guidance, because a sample's class does not tell which part holds."""
    held = all(part.guidance(latents) is None for part in self.parts)
    return None if held else self.energy(latents)

  def propose(self, latents: jax.Array) -> jax.Array:
    proposals = jnp.stack([part.propose(latents) for part in self.parts])  # [parts, B, L]
    nearest = self._energies(latents).argmin(axis=0)
    return jnp.take_along_axis(proposals, nearest[None, :, None], axis=0)[0]

  def __or__(self, other: Constraint) -> Constraint:
    return Any((*self.parts, _checked(other)))

  def __invert__(self) -> Constraint:
    return All(tuple(~part for part in self.parts))


@struct.dataclass
class Others(Any):
  """All other classes of one critic. The negation is the class itself."""

  def __invert__(self) -> Constraint:
    last = self.parts[-1]
    return last.replace(condition=jnp.roll(last.condition, 1, axis=-1))


@struct.dataclass
class _Wrapped(Constraint):
  """Another constraint, of which a subclass changes some answers."""

  constraint: Constraint

  def energy(self, latents: jax.Array) -> jax.Array:
    return self.constraint.energy(latents)

  def holds(self, latents: jax.Array) -> jax.Array:
    return self.constraint.holds(latents)

  def logits(self, latents: jax.Array) -> jax.Array:
    return self.constraint.logits(latents)

  def propose(self, latents: jax.Array) -> jax.Array:
    return self.constraint.propose(latents)

  def allowed(self, classes: int) -> jax.Array:
    return self.constraint.allowed(classes)

  def guidance(self, latents: jax.Array) -> jax.Array | None:
    return self.constraint.guidance(latents)

  def __invert__(self) -> Constraint:
    return self.replace(constraint=~self.constraint)


@struct.dataclass
class Weighted(_Wrapped):
  """The same constraint with `weight` times its energy."""

  weight: float = struct.field(pytree_node=False)

  def energy(self, latents: jax.Array) -> jax.Array:
    return self.weight * self.constraint.energy(latents)

  def guidance(self, latents: jax.Array) -> jax.Array | None:
    energy = self.constraint.guidance(latents)
    return None if energy is None else self.weight * energy


@struct.dataclass
class Drawable(_Wrapped):
  """The same constraint, with the mixture that its samples may be drawn from."""

  mixture: Mixture
