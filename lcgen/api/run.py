"""A trained run in Python: `run = lcgen.load(workdir)`."""

import dataclasses
import functools
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from lcgen.api import export
from lcgen.api import workdir as workdirs
from lcgen.constraints import learning, rule_spec, samplers
from lcgen.constraints.algebra import Constraint, Learnt
from lcgen.data import ranges
from lcgen.training import train_state as states
from lcgen.training.trainer import Trainer

Wish = int | Sequence[int] | Constraint


def load(path: epath.PathLike) -> "Run":
  """Opens what `run.py` trained: a workdir, or the `networks.safetensors` that `--stage=export` made of one.

  An export gives the same numbers; learning needs the workdir.

  Raises:
    InputError: where the VAE is not trained to its end there, or the file is not an export that this version reads.
  """
  path = epath.Path(path)
  is_export = path.suffix == epath.Path(export.NAME).suffix or path.is_file()
  return Run(export.Export(path) if is_export else workdirs.Workdir(path))


@dataclasses.dataclass(frozen=True)
class Samples:
  """Images with their latents and what is known of each.

  Attributes:
    images: floats in [0, 1], `[N, H, W, C]`.
    latents: `[N, L]`.
    start: where each latent came from, a draw from the prior or an encoding, `[N, L]`.
    labels: what was asked for, int32 `[N]`; -1 where it was no label.
    energy: of the constraint, nats, `[N]`.
    critics: logit of each critic in the constraint, `[N, critics]`.
    accepted: whether the critics take it that the constraint holds, bool `[N]`.
    moved: root mean square over latents between start and latents, `[N]`; two draws from the prior are 1.41 apart.
    verdict: the judge's label, int32 `[N]`.
    confidence: the judge's probability of that label, `[N]`.
  """

  images: np.ndarray
  latents: np.ndarray
  start: np.ndarray
  labels: np.ndarray
  energy: np.ndarray
  critics: np.ndarray
  accepted: np.ndarray
  moved: np.ndarray
  verdict: np.ndarray
  confidence: np.ndarray


class Run:
  """The networks of one run, all repetitions; each is read when first asked for.

  Images go in as uint8 or as floats in [0, 1], `[N, H, W, C]`, and are resized where they are of another size than the
  networks'; they come out as floats in [0, 1]. `replica` picks one of the repetitions, counted from 0. Constraints are
  those of all repetitions, and compose: `run.label(3) & ~thick`.

  Args:
    run: where the networks are; `load` finds out which of the two it is.

  Attributes:
    class_names: names of the labels 0, 1, ...
    image_shape: `(H, W, C)` of the networks.
    replicas: number of repetitions.
    arms: names of the trained classifiers.
  """

  def __init__(self, run: workdirs.Workdir | export.Export):
    self._stored, self._phases, self._read = run, run.phases, functools.cache(run.read)
    networks = self._phases.networks
    self.class_names: tuple[str, ...] = tuple(self._phases.facts.class_names)
    self.image_shape: tuple[int, int, int] = tuple(networks.vae.image_shape)
    self.replicas: int = run.values["seeds"]
    self.arms: tuple[str, ...] = run.values["classifier"]["arms"]
    self._encode = jax.jit(functools.partial(networks.vae.apply, method="encode"))
    self._decode = jax.jit(functools.partial(samplers.decode, model=networks.vae))
    self._logits = jax.jit(networks.classifier.apply)
    self._judge_logits = jax.jit(networks.judge.apply)

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

  def label(self, label: int) -> Learnt:
    """The constraint that an image belongs to a class (Eq. 2's critic, conditioned on the label).

    Raises:
      ValueError: where there is no such class.
      InputError: where phase 2 is not trained.
    """
    return self._labelled(self._labels([label])[0])

  @functools.cached_property
  def realism(self) -> Learnt:
    """The constraint to look like the data, whatever the class (Engel et al. 2018, section 3).

    It reads no labels. Learnt when first asked for, from the run's training images, and kept in its workdir.

    Raises:
      InputError: where it is not learnt yet and the training images cannot be read; an export reads none.
    """
    kept = self._stored.has("realism/energy")
    pair = self._pair("realism/") if kept else self._learner.realism()
    return learning.constraint(self._phases, pair, np.ones(1, np.float32))

  def learn(
    self,
    rule: str | rule_spec.Function,
    *,
    above: float | None = None,
    below: float | None = None,
    top: float | None = None,
    bottom: float | None = None,
  ) -> Learnt:
    """Learns a rule as a constraint, from samples of the model alone: minutes on a CPU.

    The rule is asked about decoded draws from the prior, as they are and moved to where `realism` holds; it may be any
    code, and is never differentiated (Engel et al. 2018, section 5). No label is read, and images only for `realism`.

    Args:
      rule: a function of images in [0, 1], float32 `[N, H, W, C]`, to verdicts (bool) or scores `[N]`, each image by
        itself; or a config's text, `rule:module.function[:bound=value]`, whose constraint is kept in the workdir.
      above: of scores, the one above which the rule holds.
      below: the one below which it holds.
      top: the share of the prior's samples for which it is to hold, those with the highest scores.
      bottom: the same for the lowest. Without any bound scores get `top=0.25`.

    Raises:
      InputError: where the rule raises, returns anything but N finite numbers, or holds always or never; in an export.
    """
    bounds = {"above": above, "below": below, "top": top, "bottom": bottom}
    given = {name: value for name, value in bounds.items() if value is not None}
    if len(given) > 1 or (given and isinstance(rule, str)):
      raise ValueError(f"bounds {given} for {rule}: give one at most, and for a text none")
    if isinstance(rule, str):
      learnt = self._learner.rule(rule_spec.parse(rule))
    else:
      with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(self._phases, epath.Path(folder), lambda: None)
        bound, value = next(iter(given.items()), ("", 0.0))
        learnt = self._learner.rule(rule_spec.checked(rule_spec.Rule(rule, bound, value)), trainer)
    return learning.constraint(self._phases, learnt.pair, learning.HOLDS)

  def sample(
    self, wish: Wish, method: str = "refine", *, count: int | None = None, seed: int = 0, replica: int = 0
  ) -> np.ndarray:
    """Images for which a wish holds, in [0, 1], `[N, H, W, C]`; see `draw`."""
    return self.draw(wish, method, count=count, seed=seed, replica=replica).images

  def draw(
    self, wish: Wish, method: str = "refine", *, count: int | None = None, seed: int = 0, replica: int = 0
  ) -> Samples:
    """Samples for which a wish holds, from draws z of the prior, with their certificates.

    Args:
      wish: a label or a sequence of them, one for each sample, or a constraint.
      method: `"actor"`, G(z, y) (Eq. 5); `"optimize"`, Adam on z; `"langevin"`, noisy gradient steps on z; `"refine"`,
        the actor's proposal, a few Langevin steps, and another draw for what the critics refuse. Their settings are
        those of the run's config, section `sample`.
      count: how many samples, of one label or of a constraint, by default 1; not for a sequence of labels.
      seed: of the draws.
      replica: which repetition.

    Raises:
      ValueError: for labels that do not exist, an unknown method, or no count above 0.
    """
    if method not in samplers.METHODS:
      raise ValueError(f"method {method!r}: there are {', '.join(samplers.METHODS)}")
    constraint, labels = self._wanted(wish, count)
    prior_key, key = jax.random.split(jax.random.key(seed))
    start = samplers.prior(prior_key, len(labels), self._phases.networks.vae.latent_dim)
    moved = self._moves[method](key, self._pick(constraint, replica), start)
    return self._certified(moved, constraint, labels, replica)

  def edit(
    self,
    images: np.ndarray,
    wish: Wish,
    *,
    distance_weight: float | None = None,
    replica: int = 0,
  ) -> Samples:
    """Images changed until a wish holds, and no further: Adam from their encodings on E(z) + lambda L_dist (Eq. 3).

    Args:
      images: `[N, H, W, C]`, uint8 or floats in [0, 1].
      wish: a label for all, one for each image, or a constraint.
      distance_weight: lambda, by default the config's `edit.distance_weight`; more stays closer to the image.
      replica: which repetition.

    Raises:
      ValueError: for images of another kind, labels that do not exist, or not one for each image.
    """
    latents = self.encode(images, replica)
    if not isinstance(wish, Constraint) and np.ndim(wish) == 1 and len(wish) != len(latents):
      raise ValueError(f"{len(wish)} labels for {len(latents)} images: give one for each, or one for all")
    constraint, labels = self._wanted(
      wish, len(latents) if isinstance(wish, Constraint) or np.ndim(wish) == 0 else None
    )
    weight = self._phases.config["edit"]["distance_weight"] if distance_weight is None else distance_weight
    if not 0 <= weight < float("inf"):
      raise ValueError(f"distance_weight={weight}: must be a finite number of at least 0")
    frozen = self._pick(self._vae, replica)
    moved = self._edit(self._pick(constraint, replica), latents, frozen.posterior_scale, jnp.float32(weight))
    return self._certified(moved, constraint, labels, replica)

  def interpolate(self, a: np.ndarray, b: np.ndarray, count: int = 8, replica: int = 0) -> np.ndarray:
    """Decoded points from the encoding of each image of `a` to that of `b`, along great circles.

    Args:
      a: `[N, H, W, C]`, uint8 or floats in [0, 1].
      b: as many.
      count: points, both ends included, at least 2.
      replica: which repetition.

    Returns:
      `[N, count, H, W, C]` in [0, 1]; the ends are reconstructions.

    Raises:
      ValueError: where `a` and `b` differ in number, or `count` is below 2.
    """
    start, end = self.encode(a, replica), self.encode(b, replica)
    if start.shape != end.shape or not isinstance(count, int | np.integer) or count < 2:
      raise ValueError(f"{len(start)} and {len(end)} images, count={count}: give pairs, and a whole count, 2 or more")
    between = samplers.interpolate(start, end, count)  # [N, count, L]
    images = self.decode(between.reshape(-1, between.shape[-1]), replica)
    return np.asarray(images).reshape(*between.shape[:2], *images.shape[1:])

  def judge(self, images: np.ndarray, replica: int = 0) -> jax.Array:
    """The judge's probability of each class, `[N, K]`; it was trained on real images and for nothing but this."""
    return jax.nn.softmax(self._judge_logits(self._pick(self._read("judge"), replica), self._prepared(images)))

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
    variables = self._pick(self._read(f"classifier/{arm}"), replica)
    return jax.nn.softmax(self._logits(variables, self._prepared(images)))

  def _labels(self, labels: Sequence[int]) -> np.ndarray:
    labels, classes = np.asarray(labels), len(self.class_names)
    whole = labels.ndim == 1 and len(labels) > 0 and np.issubdtype(labels.dtype, np.integer)
    if not whole or not ((0 <= labels) & (labels < classes)).all():
      raise ValueError(f"labels {labels!r}: must be one or more whole numbers from 0 to {classes - 1}")
    return labels.astype(np.int32)

  def _labelled(self, labels: np.ndarray) -> Learnt:
    """For one label, or for each latent its own."""
    return learning.constraint(self._phases, self._pair(), np.eye(len(self.class_names), dtype=np.float32)[labels])

  def _wanted(self, wish: Wish, count: int | None) -> tuple[Constraint, np.ndarray]:
    """The constraint, and the label of each sample, -1 for none."""
    if isinstance(wish, Constraint) or np.ndim(wish) == 0:
      count = 1 if count is None else count
      if not isinstance(count, int | np.integer) or count < 1:
        raise ValueError(f"count={count}: must be a whole number of at least 1")
      if isinstance(wish, Constraint):
        return wish, np.full(count, -1, np.int32)
      wish, count = [wish] * count, None
    if count is not None:
      raise ValueError(f"count={count}: a sequence of labels has its own")
    labels = self._labels(wish)
    return self._labelled(labels), labels

  def _certified(self, moved: samplers.Moved, constraint: Constraint, labels: np.ndarray, replica: int) -> Samples:
    images = self._decode(moved.latents, self._pick(self._vae, replica))
    probabilities = self.judge(images, replica)
    known = self._know(self._pick(constraint, replica), moved)
    found = {
      "images": images,
      "latents": moved.latents,
      "start": moved.start,
      "labels": labels,
      "verdict": probabilities.argmax(axis=-1),
      "confidence": probabilities.max(axis=-1),
      **known,
    }
    return Samples(**{name: np.asarray(value) for name, value in found.items()})

  @functools.cached_property
  def _moves(self) -> dict[str, Callable[..., samplers.Moved]]:
    methods = samplers.with_settings(self._phases.config["sample"])
    return {name: jax.jit(method) for name, method in methods.items()}

  @functools.cached_property
  def _edit(self) -> Callable[..., samplers.Moved]:
    section = self._phases.config["edit"]

    def edit(constraint, latents, posterior_scale, weight):
      descent = {name: section[name] for name in ("steps", "learning_rate")}
      return samplers.edit(constraint, latents, posterior_scale, distance_weight=weight, **descent)

    return jax.jit(edit)

  @functools.cached_property
  def _know(self) -> Callable[[Constraint, samplers.Moved], dict[str, jax.Array]]:
    def know(constraint, moved):
      z = moved.latents
      return {
        "energy": constraint.energy(z),
        "critics": constraint.logits(z),
        "accepted": constraint.holds(z),
        "moved": moved.distance,
      }

    return jax.jit(know)

  def _prepared(self, images: np.ndarray) -> jax.Array:
    images = jnp.asarray(images)
    colours = self._phases.facts.shape[2]
    if images.ndim != 4 or images.shape[3] != colours or len(images) == 0:
      raise ValueError(f"images of shape {images.shape}: must be [N, H, W, {colours}], one or more")
    if images.dtype != jnp.uint8 and not (images.min() >= 0 and images.max() <= 1):
      raise ValueError(f"images from {images.min()} to {images.max()}: floats must be in [0, 1]; else pass uint8")
    return self._phases.prepare({"image": images if images.dtype == jnp.uint8 else ranges.Unit(images)})["image"]

  def _pick(self, tree: Any, replica: int) -> Any:
    if not 0 <= replica < self.replicas:
      raise ValueError(f"replica {replica}: there are {self.replicas}, counted from 0")
    return jax.tree.map(lambda leaf: leaf[replica], tree)

  def _pair(self, source: str = "") -> learning.Pair:
    return learning.Pair(*(self._read(source + name)["params"] for name in ("actor", "energy")))

  @functools.cached_property
  def _vae(self) -> states.Frozen:
    return states.Frozen(self._read("vae"), **self._read(workdirs.STATISTICS))

  @functools.cached_property
  def _learner(self) -> learning.Learner:
    return self._stored.learner(self._vae)
