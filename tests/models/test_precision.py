"""bfloat16: what stays float32, and how far results may be from those of float32."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lcgen import config
from lcgen.data import sources
from lcgen.training.context import Phases
from tests.support.helpers import frozen_vae, load_config, squares

FACTS = sources.Facts("squares", (8, 8, 1), ("0", "1", "2", "3"), 80, 16, 20)
DTYPES = ("float32", "bfloat16")


def phases_of(dtype, architecture):
  changes = {"vae__architecture": architecture, "classifier__architecture": architecture}
  return Phases(config.checked(load_config("mnist5k", "smoke", train__dtype=dtype, **changes)), FACTS)


def types(tree):
  return {leaf.dtype for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.floating)}


def updated(dtype, architecture, name):
  """The state after one step, and its metrics."""
  phases = phases_of(dtype, architecture)
  variables = phases.vae().init(jax.random.key(0)).variables
  phase = getattr(phases, name)(*([] if name == "vae" else [frozen_vae(variables)]))
  data = squares()
  batch = phases.prepare(
    {"image": jnp.asarray(data.images[: phase.rows]), "label": jnp.asarray(data.labels[: phase.rows])}
  )
  return jax.jit(phase.advance.step)(phase.init(jax.random.key(0)), phase.frozen, batch, jax.random.key(1))


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
  networks = phases_of("bfloat16", architecture).networks
  example = networks.example
  for model, inputs in (
    (networks.vae, (example["image"], jax.random.key(0))),
    (networks.actor, (example["latent"], example["condition"])),
    (networks.critic, (example["latent"], example["condition"])),
    (networks.classifier, (example["image"],)),
    (networks.judge, (example["image"],)),
  ):
    outputs, variables = model.init_with_output(jax.random.key(1), *inputs)
    assert types((outputs, variables)) == {np.dtype("float32")}
  assert not hasattr(networks.judge, "dtype")  # who scores computes in float32 always


@pytest.mark.slow
def test_a_run_in_bfloat16_is_worth_what_one_in_float32_is(run, tmp_path):
  found = {}
  for dtype in DTYPES:
    fewer = "--config.seeds=2", "--config.evaluate.sets=test", "--config.classifier.arms=latent_constraints"
    flags = f"--config.train.dtype={dtype}", f"--workdir={tmp_path / dtype}"
    code, _, stderr = run(*flags, *fewer, timeout=3600, XLA_FLAGS="")
    assert code == 0, stderr
    results = json.loads((tmp_path / dtype / "results.json").read_text())
    records = [json.loads(line) for line in (tmp_path / dtype / "metrics.jsonl").read_text().splitlines()]
    found[dtype] = {
      "accuracy": np.mean(results["arms"]["latent_constraints"]["test"]["accuracy"]),
      "conditional accuracy": np.mean(results["samples"]["actor"]["conditional_accuracy"]),
      "loss": np.mean([record for record in records if record["phase"] == "vae"][-1]["validation_loss"]),
    }
  exact, rounded = (found[dtype] for dtype in DTYPES)
  assert rounded["accuracy"] > exact["accuracy"] - 0.01
  assert rounded["conditional accuracy"] > exact["conditional accuracy"] - 0.01
  assert rounded["loss"] < 1.03 * exact["loss"]
