"""Trains every phase on one device and on all, and prints the largest difference between their states, as JSON.

With plain gradient descent: Adam divides gradients by their size, and so blows up the rounding errors of gradients
that are zero but for them, such as those of biases before a batch norm.
"""

import json
import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
from etils import epath

from lcgen import config, freeze, loop, parallel, report
from lcgen import state as states
from lcgen.phases import Phases
from tests.helpers import frozen_vae, load_config, squares
from tests.test_steps import FACTS

ARMS = ("none", "latent_constraints", "duplicate", "flip_crop+augmix")


def final_states(workdir, seeds, devices):
  phases = Phases(config.checked(load_config("mnist5k", "smoke", seeds=seeds)), FACTS)
  phases._optimizer = lambda *_, **__: optax.sgd(0.01)
  mesh = parallel.make_mesh(seeds, devices)
  stack = lambda tree: jax.device_put(
    jax.tree.map(lambda leaf: jnp.stack([leaf] * seeds), tree), parallel.per_seed(mesh)
  )
  variables = phases.vae().init(jax.random.key(0)).variables
  actor = phases.actor_critic(None).init(jax.random.key(1)).actor.params
  data = squares()
  labelled = states.Labelled(*(leaf[0] for leaf in jax.tree.leaves(freeze.labelled(data.labels, 4, [np.arange(80)]))))
  frozen = stack(frozen_vae(variables, actor={"params": actor}, labelled=labelled))
  rows = jax.device_put({"image": data.images, "label": data.labels}, parallel.replicated(mesh))
  result = {}
  for phase in (
    phases.vae(), phases.actor_critic(frozen), phases.energy(frozen), phases.classifiers("classifier", ARMS, frozen),
    phases.judge(),
  ):  # fmt: skip
    folder = epath.Path(workdir) / phase.name
    state, _ = loop.train(
      phase, rows, None, seeds=phases.seeds, mesh=mesh, pace=loop.Pace(5, 100), directory=folder,
      metrics=report.MetricsFile(folder.parent / "metrics.jsonl"),
    )  # fmt: skip
    result[phase.name] = jax.device_get(state)
  return result


def main(workdir, seeds):
  one = final_states(workdir / "one", seeds, jax.devices()[:1])
  all_devices = final_states(workdir / "all", seeds, jax.devices())
  difference = lambda a, b: float(np.max(np.abs(a - b) / (1 + np.abs(a))))
  print(json.dumps({
    "devices": jax.device_count(),
    "mesh": dict(parallel.make_mesh(seeds).shape),
    "difference": {
      name: max(jax.tree.leaves(jax.tree.map(difference, state, all_devices[name]))) for name, state in one.items()
    },
  }))  # fmt: skip


if __name__ == "__main__":
  main(pathlib.Path(sys.argv[1]), int(sys.argv[2]))
