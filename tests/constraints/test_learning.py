"""Learning constraints on a small model of squares: what is read, what is asked, what is kept."""

import json
import shutil
import types

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lcgen.api import build
from lcgen.constraints import draws, energy_phase, learning, rule_spec
from lcgen.constraints.draws import CriticBatch
from lcgen.constraints.settings import ChainSettings
from lcgen.generator.frozen import decode
from lcgen.runtime import errors
from lcgen.training.trainer import Trainer
from tests.support.helpers import squares, tree_bytes
from tests.support.small_model import EXEMPLARS, small_model


class Counting:
  """Training images that count how often their labels are read."""

  def __init__(self):
    split = squares()
    self.images, self._labels, self.reads = split.images, split.labels, 0

  def __len__(self):
    return len(self.images)

  @property
  def labels(self):
    self.reads += 1
    return self._labels


class Watched(Trainer):
  """A trainer that remembers what each phase was trained on."""

  def __init__(self, *arguments):
    super().__init__(*arguments)
    self.seen = {}

  def train(self, phase, data, *arguments, **options):
    self.seen[phase.name] = phase.frozen, set(data)
    return super().train(phase, data, *arguments, **options)


class Right:
  """Brighter on the right than on the left, by any amount; remembers what it was asked."""

  __module__, __qualname__ = "tests", "right"

  def __init__(self):
    self.asked = []

  def __call__(self, images):
    known = images.min(), images.max(), isinstance(jnp.ones(()) + 1, jax.core.Tracer)  # as all are inside a trace
    self.asked.append((type(images), images.dtype, images.shape, *known))
    return images[:, :, 4:].mean(axis=(1, 2, 3)) - images[:, :, :4].mean(axis=(1, 2, 3))


@pytest.fixture(scope="module")
def model():
  return small_model()


def learner_of(model, trainer):
  return learning.Learner(model.context, trainer, model.frozen, build.constraint(model.config))


@pytest.fixture(scope="module")
def learnt(model, tmp_path_factory):
  """Realism and a rule, both learnt in a workdir that stays as it is from then on."""
  workdir, split, right = tmp_path_factory.mktemp("learning"), Counting(), Right()
  trainer = Watched(model.context, workdir, lambda: split)
  rule = learner_of(model, trainer).rule(rule_spec.Rule(right, "top", 0.5))
  names = ("realism", *(f"rule/{path.name}" for path in (workdir / "checkpoints" / "rule").iterdir()))
  kept = {name: trainer.seen[f"{name}/actor_critic"] for name in names}
  found = {"reads": split.reads, "asked": list(right.asked), "realism": kept["realism"], "exemplars": kept[names[1]]}
  return types.SimpleNamespace(workdir=workdir, split=split, rule=rule, name=names[1], seen=trainer.seen, **found)


def unread():
  raise AssertionError("images are read")


def files(folder):
  return {path.relative_to(folder) for path in folder.rglob("*")}


def records(workdir, part):
  lines = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
  return [record for record in lines if part in record["phase"]]


def test_no_label_is_read_where_realism_or_a_rule_is_learnt(model, learnt, tmp_path):
  assert learnt.reads == 0
  assert {name: data for name, (_, data) in learnt.seen.items()} == {
    "realism/actor_critic": {"image"},
    "realism/energy": {"image"},
    f"{learnt.name}/actor_critic": {"row"},
    f"{learnt.name}/energy": {"row"},
  }


def test_labels_are_learnt_from_labels(model, tmp_path, monkeypatch):
  given, split = [], Counting()
  state = types.SimpleNamespace(actor_average=None, average=None)
  monkeypatch.setattr(Trainer, "train", lambda self, phase, data: given.append((phase.name, set(data))) or state)
  learner_of(model, Trainer(model.context, tmp_path, lambda: split)).labels()
  assert given == [("actor_critic", {"image", "label"}), ("energy", {"image", "label"})]
  assert split.reads > 0


def test_realism_has_one_class_and_no_other_to_be_told_from(learnt):
  for record in records(learnt.workdir, "realism/"):
    assert not {name for name in record["terms"] if "mismatched" in name or "encoded" in name}
    assert {"critic_real", "critic_prior"} < set(record["terms"])
  for record in records(learnt.workdir, "rule/"):
    assert "critic_mismatched" in record["terms"]
    assert ("actor_encoded" in record["terms"]) == record["phase"].endswith("actor_critic")


def test_a_rule_is_asked_on_the_host_about_images(learnt):
  assert sum(shape[0] for _, _, shape, *_ in learnt.asked) == 2 * 2 * EXEMPLARS  # two seeds; before and after realism
  for kind, dtype, shape, low, high, traced in learnt.asked:
    assert kind is np.ndarray
    assert dtype == np.float32
    assert shape[1:] == (8, 8, 1)
    assert 0 <= low < high <= 1
    assert not traced


def test_exemplars_are_balanced_and_labelled_as_the_rule_says(model, learnt):
  drawn, _ = learnt.exemplars
  assert drawn.latents.shape == (2, EXEMPLARS, 8)
  np.testing.assert_array_equal(drawn.labels.sum(axis=1), EXEMPLARS // 2)
  for seed in range(2):
    frozen = jax.tree.map(lambda leaf, seed=seed: leaf[seed], model.frozen)
    images = np.asarray(decode(drawn.latents[seed], frozen, generator=model.context.generator))
    far = np.abs(Right()(images) - learnt.rule.rule.value) > 1e-5  # what is nearer may round to the other side
    assert far.mean() > 0.9
    np.testing.assert_array_equal(learnt.rule.holds(images)[far], drawn.labels[seed][far] == 1)
  assert learnt.rule.rule.bound == "above"
  assert np.mean(learnt.rule.prior) == pytest.approx(0.5, abs=1 / EXEMPLARS)  # the share, of all seeds together
  stacked = np.random.default_rng(0).random((2, 3, 8, 8, 1), np.float32)
  np.testing.assert_array_equal(learnt.rule.holds(stacked)[1], learnt.rule.holds(stacked[1]))


@pytest.mark.parametrize("lost", [None, "rule.json", "energy/8"])
def test_a_rule_is_loaded_or_goes_on_to_the_same_parameters(model, learnt, tmp_path, lost):
  workdir, right = tmp_path / "run", Right()
  shutil.copytree(learnt.workdir, workdir)
  folder = workdir / "checkpoints" / learnt.name
  if lost:
    (folder / "rule.json").unlink()  # which is written last
  if lost == "energy/8":
    shutil.rmtree(folder / lost)
  learner = learner_of(model, Trainer(model.context, workdir, squares if lost else unread))
  rule = learner.rule(rule_spec.Rule(right, "top", 0.5))
  assert bool(right.asked) == bool(lost)  # the exemplars are found again
  assert tree_bytes(rule.pair) == tree_bytes(learnt.rule.pair)
  facts = lambda rule: (rule.name, rule.rule.bound, rule.rule.value, rule.prior, rule.exemplars)
  assert facts(rule) == facts(learnt.rule)
  assert sorted(records(workdir, ""), key=str) == sorted(records(learnt.workdir, ""), key=str)
  assert lost == "energy/8" or files(workdir) == files(learnt.workdir)


def fails(images):
  raise RuntimeError("no such wish")


BAD = {
  r"fails \(no such wish\)": fails,
  r"returned shape \[\d+, 1\]": lambda images: images.mean(axis=(1, 2)),
  "NaN or infinity for 512 of 512": lambda images: np.full(len(images), np.nan),
  "holds for 0 of 256": lambda images: np.zeros(len(images), bool),
  "holds for 256 of 256": lambda images: np.ones(len(images), bool),
  "must be a function": "right",
}


@pytest.mark.parametrize("words", BAD)
def test_a_bad_rule_is_refused_before_anything_of_it_is_written(model, learnt, words):
  before = files(learnt.workdir), (learnt.workdir / "metrics.jsonl").read_bytes()
  learner = learner_of(model, Trainer(model.context, learnt.workdir, squares))
  with pytest.raises(errors.InputError, match=words):
    learner.rule(rule_spec.checked(rule_spec.Rule(BAD[words])))
  assert before == (files(learnt.workdir), (learnt.workdir / "metrics.jsonl").read_bytes())


def test_realism_that_is_learnt_needs_no_images(model, learnt):
  learner_of(model, Trainer(model.context, learnt.workdir, unread)).realism()


CHAINS = 4000


@pytest.fixture(scope="module")
def chain_step(model):
  """One energy step on fixed draws: `chain_step(**settings) -> (before, after, draws, slope of the energy)`."""
  phase = energy_phase.phase(model.context, model.config.energy, draws.labels(model.context), None)
  keys, bound = jax.random.split(jax.random.key(0), 6), phase.run_steps.step.keywords
  one_hot = lambda key: jax.nn.one_hot(jax.random.randint(key, (CHAINS,), 0, 4), 4)
  normal = lambda key: jax.random.normal(key, (CHAINS, 8))
  drawn = CriticBatch(normal(keys[0]), normal(keys[1]), one_hot(keys[2]), one_hot(keys[3]))
  before = phase.init(keys[4]).replace(chains=normal(keys[5]), conditions=one_hot(keys[5]))
  frozen = jax.tree.map(lambda leaf: leaf[0], model.frozen)

  @jax.jit
  def step(state, frozen, chain):
    keywords = bound | {"draw": lambda *_: drawn, "chain": ChainSettings(**chain)}
    return energy_phase.energy_step(state, frozen, {}, jax.random.key(1), **keywords)

  @jax.jit
  def slope(z, conditions):
    logit = lambda z: bound["critic"].network.apply(before.critic.variables, z, conditions)
    return jax.grad(lambda z: jax.nn.softplus(-logit(z)).sum())(z)

  def run(**settings):
    kept = tree_bytes((before, frozen))
    chain = {"step_size": 0.1, "noise": 0.0, "restart": 0.0, "encoded": 0.0} | settings
    after, metrics = step(before, frozen, chain)
    assert tree_bytes((before, frozen)) == kept
    assert all(np.isfinite(value) for value in metrics.values())
    return before, after, drawn, slope

  return run


@pytest.mark.parametrize(("restart", "encoded"), [(0.0, 1.0), (1.0, 0.0), (1.0, 1.0)])
def test_chains_go_one_step_down_from_where_they_are_or_start(chain_step, restart, encoded):
  before, after, drawn, slope = chain_step(restart=restart, encoded=encoded)
  start, goal = {
    (0.0, 1.0): (before.chains, before.conditions),
    (1.0, 0.0): (drawn.prior, drawn.labels),
    (1.0, 1.0): (drawn.encoded, drawn.other_labels),
  }[restart, encoded]
  np.testing.assert_array_equal(after.conditions, goal)
  np.testing.assert_allclose(after.chains, start - 0.1 * slope(start, goal), rtol=1e-5, atol=1e-6)
  assert np.abs(after.chains - start).max() > 1e-3  # or the step would not show
  assert tree_bytes(after.critic.params) != tree_bytes(before.critic.params)
  expected = jax.tree.map(lambda old, new: old + 0.9 * (new - old), before.average, after.critic.params)
  chex.assert_trees_all_close(after.average, expected, rtol=1e-4, atol=1e-6)  # decay starts at (1 + 0) / (10 + 0)
  assert after.updates == 1


def test_a_share_of_the_chains_starts_again(chain_step):
  before, after, drawn, _ = chain_step(step_size=0.0, restart=0.5, encoded=0.25)
  came = lambda start: np.asarray((after.chains == start).all(axis=1))
  of_prior, of_data = came(drawn.prior), came(drawn.encoded)
  np.testing.assert_array_equal(of_prior.astype(int) + of_data + came(before.chains), 1)
  assert of_prior.mean() == pytest.approx(0.375, abs=0.04)  # five standard deviations
  assert of_data.mean() == pytest.approx(0.125, abs=0.03)
  np.testing.assert_array_equal(after.conditions[of_prior], drawn.labels[of_prior])
  np.testing.assert_array_equal(after.conditions[of_data], drawn.other_labels[of_data])


def test_chains_are_noisy(chain_step):
  before, after, *_ = chain_step(step_size=0.0, noise=0.05)
  assert np.std(after.chains - before.chains) == pytest.approx(0.05, rel=0.03)
