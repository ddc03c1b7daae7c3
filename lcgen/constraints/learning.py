"""Learns constraints on a trained generator: labels, realism and rules. Each has an actor and an energy per seed."""

import dataclasses
import json
import logging
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from flax import struct

from lcgen.constraints import algebra, draws, energy_phase, game_phase, rule_spec, samplers
from lcgen.constraints.draws import ConstraintSource, Exemplars
from lcgen.constraints.rule_spec import Rule
from lcgen.constraints.settings import ConstraintSettings
from lcgen.generator.frozen import Frozen, decode
from lcgen.runtime import files, parallel
from lcgen.training import loop
from lcgen.training.context import Context
from lcgen.training.trainer import Trainer

_log = logging.getLogger(__name__)

HOLDS = np.array([0.0, 1.0], np.float32)  # the condition of a rule's pair under which the rule holds
_BATCH = 2048  # images of each seed that a rule judges at once


@struct.dataclass
class Pair:
  """The parameters of a learnt constraint's actor and energy, `[S, ...]`."""

  actor: Any
  energy: Any


@dataclasses.dataclass(frozen=True)
class LearntRule:
  """A rule with its pair.

  Attributes:
    name: as in the config.
    rule: with its bound as a score.
    pair: learnt for the rule; the rule holds under the condition `HOLDS`.
    prior: share of the prior's decoded samples for which it holds, one for each seed.
    exemplars: the same share of the exemplars, before they were balanced.
  """

  name: str
  rule: Rule
  pair: Pair
  prior: list[float]
  exemplars: list[float]

  def holds(self, images: jax.Array) -> np.ndarray:
    """Applies the rule itself to images in [0, 1], `[..., H, W, C]` -> bool `[...]`."""
    images = np.asarray(images)
    scored = rule_spec.scores(self.rule, images.reshape(-1, *images.shape[-3:]))
    return rule_spec.verdicts(self.rule, scored).reshape(images.shape[:-3])


def constraint(
  context: Context, settings: ConstraintSettings, pair: Pair, condition: jax.Array, kind: str = ""
) -> algebra.Learnt:
  """Builds the constraint of one condition of a pair for all seeds; every leaf has a leading axis `[S]`.

  Args:
    context: of the run.
    settings: with which the pair was learnt.
    pair: from a `Learner`.
    condition: one-hot, `[K]` for all latents or `[B, K]` with one for each.
    kind: of the source, as in `draws.ConstraintSource`.
  """
  return algebra.Learnt(
    critic=energy_phase.critic(context, settings.energy),
    actor=game_phase.actor(context, settings.game),
    energy_variables={"params": pair.energy},
    actor_variables={"params": pair.actor},
    condition=jnp.broadcast_to(condition, (len(context.seeds), *condition.shape)),
    kind=kind,
  )


def plain(name: str) -> str:
  """Converts a rule's name to a folder's name."""
  return re.sub(r"[^\w.]+", "-", name)


def _facts(record: epath.Path) -> dict[str, Any] | None:
  """Reads the facts of a learnt rule; None if there are none, or a copy was cut short: they can be found again."""
  try:
    return json.loads(record.read_text())
  except (FileNotFoundError, ValueError):
    return None


class Learner:
  """Learns constraints, or restores learnt ones.

  Args:
    context: of the run.
    trainer: of the workdir.
    frozen: the trained generator and its statistics, `[S, ...]`.
    settings: of game, energy and rules.
  """

  def __init__(self, context: Context, trainer: Trainer, frozen: Frozen, settings: ConstraintSettings):
    self._context, self._trainer, self._frozen, self._settings = context, trainer, frozen, settings

  def constraint(self, pair: Pair, condition: jax.Array, kind: str = "") -> algebra.Learnt:
    """Builds the constraint of one condition of a pair, like the function `constraint`."""
    return constraint(self._context, self._settings, pair, condition, kind)

  def labels(self, train: bool = True, source: ConstraintSource | None = None) -> Pair:
    """Learns the data set's labels, or those of a source from `draws.labels`; only restores them if not `train`."""
    phases = self._phases(source or draws.labels(self._context), self._frozen)
    if not train:
      return _pair(*map(self._trainer.finished, phases))
    return _pair(*(self._trainer.train(phase, self._trainer.rows) for phase in phases))

  def realism(self) -> Pair:
    """Learns to be like the images of the data set. Reads no labels, and images only if it is not learnt yet."""
    phases = self._phases(draws.realism(self._context), self._frozen)
    if all(map(self._trainer.is_finished, phases)):
      return _pair(*map(self._trainer.finished, phases))
    return _pair(*(self._trainer.train(phase, self._trainer.images) for phase in phases))

  def rule(self, rule: Rule, trainer: Trainer | None = None) -> LearntRule:
    """Learns a rule from samples of the model alone: draws from the prior, made realistic, decoded and judged by it.

    Args:
      rule: to learn.
      trainer: of the workdir that keeps the pair, by default this one's.

    Raises:
      InputError: if the rule raises, returns something else than verdicts or scores, or holds for too few or too many
        samples.
    """
    settings = self._settings
    digest = rule.digest(dataclasses.asdict(settings.rule), dataclasses.asdict(settings.langevin))
    source = draws.rule(self._context, settings.rule, f"{plain(rule.name)}-{digest}")
    trainer = trainer or self._trainer
    record = trainer.directory(source.name) / "rule.json"
    facts, drawn = _facts(record), None
    if facts is None:
      drawn, facts = self._exemplars(rule, source.epoch_size)
    _log.info(
      "rule %s: holds for %.1f %% of the prior's samples, %.1f %% of the realistic ones",
      rule.name,
      100 * np.mean(facts["prior"]),
      100 * np.mean(facts["exemplars"]),
    )
    data = {"row": parallel.put(np.arange(source.epoch_size), parallel.replicated(trainer.mesh))}
    pair = _pair(*(trainer.train(phase, data) for phase in self._phases(source, drawn)))
    if drawn is not None:
      files.write_json(record, facts)
    settled = dataclasses.replace(rule, bound=facts["bound"], value=facts["value"])
    return LearntRule(rule.name, settled, pair, facts["prior"], facts["exemplars"])

  def _phases(self, source: ConstraintSource, frozen: Frozen | Exemplars | None) -> tuple[loop.Phase, loop.Phase]:
    """Builds the game and the energy of a source."""
    context, settings = self._context, self._settings
    game = game_phase.phase(context, settings.game, source, frozen)
    return game, energy_phase.phase(context, settings.energy, source, frozen)

  def _exemplars(self, rule: Rule, size: int) -> tuple[Exemplars, dict[str, Any]]:
    """Makes draws from the prior realistic, and balances them so that the rule holds for half of them."""
    context, mesh = self._context, self._trainer.mesh
    count = min(_BATCH, size)
    draw = self._drawing(count)
    real, keys = self.constraint(self.realism(), jnp.ones(1), "realism"), context.keys("rule")
    latents, scored, prior_scored = [], [], []
    for index in range(-(-size // count)):
      batch_keys = jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, index)
      moved, *decoded = parallel.fetch(draw(self._frozen, real, batch_keys))
      latents.append(moved)
      for scores, images in zip((scored, prior_scored), decoded, strict=True):  # [S, B, H, W, C]
        scores.append(rule_spec.scores(rule, images.reshape(-1, *images.shape[2:])).reshape(images.shape[:2]))
    latents, scored, prior_scored = (np.concatenate(parts, axis=1) for parts in (latents, scored, prior_scored))
    settled = rule_spec.settled(rule, prior_scored)
    holds = rule_spec.verdicts(settled, scored)  # [S, N]
    picked = np.stack(
      [rule_spec.balanced(rule, row, size, seed) for row, seed in zip(holds, context.seeds, strict=True)]
    )
    result = Exemplars(
      latents=np.take_along_axis(latents, picked[..., None], axis=1),
      labels=np.take_along_axis(holds, picked, axis=1).astype(np.int32),
      posterior_scale=parallel.fetch(self._frozen.posterior_scale),
    )
    facts = {
      "bound": settled.bound,
      "value": settled.value,
      "prior": rule_spec.verdicts(settled, prior_scored).mean(axis=1).tolist(),
      "exemplars": holds.mean(axis=1).tolist(),
    }
    return parallel.put(result, parallel.per_seed(mesh)), facts

  def _drawing(self, count: int) -> Callable[..., Any]:
    """Builds `(frozen, realism, key) -> latents made realistic, their images, the images of the draws`."""
    generator, settings = self._context.generator, self._settings.langevin

    def draw(frozen, real, key):
      prior_key, move_key = jax.random.split(key)
      start = generator.prior(prior_key, count)
      moved = samplers.langevin(move_key, real, start, settings).latents
      return moved, *(decode(z, frozen, generator=generator) for z in (moved, start))

    return self._context.over_seeds(draw, 0, 0, 0)


def _pair(game: game_phase.ActorCriticState, energy: energy_phase.EnergyState) -> Pair:
  return Pair(game.actor_average, energy.average)
