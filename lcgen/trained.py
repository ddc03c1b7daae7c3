"""A trained run in Python: `run = lcgen.load(workdir)`."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from lcgen import checkpoint, config, errors, loop, parallel, sampling
from lcgen import state as states
from lcgen.data import images as ranges
from lcgen.data import sources
from lcgen.phases import Phases


def load(workdir: epath.PathLike) -> "Run":
  """Opens what `run.py` trained in a workdir.

  Raises:
    InputError: where the VAE is not trained to its end there.
  """
  return Run(epath.Path(workdir))


class Run:
  """The networks of one workdir, all repetitions; phases are read when first asked for.

  Images go in as uint8 or as floats in [0, 1], `[N, H, W, C]`, and are resized where they are of another size than the
  networks'; they come out as floats in [0, 1]. `replica` picks one of the repetitions, counted from 0.

  Attributes:
    class_names: names of the labels 0, 1, ...
    replicas: number of repetitions.
    arms: names of the trained classifiers.
  """

  def __init__(self, workdir: epath.Path):
    values = config.read(workdir)
    self._directory = workdir / "checkpoints"
    if values is None or not (self._directory / "statistics").exists():
      raise errors.InputError(f"{workdir}: no trained VAE; name a --workdir where run.py has finished that phase")
    with checkpoint.Checkpoints(self._directory / "statistics") as saved:
      self._facts = sources.Facts(**saved.record)
      self._phases = Phases(values, self._facts)
      self._mesh = parallel.make_mesh(values["seeds"])
      abstract = checkpoint.abstract(self._phases.statistics(), parallel.per_seed(self._mesh))
      self._statistics = saved.restore(abstract)
    self.class_names: tuple[str, ...] = tuple(self._facts.class_names)
    self.replicas: int = values["seeds"]
    self.arms: tuple[str, ...] = values["classifier"]["arms"]
    networks = self._phases.networks
    self._encode = jax.jit(functools.partial(networks.vae.apply, method="encode"))
    self._decode = jax.jit(functools.partial(sampling.decode, model=networks.vae))
    self._move = jax.jit(
      functools.partial(sampling.actor_latents, actor=networks.actor, classes=networks.classifier.classes)
    )
    self._logits = jax.jit(networks.classifier.apply)

  def encode(self, images: np.ndarray, replica: int = 0) -> jax.Array:
    """Means of q(z|x), `[N, L]`."""
    return self._encode(self._pick(self._vae, replica).vae, self._prepared(images)).mean

  def decode(self, latents: np.ndarray, replica: int = 0) -> jax.Array:
    """Decoded images, their pixel values fitted to the data's, `[N, H, W, C]`; latents `[N, L]`.

    Raises:
      ValueError: where the latents are of another size.
    """
    latents = jnp.asarray(latents, jnp.float32)
    size = self._phases.networks.vae.latent_dim
    if latents.ndim != 2 or latents.shape[1] != size:
      raise ValueError(f"latents of shape {latents.shape}: must be [N, {size}]")
    return self._decode(latents, self._pick(self._vae, replica))

  def sample(self, labels: Sequence[int], seed: int = 0, replica: int = 0) -> jax.Array:
    """One image for each requested label, decoded from G(z, y) with z from the prior (Eq. 5); `[N, H, W, C]`.

    Raises:
      ValueError: where a label is not one of the data set's.
    """
    labels = np.asarray(labels)
    classes = len(self.class_names)
    if (
      labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer) or not ((0 <= labels) & (labels < classes)).all()
    ):
      raise ValueError(f"labels {labels!r}: must be a sequence of whole numbers from 0 to {classes - 1}")
    frozen = self._pick(self._actor, replica)
    return self._decode(self._move(jax.random.key(seed), jnp.asarray(labels), frozen), frozen)

  def classify(self, images: np.ndarray, arm: str = "latent_constraints", replica: int = 0) -> jax.Array:
    """The class that the classifier of this arm gives each image, int32 `[N]`."""
    return self.probabilities(images, arm, replica).argmax(axis=-1)

  def probabilities(self, images: np.ndarray, arm: str = "latent_constraints", replica: int = 0) -> jax.Array:
    """The classifier's probability of each class, `[N, K]`.

    Raises:
      ValueError: where the run has no such arm.
    """
    if arm not in self.arms:
      raise ValueError(f"arm {arm!r}: this run has {', '.join(self.arms)}")
    variables = self._pick(self._classifiers[arm].variables, replica)
    return jax.nn.softmax(self._logits(variables, self._prepared(images)))

  def _prepared(self, images: np.ndarray) -> jax.Array:
    images = jnp.asarray(images)
    colours = self._facts.shape[2]
    if images.ndim != 4 or images.shape[3] != colours:
      raise ValueError(f"images of shape {images.shape}: must be [N, H, W, {colours}]")
    if images.dtype != jnp.uint8 and not (images.min() >= 0 and images.max() <= 1):
      raise ValueError(f"images from {images.min()} to {images.max()}: floats must be in [0, 1]; else pass uint8")
    return self._phases.prepare({"image": images if images.dtype == jnp.uint8 else ranges.Unit(images)})["image"]

  def _pick(self, tree: Any, replica: int) -> Any:
    if not 0 <= replica < self.replicas:
      raise ValueError(f"replica {replica}: there are {self.replicas}, counted from 0")
    return jax.tree.map(lambda leaf: leaf[replica], tree)

  def _finished(self, phase: loop.Phase) -> Any:
    return loop.finished(phase, self._facts.train, self._mesh, self._directory / phase.name)[0]

  @functools.cached_property
  def _vae(self) -> states.Frozen:
    return states.Frozen(self._finished(self._phases.vae()).variables, **self._statistics)

  @functools.cached_property
  def _actor(self) -> states.Frozen:
    game = self._finished(self._phases.actor_critic(self._vae))
    return self._vae.replace(actor={"params": game.actor_average})

  @functools.cached_property
  def _classifiers(self) -> dict[str, states.TrainState]:
    return {arm: self._finished(self._phases.classifier(arm, self._actor)) for arm in self.arms}
