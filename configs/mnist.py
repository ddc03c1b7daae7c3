"""MNIST as TFDS prepares it: 54,001 training, 5,999 validation and 10,000 test images.

python run.py --config=configs/mnist.py --config.data.dir=DIR
"""

from configs import common


def get_config(variant: str = "") -> common.Config:
  """Gives a variant: `paper`, `code`, `engel`, `small` (for two CPU cores), `smoke` (shows that it runs)."""
  config = common.base()
  config.data.update(source="tfds", name="mnist")
  config.seeds = 5
  config.vae.update(hidden_dim=1024, epochs=40, batch_size=128)
  config.actor_critic.update(hidden_dim=1024, epochs=40, learning_rate=3e-4)
  config.energy.update(hidden_dim=512, epochs=20)
  config.classifier.update(epochs=20, batch_size=128)
  config.evaluate.judge.update(channels=(32, 64), feature_dim=128, epochs=5, batch_size=128)
  variants = {"paper": _paper, "code": _code, "engel": common.engel, "small": _small, "smoke": common.smoke}
  return common.select(config, variant, variants)


def _paper(config: common.Config) -> None:
  common.paper(config)
  config.vae.hidden_dim = 1024
  config.evaluate.sets = ("test", "dirty_mnist")


def _code(config: common.Config) -> None:
  common.code(config)
  config.vae.hidden_dim = 1024
  config.actor_critic.update(learning_rate=1e-4, batch_size=64)
  config.evaluate.sets = ("test", "diagnostic", "dirty_mnist", "dirty_mnist_twice")


def _small(config: common.Config) -> None:
  config.seeds = 3
  config.vae.update(hidden_dim=512, epochs=15)
  config.actor_critic.update(hidden_dim=384, epochs=15, learning_rate=5e-4)
  config.energy.update(hidden_dim=384, epochs=6)
  config.classifier.update(epochs=8)
  config.expected = (
    "judge test accuracy > 0.97",
    "samples actor conditional_accuracy > 0.98",
    "samples refine conditional_accuracy > 0.995",
    "samples refine diversity > 0.8",
    "samples actor classification_accuracy > 0.93",
    "arms none test accuracy > 0.965",
    "arms latent_constraints test accuracy > 0.965",
  )
  config.evaluate.judge.update(channels=(16, 32), feature_dim=64, epochs=3)
