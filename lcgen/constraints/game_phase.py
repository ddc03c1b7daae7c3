"""One update of each phase: `new_state, metrics = step(state, frozen, batch, key)`.

Every step is pure. What it trains is in `state`, what it may only look at is in `frozen`; networks, optimisers and
weights are keyword arguments, bound once with `functools.partial` where the phases are assembled. A batch is
`{"image": [B, H, W, C] in model space, "label": [B]}`; metrics are scalars, the losses' terms among them.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct

from lcgen.classifiers import policies
from lcgen.models import actor_critic, classifier, losses, vae
from lcgen.training import train_state as states

Batch = Mapping[str, jax.Array]
Metrics = dict[str, jax.Array]
Objective = Callable[[jax.Array, vae.VAEOutput], tuple[jax.Array, Metrics]]
Draw = Callable[[Batch, jax.Array, Any], "Draws"]


def vae_step(
  state: states.TrainState,
  frozen: None,
  batch: Batch,
  key: jax.Array,
  *,
  model: vae.VAE,
  optimizer: optax.GradientTransformation,
  objective: Objective,
) -> tuple[states.TrainState, Metrics]:
  """Phase 1 (Eq. 1): encoder and decoder on images alone; labels are not looked at."""
  del frozen

  def loss(params):
    variables = {"params": params, "batch_stats": state.batch_stats}
    output, updated = model.apply(variables, batch["image"], key, train=True, mutable=["batch_stats"])
    per_image, terms = objective(batch["image"], output)
    metrics = {name: term.mean() for name, term in terms.items()} | {"loss": per_image.mean()}
    return metrics["loss"], (metrics, updated)

  gradients, (metrics, updated) = jax.grad(loss, has_aux=True)(state.params)
  return state.update(gradients, optimizer, updated), metrics


def classifier_step(
  state: states.TrainState,
  frozen: None,
  batch: Batch,
  key: jax.Array,
  *,
  model: classifier.Classifier | classifier.Judge,
  optimizer: optax.GradientTransformation,
) -> tuple[states.TrainState, Metrics]:
  """A classifier on images as they are: the judge."""
  images, labels, weights = policies.none(key, batch["image"], jax.nn.one_hot(batch["label"], model.classes), frozen)
  return _update_classifier(state, images, labels, weights, model=model, optimizer=optimizer)


def compare_arms(
  state: dict[str, states.TrainState],
  frozen: states.Frozen,
  data: Batch,
  rows: jax.Array,
  keys: jax.Array,
  *,
  arms: Mapping[str, policies.Arm],
  fetch: Callable[[Batch, jax.Array], Batch],
  model: classifier.Classifier,
  optimizer: optax.GradientTransformation,
  over_arms: Callable[..., Any],
) -> tuple[dict[str, states.TrainState], Metrics]:
  """Phase 3 (Eq. 4): T updates of the classifier of every arm, VAE and actor held fixed.

  All arms see the same images and the same keys, so that they differ by their policies alone. What the policies make
  of the T batches is computed at once, then the classifiers are updated on them one batch after another.

  Args:
    state: of each arm by its name.
    frozen: what policies look at.
    data: the training images as they are stored, with their labels.
    rows: `[T, B]`.
    keys: `[T]`.
    arms: by their names.
    fetch: `(data, rows [B]) -> batch`.
    over_arms: maps a function over the leading axis of its arguments.
  """
  frozen = frozen.replace(labelled=frozen.labelled.replace(images=data["image"]))
  groups: dict[tuple[int, float], list[str]] = {}  # of arms whose batches have the same shape and loss
  for name, arm in arms.items():
    groups.setdefault((arm.views, arm.consistency), []).append(name)
  stack = lambda trees: jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)
  batch = jax.vmap(fetch, (None, 0))(data, rows)
  labels = jax.nn.one_hot(batch["label"], model.classes)  # [T, B, K]
  trained, metrics = {}, {}
  for (views, consistency), names in groups.items():
    policies = [jax.vmap(arms[name].policy, (0, 0, 0, None)) for name in names]
    examples = stack([policy(keys, batch["image"], labels, frozen) for policy in policies])  # [arms, T, ...]
    update = functools.partial(
      _update_classifier, model=model, optimizer=optimizer, views=views, consistency=consistency
    )
    train = lambda own, examples, update=update: jax.lax.scan(lambda s, e: update(s, *e), own, examples)
    states_after, terms = over_arms(train)(stack([state[name] for name in names]), examples)
    for place, name in enumerate(names):
      trained[name] = jax.tree.map(lambda leaf, place=place: leaf[place], states_after)
      metrics |= {f"{name}/{term}": values[place] for term, values in terms.items()}
  return trained, metrics


def _update_classifier(
  state: states.TrainState,
  images: jax.Array,
  labels: jax.Array,
  weights: jax.Array,
  *,
  model: classifier.Classifier | classifier.Judge,
  optimizer: optax.GradientTransformation,
  views: int = 1,
  consistency: float = 0.0,
) -> tuple[states.TrainState, Metrics]:
  """Cross-entropy to label distributions `[B, K]`, weighted by `[B]`, and what the views of an image owe each other."""

  def loss(params):
    variables = {"params": params, "batch_stats": state.batch_stats}
    logits, updated = model.apply(variables, images, train=True, mutable=["batch_stats"])
    mean = lambda values: (weights * values).sum() / weights.sum()
    total = mean(losses.cross_entropy(logits, labels))
    if consistency:
      divergence = losses.jensen_shannon_divergence(logits.reshape(views, -1, logits.shape[-1])).mean()
      total += consistency * divergence
    metrics = {"loss": total, "accuracy": mean(logits.argmax(-1) == labels.argmax(-1))}
    return total, (metrics, updated)

  gradients, (metrics, updated) = jax.grad(loss, has_aux=True)(state.params)
  return state.update(gradients, optimizer, updated), metrics


@struct.dataclass
class Draws:
  """One draw of everything that a constraint is learnt from: latents `[B, L]`, one-hot labels `[B, K]`."""

  encoded: jax.Array  # q(z|x), or a rule's exemplars
  prior: jax.Array  # p(z)
  own: jax.Array  # the label of x
  other: jax.Array  # a label from the other classes; the same one where there is but one


def actor_critic_step(
  state: states.ActorCriticState,
  frozen: states.Frozen | states.Exemplars,
  batch: Batch,
  key: jax.Array,
  *,
  draw: Draw,
  actor: actor_critic.Actor,
  critic: actor_critic.Critic,
  actor_optimizer: optax.GradientTransformation,
  critic_optimizer: optax.GradientTransformation,
  critic_steps: int,
  critic_weights: Mapping[str, float],
  actor_weights: Mapping[str, float],
  distance_reduction: str,
  average_decay: float,
) -> tuple[states.ActorCriticState, Metrics]:
  """Phase 2 (Eqs. 2 and 3): `critic_steps` updates of the critic, then one of the actor, the VAE held fixed.

  The batch holds `critic_steps` x B images; each critic update sees its own B, the actor the last.

  Args:
    draw: `(batch, key, frozen) -> Draws`: where the constraint comes from.
    critic_weights: weights of the critic's terms: `real` (encodings with their label), `actor` (its samples), `prior`
      (raw draws), `mismatched` (encodings with another class's label), `r1` (squared slope of the logit at the
      encodings) and `interpolated` (Gulrajani's penalty between encodings and the actor's samples). A term of
      weight 0 is not computed.
    actor_weights: weights of the actor's terms: `prior` (Eq. 3), `encoded` (encodings with a new label) and
      `distance` (lambda_dist of Eq. 3, reduced over latents by `distance_reduction`).
    average_decay: decay of the moving average of the actor's parameters; 0 keeps the last ones.
  """
  draws = draw(batch, key, frozen)
  rounds = jax.tree.map(lambda a: a.reshape(critic_steps, -1, *a.shape[1:]), draws)  # [critic_steps, B, ...]
  keys = jax.random.split(jax.random.fold_in(key, 1), critic_steps)

  def update_critic(critic_state, inputs):
    drawn, critic_key = inputs
    moved = actor.apply({"params": state.actor.params}, drawn.prior, drawn.own)
    opponent = {"actor": (moved, drawn.own)}
    return _update_critic(
      critic_state, opponent, drawn, critic_key, critic=critic, optimizer=critic_optimizer, weights=critic_weights
    )

  critic_state, critic_metrics = jax.lax.scan(update_critic, state.critic, (rounds, keys))
  actor_state, actor_metrics = _update_actor(
    state.actor,
    critic_state.variables,
    jax.tree.map(lambda a: a[-1], rounds),
    frozen.posterior_scale,
    actor=actor,
    critic=critic,
    optimizer=actor_optimizer,
    weights=actor_weights,
    distance_reduction=distance_reduction,
  )
  average = _average(state.actor_average, actor_state.params, average_decay, state.updates)
  metrics = {name: values.mean() for name, values in critic_metrics.items()} | actor_metrics
  return states.ActorCriticState(actor_state, critic_state, average, state.updates + 1), metrics


def energy_step(
  state: states.EnergyState,
  frozen: states.Frozen | states.Exemplars,
  batch: Batch,
  key: jax.Array,
  *,
  draw: Draw,
  critic: actor_critic.Critic,
  optimizer: optax.GradientTransformation,
  weights: Mapping[str, float],
  step_size: float,
  noise: float,
  restart: float,
  encoded: float,
  average_decay: float,
) -> tuple[states.EnergyState, Metrics]:
  """Phase 2, for sampling by gradients: a critic against chains that follow its own slope.

  The game's critic is right where its actor goes, and slopes anywhere else: whoever follows its gradient from the
  prior leaves the data. Here the negatives are such walkers themselves (persistent chains as in Tieleman 2008, on the
  critic of Eq. 2), one step of each before every update.

  Args:
    draw: as for `actor_critic_step`.
    weights: as there, with `chain` in place of `actor`.
    step_size: of a chain's step down -log D(z, y).
    noise: standard deviation of what is added to it.
    restart: share of the chains that start again, before each step.
    encoded: share of those that start from an encoding, after another class, as edits do; the others from the prior.
    average_decay: decay of the moving average of the parameters; 0 keeps the last ones.
  """
  draws = draw(batch, key, frozen)
  restart_key, chain_key, critic_key = jax.random.split(jax.random.fold_in(key, 1), 3)
  again, edits = jax.random.bernoulli(restart_key, jnp.array([[restart], [encoded]]), (2, state.chains.shape[0]))[
    ..., None
  ]
  start, goal = jnp.where(edits, draws.encoded, draws.prior), jnp.where(edits, draws.other, draws.own)
  chains, conditions = jnp.where(again, start, state.chains), jnp.where(again, goal, state.conditions)
  energy = lambda z: losses.constraint_loss(critic.apply(state.critic.variables, z, conditions), True).sum()
  chains += noise * jax.random.normal(chain_key, chains.shape) - step_size * jax.grad(energy)(chains)
  critic_state, metrics = _update_critic(
    state.critic,
    {"chain": (chains, conditions)},
    draws,
    critic_key,
    critic=critic,
    optimizer=optimizer,
    weights=weights,
  )
  average = _average(state.average, critic_state.params, average_decay, state.updates)
  return states.EnergyState(critic_state, average, chains, conditions, state.updates + 1), metrics


def draw_images(batch: Batch, key: jax.Array, frozen: states.Frozen, *, model: vae.VAE, classes: int) -> Draws:
  """For labels, and for realism, which has one class and reads no labels: encodings of the batch's images."""
  encode_key, prior_key, label_key = jax.random.split(key, 3)
  encoded = model.apply(frozen.vae, batch["image"], method="encode").sample(encode_key)
  labels = batch["label"] if classes > 1 else jnp.zeros(encoded.shape[0], jnp.int32)
  return _draws(encoded, labels, classes, prior_key, label_key)


def draw_exemplars(batch: Batch, key: jax.Array, frozen: states.Exemplars) -> Draws:
  """For rules: exemplars, by their places `row` `[B]`, as they are."""
  prior_key, label_key = jax.random.split(key)
  return _draws(frozen.latents[batch["row"]], frozen.labels[batch["row"]], 2, prior_key, label_key)


def _draws(encoded: jax.Array, labels: jax.Array, classes: int, prior_key: jax.Array, label_key: jax.Array) -> Draws:
  shift = jax.random.randint(label_key, labels.shape, 1, max(classes, 2))
  return Draws(
    encoded=encoded,
    prior=jax.random.normal(prior_key, encoded.shape),
    own=jax.nn.one_hot(labels, classes),
    other=jax.nn.one_hot((labels + shift) % classes, classes),
  )


def _average(average: Any, params: Any, decay: float, updates: jax.Array) -> Any:
  decay = jnp.minimum(decay, (1 + updates) / (10 + updates))  # or the first parameters stay in it
  return optax.incremental_update(params, average, 1 - decay)


def _update_critic(
  state: states.TrainState,
  opponent: Mapping[str, tuple[jax.Array, jax.Array]],
  draws: Draws,
  key: jax.Array,
  *,
  critic: actor_critic.Critic,
  optimizer: optax.GradientTransformation,
  weights: Mapping[str, float],
) -> tuple[states.TrainState, Metrics]:
  """Eq. 2, with the encodings under another class's label as further negatives (Engel et al. 2018).

  Args:
    opponent: the name of whoever the critic is to tell from the data, its latents and their conditions.
  """
  ((samples, _),) = opponent.values()
  parts = {  # name: (latents, conditions, does the constraint hold)
    "real": (draws.encoded, draws.own, True),
    **{name: (*part, False) for name, part in opponent.items()},
    "prior": (draws.prior, draws.own, False),
    "mismatched": (draws.encoded, draws.other, False),
  }
  parts = {name: part for name, part in parts.items() if weights[name]}
  latents, conditions = (jnp.concatenate([part[i] for part in parts.values()]) for i in (0, 1))
  mix = jax.random.uniform(key, (samples.shape[0], 1))  # one coefficient per sample
  between = draws.encoded + mix * (samples - draws.encoded)

  def loss(params):
    variables = {"params": params, "batch_stats": state.batch_stats}
    logits, updated = critic.apply(variables, latents, conditions, train=True, mutable=["batch_stats"])
    terms = {
      name: losses.constraint_loss(part_logits, holds).mean()
      for (name, (_, _, holds)), part_logits in zip(parts.items(), jnp.split(logits, len(parts)), strict=True)
    }
    logit = lambda z: critic.apply(variables, z, draws.own)
    if weights["r1"]:
      terms["r1"] = losses.squared_slopes(logit, draws.encoded).mean()
    if weights["interpolated"]:
      terms["interpolated"] = losses.interpolated_penalty(logit, between).mean()
    total = sum(weights[name] * term for name, term in terms.items())
    return total, ({"critic_loss": total} | {f"critic_{name}": term for name, term in terms.items()}, updated)

  gradients, (metrics, updated) = jax.grad(loss, has_aux=True)(state.params)
  return state.update(gradients, optimizer, updated), metrics


def _update_actor(
  state: states.TrainState,
  critic_variables,
  draws: Draws,
  posterior_scale: jax.Array,
  *,
  actor,
  critic,
  optimizer,
  weights,
  distance_reduction,
) -> tuple[states.TrainState, Metrics]:
  """Eq. 3: fool the critic, and do not move further than that takes."""
  parts = {"prior": (draws.prior, draws.own), "encoded": (draws.encoded, draws.other)}
  parts = {name: part for name, part in parts.items() if weights[name]}
  latents, conditions = (jnp.concatenate([part[i] for part in parts.values()]) for i in (0, 1))

  def loss(params):
    moved = actor.apply({"params": params}, latents, conditions)
    logits = critic.apply(critic_variables, moved, conditions)
    fooled = losses.constraint_loss(logits, True)
    terms = {name: part.mean() for name, part in zip(parts, jnp.split(fooled, len(parts)), strict=True)}
    terms["distance"] = losses.distance_penalty(moved, latents, posterior_scale, distance_reduction).mean()
    total = sum(weights[name] * term for name, term in terms.items())
    return total, {"actor_loss": total} | {f"actor_{name}": term for name, term in terms.items()}

  gradients, metrics = jax.grad(loss, has_aux=True)(state.params)
  return state.update(gradients, optimizer), metrics
