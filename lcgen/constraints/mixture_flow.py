"""The flow of a mixture: an ordinary differential equation in closed form from N(0, I) to a class, and back.

With a = cos(pi t / 2) and b = sin(pi t / 2), x = a z0 + b z1 leads from a draw z0 of the prior at t = 0 to a latent z1
of the class at t = 1. Given x, the component c has the covariance S_c = a^2 I + b^2 Sigma_c and the responsibility
r_c ~ w_c N(x; b mean_c, S_c), and the expected ends of the path are

  z1 = sum_c r_c (mean_c + b Sigma_c S_c^-1 (x - b mean_c)),   z0 = sum_c r_c a S_c^-1 (x - b mean_c).

The velocity v = (pi / 2) (a z1 - b z0) moves the density of x as t goes on (Lipman et al. 2023; Albergo et al. 2023).
Guidance by an energy E adds -(pi / 2) a grad E at the expected end z1.
"""

import dataclasses
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from lcgen.constraints.mixture import Components, Mixture

HALF_PI = math.pi / 2

Energy = Callable[[jax.Array], jax.Array]  # latents [B, L] -> [B]


@dataclasses.dataclass(frozen=True)
class Flow:
  """The flow of one class for each latent.

  Attributes:
    own: components of the class of each latent; arrays have a leading axis `[B]`.
    steps: Heun steps from one end to the other.
    energy: of what is to hold besides the class; None for nothing.
    guidance: weight of the energy.
  """

  own: Components
  steps: int
  energy: Energy | None = None
  guidance: float = 0.0

  def forward(self, draws: jax.Array) -> jax.Array:
    """Moves draws from the prior to latents of their classes, `[B, L]`."""
    return self._integrate(draws, jnp.linspace(0.0, 1.0, self.steps + 1))

  def backward(self, latents: jax.Array) -> jax.Array:
    """Moves latents back to the draws that they come from, `[B, L]`; without guidance."""
    plain = dataclasses.replace(self, energy=None)
    return plain._integrate(latents, jnp.linspace(1.0, 0.0, self.steps + 1))

  def velocity(self, x: jax.Array, time: jax.Array | float) -> jax.Array:
    """Computes the velocity of `x` `[B, L]` at a time in [0, 1]."""
    a, b = jnp.cos(HALF_PI * time), jnp.sin(HALF_PI * time)
    plain = jax.vmap(_turn, (0, 0, None, None))(self.own, x, a, b)  # a z1 - b z0
    if self.energy is None:
      return HALF_PI * plain
    end = b * x + a * plain  # z1, because x = a z0 + b z1
    slope = jax.grad(lambda z: self.energy(z).sum())(end)
    return HALF_PI * (plain - self.guidance * a * slope)

  def _integrate(self, x: jax.Array, times: jax.Array) -> jax.Array:
    """Takes one step of Heun's method from each time to the next."""

    def step(x, ends):
      start, end = ends
      first = self.velocity(x, start)
      second = self.velocity(x + (end - start) * first, end)
      return x + (end - start) * (first + second) / 2, None

    return jax.lax.scan(step, x, (times[:-1], times[1:]))[0]


def flow(mixture: Mixture, labels: jax.Array, steps: int, energy: Energy | None = None, guidance: float = 0.0) -> Flow:
  """Builds the flow of a class for each latent.

  Args:
    mixture: of all classes.
    labels: class of each latent, `[B]`.
    steps: Heun steps from one end to the other.
    energy: of what is to hold besides the class.
    guidance: weight of the energy.
  """
  own = Components(mixture.log_weights, mixture.means, mixture.directions, mixture.variances)
  return Flow(jax.tree.map(lambda leaf: leaf[labels], own), steps, energy, guidance)


def _turn(own: Components, x: jax.Array, a: jax.Array, b: jax.Array) -> jax.Array:
  """Computes a z1 - b z0 for one latent `[L]`."""
  along = jnp.einsum("cij,ci->cj", own.directions, x[None] - b * own.means)
  spread = a**2 + b**2 * own.variances
  weights = jax.nn.softmax(own.log_weights - 0.5 * (jnp.square(along) / spread + jnp.log(spread)).sum(axis=-1))
  moved = jnp.einsum("cij,cj->ci", own.directions, a * b * (own.variances - 1) / spread * along)
  return weights @ (a * own.means + moved)
