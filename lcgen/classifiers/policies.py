"""The arms of phase 3: what each makes of the classifier's batch.

A policy is a pure function `(key, images, labels, frozen) -> (images, labels, weights)` on model-space images
`[B, H, W, C]` and label distributions `[B, K]`, run inside the jitted step; `weights` `[B]` are those of the
examples' losses. Arms are texts, as configs have them: the names of policies with their settings, as in
`latent_constraints:share=0.5`, joined by `+` where one is applied to what another made, as in
`flip_crop+latent_constraints`.
"""

import dataclasses
import functools
import sys
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from lcgen.classifiers import transforms
from lcgen.constraints import algebra, samplers
from lcgen.data import ranges
from lcgen.models import actor_critic, vae
from lcgen.training import train_state as states

Augmented = tuple[jax.Array, jax.Array, jax.Array]
Policy = Callable[[jax.Array, jax.Array, jax.Array, states.Frozen], Augmented]
Replacement = Callable[..., tuple[jax.Array, jax.Array, jax.Array | None]]

NONE = "none"
ALONE = "latent_constraints:share=1.0"  # what the classification accuracy score is trained on
SOURCES = ("actor", "refine", "edit")

# Every policy with its settings; a share of -1 is that of the config.
REPLACING: dict[str, dict[str, Any]] = {
  "latent_constraints": {"share": -1.0, "source": "actor", "filter": False, "calibrate": True, "limit": 2.0},
  "reconstruction": {"share": -1.0},
  "duplicate": {"share": -1.0},
  "clip": {"share": -1.0, "limit": 1.0},
  "contrast": {"share": -1.0, "factor": 0.5},
  "blur": {"share": -1.0},
  "noise": {"share": -1.0},
  "shuffled": {"share": -1.0},
}
TRANSFORMING: dict[str, dict[str, Any]] = {
  "shift_rotate": {"pixels": 2.0, "degrees": 15.0},
  "flip_crop": {"padding": 4, "flip": 0.5},
  "cutout": {"side": 0.5},
  "mixup": {"alpha": 1.0},
  "cutmix": {"alpha": 1.0},
  "randaugment": {"operations": 2, "magnitude": 9.0},
  "augmix": {"severity": 3.0, "width": 3, "depth": 0, "alpha": 1.0, "consistency": 12.0},
}
_RANGES = {"share": (0, 1), "flip": (0, 1), "side": (0, 1), "magnitude": (0, 10), "severity": (0, 10), "width": (1, 10)}
_RANGES |= {"alpha": (0, 1000), "augmix:alpha": (0.01, 1000), "operations": (0, 100), "depth": (0, 100)}
POLICIES = {NONE: {}} | REPLACING | TRANSFORMING
CONTROLS = ("reconstruction", "duplicate", "clip", "contrast", "blur", "noise", "shuffled")


@dataclasses.dataclass(frozen=True)
class Arm:
  """A policy and what the loss makes of it.

  Attributes:
    policy: what becomes of a batch; with V views it returns V x B images, the views of the batch one after another.
    views: V; only the first has weights above 0.
    consistency: weight of the Jensen-Shannon divergence between the predictions of an image's views.
  """

  policy: Policy
  views: int = 1
  consistency: float = 0.0


@dataclasses.dataclass(frozen=True)
class Tools:
  """What policies are built with.

  Attributes:
    vae: the network.
    actor: the network.
    energy: the network.
    classes: K.
    prepare: stored images `[B, H, W, C]` to what the networks see.
    share: of the batch that is replaced, where the arm does not say.
    methods: of `sampling.with_settings`.
    edit: settings of `sampling.edit`.
  """

  vae: vae.VAE
  actor: actor_critic.Actor
  energy: actor_critic.Critic
  classes: int
  prepare: Callable[[jax.Array], jax.Array]
  share: float
  methods: Mapping[str, Callable[..., samplers.Moved]]
  edit: Mapping[str, Any]


def parse(arm: str) -> list[tuple[str, dict[str, Any]]]:
  """The policies of an arm in their order, each with all its settings.

  Raises:
    ValueError: names what is wrong with the text, and what there is.
  """
  parts = [_parse_policy(part) for part in arm.split("+")]
  if "augmix" in [name for name, _ in parts[:-1]]:
    raise ValueError(f"{arm!r}: augmix, whose views only the loss can join, must come last")
  return parts


def _parse_policy(text: str) -> tuple[str, dict[str, Any]]:
  name, *given = text.split(":")
  if " " in text:
    raise ValueError(f"{text!r}: has spaces; leave them out")
  if name not in POLICIES:
    raise ValueError(f"{name!r} is no policy; there are {', '.join(POLICIES)}")
  settings = dict(POLICIES[name])
  for item in given:
    key, _, value = item.partition("=")
    if key not in settings:
      raise ValueError(f"{name} has no setting {key!r}; it has {', '.join(settings) or 'none'}")
    settings[key] = _value(f"{name}:{item}", key, value, settings[key])
  if settings.get("source", "actor") not in SOURCES:
    raise ValueError(f"{text!r}: a source is one of {', '.join(SOURCES)}")
  return name, settings


def _value(given: str, key: str, text: str, default: Any) -> Any:
  kind = type(default)
  if kind is bool:
    if text not in ("True", "False"):
      raise ValueError(f"{given}: must be True or False")
    return text == "True"
  try:
    value = kind(text)
  except ValueError as error:
    raise ValueError(f"{given}: must be a {'whole number' if kind is int else 'number'}") from error
  least, most = _RANGES.get(given.partition("=")[0], _RANGES.get(key, (0, sys.float_info.max)))
  if kind is not str and not least <= value <= most:
    raise ValueError(f"{given}: must be a finite number of at least {least}" + (f", at most {most}" * (most < 1e9)))
  return value


def known(arm: str) -> bool:
  """Whether this is an arm."""
  try:
    parse(arm)
  except ValueError:
    return False
  return True


def is_control(arm: str) -> bool:
  """Whether an arm is a single policy that no generator's sample with the right label is in."""
  parts = parse(arm)
  return len(parts) == 1 and parts[0][0] in CONTROLS


def build(arm: str, tools: Tools) -> Arm:
  """An arm from its text.

  Raises:
    ValueError: where the text is no arm.
  """
  parts = parse(arm)
  policies = [_policy(name, settings, tools) for name, settings in parts]
  policy = functools.reduce(lambda later, first: _then(first, later), reversed(policies))
  name, settings = parts[-1]
  return Arm(policy, views=3, consistency=settings["consistency"]) if name == "augmix" else Arm(policy)


def replaced(settings: Mapping[str, Any], share: float, batch_size: int) -> int:
  """How many images of a batch a replacing policy replaces."""
  return round((share if settings["share"] == -1 else settings["share"]) * batch_size)


def none(key: jax.Array, images: jax.Array, labels: jax.Array, frozen: states.Frozen | None) -> Augmented:
  """The batch as it is."""
  del key, frozen
  return images, labels, jnp.ones(images.shape[0])


def _then(first: Policy, second: Policy) -> Policy:
  """The second policy on what the first makes, with keys of their own."""

  def policy(key, images, labels, frozen):
    images, labels, weights = first(key, images, labels, frozen)
    images, labels, further = second(jax.random.fold_in(key, 1), images, labels, frozen)
    return images, labels, jnp.tile(weights, further.shape[0] // weights.shape[0]) * further

  return policy


def _policy(name: str, settings: dict[str, Any], tools: Tools) -> Policy:
  if name == NONE:
    return none
  if name in REPLACING:
    own = {key: value for key, value in settings.items() if key != "share"}
    replacement = functools.partial(_REPLACEMENTS[name], tools=tools, **own)
    return replace(replacement, functools.partial(replaced, settings, tools.share))
  own = {key: value for key, value in settings.items() if key != "consistency"}
  return functools.partial(_TRANSFORMATIONS[name], settings=own)


def replace(replacement: Replacement, count: Callable[[int], int]) -> Policy:
  """Images drawn without replacement give way to others, which come with their own labels.

  Args:
    replacement: `(key, images [n, H, W, C], classes [n], frozen) -> (others, their classes, which of them to take)`.
    count: how many images of a batch of this size are replaced.
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


def _samples(key, images, classes, frozen, *, tools, source="actor", filter=False, calibrate=True, limit=2.0):
  """The paper's: decoded latents where the constraint of the label holds (Eq. 4)."""
  start_key, class_key, move_key = jax.random.split(key, 3)
  if source == "edit":  # of the image itself, to another class
    classes = (classes + jax.random.randint(class_key, classes.shape, 1, tools.classes)) % tools.classes
    start = tools.vae.apply(frozen.vae, images, method="encode").sample(start_key)
  else:
    start = samplers.prior(start_key, len(classes), tools.vae.latent_dim)
  constraint = algebra.Learnt(
    tools.energy, tools.actor, frozen.energy, frozen.actor, jax.nn.one_hot(classes, tools.classes)
  )
  if source == "edit":
    moved = samplers.edit(constraint, start, frozen.posterior_scale, **tools.edit)
  else:
    moved = tools.methods[source](move_key, constraint, start)
  samples = jnp.clip(_decoded(moved.latents, frozen, tools, calibrate), -limit, limit)
  return samples, classes, constraint.holds(moved.latents) if filter else None


def _shuffled(key, images, classes, frozen, *, tools):
  """Samples as good as the paper's, whose labels say nothing."""
  samples, classes, taken = _samples(key, images, classes, frozen, tools=tools)
  return samples, jax.random.permutation(jax.random.fold_in(key, 1), classes), taken


def _reconstruction(key, images, classes, frozen, *, tools):
  """What the decoder makes of the images themselves."""
  latents = tools.vae.apply(frozen.vae, images, method="encode").sample(key)
  return _decoded(latents, frozen, tools), classes, None


def _decoded(latents, frozen, tools, calibrate=True):
  return ranges.to_model(ranges.Unit(samplers.decode(latents, frozen, model=tools.vae, calibrate=calibrate)))


def _duplicate(key, images, classes, frozen, *, tools):
  """Other real images of the same classes, drawn with replacement."""
  del images
  known = frozen.labelled
  places = jax.random.randint(key, classes.shape, 0, known.counts[classes])
  return tools.prepare(known.images[known.rows[classes, places]]), classes, None


def _changed(change):
  """Real images of the same classes, changed by `(key, images, frozen, **settings) -> images`."""

  def replacement(key, images, classes, frozen, *, tools, **settings):
    others, classes, taken = _duplicate(key, images, classes, frozen, tools=tools)
    changed = change(jax.random.fold_in(key, 1), others, frozen, **settings)
    return jnp.clip(changed, -ranges.MODEL_LIMIT, ranges.MODEL_LIMIT), classes, taken

  return replacement


def _blurred(key, images, frozen):
  """The amplitude of each frequency as the decoder leaves it, on average over images."""
  del key
  spectra = jnp.fft.rfft2(images, axes=(1, 2)) * frozen.decoder_gain[None, ..., None]
  return jnp.fft.irfft2(spectra, s=images.shape[1:3], axes=(1, 2))


_REPLACEMENTS = {
  "latent_constraints": _samples,
  "shuffled": _shuffled,
  "reconstruction": _reconstruction,
  "duplicate": _duplicate,
  "clip": _changed(lambda key, images, frozen, limit: jnp.clip(images, -limit, limit)),
  "contrast": _changed(lambda key, images, frozen, factor: factor * images),
  "blur": _changed(_blurred),
  "noise": _changed(lambda key, images, frozen: images + frozen.decoder_error * jax.random.normal(key, images.shape)),
}


def _transformed(transform):
  """A policy of `(key, images, **settings) -> images`."""

  def policy(key, images, labels, frozen, *, settings):
    del frozen
    return transform(key, images, **settings), labels, jnp.ones(images.shape[0])

  return policy


def _mixed(mix):
  """A policy of `(key, images, labels, **settings) -> (images, labels)`."""

  def policy(key, images, labels, frozen, *, settings):
    del frozen
    return *mix(key, images, labels, **settings), jnp.ones(images.shape[0])

  return policy


def _randaugment(key, images, **settings):
  return ranges.to_model(ranges.Unit(transforms.randaugment(key, ranges.from_model(images), **settings)))


def _augmix(key, images, labels, frozen, *, settings):
  """The images and two augmented views of each; the loss counts labels once."""
  del frozen
  unit = ranges.from_model(images)
  views = [transforms.augmix(own, unit, **settings) for own in jax.random.split(key)]
  weights = jnp.repeat(jnp.array([1.0, 0.0, 0.0]), images.shape[0])
  views = [images, *(ranges.to_model(ranges.Unit(view)) for view in views)]
  return jnp.concatenate(views), jnp.tile(labels, (3, 1)), weights


_BLACK = -ranges.MODEL_LIMIT

_TRANSFORMATIONS = {
  "shift_rotate": _transformed(functools.partial(transforms.shift_rotate, fill=_BLACK)),
  "flip_crop": _transformed(functools.partial(transforms.flip_crop, fill=_BLACK)),
  # The mean of the data in the original, whose images are normalised to zero mean.
  "cutout": _transformed(lambda key, images, side: transforms.cutout(key, images, side=side, fill=images.mean())),
  "mixup": _mixed(transforms.mixup),
  "cutmix": _mixed(transforms.cutmix),
  "randaugment": _transformed(_randaugment),
  "augmix": _augmix,
}
