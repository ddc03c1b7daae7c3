"""The final networks of a workdir, each by a name: `vae`, `actor`, `classifier/none`, ..."""

import dataclasses
from collections.abc import Callable
from typing import Any

from etils import epath

from lcgen import config
from lcgen.classifiers import arm_training, policies
from lcgen.cli import preflight
from lcgen.constraints import learning
from lcgen.data import sources
from lcgen.runtime import errors, parallel
from lcgen.training import checkpoint, loop
from lcgen.training import train_state as states
from lcgen.training.context import Phases, Source
from lcgen.training.trainer import Trainer


@dataclasses.dataclass(frozen=True)
class _Network:
  """The phase that trains a network, and what is kept of that phase's last state."""

  phase: Callable[[Phases, Source], loop.Phase]
  kept: Callable[[Any], Any]


_variables = lambda state: state.variables
_game = lambda phases, source: phases.actor_critic(None, source)
_NETWORKS = {
  "vae": _Network(lambda phases, _: phases.vae(), _variables),
  "actor": _Network(_game, lambda state: {"params": state.actor_average}),
  "critic": _Network(_game, lambda state: state.critic.variables),
  "energy": _Network(lambda phases, source: phases.energy(None, source), lambda state: {"params": state.average}),
  "judge": _Network(lambda phases, _: phases.judge(), _variables),
}
_ARMS, _REALISM = "classifier/", "realism/"  # begin the names of all arms' networks, and of those of realism
STATISTICS = "statistics"


def names(values: dict[str, Any]) -> list[str]:
  """All networks that a run of this config may have trained, and the statistics of its VAE."""
  arms = dict.fromkeys((*values["classifier"]["arms"], policies.ALONE))
  realism = [_REALISM + name for name in ("actor", "critic", "energy")]
  return ["vae", STATISTICS, *list(_NETWORKS)[1:], *(_ARMS + arm for arm in arms), *realism]


def abstract(phases: Phases, name: str) -> Any:
  """Shapes, types and shardings of a network's variables, or of the statistics, `[S, ...]`."""
  if name == STATISTICS:
    return checkpoint.abstract(phases.statistics(), parallel.per_seed(phases.mesh))
  if name.startswith(_ARMS):
    arm = name.removeprefix(_ARMS)
    return loop.abstract_state(phases.classifiers(_ARMS, [arm], None), phases.mesh)[arm].variables
  phase, kept = _trained_in(phases, name)
  return kept(loop.abstract_state(phase, phases.mesh))


def _trained_in(phases: Phases, name: str) -> tuple[loop.Phase, Callable[[Any], Any]]:
  source = phases.realism() if name.startswith(_REALISM) else phases.labels()
  network = _NETWORKS[name.removeprefix(_REALISM)]
  return network.phase(phases, source), network.kept


class Workdir:
  """What `run.py` trained in a workdir.

  Args:
    workdir: where.
    values: from `config.checked`; by default the workdir's own.

  Attributes:
    values: those.
    phases: of the config and the data set.

  Raises:
    InputError: where the VAE is not trained to its end there.
  """

  def __init__(self, workdir: epath.Path, values: dict[str, Any] | None = None):
    self._directory, values = workdir / "checkpoints", values or config.read(workdir)
    if values is None or not (self._directory / STATISTICS).exists():
      raise errors.InputError(f"{workdir}: no trained VAE; name a --workdir where run.py has finished that phase")
    with checkpoint.Checkpoints(self._directory / STATISTICS) as saved:
      facts = sources.Facts(**saved.record)
    self.values, self.phases = values, Phases(values, facts)
    self._trainer = Trainer(self.phases, workdir, lambda: preflight.read_data(values).train)
    self._comparison = arm_training.Comparison(self.phases, self._trainer)

  def has(self, name: str) -> bool:
    """Whether one of `names` is trained to its end."""
    if name.startswith(_ARMS):
      return self._comparison.is_kept(name.removeprefix(_ARMS))
    if name == STATISTICS:
      return True
    phase, _ = _trained_in(self.phases, name)
    return self._trainer.is_finished(phase)

  def read(self, name: str) -> Any:
    """Variables of one of `names`, `[S, ...]`.

    Raises:
      InputError: where it is not trained to its end.
    """
    if name == STATISTICS:
      with checkpoint.Checkpoints(self._directory / STATISTICS) as saved:
        return saved.restore(abstract(self.phases, name))
    if name.startswith(_ARMS):
      arm = name.removeprefix(_ARMS)
      return self._comparison.load([arm])[arm]
    phase, kept = _trained_in(self.phases, name)
    return kept(self._trainer.finished(phase))

  def learner(self, frozen: states.Frozen) -> learning.Learner:
    """Learns constraints here; `frozen` is the trained VAE with its statistics, `[S, ...]`."""
    return learning.Learner(self.phases, self._trainer, frozen)
