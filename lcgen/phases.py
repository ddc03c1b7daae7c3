"""From a config to networks, steps and phases: where plain values leave the config."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax

from lcgen import augment, calibration, loop, losses, sampling, steps
from lcgen import state as states
from lcgen.data import images as ranges
from lcgen.data import sources
from lcgen.models import actor_critic, classifier, vae

# The key of a phase is its place here folded into the key of the seed; append only. All arms of the classifier share
# theirs, and with it the first parameters and the order of the data: their differences are paired.
_KEYS = ("vae", "statistics", "actor_critic", "classifier", "judge", "evaluate")


@dataclasses.dataclass(frozen=True)
class Networks:
  """The modules of one config, sized for one data set."""

  vae: vae.VAE
  actor: actor_critic.Actor
  critic: actor_critic.Critic
  classifier: classifier.Classifier
  judge: classifier.Judge

  @property
  def example(self) -> dict[str, jax.Array]:
    """One zero of every input: `image` `[1, H, W, C]`, `latent` `[1, L]`, `condition` `[1, K]`."""
    sizes = {"image": self.vae.image_shape, "latent": (self.vae.latent_dim,), "condition": (self.classifier.classes,)}
    return {name: jnp.zeros((1, *shape)) for name, shape in sizes.items()}


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

  def keys(self, name: str) -> jax.Array:
    """One key per repetition, `[S]`."""
    index = _KEYS.index(name)
    return jnp.stack([jax.random.fold_in(jax.random.key(seed), index) for seed in self.seeds])

  def prepare(self, batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """A batch of stored images as the networks see it."""
    height, width, _ = self.networks.vae.image_shape
    return batch | {"image": ranges.prepare(batch["image"], height, width)}

  def replaced(self) -> int:
    """How many images of each of the classifier's batches are replaced by samples."""
    section = self.config["classifier"]
    return round(section["share"] * section["batch_size"])

  def objective(self) -> steps.Objective:
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

    step = functools.partial(steps.vae_step, model=model, optimizer=optimizer, objective=self.objective())
    return loop.Phase("vae", step, init, None, self.keys("vae"), section["batch_size"], section["epochs"])

  def statistics(self) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes of what is found once of a trained VAE, as `state.Frozen` has it, all repetitions."""
    sizes = {"posterior_scale": self.networks.vae.latent_dim, "calibration": calibration.LEVELS}
    return {name: jax.ShapeDtypeStruct((len(self.seeds), size), jnp.float32) for name, size in sizes.items()}

  def actor_critic(self, frozen: states.Frozen) -> loop.Phase:
    """Phase 2."""
    section, networks = self.config["actor_critic"], self.networks
    rows = section["batch_size"] * section["critic_steps"]
    optimizer = self._optimizer(section, rows, b1=section["beta1"], b2=section["beta2"])

    def init(key):
      actor_key, critic_key = jax.random.split(key)
      inputs = networks.example["latent"], networks.example["condition"]
      actor = states.TrainState.create(networks.actor.init(actor_key, *inputs), optimizer)
      critic = states.TrainState.create(networks.critic.init(critic_key, *inputs), optimizer)
      return states.ActorCriticState(actor, critic, actor.params, jnp.zeros((), jnp.int32))

    step = functools.partial(
      steps.actor_critic_step,
      model=networks.vae,
      actor=networks.actor,
      critic=networks.critic,
      actor_optimizer=optimizer,
      critic_optimizer=optimizer,
      classes=networks.classifier.classes,
      critic_steps=section["critic_steps"],
      critic_weights=section["critic_weights"],
      actor_weights=section["actor_weights"] | {"distance": section["distance_weight"]},
      distance_reduction=section["distance_reduction"],
      average_decay=section["average_decay"],
    )
    return loop.Phase("actor_critic", step, init, frozen, self.keys("actor_critic"), rows, section["epochs"])

  def classifier(self, arm: str, frozen: states.Frozen) -> loop.Phase:
    """Phase 3, one arm."""
    policies = {
      "none": augment.none,
      "latent_constraints": augment.latent_constraints(self._generate, self.replaced()),
    }
    section = self.config["classifier"]
    return self._classification(f"classifier/{arm}", section, self.networks.classifier, policies[arm], frozen)

  def judge(self) -> loop.Phase:
    """The judge, on real images alone."""
    return self._classification("judge", self.config["evaluate"]["judge"], self.networks.judge, augment.none, None)

  def _classification(self, name, section, model, policy, frozen) -> loop.Phase:
    optimizer = self._optimizer(section)

    def init(key):
      return states.TrainState.create(model.init(key, self.networks.example["image"]), optimizer)

    step = functools.partial(steps.classifier_step, model=model, optimizer=optimizer, policy=policy)
    keys = self.keys(name.partition("/")[0])
    return loop.Phase(name, step, init, frozen, keys, section["batch_size"], section["epochs"])

  def _generate(self, key: jax.Array, labels: jax.Array, frozen: states.Frozen) -> jax.Array:
    networks = self.networks
    images = sampling.actor_images(
      key, labels, frozen, model=networks.vae, actor=networks.actor, classes=networks.classifier.classes
    )
    return ranges.to_model(ranges.Unit(images))

  def _optimizer(self, section, rows: int | None = None, **betas: float) -> optax.GradientTransformation:
    total = self.facts.train // (rows or section["batch_size"]) * section["epochs"]
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
    v, game, c, j = config["vae"], config["actor_critic"], config["classifier"], config["evaluate"]["judge"]
    return Networks(
      vae=vae.VAE(
        image_shape=shape,
        latent_dim=v["latent_dim"],
        architecture=v["architecture"],
        widths=(v["hidden_dim"],) * v["depth"],
        channels=v["channels"],
        output_limit=v["output_limit"],
        form=form,
      ),
      actor=actor_critic.Actor(v["latent_dim"], game["hidden_dim"], game["depth"]),
      critic=actor_critic.Critic(game["hidden_dim"], game["depth"], game["critic_batch_norm"]),
      classifier=classifier.Classifier(
        classes=classes,
        architecture=c["architecture"],
        widths=(c["hidden_dim"],) * c["depth"],
        channels=c["channels"],
        activate_logits=c["activate_logits"],
        form=form,
      ),
      judge=classifier.Judge(classes, j["channels"], j["feature_dim"], form),
    )
