"""Trains every phase of a small config once for each layout, and saves the final states to FOLDER/LAYOUT.npz.

    python -m benchmarks.compare_devices FOLDER LAYOUT ... [--processes=COORDINATOR,COUNT,INDEX]

A layout is DEVICES-SEED_AXIS-PLACEMENT, as in 8-2-sharded. With plain gradient descent: Adam divides gradients by their
size, and so blows up the rounding errors of gradients that are zero but for them, such as those of biases before a
batch norm.
"""

import argparse
import dataclasses
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
from etils import epath

from lcgen import config
from lcgen.generator import statistics as vae_statistics
from lcgen.runtime import parallel
from lcgen.training import train_state as states
from lcgen.training.context import Phases
from lcgen.training.trainer import Trainer
from tests.constraints.test_steps import FACTS
from tests.support.helpers import frozen_vae, load_config, squares

ARMS = ("none", "latent_constraints", "duplicate", "mixup")
SEEDS = 4
DATA = squares(84)  # in eight parts there are four rows more
SIZED = dataclasses.replace(FACTS, train=len(DATA))


def final_states(folder: pathlib.Path, layout: str) -> dict[str, np.ndarray]:
  """Every array of every phase's final state, by phase and path."""
  devices, seed_axis, placement = layout.split("-")
  changes = {"train__seed_axis": int(seed_axis), "data__placement": placement, "train__chunk_steps": 5}
  phases = Phases(config.checked(load_config("mnist5k", "smoke", seeds=SEEDS, **changes)), SIZED)
  phases._optimizer = lambda *_, **__: optax.sgd(0.01)
  phases.mesh = parallel.make_mesh(SEEDS, jax.devices()[: int(devices)], int(seed_axis))
  variables = phases.vae().init(jax.random.key(0)).variables
  actor = phases.actor_critic(None).init(jax.random.key(1)).actor.params
  everything = [np.arange(len(DATA))]
  labelled = states.Labelled(
    *(leaf[0] for leaf in jax.tree.leaves(vae_statistics.labelled(DATA.labels, 4, everything)))
  )
  stacked = jax.tree.map(
    lambda leaf: jnp.stack([leaf] * SEEDS), frozen_vae(variables, actor={"params": actor}, labelled=labelled)
  )
  frozen = parallel.put(stacked, parallel.per_seed(phases.mesh))
  (folder / layout).mkdir(parents=True, exist_ok=True)
  trainer = Trainer(phases, epath.Path(folder / layout), lambda: DATA)
  trained = [
    phases.vae(),
    phases.actor_critic(frozen),
    phases.energy(frozen),
    phases.classifiers("classifier", ARMS, frozen),
    phases.judge(),
  ]
  found = {phase.name: parallel.fetch(trainer.train(phase, trainer.rows)) for phase in trained}
  return {
    jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in jax.tree.leaves_with_path(found)
  }


def main() -> None:
  parser = argparse.ArgumentParser()
  parser.add_argument("folder", type=pathlib.Path)
  parser.add_argument("layouts", nargs="+")
  parser.add_argument("--processes")
  arguments = parser.parse_args()
  if arguments.processes:
    coordinator, count, index = arguments.processes.split(",")
    parallel.initialize(False, coordinator, int(count), int(index), timeout=60)
  for layout in arguments.layouts:
    found = final_states(arguments.folder, layout)
    if jax.process_index() == 0:
      np.savez(arguments.folder / f"{layout}.npz", **found)


if __name__ == "__main__":
  main()
