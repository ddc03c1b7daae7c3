import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lcgen.models import losses, vae

RNG = np.random.default_rng(0)
IMAGES, RECONSTRUCTIONS = RNG.normal(size=(2, 5, 4, 3, 2))
MEAN, LOGVAR = RNG.normal(size=(2, 5, 6))
OUTPUT = vae.VAEOutput(
  jnp.asarray(RECONSTRUCTIONS), vae.Posterior(jnp.asarray(MEAN), jnp.asarray(LOGVAR)), jnp.zeros((5, 6))
)

ERROR = ((IMAGES - RECONSTRUCTIONS) ** 2).mean(axis=(1, 2, 3))
KL = 0.5 * (MEAN**2 + np.exp(LOGVAR) - 1 - LOGVAR).sum(axis=1)


def close(actual, expected):
  np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)


def test_kl_is_that_of_two_gaussians():
  close(losses.kl_divergence(OUTPUT.posterior), KL)
  # Against the integral of q (log q - log p), by a sum over a fine grid.
  z = np.linspace(-12, 12, 200_001)
  density = lambda m, s: np.exp(-0.5 * ((z - m) / s) ** 2) / (s * np.sqrt(2 * np.pi))
  q = density(0.7, 0.4)
  integral = np.trapezoid(q * (np.log(np.maximum(q, 1e-300)) - np.log(density(0, 1))), z)
  close(losses.kl_divergence(vae.Posterior(jnp.array([[0.7]]), jnp.array([[2 * np.log(0.4)]]))), [integral])


def test_weighted_elbo_is_eq_1():
  loss, terms = losses.weighted_elbo(jnp.asarray(IMAGES), OUTPUT, kl_weight=0.3)
  close(loss, ERROR + 0.3 * KL)
  close(terms["reconstruction"], ERROR)
  close(terms["kl"], KL)


def test_gaussian_elbo_is_in_nats():
  loss, terms = losses.gaussian_elbo(jnp.asarray(IMAGES), OUTPUT, sigma=0.5)
  likelihood = (0.5 * ((IMAGES - RECONSTRUCTIONS) / 0.5) ** 2 + np.log(0.5 * np.sqrt(2 * np.pi))).sum(axis=(1, 2, 3))
  close(terms["negative_log_likelihood"], likelihood)
  close(loss, likelihood + KL)


def test_weighted_elbo_amounts_to_its_observation_sigma():
  """Both likelihoods have the same gradient, up to scale, at the sigma that the weight amounts to."""
  pixels = 4 * 3 * 2
  sigma = losses.observation_sigma(0.3, pixels)

  def gradient(objective, **options):
    def loss(images, mean):
      output = OUTPUT.replace(images=images, posterior=vae.Posterior(mean, jnp.asarray(LOGVAR)))
      return objective(jnp.asarray(IMAGES), output, **options)[0].sum()

    return jax.grad(loss, argnums=(0, 1))(jnp.asarray(RECONSTRUCTIONS), jnp.asarray(MEAN))

  weighted = gradient(losses.weighted_elbo, kl_weight=0.3)
  gaussian = gradient(losses.gaussian_elbo, sigma=sigma)
  for ours, theirs in zip(weighted, gaussian, strict=True):
    close(ours, 0.3 * theirs)


def test_constraint_loss_is_minus_log_probability_and_stays_finite():
  logits = np.array([-100.0, -2.0, 0.0, 3.0, 100.0])
  close(losses.constraint_loss(jnp.asarray(logits), True), np.logaddexp(0, -logits))
  close(losses.constraint_loss(jnp.asarray(logits), False), np.logaddexp(0, logits))


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_distance_penalty_is_that_of_eq_3(reduction):
  moved, latents, scale = RNG.normal(size=(4, 6)), RNG.normal(size=(4, 6)), RNG.uniform(0.1, 1, size=6)
  expected = getattr(np.log(1 + (moved - latents) ** 2) / scale**2, reduction)(axis=1)
  actual = losses.distance_penalty(jnp.asarray(moved), jnp.asarray(latents), jnp.asarray(scale), reduction)
  close(actual, expected)


def test_slopes_of_a_quadratic():
  curvature = RNG.normal(size=(6, 6))
  latents = RNG.normal(size=(4, 6))
  logit = lambda z: jnp.einsum("bi,ij,bj->b", z, jnp.asarray(curvature), z)
  slopes = latents @ (curvature + curvature.T)
  np.testing.assert_allclose(losses.squared_slopes(logit, jnp.asarray(latents)), (slopes**2).sum(axis=1), rtol=1e-4)
  expected = (np.linalg.norm(slopes, axis=1) - 1) ** 2
  np.testing.assert_allclose(losses.interpolated_penalty(logit, jnp.asarray(latents)), expected, rtol=1e-4)


def test_penalty_has_a_gradient_where_the_slope_is_zero():
  penalty = lambda w: losses.interpolated_penalty(lambda z: z @ w, jnp.ones((3, 2))).sum()
  assert np.isfinite(jax.grad(penalty)(jnp.zeros(2))).all()


def test_cross_entropy_is_eq_4():
  logits, labels = RNG.normal(size=(5, 3)), np.array([0, 2, 1, 1, 0])
  expected = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(5), labels]
  close(losses.cross_entropy(jnp.asarray(logits), jax.nn.one_hot(labels, 3)), expected)


def test_jensen_shannon_divergence_is_augmixs():
  logits = RNG.normal(size=(3, 5, 4))
  shares = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
  mixture = shares.mean(axis=0)
  expected = (shares * np.log(shares / mixture)).sum(axis=-1).mean(axis=0)
  close(losses.jensen_shannon_divergence(jnp.asarray(logits)), expected)
  close(losses.jensen_shannon_divergence(jnp.asarray(logits[:1].repeat(3, axis=0))), np.zeros(5))
