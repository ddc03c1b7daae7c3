"""The protocol of generators: the registry, a generator of one's own, and the prior."""

import ast
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

from lcgen import config as configs
from lcgen.api import build
from lcgen.constraints import draws, energy_phase, learning, samplers
from lcgen.constraints.draws import Exemplars
from lcgen.data import sources
from lcgen.generator import base, generators, registration, statistics, trained, vae_phase
from lcgen.generator.frozen import decode
from lcgen.generator.settings import GENERATORS
from lcgen.models import vae
from lcgen.models.posterior import Posterior
from lcgen.runtime import errors
from lcgen.runtime.fields import at_least, field
from lcgen.training.trainer import Trainer
from tests.conftest import ROOT
from tests.support.helpers import FACTS, config_of, context_of, frozen_vae, squares, tree_bytes

DATA = sources.Dataset("squares", tuple("0123"), squares(80), squares(16, seed=2), squares(20, seed=3))
SIDE = 4  # pixels of a block


@dataclasses.dataclass(frozen=True)
class BlockSettings:
  """The mean brightness of blocks."""

  latent_dim: int = field(4, at_least(1), "Blocks of an image.")


class Blocks(base.Generator):
  """A generator with what the protocol asks for and no more: a latent is the whitened brightness of a block."""

  def init(self, key):
    return {"mean": jnp.zeros(self.latent_dim), "scale": jnp.ones(self.latent_dim)}

  def encode(self, variables, images):
    mean = (_brightness(images) - variables["mean"][None]) / variables["scale"][None]
    return Posterior(mean, jnp.full_like(mean, 2 * np.log(0.1)))

  def decode(self, variables, latents):
    brightness = latents * variables["scale"][None] + variables["mean"][None]
    grid = brightness.reshape(-1, 2, 2, 1)
    return jnp.clip(grid.repeat(SIDE, axis=1).repeat(SIDE, axis=2), -self.output_limit, self.output_limit)

  def fit(self, images):
    brightness = _brightness((images / 255 - 0.5) / 0.25)
    return {"mean": np.float32(brightness.mean(axis=0)), "scale": np.float32(brightness.std(axis=0))}


def _brightness(images):
  return images.reshape(-1, 2, SIDE, 2, SIDE).mean(axis=(2, 4)).reshape(-1, 4)


@pytest.fixture
def registered(monkeypatch):
  """`Blocks` among the registered generators, for one test."""
  for registry in (GENERATORS, registration._CLASSES):
    monkeypatch.setattr(registry, "_entries", dict(registry.items()))
  generators.register("blocks", BlockSettings)(Blocks)


def test_an_unknown_generator_is_refused_with_the_nearest_name():
  words = r"^'vea' is no generator; the nearest is vae; there are pca, vae$"
  with pytest.raises(errors.InputError, match=words):
    generators.build("vea", None, (8, 8, 1), None)
  with pytest.raises(
    errors.InputError, match=r"^config\.generator='vea': must be one of vae, pca; the nearest is vae$"
  ):
    configs.parse({"generator": "vea"})


def test_a_name_belongs_to_one_generator(registered):
  assert generators.register("blocks", BlockSettings)(Blocks) is Blocks
  with pytest.raises(errors.InputError, match=r"^generator 'pca': there is one of this name already"):
    generators.register("pca", BlockSettings)(Blocks)


def test_a_registered_generator_has_a_section_of_the_config(registered):
  config = configs.parse({"generator": "blocks", "blocks": {"latent_dim": 3}})
  assert config.blocks == BlockSettings(3)
  with pytest.raises(errors.InputError, match=r"^config\.blocks\.latent_dim=0: must be a whole number of at least 1$"):
    configs.parse({"blocks": {"latent_dim": 0}})
  assert configs.to_dict(config)["blocks"] == {"latent_dim": 3}


def refuse(*_, **__):
  raise AssertionError("this is not to be asked for")


@pytest.fixture
def no_vae(monkeypatch):
  """Nothing may make or ask a VAE."""
  monkeypatch.setattr(vae_phase.VAE, "__init__", refuse)
  monkeypatch.setattr(vae.VAE, "__call__", refuse)


def test_a_generator_of_ones_own_goes_through_learning_and_sampling(registered, no_vae, tmp_path):
  quick = {f"{name}__critic_weights__r1": 0.0 for name in ("actor_critic", "energy")}  # slow to compile
  config = config_of("smoke", generator="blocks", actor_critic__epochs=3, energy__epochs=3, **quick)
  context, workdir = context_of(config, FACTS), epath.Path(tmp_path)
  assert isinstance(context.generator, Blocks)
  trainer = Trainer(context, workdir, lambda: DATA.train)
  with pytest.raises(errors.InputError, match=r"the generator is not found yet .* run --stage=generator first"):
    trained.read(context, trainer)

  variables = trained.learn(context, trainer, DATA.validation)
  one = context.generator.fit(DATA.train.images)
  assert tree_bytes(variables) == tree_bytes(jax.tree.map(lambda leaf: np.stack([leaf] * 2), one))  # of both seeds
  frozen = trained.freeze(context, trainer, variables, DATA)
  np.testing.assert_allclose(frozen.posterior_scale, 0.1, rtol=1e-5)
  assert 0 < frozen.decoder_error.min() < 1

  pair = learning.Learner(context, trainer, frozen, build.constraint(config)).labels()
  constraint = learning.constraint(context, build.constraint(config), pair, jnp.eye(4)[2])
  way = samplers.bind(config.sample, context.generator.prior)["actor"]
  for seed in range(2):
    own, frozen_of_seed = jax.tree.map(lambda leaf, seed=seed: leaf[seed], (constraint, frozen))
    moved = way(jax.random.key(1), own, context.generator.prior(jax.random.key(0), 5))
    images = decode(moved.latents, frozen_of_seed, generator=context.generator)
    assert images.shape == (5, 8, 8, 1)
    assert np.isfinite(images).all()

  folders = {path.name for path in (workdir / "checkpoints").iterdir()}
  assert folders == {"generator", "statistics", "actor_critic", "energy"}


def test_a_generator_that_is_found_is_read_and_not_found_again(registered, no_vae, tmp_path, monkeypatch):
  context, workdir = context_of(config_of("smoke", generator="blocks"), FACTS), epath.Path(tmp_path)
  trainer = Trainer(context, workdir, lambda: DATA.train)
  variables = trained.learn(context, trainer, DATA.validation)
  frozen = trained.freeze(context, trainer, variables, DATA)
  again = Trainer(context, workdir, refuse)
  assert tree_bytes(trained.read(context, again)) == tree_bytes(variables)
  assert tree_bytes(trained.learn(context, again, None)) == tree_bytes(variables)
  monkeypatch.setattr(statistics, "find", refuse)
  kept = trained.freeze(context, again, variables, DATA)
  assert tree_bytes(kept) == tree_bytes(frozen)


class Sevens(Blocks):
  """A generator whose prior is recognised: sevens."""

  def prior(self, key, count):
    return jnp.full((count, self.latent_dim), 7.0)


def test_all_that_starts_from_the_prior_asks_the_generator_for_it():
  config = config_of("smoke")
  context = dataclasses.replace(context_of(config, FACTS), generator=Sevens(BlockSettings(), (8, 8, 1), None))
  variables = context.generator.fit(DATA.train.images)
  frozen = frozen_vae(variables, latents=4)
  batch = context.prepare({"image": jnp.asarray(DATA.train.images[:9]), "label": jnp.asarray(DATA.train.labels[:9])})
  exemplars = Exemplars(jnp.zeros((9, 4)), jnp.arange(9) % 2, jnp.ones(4))
  key, sevens = jax.random.key(0), np.full((9, 4), 7.0)
  for source in (draws.labels(context), draws.realism(context)):
    np.testing.assert_array_equal(source.draw(batch, key, frozen).prior, sevens)
  rule = draws.rule(context, config.rule, "bright")
  np.testing.assert_array_equal(rule.draw({"row": jnp.arange(9)}, key, exemplars).prior, sevens)
  energy = energy_phase.phase(context, config.energy, draws.labels(context), None)
  np.testing.assert_array_equal(energy.init(key).chains, np.full((config.energy.batch_size, 4), 7.0))
  bound = samplers.bind(config.sample, context.generator.prior)["refine"]
  assert (bound.keywords["prior"](key, 9) == sevens).all()


def _normal_draws(path):
  """Yields the function around each call of a function named `normal` or alike, and the parent of the call."""
  tree = ast.parse(path.read_text())
  owner, parents = {}, {}
  for node in ast.walk(tree):
    for child in ast.iter_child_nodes(node):
      parents[child] = node
      owner[child] = node.name if isinstance(node, ast.FunctionDef) else owner.get(node, "")
  for node in ast.walk(tree):
    if isinstance(node, ast.Call):
      name = getattr(node.func, "attr", getattr(node.func, "id", ""))
      if name in ("normal", "standard_normal", "multivariate_normal"):
        yield owner[node], parents[node]


def test_the_prior_is_drawn_in_one_place():
  """Unscaled normal numbers are the prior; all others are noise, times its standard deviation.

  The wing `data` is left out: it knows images and no latents.
  """
  unscaled, scaled = [], 0
  for path in sorted((ROOT / "lcgen").rglob("*.py")):
    name = path.relative_to(ROOT / "lcgen").as_posix()
    for function, parent in [] if name.startswith("data/") else _normal_draws(path):
      if isinstance(parent, ast.BinOp) and isinstance(parent.op, ast.Mult):
        scaled += 1
      else:
        unscaled.append((name, function))
  assert unscaled == [("generator/base.py", "prior")]
  assert scaled >= 3  # the noise of posteriors, of Langevin steps and of chains
