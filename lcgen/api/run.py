"""A trained run in Python, as `lcgen.load` opens it."""

import functools
import math
import tempfile
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from lcgen.api import arguments, classes
from lcgen.api.samples import Samples
from lcgen.classifiers import arm_phase, judge_phase
from lcgen.config import Config
from lcgen.constraints import algebra, learning, rule_spec, samplers
from lcgen.constraints.algebra import Constraint, Learnt
from lcgen.constraints.mixture import Mixture
from lcgen.constraints.settings import ConstraintSettings
from lcgen.data import checks, pictures, ranges, sources
from lcgen.generator import statistics
from lcgen.generator.frozen import Frozen, decode
from lcgen.runtime import fields, memory, registry
from lcgen.training.context import Context
from lcgen.training.trainer import Trainer

Wish = int | str | Sequence[int] | Sequence[str] | Constraint
GENERATOR = "vae"  # name of any generator's variables, because older exports use it


class Stored(Protocol):
  """Trained networks by name: `workdir.Workdir` or `export.Export`."""

  config: Config
  context: Context
  constraint: ConstraintSettings

  def has(self, name: str) -> bool:
    """Tells whether a network is there."""

  def read(self, name: str) -> Any:
    """Reads the variables of a network, `[S, ...]`."""

  def learner(self, frozen: Frozen) -> learning.Learner:
    """Builds the learner of further constraints."""

  def mixture(self, frozen: Frozen) -> Mixture:
    """Gives the mixture of each class, `[S, ...]`."""


class Run:
  """The networks of one run, for all seeds; each network is read when it is first needed.

  Images go in as uint8 or as floats in [0, 1], `[N, H, W, C]`, and are fitted to the networks' size. They come out as
  floats in [0, 1]. `replica` picks one of the seeds by its place, counted from 0. A constraint holds the networks of
  all seeds. Constraints compose: `run.label(3) & ~thick`.

  A class is given by its name, a text, or by its index in `class_names`, a whole number.

  Args:
    run: the networks of a workdir or of an export.

  Attributes:
    class_names: names of the labels 0, 1, ...
    image_shape: `(H, W, C)` of the networks.
    replicas: number of seeds.
    arms: names of the trained classifiers.
  """

  def __init__(self, run: Stored):
    self._stored, self._context, self._read = run, run.context, functools.cache(run.read)
    config, generator = run.config, self._context.generator
    classifier = arm_phase.network(self._context, config.classifier)
    judge = judge_phase.network(self._context, config.evaluate.judge)
    self.class_names: tuple[str, ...] = tuple(self._context.facts.class_names)
    self.image_shape: tuple[int, int, int] = generator.image_shape
    self.replicas: int = config.seeds
    self.arms: tuple[str, ...] = config.classifier.arms
    self._encode = jax.jit(generator.encode)
    self._decode = jax.jit(functools.partial(decode, generator=generator))
    self._logits, self._judge_logits = jax.jit(classifier.apply), jax.jit(judge.apply)

  def encode(self, images: np.ndarray, replica: int = 0) -> jax.Array:
    """Encodes images as the means of q(z|x), `[N, L]`."""
    return self._encode(self._pick(self._frozen, replica).generator, self._prepared(images)).mean

  def decode(self, latents: np.ndarray, replica: int = 0) -> jax.Array:
    """Decodes latents `[N, L]` to images `[N, H, W, C]`, with pixel values fitted to the data's.

    Raises:
      ValueError: if the latents have another size, are none, or are not finite.
    """
    given = arguments.latents(latents, self._context.generator.latent_dim)
    return self._decode(given, self._pick(self._frozen, replica))

  def label(self, label: int | str) -> Learnt:
    """Returns the constraint that an image belongs to a class (Eq. 2's critic, conditioned on the label).

    Args:
      label: name or index of the class.

    Raises:
      ValueError: if there is no such class.
      InputError: if phase 2 is not trained.
    """
    return self._labelled(classes.indices([label], self.class_names)[0])

  @functools.cached_property
  def realism(self) -> Learnt:
    """The constraint that an image looks like the data, whatever its class (Engel et al. 2018, section 3).

    It is learnt when it is first needed, from the run's training images without labels, and kept in the workdir.

    Raises:
      InputError: if it is not learnt yet and the training images cannot be read; an export cannot read them.
    """
    kept = self._stored.has("realism/energy")
    pair = self._pair("realism/") if kept else self._learner.realism()
    return self._constraint(pair, np.ones(1, np.float32), "realism")

  def learn(
    self,
    rule: str | rule_spec.Function,
    *,
    above: float | None = None,
    below: float | None = None,
    top: float | None = None,
    bottom: float | None = None,
  ) -> Learnt:
    """Learns a rule as a constraint, from the model's own samples; this takes minutes on a CPU.

    The rule judges decoded draws from the prior, as they are and moved to where `realism` holds. It may be any code,
    and is never differentiated (Engel et al. 2018, section 5). No label is read, and images only for `realism`.

    Args:
      rule: a function from images in [0, 1], float32 `[N, H, W, C]`, to verdicts (bool) or scores `[N]`, each image by
        itself. Or a config's text, `rule:module.function[:bound=value]`, whose constraint is kept in the workdir.
      above: the score above which the rule holds.
      below: the score below which the rule holds.
      top: the share of the prior's samples for which the rule holds: those with the highest scores.
      bottom: the same for the lowest scores. Without any bound, scores get `top=0.25`.

    Raises:
      ValueError: if there are several bounds, or a bound beside a text.
      InputError: if the rule raises, returns anything but N finite numbers, or holds always or never; or in an export.
    """
    bounds = {"above": above, "below": below, "top": top, "bottom": bottom}
    given = {name: value for name, value in bounds.items() if value is not None}
    if len(given) > 1 or (given and isinstance(rule, str)):
      raise ValueError(f"bounds {given} for {rule}: give one at most, and for a text none")
    if isinstance(rule, str):
      learnt = self._learner.rule(rule_spec.parse(rule))
    else:
      with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(self._context, epath.Path(folder), lambda: None)
        bound, value = next(iter(given.items()), ("", 0.0))
        learnt = self._learner.rule(rule_spec.checked(rule_spec.Rule(rule, bound, value)), trainer)
    return self._constraint(learnt.pair, learning.HOLDS, "rule")

  def sample(
    self,
    wish: Wish,
    how: str | int | None = None,
    *,
    method: str | None = None,
    count: int | None = None,
    seed: int = 0,
    replica: int = 0,
  ) -> np.ndarray:
    """Draws images for which a wish holds, in [0, 1], `[N, H, W, C]`; see `draw`."""
    return self.draw(wish, how, method=method, count=count, seed=seed, replica=replica).images

  def draw(
    self,
    wish: Wish,
    how: str | int | None = None,
    *,
    method: str | None = None,
    count: int | None = None,
    seed: int = 0,
    replica: int = 0,
  ) -> Samples:
    """Draws samples for which a wish holds, from draws z of the prior, with their certificates.

    Args:
      wish: a class, a sequence of classes with one for each sample, or a constraint.
      how: the method if it is a text, the count if it is a whole number: `draw(3, 20)`, `draw(3, "actor")`.
      method: the sampler, by default `"refine"`, with the settings of `config.sample`. `"actor"`: G(z, y) (Eq. 5).
        `"optimize"`: Adam on z. `"langevin"`: noisy gradient steps on z. `"refine"`: the actor's proposal, a few
        Langevin steps, and another draw for latents that the critics refuse. `"mixture"`: z moved to a component of
        the class's mixture. `"flow"`: z moved along its flow, guided by rules. Both draw again as `"refine"` does.
      count: number of samples for one label or for a constraint, by default 1; not for a sequence of labels.
      seed: decides the draws, from 0 to 2**32 - 1.
      replica: which of the seeds, counted from 0.

    Raises:
      ValueError: if a label or the sampler does not exist, the count is below 1, or the seed is out of range.
      InputError: if samples are not finite, because settings are too large, or do not fit the memory.
    """
    method, count = arguments.method_and_count(how, method, count)
    if not isinstance(method, str) or method not in self._moves:
      near = registry.nearest(str(method), self._moves)
      raise ValueError(f"method {method!r}: there are {', '.join(self._moves)}{near}")
    constraint, labels = self._wanted(wish, count)
    if not arguments.is_whole(seed) or not 0 <= seed <= fields.MOST_SEED:
      raise ValueError(f"seed={seed}: must be a whole number from 0 to {fields.MOST_SEED}")
    prior_key, key = jax.random.split(jax.random.key(int(seed)))
    start = self._context.generator.prior(prior_key, len(labels))
    given = self._drawable(constraint, samplers.draws_from_mixture(method))
    moved = self._moves[method](key, self._pick(given, replica), start)
    arguments.check_finite(moved, f"method {method!r}", f"sample.{method}")
    return self._certified(moved, constraint, labels, replica)

  def edit(
    self,
    images: np.ndarray,
    wish: Wish,
    *,
    distance_weight: float | None = None,
    replica: int = 0,
  ) -> Samples:
    """Edits images towards a wish, and keeps them close: by `edit.method`, Adam on E(z) + lambda L_dist (Eq. 3).

    Args:
      images: `[N, H, W, C]`, uint8 or floats in [0, 1].
      wish: one class for all images, a sequence with one class for each, or a constraint.
      distance_weight: lambda, by default the config's `edit.distance_weight`; more stays closer to the image.
      replica: which of the seeds, counted from 0.

    Raises:
      ValueError: if images are of another kind, a label does not exist, labels are not one for each image, or lambda
        is not a finite number of at least 0.
    """
    latents = self.encode(images, replica)
    if not isinstance(wish, Constraint) and np.ndim(wish) == 1 and len(wish) != len(latents):
      raise ValueError(f"{len(wish)} labels for {len(latents)} images: give one for each, or one for all")
    constraint, labels = self._wanted(
      wish, len(latents) if isinstance(wish, Constraint) or np.ndim(wish) == 0 else None
    )
    weight = self._stored.config.edit.distance_weight if distance_weight is None else distance_weight
    if not 0 <= weight <= fields.LARGEST:
      raise ValueError(f"distance_weight={weight}: must be a finite number of at least 0")
    frozen = self._pick(self._frozen, replica)
    given = self._drawable(constraint, self._stored.config.edit.method != "adam")
    moved = self._edit(self._pick(given, replica), latents, frozen.posterior_scale, jnp.float32(weight))
    arguments.check_finite(moved, "edits", "edit")
    return self._certified(moved, constraint, labels, replica)

  def interpolate(self, a: np.ndarray, b: np.ndarray, count: int = 8, replica: int = 0) -> np.ndarray:
    """Decodes points between the encodings of each image of `a` and of `b`, along great circles.

    Args:
      a: first images, `[N, H, W, C]`, uint8 or floats in [0, 1].
      b: last images, as many.
      count: number of points, both ends included, at least 2.
      replica: which of the seeds, counted from 0.

    Returns:
      `[N, count, H, W, C]` in [0, 1]; the ends are reconstructions.

    Raises:
      ValueError: if `a` and `b` differ in number, or `count` is below 2.
    """
    start, end = self.encode(a, replica), self.encode(b, replica)
    if start.shape != end.shape or not isinstance(count, int | np.integer) or count < 2:
      raise ValueError(f"{len(start)} and {len(end)} images, count={count}: give pairs, and a whole count, 2 or more")
    between = samplers.interpolate(start, end, count)  # [N, count, L]
    images = self.decode(between.reshape(-1, between.shape[-1]), replica)
    return np.asarray(images).reshape(*between.shape[:2], *images.shape[1:])

  def judge(self, images: np.ndarray, replica: int = 0) -> jax.Array:
    """Returns the judge's probability of each class, `[N, K]`; the judge was trained on real images alone."""
    return jax.nn.softmax(self._judge_logits(self._pick(self._read("judge"), replica), self._prepared(images)))

  def classify(self, images: np.ndarray, arm: str = "latent_constraints", replica: int = 0) -> jax.Array:
    """Returns the class that the classifier of an arm gives each image, int32 `[N]`."""
    return self.probabilities(images, arm, replica).argmax(axis=-1)

  def probabilities(self, images: np.ndarray, arm: str = "latent_constraints", replica: int = 0) -> jax.Array:
    """Returns the probability of each class by the classifier of an arm, `[N, K]`.

    Raises:
      ValueError: if the run has no such arm.
    """
    if not isinstance(arm, str) or arm not in self.arms:
      raise ValueError(f"arm {arm!r}: this run has {', '.join(self.arms)}{registry.nearest(str(arm), self.arms)}")
    variables = self._pick(self._read(f"classifier/{arm}"), replica)
    return jax.nn.softmax(self._logits(variables, self._prepared(images)))

  def _labelled(self, labels: np.ndarray) -> Learnt:
    """Returns the constraint of one label, or of one label for each latent."""
    return self._constraint(self._pair(), np.eye(len(self.class_names), dtype=np.float32)[labels])

  def _constraint(self, pair: learning.Pair, condition: np.ndarray, kind: str = "") -> Learnt:
    return learning.constraint(self._context, self._stored.constraint, pair, condition, kind)

  def _wanted(self, wish: Wish, count: int | None) -> tuple[Constraint, np.ndarray]:
    """Returns the constraint, and the label of each sample, -1 for none."""
    if isinstance(wish, Constraint) or np.ndim(wish) == 0:
      count = 1 if count is None else count
      if not arguments.is_whole(count) or count < 1:
        raise ValueError(f"count={count!r}: must be a whole number of at least 1")
      samples = int(count) * 4 * (math.prod(self.image_shape) + 4 * self._context.generator.latent_dim)
      memory.check_memory(f"count={count}: {count} samples at once", samples, "draw fewer at a time")
      if isinstance(wish, Constraint):
        return wish, np.full(count, -1, np.int32)
      wish, count = [wish] * count, None
    if count is not None:
      raise ValueError(f"count={count}: a sequence of labels has its own")
    labels = classes.indices(wish, self.class_names)
    return self._labelled(labels), labels

  def _certified(self, moved: samplers.Moved, constraint: Constraint, labels: np.ndarray, replica: int) -> Samples:
    images = self._decode(moved.latents, self._pick(self._frozen, replica))
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
    ways = samplers.bind(self._stored.config.sample, self._context.generator.prior)
    return {name: jax.jit(way) for name, way in ways.items()}

  @functools.cached_property
  def _edit(self) -> Callable[..., samplers.Moved]:
    settings = self._stored.config.edit

    def edit(constraint, latents, posterior_scale, weight):
      return samplers.edit(constraint, latents, posterior_scale, settings, weight)

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
    images = images if isinstance(images, jax.Array) else np.asarray(images)  # JAX narrows 64 bits: check before
    colours = self._context.facts.shape[2]
    if images.ndim != 4 or images.shape[3] != colours or len(images) == 0:
      raise ValueError(f"images of shape {images.shape}: must be [N, H, W, {colours}], one or more")
    if images.dtype == np.uint8:
      checks.brightness(images, "images")
      return self._context.prepare({"image": jnp.asarray(self._shaped(images))})["image"]
    if not jnp.issubdtype(images.dtype, jnp.floating):
      raise ValueError(f"images are {images.dtype}: pass uint8, or floats in [0, 1]")
    if not (images.min() >= 0 and images.max() <= 1):
      raise ValueError(f"images from {images.min()} to {images.max()}: floats must be in [0, 1]; else pass uint8")
    return self._context.prepare({"image": ranges.Unit(jnp.asarray(self._shaped(images)))})["image"]

  def _shaped(self, images: np.ndarray) -> np.ndarray:
    height, width, _ = self.image_shape
    return pictures.to_shape(np.asarray(images), height, width, sources.look(self._stored.config.data))

  def _pick(self, tree: Any, replica: int) -> Any:
    if not arguments.is_whole(replica) or not 0 <= replica < self.replicas:
      raise ValueError(f"replica {replica!r}: must be a whole number; there are {self.replicas}, counted from 0")
    return jax.tree.map(lambda leaf: leaf[replica], tree)

  def _pair(self, source: str = "") -> learning.Pair:
    return learning.Pair(*(self._read(source + name)["params"] for name in ("actor", "energy")))

  @functools.cached_property
  def _frozen(self) -> Frozen:
    return Frozen(self._read(GENERATOR), **self._read(statistics.NAME))

  def _drawable(self, constraint: Constraint, needed: bool) -> Constraint:
    """Adds the mixture to a constraint if a sampler or an edit needs it; fits the mixture if the workdir has none."""
    return algebra.Drawable(constraint, self._mixture) if needed else constraint

  @functools.cached_property
  def _mixture(self) -> Mixture:
    return self._stored.mixture(self._frozen)

  @functools.cached_property
  def _learner(self) -> learning.Learner:
    return self._stored.learner(self._frozen)
