"""Learning constraints on a trained VAE: labels, realism and rules, each an actor and an energy, all repetitions."""

import dataclasses
import json
import logging
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from lcgen.constraints import algebra, rule_spec, samplers
from lcgen.constraints.rule_spec import Rule
from lcgen.reporting import report
from lcgen.runtime import parallel
from lcgen.training import train_state as states
from lcgen.training.context import Phases, Source
from lcgen.training.trainer import Trainer

_log = logging.getLogger(__name__)

HOLDS = np.array([0.0, 1.0], np.float32)  # the condition of a rule's pair
_BATCH = 2048  # images that a rule sees at once, of each repetition


@struct.dataclass
class Pair:
  """What a constraint is learnt as: the parameters that latents are moved with, `[S, ...]`."""

  actor: Any
  energy: Any


@dataclasses.dataclass(frozen=True)
class LearntRule:
  """A rule with its pair.

  Attributes:
    name: as the config has it.
    rule: with its bound in scores.
    pair: `HOLDS` is the condition that it holds.
    prior: share of the prior's decoded samples for which it holds, one a repetition.
    exemplars: the same of the exemplars before they were balanced.
  """

  name: str
  rule: Rule
  pair: Pair
  prior: list[float]
  exemplars: list[float]

  def holds(self, images: jax.Array) -> np.ndarray:
    """What the rule itself says of images in [0, 1], `[..., H, W, C]` -> bool `[...]`."""
    images = np.asarray(images)
    scored = rule_spec.scores(self.rule, images.reshape(-1, *images.shape[-3:]))
    return rule_spec.verdicts(self.rule, scored).reshape(images.shape[:-3])


def constraint(phases: Phases, pair: Pair, condition: jax.Array) -> algebra.Learnt:
  """The constraint of one condition of a pair, for each repetition: every leaf has a leading axis `[S]`.

  Args:
    phases: whose networks the pair belongs to.
    pair: from here.
    condition: one-hot, `[K]` or, for each latent its own, `[B, K]`.
  """
  return algebra.Learnt(
    critic=phases.networks.energy,
    actor=phases.networks.actor,
    energy_variables={"params": pair.energy},
    actor_variables={"params": pair.actor},
    condition=jnp.broadcast_to(condition, (len(phases.seeds), *condition.shape)),
  )


def plain(name: str) -> str:
  """A rule's name as the name of a folder."""
  return re.sub(r"[^\w.]+", "-", name)


class Learner:
  """Learns constraints, or loads them where they have been learnt.

  Args:
    phases: of the workdir's config.
    trainer: of the workdir.
    frozen: the trained VAE and its statistics, `[S, ...]`.
  """

  def __init__(self, phases: Phases, trainer: Trainer, frozen: states.Frozen):
    self._phases, self._trainer, self._frozen = phases, trainer, frozen

  def labels(self, train: bool = True, source: Source | None = None) -> Pair:
    """The data set's labels, condition y for each; or those of another source from `Phases.labels`."""
    source = source or self._phases.labels()
    game, energy = self._phases.actor_critic(self._frozen, source), self._phases.energy(self._frozen, source)
    if not train:
      return _pair(*map(self._trainer.finished, (game, energy)))
    return _pair(*(self._trainer.train(phase, self._trainer.rows) for phase in (game, energy)))

  def realism(self) -> Pair:
    """Being an image like those of the data set; reads images, if it is not learnt yet, and no labels."""
    source = self._phases.realism()
    phases = self._phases.actor_critic(self._frozen, source), self._phases.energy(self._frozen, source)
    if all(map(self._trainer.is_finished, phases)):
      return _pair(*map(self._trainer.finished, phases))
    return _pair(*(self._trainer.train(phase, self._trainer.images) for phase in phases))

  def rule(self, rule: Rule, trainer: Trainer | None = None) -> LearntRule:
    """A rule, from samples of the model alone: draws from the prior, made realistic, decoded, and judged by the rule.

    Args:
      rule: what is to hold.
      trainer: where the pair is kept, by default the workdir's.

    Raises:
      InputError: where the rule cannot be learnt from: it raises, returns something else, or holds always or never.
    """
    config = self._phases.config
    digest = rule.digest(config["rule"], config["sample"]["langevin"])
    source = self._phases.rule(f"{plain(rule.name)}-{digest}")
    trainer = trainer or self._trainer
    record = trainer.workdir / "checkpoints" / source.name / "rule.json"
    if record.exists():
      facts, drawn = json.loads(record.read_text()), None
    else:
      drawn, facts = self._exemplars(rule, source)
    _log.info(
      "rule %s: holds for %.1f %% of the prior's samples, %.1f %% of the realistic ones",
      rule.name,
      100 * np.mean(facts["prior"]),
      100 * np.mean(facts["exemplars"]),
    )
    data = {"row": parallel.put(np.arange(source.size), parallel.replicated(trainer.mesh))}
    game, energy = self._phases.actor_critic(drawn, source), self._phases.energy(drawn, source)
    pair = _pair(*(trainer.train(phase, data) for phase in (game, energy)))
    if drawn is not None:
      report.write_json(record, facts)
    settled = dataclasses.replace(rule, bound=facts["bound"], value=facts["value"])
    return LearntRule(rule.name, settled, pair, facts["prior"], facts["exemplars"])

  def _exemplars(self, rule: Rule, source: Source) -> tuple[states.Exemplars, dict[str, Any]]:
    """Draws from the prior moved to where realism holds, half of which the rule holds for."""
    phases, mesh, realism = self._phases, self._trainer.mesh, self.realism()
    networks, settings = phases.networks, phases.config["sample"]["langevin"]
    count = min(_BATCH, source.size)

    def draw(frozen, real, key):
      prior_key, move_key = jax.random.split(key)
      start = samplers.prior(prior_key, count, networks.vae.latent_dim)
      moved = samplers.langevin(move_key, real, start, **settings).latents
      return moved, *(samplers.decode(z, frozen, model=networks.vae) for z in (moved, start))

    drawn = jax.jit(parallel.over_seeds(draw, mesh, (0, 0, 0)))
    real, keys = constraint(phases, realism, jnp.ones(1)), phases.keys("rule")
    latents, scored, prior_scored = [], [], []
    for index in range(-(-source.size // count)):
      batch_keys = jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, index)
      moved, *decoded = parallel.fetch(drawn(self._frozen, real, batch_keys))
      latents.append(moved)
      for scores, images in zip((scored, prior_scored), decoded, strict=True):  # [S, B, H, W, C]
        scores.append(rule_spec.scores(rule, images.reshape(-1, *images.shape[2:])).reshape(images.shape[:2]))
    latents, scored, prior_scored = (np.concatenate(parts, axis=1) for parts in (latents, scored, prior_scored))
    settled = rule_spec.settled(rule, prior_scored)
    holds = rule_spec.verdicts(settled, scored)  # [S, N]
    picked = np.stack(
      [rule_spec.balanced(rule, row, source.size, seed) for row, seed in zip(holds, phases.seeds, strict=True)]
    )
    result = states.Exemplars(
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


def _pair(game: states.ActorCriticState, energy: states.EnergyState) -> Pair:
  return Pair(game.actor_average, energy.average)
