"""The state of a network that training steps update, and the types of their batches and metrics."""

from collections.abc import Mapping
from typing import Any

import jax
import optax
from flax import struct


@struct.dataclass
class TrainState:
  """A network under training: parameters, running batch statistics, optimiser state."""

  params: Any
  batch_stats: Any
  opt_state: Any

  @classmethod
  def create(cls, variables: dict[str, Any], optimizer: optax.GradientTransformation) -> "TrainState":
    params = variables["params"]
    return cls(params, variables.get("batch_stats", {}), optimizer.init(params))

  @property
  def variables(self) -> dict[str, Any]:
    """The variables that `module.apply` takes."""
    return {"params": self.params, "batch_stats": self.batch_stats}

  def update(self, gradients: Any, optimizer: optax.GradientTransformation, updated: Any = None) -> "TrainState":
    """Applies one optimiser step; `updated` has the mutable collections that `apply` returned."""
    updates, opt_state = optimizer.update(gradients, self.opt_state, self.params)
    batch_stats = (updated or {}).get("batch_stats", self.batch_stats)
    return TrainState(optax.apply_updates(self.params, updates), batch_stats, opt_state)


Batch = Mapping[str, jax.Array]


Metrics = dict[str, jax.Array]
