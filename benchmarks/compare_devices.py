"""Trains every phase of a small config once for each layout, and saves the final states to FOLDER/LAYOUT.npz.

    python -m benchmarks.compare_devices FOLDER LAYOUT ... [--processes=COORDINATOR,COUNT,INDEX]

A layout is DEVICES-SEED_AXIS-PLACEMENT, as in 8-2-sharded. With plain gradient descent: Adam divides gradients by their
size, and so blows up the rounding errors of gradients that are zero but for them, such as those of biases before a
batch norm.
"""

import argparse
import dataclasses
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from etils import epath

from lcgen.api import build
from lcgen.classifiers import arm_phase, judge_phase, policies
from lcgen.classifiers.labelled import Labelled, by_class
from lcgen.constraints import draws, energy_phase, game_phase
from lcgen.runtime import cluster, parallel
from lcgen.training import optimizers
from lcgen.training.context import Context
from lcgen.training.trainer import Trainer
from tests.support.helpers import FACTS, config_of, context_of, frozen_vae, squares

ARMS = ("latent_constraints", "mixup")
SEEDS = 4
DATA = squares(84)  # in eight parts there are four rows more
SIZED = dataclasses.replace(FACTS, train=len(DATA))


def final_states(folder: pathlib.Path, layout: str) -> dict[str, np.ndarray]:
  """Trains every phase; returns every array of its final state, by phase and path."""
  devices, seed_axis, placement = layout.split("-")
  changes = {"train__seed_axis": int(seed_axis), "data__placement": placement, "train__chunk_steps": 5}
  config = config_of("smoke", seeds=SEEDS, **changes)
  context = context_of(config, SIZED)
  # The mesh of these devices takes the place of that of all.
  context.__dict__["mesh"] = parallel.make_mesh(SEEDS, jax.devices()[: int(devices)], int(seed_axis))
  optimizers.adam = lambda *_, **__: optax.sgd(0.01)
  sections, source = build.sections(config), draws.labels(context)
  settings = config.classifier
  tools = policies.tools(context, sections.constraint, sections.sample, sections.edit, settings.share)
  vae, game = context.generator.phase(context), game_phase.phase(context, config.actor_critic, source, None)
  frozen = _frozen(context, vae.init(jax.random.key(0)).variables, game.init(jax.random.key(1)).actor.params)
  (folder / layout).mkdir(parents=True, exist_ok=True)
  trainer = Trainer(context, epath.Path(folder / layout), lambda: DATA)
  trained = [
    vae,
    dataclasses.replace(game, frozen=frozen),
    energy_phase.phase(context, config.energy, source, frozen),
    arm_phase.phase(context, settings, tools, frozen, arms=ARMS),
    judge_phase.phase(context, config.evaluate.judge),
  ]
  found = {phase.name: parallel.fetch(trainer.train(phase, trainer.rows)) for phase in trained}
  return {
    jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in jax.tree.leaves_with_path(found)
  }


def _frozen(context: Context, generator: Any, actor: Any) -> Any:
  """Makes the constants of phases 2 and 3, the same for every seed, on the mesh."""
  everything = [np.arange(len(DATA))]
  labelled = Labelled(*(leaf[0] for leaf in jax.tree.leaves(by_class(DATA.labels, context.classes, everything))))
  one = frozen_vae(generator, actor={"params": actor}, labelled=labelled)
  return parallel.put(jax.tree.map(lambda leaf: jnp.stack([leaf] * SEEDS), one), parallel.per_seed(context.mesh))


def main() -> None:
  parser = argparse.ArgumentParser()
  parser.add_argument("folder", type=pathlib.Path)
  parser.add_argument("layouts", nargs="+")
  parser.add_argument("--processes")
  arguments = parser.parse_args()
  if arguments.processes:
    coordinator, count, index = arguments.processes.split(",")
    cluster.initialize(False, coordinator, int(count), int(index), timeout=60)
  for layout in arguments.layouts:
    found = final_states(arguments.folder, layout)
    if jax.process_index() == 0:
      np.savez(arguments.folder / f"{layout}.npz", **found)


if __name__ == "__main__":
  main()
