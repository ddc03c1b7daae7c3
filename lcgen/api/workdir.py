"""Reads the trained networks of a workdir by their names: `vae`, `actor`, `classifier/none`, ..."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

from etils import epath

from lcgen import config as configs
from lcgen.api import build
from lcgen.api.run import GENERATOR
from lcgen.classifiers import arm_training, judge_phase
from lcgen.classifiers.arms import ALONE
from lcgen.constraints import draws, energy_phase, game_phase, learning, mixture_phase
from lcgen.constraints.mixture import Mixture
from lcgen.constraints.settings import ConstraintSettings
from lcgen.data import sources
from lcgen.generator import statistics, trained
from lcgen.generator.frozen import Frozen
from lcgen.runtime import errors, parallel, places
from lcgen.training import checkpoint, identity, loop
from lcgen.training.context import Context
from lcgen.training.trainer import Trainer

STATISTICS, MIXTURE = statistics.NAME, mixture_phase.NAME
_ARMS, _REALISM = "classifier/", "realism/"  # prefixes of the names of arms' networks, and of realism's


@dataclasses.dataclass(frozen=True)
class _Network:
  """The phase that trains a network, and the part of that phase's last state that is kept."""

  phase: Callable[[Context, configs.Config, draws.ConstraintSource], loop.Phase]
  kept: Callable[[Any], Any]


def _game(context: Context, config: configs.Config, source: draws.ConstraintSource) -> loop.Phase:
  return game_phase.phase(context, config.actor_critic, source, None)


def _energy(context: Context, config: configs.Config, source: draws.ConstraintSource) -> loop.Phase:
  return energy_phase.phase(context, config.energy, source, None)


_NETWORKS = {
  "actor": _Network(_game, lambda state: {"params": state.actor_average}),
  "critic": _Network(_game, lambda state: state.critic.variables),
  "energy": _Network(_energy, lambda state: {"params": state.average}),
  "judge": _Network(
    lambda context, config, _: judge_phase.phase(context, config.evaluate.judge), lambda state: state.variables
  ),
}


def names(config: configs.Config) -> list[str]:
  """Lists the names of all networks that a run of this config may train, of the statistics and of the mixture."""
  arms = dict.fromkeys((*config.classifier.arms, ALONE))
  realism = [_REALISM + name for name in ("actor", "critic", "energy")]
  return [GENERATOR, STATISTICS, *_NETWORKS, *(_ARMS + arm for arm in arms), *realism, MIXTURE]


def abstract(context: Context, config: configs.Config, name: str) -> Any:
  """Gives shapes, types and shardings of the variables of one of `names`, `[S, ...]`."""
  per_seed = parallel.per_seed(context.mesh)
  if name == STATISTICS:
    return checkpoint.abstract(statistics.shapes(context), per_seed)
  if name == MIXTURE:
    return checkpoint.abstract(mixture_phase.shapes(context, config.mixture), per_seed)
  if name == GENERATOR:
    return checkpoint.abstract(trained.shapes(context), per_seed)
  if name.startswith(_ARMS):
    arm = name.removeprefix(_ARMS)
    return arm_training.abstract(context, config.classifier, [arm])[arm]
  phase, kept = _trained_in(context, config, name)
  return kept(loop.abstract_state(phase, context.mesh))


def _trained_in(context: Context, config: configs.Config, name: str) -> tuple[loop.Phase, Callable[[Any], Any]]:
  source = draws.realism(context) if name.startswith(_REALISM) else draws.labels(context)
  network = _NETWORKS[name.removeprefix(_REALISM)]
  return network.phase(context, config, source), network.kept


class Workdir:
  """Everything that `run.py` trained in a workdir.

  Args:
    workdir: the folder.
    config: config to use; by default the workdir's own.

  Attributes:
    config: config in use.
    context: context of the run.

  Raises:
    InputError: if the generator is not trained to its end there.
  """

  def __init__(self, workdir: epath.Path, config: configs.Config | None = None):
    workdir = places.expanded(workdir, "workdir")
    self._directory, config = workdir / "checkpoints", config or configs.read(workdir)
    if config is None or not (self._directory / STATISTICS).exists():
      raise errors.InputError(f"{workdir}: no trained VAE; name a --workdir where run.py has finished that phase")
    with checkpoint.Checkpoints(self._directory / STATISTICS) as saved:
      facts = sources.Facts(**saved.record)
    self.config, self.context = config, build.context(config, facts)
    self._data = lambda: identity.confirm(workdir, sources.load(config.data))
    self._trainer = Trainer(self.context, workdir, lambda: self._data().train)
    self._arms = arm_training.ArmTraining(self.context, self._trainer, config.classifier, None)

  def has(self, name: str) -> bool:
    """Tells whether one of `names` is trained to its end."""
    if name.startswith(_ARMS):
      return self._arms.is_kept(name.removeprefix(_ARMS))
    if name in (STATISTICS, GENERATOR):
      return True
    if name == MIXTURE:
      with checkpoint.Checkpoints(self._directory / MIXTURE) as saved:
        return saved.latest is not None
    phase, _ = _trained_in(self.context, self.config, name)
    return self._trainer.is_finished(phase)

  def read(self, name: str) -> Any:
    """Reads the variables of one of `names`, `[S, ...]`.

    Raises:
      InputError: if the network is not trained to its end.
    """
    if name in (STATISTICS, MIXTURE):
      with checkpoint.Checkpoints(self._directory / name) as saved:
        return saved.restore(abstract(self.context, self.config, name))
    if name == GENERATOR:
      return trained.read(self.context, self._trainer)
    if name.startswith(_ARMS):
      arm = name.removeprefix(_ARMS)
      return self._arms.load([arm])[arm]
    phase, kept = _trained_in(self.context, self.config, name)
    return kept(self._trainer.finished(phase))

  def mixture(self, frozen: Frozen) -> Mixture:
    """Restores the mixture of each class, `[S, ...]`; fits and keeps it if it is not there yet.

    Raises:
      InputError: if it is not there and the data set cannot be read.
    """
    return mixture_phase.learn(self.context, self._trainer, frozen, self.config.mixture, self._data)

  @functools.cached_property
  def constraint(self) -> ConstraintSettings:
    """Settings that constraints are learnt with."""
    return build.constraint(self.config)

  def learner(self, frozen: Frozen) -> learning.Learner:
    """Builds the learner of constraints; `frozen` is the trained generator with its statistics, `[S, ...]`."""
    return learning.Learner(self.context, self._trainer, frozen, self.constraint)
