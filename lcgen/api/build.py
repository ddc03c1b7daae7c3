"""Builds the context of a run, and the settings of its phases, from a config."""

from typing import Any

from lcgen import config as configs
from lcgen.constraints.settings import ConstraintSettings
from lcgen.data import sources
from lcgen.generator import generators
from lcgen.studies.settings import Sections
from lcgen.training.context import Context, compute


def context(config: configs.Config, facts: sources.Facts) -> Context:
  """Builds the context of a config on one data set."""
  side = config.data.image_size
  shape = (side, side, facts.shape[2]) if side else tuple(facts.shape)
  return Context(
    facts=facts,
    generator=generators.build(config.generator, getattr(config, config.generator), shape, compute(config.train)),
    seeds=range(config.seed, config.seed + config.seeds),
    train=config.train,
    placement=config.data.placement,
    batch_size=config.evaluate.batch_size,
  )


def constraint(config: configs.Config) -> ConstraintSettings:
  """Gathers the settings that decide how constraints are learnt."""
  return ConstraintSettings(config.actor_critic, config.energy, config.rule, config.sample.langevin, config.mixture)


def sections(config: configs.Config) -> Sections:
  """Gathers the settings that several phases need together."""
  sample: Any = config.sample
  return Sections(constraint(config), config.classifier, config.evaluate, sample, config.edit)
