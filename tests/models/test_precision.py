"""bfloat16: what stays float32, and how far results may be from those of float32."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from lcgen.classifiers import arm_phase, judge_phase
from lcgen.constraints import draws, energy_phase, game_phase
from lcgen.models.layers import STYLES
from tests.support.helpers import FACTS, config_of, context_of, frozen_vae
from tests.support.steps import batch_of

DTYPES = ("float32", "bfloat16")


def given(dtype, architecture):
  """A config and its context."""
  changes = {"vae__architecture": architecture, "classifier__architecture": architecture}
  config = config_of("smoke", train__dtype=dtype, **changes)
  return config, context_of(config, FACTS)


def types(tree):
  return {leaf.dtype for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.floating)}


def updated(dtype, architecture, name):
  """The state after one step, and its metrics."""
  config, context = given(dtype, architecture)
  source, frozen = draws.labels(context), frozen_vae(context.generator.init(jax.random.key(0)))
  phase = {
    "vae": lambda: context.generator.phase(context),
    "actor_critic": lambda: game_phase.phase(context, config.actor_critic, source, frozen),
    "energy": lambda: energy_phase.phase(context, config.energy, source, frozen),
  }[name]()
  batch = batch_of(context, phase.batch_size)
  return jax.jit(phase.run_steps.step)(phase.init(jax.random.key(0)), phase.frozen, batch, jax.random.key(1))


@pytest.mark.parametrize(
  ("architecture", "name"), [("dense", "vae"), ("conv", "vae"), ("dense", "actor_critic"), ("dense", "energy")]
)
def test_states_and_losses_stay_float32(architecture, name):
  (exact, expected), (rounded, metrics) = (updated(dtype, architecture, name) for dtype in DTYPES)
  assert types((rounded, metrics)) == {np.dtype("float32")}
  assert jax.tree.map(jnp.shape, exact) == jax.tree.map(jnp.shape, rounded)
  for term, value in metrics.items():
    np.testing.assert_allclose(value, expected[term], rtol=0.03, atol=0.01, err_msg=term)
  assert any(value != expected[term] for term, value in metrics.items())


@pytest.mark.parametrize("architecture", ["dense", "conv"])
def test_networks_return_float32(architecture):
  config, context = given("bfloat16", architecture)
  condition = jnp.zeros((1, context.classes))
  judge = judge_phase.network(context, config.evaluate.judge)
  for model, inputs in (
    (context.generator.model, (context.image, jax.random.key(0))),
    (game_phase.actor(context, config.actor_critic), (context.latent, condition)),
    (game_phase.critic(context, config.actor_critic), (context.latent, condition)),
    (energy_phase.critic(context, config.energy), (context.latent, condition)),
    (arm_phase.network(context, config.classifier), (context.image,)),
    (judge, (context.image,)),
  ):
    assert model is judge or model.dtype == jnp.bfloat16
    outputs, variables = model.init_with_output(jax.random.key(1), *inputs)
    assert types((outputs, variables)) == {np.dtype("float32")}
  assert not hasattr(judge, "dtype")  # the judge computes in float32 always


@pytest.mark.parametrize("architecture", ["dense", "conv"])
def test_every_network_but_the_judge_draws_first_biases_as_pytorch_does(architecture):
  found = {}
  for layers in STYLES:
    changes = {"vae__architecture": architecture, "classifier__architecture": architecture, "train__layers": layers}
    config = config_of("smoke", actor_critic__critic_batch_norm=True, **changes)
    context = context_of(config, FACTS)
    condition = jnp.zeros((1, context.classes))
    for name, model, inputs in (
      ("vae", context.generator.model, (context.image, jax.random.key(0))),
      ("actor", game_phase.actor(context, config.actor_critic), (context.latent, condition)),
      ("critic", game_phase.critic(context, config.actor_critic), (context.latent, condition)),
      ("energy", energy_phase.critic(context, config.energy), (context.latent, condition)),
      ("classifier", arm_phase.network(context, config.classifier), (context.image,)),
      ("judge", judge_phase.network(context, config.evaluate.judge), (context.image,)),
    ):
      params = traverse_util.flatten_dict(model.init(jax.random.key(1), *inputs)["params"])
      kernels = {path[:-1] for path in params if path[-1] == "kernel"}
      found[layers, name] = [bool(params[*path, "bias"].any()) for path in sorted(kernels)]
  for (layers, name), drawn in found.items():
    assert set(drawn) == {layers == "pytorch" and name != "judge"}, (layers, name)
    assert len(drawn) == len(found["flax", name])


@pytest.mark.slow
def test_a_run_in_bfloat16_is_worth_what_one_in_float32_is(run, tmp_path):
  found = {}
  for dtype in DTYPES:
    fewer = "--config.seeds=2", "--config.evaluate.sets=test", "--config.classifier.arms=latent_constraints"
    flags = f"--config.train.dtype={dtype}", f"--workdir={tmp_path / dtype}"
    code, _, stderr = run(*flags, *fewer, timeout=3600, JAX_DISABLE_MOST_OPTIMIZATIONS="0")
    assert code == 0, stderr
    results = json.loads((tmp_path / dtype / "results.json").read_text())
    records = [json.loads(line) for line in (tmp_path / dtype / "metrics.jsonl").read_text().splitlines()]
    found[dtype] = {
      "accuracy": np.mean(results["arms"]["latent_constraints"]["test"]["accuracy"]),
      "conditional accuracy": np.mean(results["samples"]["actor"]["conditional_accuracy"]),
      "loss": np.mean([record for record in records if record["phase"] == "vae"][-1]["terms"]["validation_loss"]),
    }
  exact, rounded = (found[dtype] for dtype in DTYPES)
  assert rounded["accuracy"] > exact["accuracy"] - 0.01
  assert rounded["conditional accuracy"] > exact["conditional accuracy"] - 0.01
  assert rounded["loss"] < 1.03 * exact["loss"]
