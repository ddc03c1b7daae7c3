"""Classifiers of several arms trained side by side: what they share, what they do not, and what is kept."""

import dataclasses
import functools
import pathlib
import re
import shutil
import types

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from etils import epath
from scipy import special

from lcgen.api import build
from lcgen.classifiers import arm_phase, arm_training, labelled
from lcgen.classifiers.arms import POLICIES
from lcgen.classifiers.classifier_step import Update
from lcgen.data import sources
from lcgen.runtime import errors, files
from lcgen.training.train_state import TrainState
from lcgen.training.trainer import Trainer
from tests.support.helpers import FACTS, config_of, context_of, squares, tree_bytes
from tests.support.untrained import init_of, tools_of

OPTIMIZED = True  # arms are bit-equal in whatever group they are trained, as users compile them
SIZE, CLASSES, ROWS, STEPS, RATE = 80, 4, 16, 6, 1e-3
ARMS = ("none", "latent_constraints", "duplicate")
AUGMIX = "augmix:width=1:depth=1"  # the defaults are slow to compile
EVERYTHING = [np.arange(SIZE)] * 2


@pytest.fixture(scope="module")
def world():
  """Three epochs of five steps, in chunks of five, each of which is saved; both seeds."""
  classifier = {"batch_size": ROWS, "epochs": 3, "learning_rate": RATE, "schedule": "constant", "share": 0.25}
  values = {f"classifier__{name}": value for name, value in classifier.items()}
  settings = config_of("smoke", train__checkpoint_steps=4, **values)
  context = context_of(settings, FACTS)
  tools = tools_of(settings, context)

  def phase(arms, frozen=None):
    return arm_phase.phase(context, settings.classifier, tools, frozen, arms=arms)

  model = arm_phase.network(context, settings.classifier)
  return types.SimpleNamespace(settings=settings, context=context, tools=tools, phase=phase, model=model)


@pytest.fixture(scope="module")
def frozen(world):
  """Networks that nobody trained, both seeds, with all images by class."""
  init = jax.jit(init_of(world.context, build.constraint(world.settings)))
  both = jax.tree.map(lambda *leaves: jnp.stack(leaves), init(jax.random.key(0)), init(jax.random.key(1)))
  return both.replace(labelled=labelled.by_class(squares().labels, CLASSES, EVERYTHING))


@pytest.fixture(scope="module")
def data():
  split = squares()
  return {"image": jnp.asarray(split.images), "label": jnp.asarray(split.labels)}


@pytest.fixture(scope="module")
def advance(world, frozen, data):
  """`advance.run(arms, *counts)`: this many steps at once, one after another, of one seed from its beginning."""
  own = jax.tree.map(lambda leaf: leaf[0], frozen)
  rows = jnp.asarray(np.random.default_rng(0).permutation(SIZE * 2)[: STEPS * ROWS].reshape(STEPS, ROWS) % SIZE)
  keys = jax.random.split(jax.random.key(5), STEPS)
  compiled = functools.cache(lambda arms: jax.jit(world.phase(arms).run_steps))

  @functools.cache
  def _advance(arms, *counts):
    state, metrics, step = world.phase(arms).init(jax.random.key(0)), [], 0
    for count in counts or (STEPS,):
      state, terms = compiled(arms)(state, own, data, rows[step : step + count], keys[step : step + count])
      metrics.append(terms)
      step += count
    return state, jax.tree.map(lambda *values: np.concatenate(values), *metrics)

  return types.SimpleNamespace(run=_advance, frozen=own, rows=rows, keys=keys)


def training_of(world, trainer, **options):
  return arm_training.ArmTraining(world.context, trainer, world.settings.classifier, world.tools, **options)


@pytest.fixture
def compare(world, tmp_path):
  """`compare(workdir, split=..., pool=...)`: the training of arms in a workdir, and its trainer."""

  def _compare(workdir="a", split=None, **options):
    trainer = Trainer(world.context, epath.Path(tmp_path / workdir), lambda: split or squares())
    trainer.workdir.mkdir(exist_ok=True)
    return training_of(world, trainer, **options), trainer

  return _compare


@pytest.fixture(scope="module")
def at_once(world, frozen, tmp_path_factory):
  """The variables of all arms, trained without a break."""
  trainer = Trainer(world.context, epath.Path(tmp_path_factory.mktemp("at_once")), squares)
  return training_of(world, trainer).train(ARMS, frozen, half)


def half(state):
  """An accuracy on validation images."""
  return jnp.full(2, 0.5)


def folders(trainer):
  return sorted(path.name for path in (trainer.workdir / "checkpoints").iterdir())


def contents(folder):
  return {path: path.read_bytes() for path in pathlib.Path(folder).rglob("*") if path.is_file()}


def check_alike(actual, expected):
  """Checks that variables differ by rounding alone.

  Batch norm takes the bias before it out again: rounding is all its gradient has, of which Adam makes whole steps.
  """
  for (path, one), other in zip(jax.tree.leaves_with_path(actual), jax.tree.leaves(expected), strict=True):
    name = jax.tree_util.keystr(path, simple=True, separator="/")
    free = name.endswith(("DenseBlocks_0/Dense_0/bias", "BatchNorm_0/mean"))
    np.testing.assert_allclose(one, other, rtol=1e-5, atol=2 * STEPS * RATE if free else 1e-6, err_msg=name)


def test_none_is_the_classifier_without_augmentation(world, data, advance):
  state, metrics = advance.run(("latent_constraints", "none"))
  model, optimizer = world.model, optax.adam(RATE)
  first = world.phase(["none"]).init(jax.random.key(0))["none"]

  def update(carry, rows):
    params, batch_stats, opt_state = carry
    batch = world.context.prepare({name: values[rows] for name, values in data.items()})

    def loss(params):
      variables = {"params": params, "batch_stats": batch_stats}
      logits, updated = model.apply(variables, batch["image"], train=True, mutable=["batch_stats"])
      labels = jax.nn.one_hot(batch["label"], CLASSES)
      return optax.softmax_cross_entropy(logits, labels).mean(), updated["batch_stats"]

    (value, batch_stats), gradients = jax.value_and_grad(loss, has_aux=True)(params)
    updates, opt_state = optimizer.update(gradients, opt_state)
    return (optax.apply_updates(params, updates), batch_stats, opt_state), value

  carry = first.params, first.batch_stats, optimizer.init(first.params)
  (params, batch_stats, _), values = jax.jit(lambda carry: jax.lax.scan(update, carry, advance.rows))(carry)
  check_alike(state["none"].variables, {"params": params, "batch_stats": batch_stats})
  np.testing.assert_allclose(metrics["none"]["loss"], values, rtol=1e-6)


@pytest.mark.parametrize("arms", [("none",), ("latent_constraints", "none"), (AUGMIX,)])
def test_an_arm_does_not_notice_the_others(advance, arms):
  together, terms = advance.run((*ARMS, AUGMIX))
  state, metrics = advance.run(arms)
  for arm in arms:
    assert tree_bytes(state[arm]) == tree_bytes(together[arm])
  assert tree_bytes(metrics) == tree_bytes({arm: terms[arm] for arm in arms})
  assert {arm: set(own) for arm, own in metrics.items()} == {arm: {"loss", "accuracy"} for arm in arms}


def test_steps_may_be_taken_at_once_or_one_by_one(advance):
  arms = ("latent_constraints", "none")
  together, halves, one_by_one = (advance.run(arms, *counts) for counts in ((STEPS,), (STEPS // 2,) * 2, (1,) * STEPS))
  assert tree_bytes(halves[0]["none"]) == tree_bytes(together[0]["none"])
  variables = lambda states: {arm: own.variables for arm, own in states.items()}
  for state, metrics in (halves, one_by_one):  # the compiler rounds elsewhere where a loop has another length
    check_alike(variables(state), variables(together[0]))
    chex.assert_trees_all_close(metrics, together[1], rtol=1e-6)


def test_arms_start_alike_and_see_the_same_images(world, advance):
  arms = ("duplicate", "duplicate:share=0", "flip_crop:padding=0:flip=0", "none", "none+none")
  first = world.phase(arms).init(jax.random.key(0))
  alone = world.phase([AUGMIX]).init(jax.random.key(0))
  assert {tuple(tree_bytes(own)) for own in first.values()} == {tuple(tree_bytes(alone[AUGMIX]))}

  state, _ = advance.run(arms)
  assert len({tuple(tree_bytes(state[arm])) for arm in arms[1:]}) == 1  # they change nothing, each in its own way
  assert tree_bytes(state["duplicate"]) != tree_bytes(state["none"])


def test_what_is_frozen_stays_as_it_was(advance):
  before = tree_bytes(advance.frozen)
  state, metrics = advance.run(("latent_constraints", "none"))
  assert tree_bytes(advance.frozen) == before
  assert set(state) == {"latent_constraints", "none"}
  assert {type(own) for own in state.values()} == {TrainState}
  assert {values.shape for values in jax.tree.leaves(metrics)} == {(STEPS,)}


def expected_metrics(logits, labels, weights, views, consistency):
  """In float64."""
  logits, labels = np.asarray(logits, np.float64), np.asarray(labels, np.float64)
  shares, mean = special.softmax(logits, axis=1), functools.partial(np.average, weights=weights)
  loss = mean(-(labels * special.log_softmax(logits, axis=1)).sum(axis=1))
  if consistency:
    by_view = shares.reshape(views, -1, CLASSES)
    loss += consistency * special.rel_entr(by_view, by_view.mean(axis=0)).sum(axis=-1).mean()
  return {"loss": loss, "accuracy": mean(logits.argmax(axis=1) == labels.argmax(axis=1))}


@pytest.mark.parametrize(("views", "consistency"), [(1, 0.0), (3, 0.0), (3, 12.0)])
def test_the_loss_is_weighted_cross_entropy_and_the_divergence_of_views(world, views, consistency):
  rng = np.random.default_rng(0)
  images = jnp.asarray(rng.uniform(-2, 2, (views * ROWS, 8, 8, 1)), jnp.float32)
  labels = jnp.asarray(np.tile(rng.dirichlet(np.ones(CLASSES), ROWS), (views, 1)), jnp.float32)
  weights = jnp.asarray(np.concatenate([rng.uniform(0.5, 2, ROWS), np.zeros((views - 1) * ROWS)]), jnp.float32)
  model, optimizer = world.model, optax.sgd(0.1)
  state = TrainState.create(model.init(jax.random.key(0), images), optimizer)
  logits, _ = model.apply(state.variables, images, train=True, mutable=["batch_stats"])
  update = jax.jit(Update(model, optimizer, views, consistency))
  new_state, metrics = update(state, images, labels, weights)
  expected = expected_metrics(logits, labels, weights, views, consistency)
  chex.assert_trees_all_close(jax.device_get(metrics), jax.tree.map(np.float32, expected), rtol=1e-5)
  assert tree_bytes(new_state.params) != tree_bytes(state.params)


def test_augmix_adds_its_consistency_to_the_loss_of_the_first_view(world, data, advance):
  _, metrics = advance.run((*ARMS, AUGMIX))
  phase = world.phase([AUGMIX])
  batch = world.context.prepare({name: values[advance.rows[0]] for name, values in data.items()})
  labels = jax.nn.one_hot(batch["label"], CLASSES)
  policy = jax.jit(phase.run_steps.keywords["comparison"].arms[AUGMIX].policy)
  images, labels, weights = policy(advance.keys[0], batch["image"], labels, advance.frozen)
  variables = phase.init(jax.random.key(0))[AUGMIX].variables
  logits, _ = world.model.apply(variables, images, train=True, mutable=["batch_stats"])
  expected = expected_metrics(logits, labels, weights, 3, 12.0)
  np.testing.assert_allclose(metrics[AUGMIX]["loss"][0], expected["loss"], rtol=1e-4)
  assert metrics[AUGMIX]["accuracy"][0] == expected["accuracy"]


def test_chunks_of_one_length_compile_once_and_end_in_what_is_kept(world, frozen, at_once, compare):
  phase, (_, trainer) = world.phase(ARMS, frozen), compare()

  def run_steps(*arguments):
    return phase.run_steps(*arguments)

  chex.clear_trace_counter()
  counted = dataclasses.replace(phase, run_steps=chex.assert_max_traces(run_steps, n=1))
  state = trainer.train(counted, trainer.rows)
  assert trainer.timing["classifier"].steps == 3 * world.settings.train.chunk_steps
  assert tree_bytes({arm: state[arm].variables for arm in ARMS}) == tree_bytes(at_once)
  of_seed = [tree_bytes(jax.tree.map(lambda leaf, seed=seed: leaf[seed], at_once)) for seed in range(2)]
  assert of_seed[0] != of_seed[1]


def test_the_more_views_there_are_the_fewer_steps_are_held_at_once(world):
  longest = lambda *arms: world.phase(arms).max_chunk
  assert longest("none") > 100
  assert longest("none", "mixup") == longest("none") // 2
  assert longest("none", "augmix") == longest("none") // 4


def test_arms_are_trained_once_and_kept_one_by_one(frozen, compare, at_once, monkeypatch):
  compared, trainer = compare()
  first = compared.train(["none"], frozen, half)
  assert folders(trainer) == ["classifier"]
  kept = trainer.workdir / "checkpoints" / "classifier" / "none"
  before = contents(kept)
  assert before

  trained = []
  train = trainer.train
  monkeypatch.setattr(trainer, "train", lambda phase, *rest: trained.append(phase) or train(phase, *rest))
  later = compared.train(ARMS, frozen, half)
  assert [set(phase.run_steps.keywords["comparison"].arms) for phase in trained] == [set(ARMS) - {"none"}]
  assert contents(kept) == before
  assert tree_bytes(later["none"]) == tree_bytes(first["none"])
  assert list(later) == list(ARMS)
  assert tree_bytes(later) == tree_bytes(at_once)
  assert folders(trainer) == ["classifier"]
  assert not set(trainer.timing)  # groups are no phases that anyone asks for

  again, another = compare()
  monkeypatch.setattr(another, "train", None)
  assert tree_bytes(again.train(ARMS[::-1], frozen, half)) == tree_bytes(at_once)
  assert tree_bytes(again.load(ARMS)) == tree_bytes(at_once)
  assert again.timing == compared.timing
  assert {timing.steps for timing in again.timing.values()} == {15}
  assert again.timing["duplicate"] == again.timing["latent_constraints"]  # trained together, in equal shares


def test_an_arm_that_is_not_trained_is_named(frozen, compare):
  compared, trainer = compare()
  with pytest.raises(errors.InputError, match=r"arm duplicate:share=0\.5 is not trained .*--stage=classifier"):
    compared.load(["duplicate:share=0.5"])
  compared.train(["none"], frozen, half)
  with pytest.raises(errors.InputError, match="arm duplicate is not trained"):
    compared.load(["none", "duplicate"])
  assert folders(trainer) == ["classifier"]
  assert [path.name for path in (trainer.workdir / "checkpoints" / "classifier").iterdir()] == ["none"]


def test_arms_of_other_settings_have_places_of_their_own(compare):
  compared, _ = compare()
  shares = [f"duplicate:share={share}" for share in (0, 1, 0.5, 0.05, 1e-3)]
  factors = [f"contrast:factor={factor}" for factor in ("1e-3", "1e3", "13", "1.3", "0.3")]
  joined = ["mixup+duplicate", "duplicate+mixup", "mixup+duplicate:share=1", "mixup:alpha=1+duplicate"]
  sources_ = [f"latent_constraints:{setting}" for setting in ("source=edit", "filter=True", "filter=False")]
  arms = [*POLICIES, *shares, *factors, *joined, *sources_]
  places = set()
  for arm in arms:
    with pytest.raises(errors.InputError, match=re.escape(arm)) as caught:
      compared.load([arm])
    places.add(str(caught.value).replace(arm, "", 1))
  assert len(places) == len(arms)


def test_a_killed_training_goes_on_and_leaves_nothing_behind(frozen, compare, at_once):
  class Killed(Exception):
    pass

  calls = []

  def killer(state):
    calls.append(state)
    if len(calls) > len(ARMS):  # at step 10; the newest checkpoint is of step 5
      raise Killed
    return jnp.full(2, 0.5)

  compared, trainer = compare()
  with pytest.raises(Killed):
    compared.train(ARMS, frozen, killer)
  (group,) = folders(trainer)
  assert max(int(path.name) for path in (trainer.workdir / "checkpoints" / group).iterdir()) == 5

  resumed, trainer = compare()
  assert tree_bytes(resumed.train(ARMS, frozen, half)) == tree_bytes(at_once)
  assert folders(trainer) == ["classifier"]
  records = files.MetricsFile(trainer.workdir / "metrics.jsonl").read()
  assert [record["step"] for record in records] == [5, 10, 15]
  assert set(records[-1]) == {"phase", "kind", "step", "epoch", "terms"}
  assert {record["kind"] for record in records} == {"classifier"}
  assert set(records[-1]["terms"]) == set(ARMS)
  for terms in records[-1]["terms"].values():
    assert {term: len(values) for term, values in terms.items()} == dict.fromkeys(
      ("loss", "accuracy", "validation_accuracy"), 2
    )


def test_a_run_killed_while_its_arms_are_kept_trains_none_of_them_again(frozen, compare, at_once, monkeypatch):
  class Killed(Exception):
    pass

  def kill(phase):
    raise Killed

  compared, trainer = compare()
  monkeypatch.setattr(trainer, "forget", kill)
  with pytest.raises(Killed):
    compared.train(ARMS, frozen, half)
  shutil.rmtree(trainer.workdir / "checkpoints" / "classifier" / "duplicate")  # as if it had come a little earlier
  before = (trainer.workdir / "metrics.jsonl").read_bytes()

  resumed, trainer = compare()
  assert not any(map(resumed.is_kept, ARMS))
  assert tree_bytes(resumed.train(ARMS, frozen, half)) == tree_bytes(at_once)
  assert (trainer.workdir / "metrics.jsonl").read_bytes() == before
  assert folders(trainer) == ["classifier"]
  assert {timing.steps for timing in resumed.timing.values()} == {15}


def test_a_data_set_that_has_changed_is_not_trained_on(compare):
  _, trainer = compare(split=squares(SIZE - 1))
  with pytest.raises(errors.InputError, match=rf"made for {SIZE} training images, and now there are {SIZE - 1};"):
    trainer.rows  # noqa: B018


def test_only_the_pool_is_looked_at(frozen, compare):
  pools = [np.arange(0, 40), np.arange(20, 70)]
  pool = np.stack([np.resize(rows, SIZE) for rows in pools])
  split = squares()
  restricted = frozen.replace(labelled=labelled.by_class(split.labels, CLASSES, pools))

  def train(workdir, poisoned):
    images, labels = split.images.copy(), split.labels.copy()
    images[poisoned], labels[poisoned] = 255 - images[poisoned], (labels[poisoned] + 1) % CLASSES
    compared, trainer = compare(workdir, sources.Split(images, labels), folder="some/classifier", pool=pool)
    variables = compared.train(["none", "duplicate"], restricted, half)
    assert [path.name for path in (trainer.workdir / "checkpoints").glob("*/*")] == ["classifier"]
    return variables

  def of_seed(variables, index):
    return {arm: tree_bytes(jax.tree.map(lambda leaf: leaf[index], own)) for arm, own in variables.items()}

  clean = train("clean", np.array([], int))
  for index, rows in enumerate(pools):
    poisoned = train(f"poisoned{index}", np.setdiff1d(np.arange(SIZE), rows))
    assert of_seed(poisoned, index) == of_seed(clean, index)
    for arm, other in of_seed(poisoned, 1 - index).items():
      assert other != of_seed(clean, 1 - index)[arm]  # to which those rows were poison
  assert of_seed(clean, 0)["duplicate"] != of_seed(clean, 0)["none"]
