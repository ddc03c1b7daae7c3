"""Networks that nobody trained, as tests of phases 2 and 3 and of the scores need them."""

from lcgen import config
from lcgen.api import build
from lcgen.classifiers import policies
from lcgen.constraints import draws, energy_phase, game_phase
from tests.support.helpers import frozen_vae


def tools_of(settings: config.Config, context) -> policies.Tools:
  """The tools of a config's arms."""
  sections = build.sections(settings)
  share = sections.classifier.share
  return policies.tools(context, sections.constraint, sections.sample, sections.edit, share)


def init_of(context, constraint):
  """Gives `key -> Frozen`: generator, actor and energy of one seed, with statistics that change nothing."""
  source = draws.labels(context)
  game = game_phase.phase(context, constraint.game, source, None)
  energy = energy_phase.phase(context, constraint.energy, source, None)
  vae = context.generator.phase(context)

  def init(key):
    actor, critic = game.init(key).actor.params, energy.init(key).critic.params
    return frozen_vae(vae.init(key).variables, actor={"params": actor}, energy={"params": critic})

  return init
