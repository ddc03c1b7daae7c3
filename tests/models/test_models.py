import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lcgen import config
from lcgen.api import build
from lcgen.data import sources
from lcgen.models import actor_critic, vae
from lcgen.studies import inspection
from tests.support.helpers import DIGITS, load_config

PICTURES = sources.Facts("pictures", (32, 32, 3), tuple("0123456789"), 100, 10, 10)
GAME = {"actor": 23_101_440, "critic": 18_907_137}


@pytest.mark.parametrize(
  ("name", "facts", "expected"),
  [
    ("mnist", DIGITS, GAME | {"vae": 8_966_928, "classifier": 102_026}),
    ("cifar10", PICTURES, GAME | {"vae": 15_739_491, "classifier": 6_302_474}),
  ],
)
def test_paper_sizes(name, facts, expected):
  paper = config.parse(load_config(name, "paper"))
  shapes = inspection.parameter_shapes(build.context(paper, facts), build.sections(paper))
  counts = {key: inspection.parameter_total(own) for key, own in shapes.items()}
  assert counts | expected == counts


@pytest.mark.parametrize("architecture", ["dense", "conv"])
@pytest.mark.parametrize("shape", [(28, 28, 1), (17, 30, 3)])
def test_vae_keeps_shapes_and_range(architecture, shape):
  model = vae.VAE(shape, 6, architecture, (16, 16), (4, 8, 8), output_limit=2.0)
  images = 100 * jax.random.normal(jax.random.key(0), (5, *shape))
  variables = model.init(jax.random.key(1), images, jax.random.key(2))
  output = model.apply(variables, images, jax.random.key(3))
  assert output.images.shape == images.shape
  assert output.latents.shape == output.posterior.logvar.shape == (5, 6)
  far = 1e4 * jax.random.normal(jax.random.key(4), (64, 6))
  decoded = model.apply(variables, far, method="decode")
  assert -2 <= decoded.min() < -1
  assert 1 < decoded.max() <= 2


def test_posterior_draws_have_its_moments():
  posterior = vae.Posterior(jnp.full((20_000, 2), 3.0), jnp.full((20_000, 2), 2 * np.log(0.5)))
  draws = np.asarray(posterior.sample(jax.random.key(0)))
  np.testing.assert_allclose(draws.mean(axis=0), 3, atol=0.02)
  np.testing.assert_allclose(draws.std(axis=0), 0.5, atol=0.02)


def test_actor_is_gated_between_its_input_and_its_proposal():
  actor = actor_critic.Actor(latent_dim=4, hidden_dim=8, depth=2)
  latents, conditions = jax.random.normal(jax.random.key(0), (3, 4)), jax.nn.one_hot(jnp.arange(3), 3)
  params = actor.init(jax.random.key(1), latents, conditions)["params"]

  def moved(gate_bias):
    gate = {"kernel": jnp.zeros_like(params["gate"]["kernel"]), "bias": jnp.full(4, gate_bias)}
    dz = {"kernel": jnp.zeros_like(params["dz"]["kernel"]), "bias": jnp.full(4, 7.0)}
    return actor.apply({"params": params | {"gate": gate, "dz": dz}}, latents, conditions)

  np.testing.assert_allclose(moved(-50.0), latents, atol=1e-6)
  np.testing.assert_allclose(moved(50.0), jnp.full((3, 4), 7.0), atol=1e-6)
  np.testing.assert_allclose(moved(0.0), 0.5 * latents + 3.5, rtol=1e-5)  # Eq. 5


def test_critic_sees_the_label():
  critic = actor_critic.Critic(hidden_dim=8, depth=2)
  latents = jnp.ones((2, 4))
  conditions = jax.nn.one_hot(jnp.array([0, 1]), 3)
  logits = critic.apply(critic.init(jax.random.key(0), latents, conditions), latents, conditions)
  assert logits.shape == (2,)
  assert logits[0] != logits[1]
