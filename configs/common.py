"""The defaults of all configs, and the variants that configs share.

The settings of `lcgen` declare the defaults, which work best on small grey images. `paper` follows the paper's text.
"""

from collections.abc import Callable, Mapping

import ml_collections

from lcgen import config as settings
from lcgen.runtime import registry

Config = ml_collections.ConfigDict


def base(*plugins: str) -> Config:
  """Gives every field with its default; `python run.py --help` explains each one.

  Args:
    plugins: modules to import first, which register generators, samplers and the like.
  """
  known = settings.load_plugins(plugins)
  return Config(settings.defaults() | {"plugins": known})


def select(config: Config, variant: str, variants: Mapping[str, Callable[[Config], None]]) -> Config:
  """Applies a variant to a config; the empty name changes nothing.

  Args:
    config: from `base`.
    variant: what follows the colon on the command line.
    variants: `{name: function that changes the config in place}`.
  """
  if variant:
    if variant not in variants:
      near = registry.nearest(variant, variants)
      raise ValueError(f"unknown variant {variant!r}{near}; there are {', '.join(variants)}")
    variants[variant](config)
  return config


def paper(config: Config) -> None:
  """Follows the paper's text. If it is silent or contradicts itself, a comment says what is taken."""
  config.vae.update(latent_dim=1024, output_limit=1.0, kl_weight=0.00025, calibrate=False)
  config.vae.update(batch_size=32, learning_rate=0.005, schedule="constant")
  config.vae.epochs = 50  # silent: as many as for the classifier
  game = config.actor_critic
  game.update(hidden_dim=2048, batch_size=128, learning_rate=0.003, schedule="constant", average_decay=0.0)
  game.update(beta1=0.9, beta2=0.999)  # silent: Adam's own
  game.epochs = 50  # silent: as many as for the classifier
  game.critic_steps = 10  # silent: Engel et al. 2018
  game.critic_batch_norm = False  # section 4 has it, Fig. 16 and the code do not
  game.critic_weights.update(prior=1.0, r1=0.0, interpolated=0.0)
  game.critic_weights.mismatched = 1.0  # not in Eq. 2 but in the code; without it no label is ever wrong
  game.actor_weights.encoded = 0.0
  game.update(distance_weight=0.1, distance_reduction="sum")  # silent on the weight: Engel et al. 2018
  config.classifier.update(epochs=50, batch_size=32, learning_rate=0.005, schedule="constant", share=0.125)
  config.classifier.activate_logits = True  # the batch norm on the logits is left out
  config.classifier.arms = "none,latent_constraints"
  config.audit.share = 0.125
  config.train.layers = "pytorch"  # silent: the code's, which is written in PyTorch
  config.expected = ()


def code(config: Config) -> None:
  """Follows the paper's published code if it differs from the text; a comment names what lcgen cannot reproduce."""
  paper(config)
  game = config.actor_critic
  game.update(distance_weight=0.0, critic_steps=2, learning_rate=3e-4)
  game.critic_weights.interpolated = 1.0  # on the logit; the code has it on the sigmoid, one coefficient a dimension
  game.actor_weights.encoded = 1.0
  config.classifier.update(batch_size=64, share=0.2)  # without replacement; the code draws with it
  config.audit.share = 0.2


def engel(config: Config) -> None:
  """Sets the game of Engel et al. 2018: 10 critic updates for each update of the actor, their penalty and Adam."""
  game = config.actor_critic
  game.update(critic_steps=10, learning_rate=3e-4, schedule="constant", beta1=0.0, beta2=0.9, average_decay=0.0)
  game.critic_weights.update(real=1.0, actor=1.0, prior=0.1, mismatched=1.0, r1=0.0, interpolated=10.0)
  game.actor_weights.encoded = 0.0
  game.update(distance_weight=0.1, distance_reduction="mean")  # of later works one sums, one averages
  game.epochs *= 4  # a step takes ten batches, so an epoch has few steps


def smoke(config: Config) -> None:
  """Makes everything tiny: the run takes seconds and shows that it works, not how well."""
  config.seeds = 2
  config.classifier.arms, config.expected = "none,latent_constraints", ()
  config.data.train_limit, config.data.test_limit = 400, 100
  # Batches of 30 give an epoch of 12 steps, whose chunks have one length and are compiled once.
  config.vae.update(hidden_dim=32, depth=2, channels=(4, 8), latent_dim=8, epochs=2, batch_size=30)
  config.actor_critic.update(hidden_dim=32, depth=2, epochs=2, batch_size=64)
  config.energy.update(hidden_dim=32, depth=2, epochs=2, batch_size=64)
  config.rule.update(exemplars=512, epochs=2)
  config.classifier.update(hidden_dim=16, channels=(4, 8), epochs=2, batch_size=30)
  config.learning_curve.update(shares=(0.2, 1.0), arms="none,latent_constraints")
  config.evaluate.update(batch_size=64, samples_per_class=8)
  config.evaluate.sets = ("test", "generated_cifar10_c/contrast", "generated_mnist_c/stripe")
  config.evaluate.judge.update(channels=(4, 8), feature_dim=16, epochs=2, batch_size=30)
  config.train.update(chunk_steps=5, checkpoint_steps=8)
