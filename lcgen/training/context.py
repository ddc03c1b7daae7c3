"""From a config to networks, steps and phases: where plain values leave the config."""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lcgen.classifiers import policies
from lcgen.constraints import game_phase, samplers
from lcgen.data import ranges, sources
from lcgen.generator import calibration
from lcgen.models import actor_critic, classifier, losses, vae
from lcgen.runtime import parallel
from lcgen.training import loop
from lcgen.training import train_state as states

# The key of a phase is its place here folded into the key of the seed; append only. All arms of the classifier share
# theirs, and with it the first parameters and the order of the data: their differences are paired.
_KEYS = (
  "vae",
  "statistics",
  "actor_critic",
  "classifier",
  "judge",
  "evaluate",
  "energy",
  "realism/actor_critic",
  "realism/energy",
  "rule",
  "rule/actor_critic",
  "rule/energy",
)
_AUGMENTED_BYTES = 32 * 2**20  # of augmented batches that are held at once


@dataclasses.dataclass(frozen=True)
class Networks:
  """The modules of one config, sized for one data set."""

  vae: vae.VAE
  actor: actor_critic.Actor
  critic: actor_critic.Critic
  energy: actor_critic.Critic
  classifier: classifier.Classifier
  judge: classifier.Judge

  @property
  def example(self) -> dict[str, jax.Array]:
    """One zero of every input: `image` `[1, H, W, C]`, `latent` `[1, L]`, `condition` `[1, K]`."""
    sizes = {"image": self.vae.image_shape, "latent": (self.vae.latent_dim,), "condition": (self.classifier.classes,)}
    return {name: jnp.zeros((1, *shape)) for name, shape in sizes.items()}


@dataclasses.dataclass(frozen=True)
class Source:
  """Where a constraint is learnt from; its critics and its actor are told apart by K conditions.

  Attributes:
    name: "" for labels, "realism", or "rule/" and the rule's name; begins the names of its phases.
    draw: what the critics are shown.
    classes: K, one for each label; 1 for realism; 2 for a rule: it does not hold, it holds.
    size: rows of an epoch.
    epochs: passes over them, None for what the config's sections say.
    mismatched: weight of the critics' term of that name, None for what the sections say.
    prepare: turns rows into a step's batch.
    pool: as `loop.Phase` has it.
  """

  name: str
  draw: game_phase.Draw
  classes: int
  size: int
  epochs: int | None = None
  mismatched: float | None = None
  prepare: Callable[[Any], Any] = lambda batch: batch
  pool: np.ndarray | None = None

  def critic_weights(self, weights: dict[str, float]) -> dict[str, float]:
    """A section's weights, as they are for this source."""
    return weights if self.mismatched is None else weights | {"mismatched": self.mismatched}


class Phases:
  """The phases of one config on one data set.

  Args:
    config: from `config.checked`.
    facts: of the data set.
  """

  def __init__(self, config: dict[str, Any], facts: sources.Facts):
    self.config, self.facts = config, facts
    self.seeds = range(config["seed"], config["seed"] + config["seeds"])
    self.networks = self._networks()

  @functools.cached_property
  def mesh(self) -> jax.sharding.Mesh:
    """All devices, as the config spreads them."""
    return parallel.make_mesh(len(self.seeds), seed_axis=self.config["train"]["seed_axis"])

  @functools.cached_property
  def data_sharding(self) -> jax.sharding.NamedSharding:
    """Of the training images, on the mesh."""
    size = self.facts.train * math.prod(self.facts.shape)
    return parallel.over_data(self.mesh, self.config["data"]["placement"], size)

  def keys(self, name: str) -> jax.Array:
    """One key per repetition, `[S]`."""
    index = _KEYS.index(name)
    return jnp.stack([jax.random.fold_in(jax.random.key(seed), index) for seed in self.seeds])

  def prepare(self, batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """A batch of stored images as the networks see it."""
    height, width, _ = self.networks.vae.image_shape
    return batch | {"image": ranges.prepare(batch["image"], height, width)}

  def objective(self) -> game_phase.Objective:
    """Phase 1's loss, Eq. 1 in the form that the config asks for."""
    section = self.config["vae"]
    if section["likelihood"] == "gaussian":
      return functools.partial(losses.gaussian_elbo, sigma=ranges.model_scale(section["sigma"]))
    return functools.partial(losses.weighted_elbo, kl_weight=section["kl_weight"])

  def vae(self) -> loop.Phase:
    """Phase 1."""
    section, model = self.config["vae"], self.networks.vae
    optimizer = self._optimizer(section)

    def init(key):
      return states.TrainState.create(model.init(key, self.networks.example["image"], key), optimizer)

    step = functools.partial(game_phase.vae_step, model=model, optimizer=optimizer, objective=self.objective())
    return loop.Phase(
      name="vae",
      advance=loop.OneByOne(step, self.prepare),
      init=init,
      frozen=None,
      keys=self.keys("vae"),
      stage="vae",
      **self._passes(section),
    )

  def statistics(self) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes of what is found once of a trained VAE, as `state.Frozen` has it, all repetitions."""
    height, width, _ = self.networks.vae.image_shape
    shapes = {
      "posterior_scale": (self.networks.vae.latent_dim,),
      "calibration": (calibration.LEVELS,),
      "decoder_gain": (height, width // 2 + 1),
      "decoder_error": (),
    }
    return {name: jax.ShapeDtypeStruct((len(self.seeds), *shape), jnp.float32) for name, shape in shapes.items()}

  def labels(self, name: str = "", pool: np.ndarray | None = None) -> Source:
    """The data set's labels, or those of the rows in `pool` alone."""
    classes = self.networks.classifier.classes
    return Source(name, self._draw_images(classes), classes, self.facts.train, prepare=self.prepare, pool=pool)

  def realism(self) -> Source:
    """Being an image like those of the data set: the same game with one class that all images belong to."""
    return Source("realism", self._draw_images(1), 1, self.facts.train, mismatched=0.0, prepare=self.prepare)

  def rule(self, name: str) -> Source:
    """A rule, learnt from exemplars."""
    section = self.config["rule"]
    size, epochs, mismatched = (section[key] for key in ("exemplars", "epochs", "mismatched"))
    return Source(f"rule/{name}", game_phase.draw_exemplars, 2, size, epochs, mismatched)

  def _draw_images(self, classes: int) -> game_phase.Draw:
    return functools.partial(game_phase.draw_images, model=self.networks.vae, classes=classes)

  def actor_critic(self, frozen: states.Frozen | states.Exemplars | None, source: Source | None = None) -> loop.Phase:
    """Phase 2: the game, by default for the labels."""
    source = source or self.labels()
    section, networks = self.config["actor_critic"], self.networks
    rows = section["batch_size"] * section["critic_steps"]
    optimizer = self._optimizer(section, rows, source, b1=section["beta1"], b2=section["beta2"])

    def init(key):
      actor_key, critic_key = jax.random.split(key)
      inputs = networks.example["latent"], jnp.zeros((1, source.classes))
      actor = states.TrainState.create(networks.actor.init(actor_key, *inputs), optimizer)
      critic = states.TrainState.create(networks.critic.init(critic_key, *inputs), optimizer)
      return states.ActorCriticState(actor, critic, actor.params, jnp.zeros((), jnp.int32))

    step = functools.partial(
      game_phase.actor_critic_step,
      draw=source.draw,
      actor=networks.actor,
      critic=networks.critic,
      actor_optimizer=optimizer,
      critic_optimizer=optimizer,
      critic_steps=section["critic_steps"],
      critic_weights=source.critic_weights(section["critic_weights"]),
      actor_weights=_where_classes_differ(section["actor_weights"], "encoded", source)
      | {"distance": section["distance_weight"]},
      distance_reduction=section["distance_reduction"],
      average_decay=section["average_decay"],
    )
    return self._constraint_phase("actor_critic", source, step, init, frozen, rows)

  def energy(self, frozen: states.Frozen | states.Exemplars | None, source: Source | None = None) -> loop.Phase:
    """Phase 2, for sampling by gradients: the constraint's energy, by default for the labels."""
    source = source or self.labels()
    section, networks = self.config["energy"], self.networks
    rows, latent_dim = section["batch_size"], networks.vae.latent_dim
    optimizer = self._optimizer(section, rows, source, b1=section["beta1"], b2=section["beta2"])

    def init(key):
      critic_key, chain_key = jax.random.split(key)
      variables = networks.energy.init(critic_key, networks.example["latent"], jnp.zeros((1, source.classes)))
      critic = states.TrainState.create(variables, optimizer)
      chains = samplers.prior(chain_key, rows, latent_dim)
      conditions = jax.nn.one_hot(jnp.arange(rows) % source.classes, source.classes)
      return states.EnergyState(critic, critic.params, chains, conditions, jnp.zeros((), jnp.int32))

    step = functools.partial(
      game_phase.energy_step,
      draw=source.draw,
      critic=networks.energy,
      optimizer=optimizer,
      weights=source.critic_weights(section["critic_weights"]),
      average_decay=section["average_decay"],
      **_where_classes_differ(section["chain"], "encoded", source),
    )
    return self._constraint_phase("energy", source, step, init, frozen, rows)

  def _constraint_phase(self, name: str, source: Source, step, init, frozen, rows: int) -> loop.Phase:
    kind = source.name.partition("/")[0]
    kind = kind if kind in ("realism", "rule") else ""
    return loop.Phase(
      name=f"{source.name}/{name}".lstrip("/"),
      advance=loop.OneByOne(step, source.prepare),
      init=init,
      frozen=frozen,
      keys=self.keys(f"{kind}/{name}".lstrip("/")),
      rows=rows,
      size=source.size,
      epochs=source.epochs or self.config[name]["epochs"],
      stage="actor_critic",
      pool=source.pool,
    )

  def classifiers(
    self, name: str, arms: Sequence[str], frozen: states.Frozen | None, pool: np.ndarray | None = None
  ) -> loop.Phase:
    """Phase 3, the classifiers of these arms side by side, on all labelled images or on those in `pool`."""
    section, model = self.config["classifier"], self.networks.classifier
    optimizer = self._optimizer(section)
    built = {arm: policies.build(arm, self.tools()) for arm in arms}

    def init(key):
      first = states.TrainState.create(model.init(key, self.networks.example["image"]), optimizer)
      return dict.fromkeys(arms, first)

    advance = functools.partial(
      game_phase.compare_arms,
      arms=built,
      fetch=lambda data, rows: loop.take(data, rows, self.prepare),
      model=model,
      optimizer=optimizer,
      over_arms=parallel.over_arms,
    )
    views, pixels = sum(arm.views for arm in built.values()), math.prod(self.networks.vae.image_shape)
    size = views * section["batch_size"] * pixels * 4
    return loop.Phase(
      name=name,
      advance=advance,
      init=init,
      frozen=frozen,
      keys=self.keys("classifier"),
      stage="classifier",
      pool=pool,
      longest=max(1, _AUGMENTED_BYTES // size),
      **self._passes(section),
    )

  def judge(self) -> loop.Phase:
    """The judge, on real images alone."""
    section, model = self.config["evaluate"]["judge"], self.networks.judge
    optimizer = self._optimizer(section)

    def init(key):
      return states.TrainState.create(model.init(key, self.networks.example["image"]), optimizer)

    step = functools.partial(game_phase.classifier_step, model=model, optimizer=optimizer)
    return loop.Phase(
      name="judge",
      advance=loop.OneByOne(step, self.prepare),
      init=init,
      frozen=None,
      keys=self.keys("judge"),
      stage="evaluate",
      **self._passes(section),
    )

  def _passes(self, section: dict[str, Any]) -> dict[str, int]:
    """Over all training images, as `loop.Phase` has them."""
    return {"rows": section["batch_size"], "size": self.facts.train, "epochs": section["epochs"]}

  def tools(self) -> policies.Tools:
    """What the classifier's arms work with."""
    networks, config = self.networks, self.config
    return policies.Tools(
      vae=networks.vae,
      actor=networks.actor,
      energy=networks.energy,
      classes=networks.classifier.classes,
      prepare=lambda images: self.prepare({"image": images})["image"],
      share=config["classifier"]["share"],
      methods=samplers.with_settings(config["sample"]),
      edit={name: config["edit"][name] for name in ("steps", "learning_rate", "distance_weight")},
    )

  def _optimizer(
    self, section, rows: int | None = None, source: Source | None = None, **betas: float
  ) -> optax.GradientTransformation:
    size, epochs = (source.size, source.epochs) if source else (self.facts.train, None)
    total = size // (rows or section["batch_size"]) * (epochs or section["epochs"])
    rate = section["learning_rate"]
    if section["schedule"] == "cosine":
      rate = optax.cosine_decay_schedule(rate, max(total, 1))
    return optax.adam(rate, **betas)

  def _networks(self) -> Networks:
    config = self.config
    side = config["data"]["image_size"]
    shape = (side, side, self.facts.shape[2]) if side else tuple(self.facts.shape)
    classes = len(self.facts.class_names)
    form = config["train"]["convolution"]
    if form == "auto":
      form = "matmul" if jax.default_backend() == "cpu" else "native"
    dtype = jnp.dtype(config["train"]["dtype"])
    v, c, j = config["vae"], config["classifier"], config["evaluate"]["judge"]
    game, energy = config["actor_critic"], config["energy"]
    return Networks(
      vae=vae.VAE(
        image_shape=shape,
        latent_dim=v["latent_dim"],
        architecture=v["architecture"],
        widths=(v["hidden_dim"],) * v["depth"],
        channels=v["channels"],
        output_limit=v["output_limit"],
        form=form,
        dtype=dtype,
      ),
      actor=actor_critic.Actor(v["latent_dim"], game["hidden_dim"], game["depth"], dtype),
      critic=actor_critic.Critic(game["hidden_dim"], game["depth"], game["critic_batch_norm"], dtype),
      energy=actor_critic.Critic(energy["hidden_dim"], energy["depth"], dtype=dtype),
      classifier=classifier.Classifier(
        classes=classes,
        architecture=c["architecture"],
        widths=(c["hidden_dim"],) * c["depth"],
        channels=c["channels"],
        activate_logits=c["activate_logits"],
        form=form,
        dtype=dtype,
      ),
      judge=classifier.Judge(classes, j["channels"], j["feature_dim"], form),
    )


def _where_classes_differ(weights: dict[str, float], name: str, source: Source) -> dict[str, float]:
  """The weights, that of the named term 0 where there are no other classes for it."""
  return weights if source.classes > 1 else weights | {name: 0.0}
