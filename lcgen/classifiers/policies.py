"""Policies, which change the classifier's batch, and the arms of phase 3 that are built of them.

A policy is a pure function `(key, images, labels, frozen) -> (images, labels, weights)`. Images are in model space,
`[B, H, W, C]`; labels are distributions `[B, K]`; `weights` `[B]` are the weights of the examples' losses. A policy
runs inside the jitted step. `lcgen.classifiers.arms` has the grammar of arms.
"""

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from lcgen.classifiers import transforms
from lcgen.classifiers.arms import AUGMENTATION, CONTROL, NONE, POLICIES, PolicySpec, parse
from lcgen.constraints import algebra, energy_phase, game_phase, samplers
from lcgen.constraints.settings import ConstraintSettings, EditSettings
from lcgen.data import ranges
from lcgen.generator.base import Generator
from lcgen.generator.frozen import Frozen, decode
from lcgen.models import actor_critic
from lcgen.runtime import errors
from lcgen.runtime.registry import Registry
from lcgen.training.context import Context

Augmented = tuple[jax.Array, jax.Array, jax.Array]
Policy = Callable[[jax.Array, jax.Array, jax.Array, Frozen], Augmented]
Replacement = Callable[..., tuple[jax.Array, jax.Array, jax.Array | None]]

_BUILDERS = Registry("policy")  # name -> (settings, tools) -> Policy


@dataclasses.dataclass(frozen=True)
class Arm:
  """A policy, and how the loss uses its views.

  Attributes:
    policy: changes a batch; with V views it returns V x B images, one view of the whole batch after another.
    views: V; only the first view has weights above 0.
    consistency: weight of the Jensen-Shannon divergence between the predictions for the views of an image.
  """

  policy: Policy
  views: int = 1
  consistency: float = 0.0


@dataclasses.dataclass(frozen=True)
class Tools:
  """Everything that policies are built with.

  Attributes:
    generator: decodes samples.
    actor: network that proposes latents.
    energy: critic whose -log D is the energy.
    classes: number of classes K.
    prepare: turns stored images `[B, H, W, C]` into model space.
    share: share of each batch that is replaced, unless the arm sets its own.
    samplers: samplers by name, from `samplers.bind`.
    edit: settings of edits.
  """

  generator: Generator
  actor: actor_critic.Actor
  energy: actor_critic.Critic
  classes: int
  prepare: Callable[[jax.Array], jax.Array]
  share: float
  samplers: Mapping[str, Callable[..., samplers.Moved]]
  edit: EditSettings


def tools(context: Context, constraint: ConstraintSettings, sample: Any, edit: EditSettings, share: float) -> Tools:
  """Gathers the tools of a run.

  Args:
    context: context of the run.
    constraint: settings that the actor and the energy were trained with.
    sample: the config's section `sample`.
    edit: settings of edits.
    share: share of each batch that is replaced, unless an arm sets its own.
  """
  return Tools(
    generator=context.generator,
    actor=game_phase.actor(context, constraint.game),
    energy=energy_phase.critic(context, constraint.energy),
    classes=context.classes,
    prepare=lambda images: context.prepare({"image": images})["image"],
    share=share,
    samplers=samplers.bind(sample, context.generator.prior),
    edit=dataclasses.replace(edit, method="adam"),  # other ways need a mixture, which arms have only if they draw by it
  )


def register(name: str, *, control: bool = False, views: int = 1) -> Callable[[Policy], Policy]:
  """Registers a policy under a name that arms can use.

  Keyword-only arguments of the function, with defaults, are the settings that an arm can change, as in
  `vignette:strength=0.5`.

  Args:
    name: name of the policy.
    control: whether it is a control, which samples must beat; else it is an augmentation.
    views: images that it returns for each image.
  """

  if name == "all":
    raise errors.InputError("policy 'all': this name stands for every policy; choose another name")

  def decorate(function: Policy) -> Policy:
    if name not in POLICIES:
      keywords = inspect.signature(function).parameters.values()
      settings = {one.name: one.default for one in keywords if one.kind is inspect.Parameter.KEYWORD_ONLY}
      POLICIES.add(name, PolicySpec(settings, CONTROL if control else AUGMENTATION, views))
    _BUILDERS.add(name, lambda settings, tools: functools.partial(function, **settings))
    return function

  return decorate


def build(arm: str, tools: Tools) -> Arm:
  """Builds an arm from its text.

  Raises:
    InputError: if the text is no arm.
  """
  parts = parse(arm)
  own = [{key: value for key, value in settings.items() if key != "consistency"} for _, settings in parts]
  policies = [_BUILDERS[name](settings, tools) for (name, _), settings in zip(parts, own, strict=True)]
  policy = functools.reduce(lambda later, first: _then(first, later), reversed(policies))
  name, settings = parts[-1]
  return Arm(policy, POLICIES[name].views, settings.get("consistency", 0.0))


def replaced(share: float, usual: float, batch_size: int) -> int:
  """Counts the images of a batch that a policy replaces; a share of -1 stands for the usual one."""
  return round((usual if share == -1 else share) * batch_size)


@register(NONE)
def none(key: jax.Array, images: jax.Array, labels: jax.Array, frozen: Frozen | None) -> Augmented:
  """Leaves the batch as it is."""
  del key, frozen
  return images, labels, jnp.ones(images.shape[0])


def _then(first: Policy, second: Policy) -> Policy:
  """Joins two policies: the second changes the batch of the first, with a key of its own."""

  def policy(key, images, labels, frozen):
    images, labels, weights = first(key, images, labels, frozen)
    images, labels, further = second(jax.random.fold_in(key, 1), images, labels, frozen)
    return images, labels, jnp.tile(weights, further.shape[0] // weights.shape[0]) * further

  return policy


def replace(replacement: Replacement, count: Callable[[int], int]) -> Policy:
  """Builds a policy that replaces some images and their labels; the images are drawn without replacement.

  Args:
    replacement: `(key, images [n, H, W, C], classes [n], frozen) -> (others, their classes, mask of those to take)`;
      a mask of None takes all.
    count: gives the number of images to replace, from the batch size.
  """

  def policy(key, images, labels, frozen):
    size = count(images.shape[0])
    if not size:
      return none(key, images, labels, frozen)
    pick_key, own_key = jax.random.split(key)
    picked = jax.random.permutation(pick_key, images.shape[0])[:size]
    others, classes, taken = replacement(own_key, images[picked], labels[picked].argmax(axis=-1), frozen)
    targets = jax.nn.one_hot(classes, labels.shape[1])
    if taken is not None:
      others = jnp.where(taken[:, None, None, None], others, images[picked])
      targets = jnp.where(taken[:, None], targets, labels[picked])
    return images.at[picked].set(others), labels.at[picked].set(targets), jnp.ones(images.shape[0])

  return policy


def _replacing(name: str) -> Callable[[Replacement], Replacement]:
  """Registers a policy that replaces a share of the batch."""

  def decorate(function: Replacement) -> Replacement:
    def builder(settings: dict[str, Any], tools: Tools) -> Policy:
      own = {key: value for key, value in settings.items() if key != "share"}
      count = functools.partial(replaced, settings["share"], tools.share)
      return replace(functools.partial(function, tools=tools, settings=own), count)

    _BUILDERS.add(name, builder)
    return function

  return decorate


@_replacing("latent_constraints")
def _samples(key, images, classes, frozen, *, tools: Tools, settings):
  """Decodes latents at which the label's constraint holds: the paper's policy (Eq. 4)."""
  start_key, class_key, move_key = jax.random.split(key, 3)
  if settings["source"] == "edit":  # the image itself, edited to another class
    classes = (classes + jax.random.randint(class_key, classes.shape, 1, tools.classes)) % tools.classes
    start = tools.generator.encode(frozen.generator, images).sample(start_key)
  else:
    start = tools.generator.prior(start_key, len(classes))
  conditions = jax.nn.one_hot(classes, tools.classes)
  constraint = algebra.Learnt(tools.energy, tools.actor, frozen.energy, frozen.actor, conditions)
  if frozen.mixture is not None:
    constraint = algebra.Drawable(constraint, frozen.mixture)
  if settings["source"] == "edit":
    moved = samplers.edit(constraint, start, frozen.posterior_scale, tools.edit)
  else:
    moved = tools.samplers[settings["source"]](move_key, constraint, start)
  limit = settings["limit"]
  samples = jnp.clip(_decoded(moved.latents, frozen, tools, settings["calibrate"]), -limit, limit)
  return samples, classes, constraint.holds(moved.latents) if settings["filter"] else None


@_replacing("shuffled")
def _shuffled(key, images, classes, frozen, *, tools, settings):
  """Draws the paper's samples, and shuffles their labels."""
  settings = POLICIES["latent_constraints"].settings
  samples, classes, taken = _samples(key, images, classes, frozen, tools=tools, settings=settings)
  return samples, jax.random.permutation(jax.random.fold_in(key, 1), classes), taken


@_replacing("reconstruction")
def _reconstruction(key, images, classes, frozen, *, tools, settings):
  """Replaces images by their own reconstructions."""
  del settings
  latents = tools.generator.encode(frozen.generator, images).sample(key)
  return _decoded(latents, frozen, tools), classes, None


def _decoded(latents, frozen, tools, calibrate=True):
  return ranges.to_model(ranges.Unit(decode(latents, frozen, generator=tools.generator, calibrate=calibrate)))


@_replacing("duplicate")
def _duplicate(key, images, classes, frozen, *, tools, settings):
  """Takes other real images of the same classes, drawn with replacement."""
  del images, settings
  known = frozen.labelled
  places = jax.random.randint(key, classes.shape, 0, known.counts[classes])
  return tools.prepare(known.images[known.rows[classes, places]]), classes, None


def _changing(name: str, change: Callable[..., jax.Array]) -> None:
  """Registers a policy that draws images as `duplicate` does, and changes them.

  Args:
    name: name of the policy.
    change: `(key, images, frozen, **settings) -> images`.
  """

  @_replacing(name)
  def replacement(key, images, classes, frozen, *, tools, settings):
    others, classes, taken = _duplicate(key, images, classes, frozen, tools=tools, settings={})
    changed = change(jax.random.fold_in(key, 1), others, frozen, **settings)
    return jnp.clip(changed, -ranges.MODEL_LIMIT, ranges.MODEL_LIMIT), classes, taken


def _blurred(key, images, frozen):
  """Scales each frequency by the decoder's gain, on average over images."""
  del key
  spectra = jnp.fft.rfft2(images, axes=(1, 2)) * frozen.decoder_gain[None, ..., None]
  return jnp.fft.irfft2(spectra, s=images.shape[1:3], axes=(1, 2))


_changing("clip", lambda key, images, frozen, limit: jnp.clip(images, -limit, limit))
_changing("contrast", lambda key, images, frozen, factor: factor * images)
_changing("blur", _blurred)
_changing("noise", lambda key, images, frozen: images + frozen.decoder_error * jax.random.normal(key, images.shape))


def _transforming(name: str, transform: Callable[..., jax.Array]) -> None:
  """Registers a transform `(key, images, **settings) -> images` as a policy."""

  @register(name)
  def policy(key, images, labels, frozen, **settings):
    del frozen
    return transform(key, images, **settings), labels, jnp.ones(images.shape[0])


def _mixing(name: str, mix: Callable[..., tuple[jax.Array, jax.Array]]) -> None:
  """Registers a mix `(key, images, labels, **settings) -> (images, labels)` as a policy."""

  @register(name)
  def policy(key, images, labels, frozen, **settings):
    del frozen
    return *mix(key, images, labels, **settings), jnp.ones(images.shape[0])


def _randaugment(key, images, **settings):
  return ranges.to_model(ranges.Unit(transforms.randaugment(key, ranges.from_model(images), **settings)))


_BLACK = -ranges.MODEL_LIMIT
_transforming("shift_rotate", functools.partial(transforms.shift_rotate, fill=_BLACK))
_transforming("flip_crop", functools.partial(transforms.flip_crop, fill=_BLACK))
# The original fills with 0, the mean of each channel of its normalised images. Here the batch stands for all images.
_transforming(
  "cutout", lambda key, images, side: transforms.cutout(key, images, side=side, fill=images.mean(axis=(0, 1, 2)))
)
_mixing("mixup", transforms.mixup)
_mixing("cutmix", transforms.cutmix)
_transforming("randaugment", _randaugment)


@register("augmix", views=3)
def _augmix(key, images, labels, frozen, **settings):
  """Gives the images and two augmented views of each; the cross-entropy counts only the images."""
  del frozen
  unit = ranges.from_model(images)
  views = [transforms.augmix(own, unit, **settings) for own in jax.random.split(key)]
  weights = jnp.repeat(jnp.array([1.0, 0.0, 0.0]), images.shape[0])
  views = [images, *(ranges.to_model(ranges.Unit(view)) for view in views)]
  return jnp.concatenate(views), jnp.tile(labels, (3, 1)), weights
