"""CIFAR-10 as TFDS prepares it, resized to 64x64 as in the paper: 45,000 training, 5,000 validation, 10,000 test.

python run.py --config=configs/cifar10.py --config.data.dir=DIR
"""

from configs import common

_CHANNELS = (32, 64, 128, 256, 512, 1024)


def get_config(variant: str = "") -> common.Config:
  """Gives a variant: `paper`, `code`, `engel`, `small` (32x32, for two CPU cores), `smoke` (shows that it runs)."""
  config = common.base()
  config.data.update(source="tfds", name="cifar10", image_size=64)
  config.vae.update(architecture="conv", channels=_CHANNELS, latent_dim=256, epochs=60, batch_size=128)
  config.actor_critic.update(hidden_dim=1024, epochs=60, learning_rate=3e-4)
  config.energy.update(hidden_dim=512, epochs=20)
  config.classifier.update(architecture="conv", channels=_CHANNELS, epochs=30, batch_size=128)
  config.evaluate.judge.update(channels=(32, 64, 128), feature_dim=128, epochs=20, batch_size=128)
  config.evaluate.sets = ("test", "generated_cifar10_c")
  config.classifier.arms = (
    "none,latent_constraints,latent_constraints:share=0.5,reconstruction,duplicate,clip,flip_crop,"
    "flip_crop+latent_constraints,flip_crop+augmix"
  )
  config.learning_curve.arms = "none,latent_constraints,duplicate,clip,flip_crop,flip_crop+latent_constraints"
  variants = {"paper": _paper, "code": _code, "engel": common.engel, "small": _small, "smoke": common.smoke}
  return common.select(config, variant, variants)


def _paper(config: common.Config) -> None:
  common.paper(config)
  config.evaluate.sets = ("test", "cifar10_corrupted")


def _code(config: common.Config) -> None:
  common.code(config)
  config.classifier.update(learning_rate=0.0005, share=0.125)  # the code's weight decay, 1e-5, is left out
  config.audit.update(learning_rate=0.0005, share=0.125)
  config.evaluate.sets = ("test", "diagnostic", "cifar10_corrupted")


def _small(config: common.Config) -> None:
  config.data.image_size = 0
  config.seeds = 1
  config.vae.update(channels=(32, 64, 128, 256), latent_dim=128, epochs=10)
  config.actor_critic.update(hidden_dim=384, epochs=10, learning_rate=5e-4)
  config.energy.update(hidden_dim=256, epochs=10)
  config.classifier.update(channels=(32, 64, 128, 256), epochs=10)
  config.classifier.arms = "none,latent_constraints,duplicate,clip,flip_crop"
  config.evaluate.judge.update(epochs=10)
  one_a_group = ("gaussian_noise", "defocus_blur", "fog", "contrast")
  config.evaluate.sets = ("test", *(f"generated_cifar10_c/{name}" for name in one_a_group))
