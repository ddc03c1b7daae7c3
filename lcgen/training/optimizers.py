"""Builds the optimiser of a phase from its settings."""

from typing import Protocol

import optax


class Schedule(Protocol):
  """Settings that decide the learning rate."""

  learning_rate: float
  schedule: str


def adam(settings: Schedule, steps: int, **betas: float) -> optax.GradientTransformation:
  """Builds Adam with a constant learning rate, or one that falls to 0 along a cosine.

  Args:
    settings: of a phase.
    steps: of the whole phase, over which the cosine falls.
    **betas: `b1` and `b2`, by default Adam's own.
  """
  rate = settings.learning_rate
  if settings.schedule == "cosine":
    rate = optax.cosine_decay_schedule(rate, max(steps, 1))
  return optax.adam(rate, **betas)
