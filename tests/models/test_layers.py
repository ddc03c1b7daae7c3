import pathlib

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from lcgen.models import layers


def reference_conv(images, kernel, stride):
  """The definition, pixel by pixel, in float64."""
  images, kernel = np.float64(images), np.float64(kernel)
  batch, height, width, _ = images.shape
  padded = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
  rows, columns = range(0, height, stride), range(0, width, stride)
  result = np.zeros((batch, len(rows), len(columns), kernel.shape[-1]))
  for i, y in enumerate(rows):
    for j, x in enumerate(columns):
      result[:, i, j] = np.einsum("byxi,yxio->bo", padded[:, y : y + 3, x : x + 3], kernel)
  return result


@pytest.mark.parametrize("form", layers.FORMS)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("shape", [(6, 8), (7, 5), (1, 1)])
@pytest.mark.parametrize("channels", [(3, 5), (5, 3)])
def test_conv_follows_its_definition(form, stride, shape, channels):
  rng = np.random.default_rng(0)
  images = rng.normal(size=(2, *shape, channels[0])).astype(np.float32)
  kernel = rng.normal(size=(3, 3, *channels)).astype(np.float32)
  result = layers.conv(jnp.asarray(images), jnp.asarray(kernel), stride, form)
  np.testing.assert_allclose(result, reference_conv(images, kernel, stride), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("form", layers.FORMS)
def test_conv_transpose_gives_what_torch_gave(form):
  # Written by torch 2.13: ConvTranspose2d(3, 2, kernel_size=3, stride=2, padding=1, output_padding=1).
  torch = np.load(pathlib.Path(__file__).parent / "conv_transpose2d.npz")
  kernel = torch["kernel"].transpose(2, 3, 0, 1)
  result = layers.conv_transpose(jnp.asarray(torch["images"]), jnp.asarray(kernel), form) + torch["bias"].reshape(
    1, 1, 1, -1
  )
  np.testing.assert_allclose(result, torch["outputs"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("side", "inputs"), [(5, 3), (2, 16), (1, 3)])  # more pixels, or more channels
def test_transposed_forms_agree(side, inputs):
  images, kernel = (
    jax.random.normal(jax.random.key(place), shape)
    for place, shape in enumerate([(2, side, side + 1, inputs), (3, 3, inputs, 4)])
  )
  loss = lambda form: lambda *both: jnp.square(layers.conv_transpose(*both, form)).sum()
  found = [jax.value_and_grad(loss(form), (0, 1))(images, kernel) for form in layers.FORMS]
  chex.assert_trees_all_close(*found, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("module", [layers.Conv(4, 1), layers.Conv(7, 1), layers.Conv(4, 2), layers.ConvTranspose(4)])
def test_both_forms_agree_in_values_and_gradients(module):
  images = jax.random.normal(jax.random.key(0), (2, 8, 8, 5))
  variables = module.init(jax.random.key(1), images)
  loss = lambda variables, form: jnp.square(module.clone(form=form).apply(variables, images)).sum()
  results = [jax.value_and_grad(loss)(variables, form) for form in layers.FORMS]
  chex.assert_trees_all_close(*results, rtol=1e-4, atol=1e-4)


@pytest.fixture(scope="module")
def torch_layers():
  """Written by `tests/support/make_torch_layers.py`."""
  return np.load(pathlib.Path(__file__).parent / "torch_layers.npz")


LAYERS = {
  "linear": (layers.Dense(400, style="pytorch"), (1, 50)),
  "conv": (layers.Conv(400, 2, style="pytorch"), (1, 4, 4, 6)),
  "conv_transpose": (layers.ConvTranspose(40, style="pytorch"), (1, 2, 2, 6)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_first_weights_are_drawn_as_torch_draws_them(torch_layers, name):
  module, shape = LAYERS[name]
  drawn = jax.vmap(lambda key: module.init(key, jnp.zeros(shape))["params"])(jax.random.split(jax.random.key(0), 20))
  for part, own in (("weight", drawn["kernel"]), ("bias", drawn["bias"])):
    theirs = torch_layers[f"{name}_{part}"]
    assert scipy.stats.ks_2samp(np.ravel(own), theirs).pvalue > 0.01
    assert np.abs(own).max() == pytest.approx(np.abs(theirs).max(), rel=0.02)


@pytest.mark.parametrize("name", ["dense", "conv"])
def test_batch_norm_keeps_and_returns_what_torch_does(torch_layers, name):
  """Also in evaluation, where Flax's running variance of n values makes outputs larger."""
  batches = torch_layers[f"{name}_batches"]
  found = {}
  for style in layers.STYLES:
    module = layers.NormalizedLeakyReLU(style=style)
    variables = module.init(jax.random.key(0), batches[0], False)
    for batch in batches:
      trained, updated = module.apply(variables, batch, True, mutable=["batch_stats"])
      variables = variables | updated
    (kept,) = variables["batch_stats"].values()
    found[style] = kept, trained, module.apply(variables, batches[-1], False)
    np.testing.assert_allclose(kept["mean"], torch_layers[f"{name}_mean"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(trained, layers.leaky_relu(torch_layers[f"{name}_trained"]), rtol=1e-4, atol=1e-5)
  kept, _, evaluated = found["pytorch"]
  np.testing.assert_allclose(kept["var"], torch_layers[f"{name}_var"], rtol=1e-5)
  np.testing.assert_allclose(evaluated, layers.leaky_relu(torch_layers[f"{name}_evaluated"]), rtol=1e-4, atol=1e-5)
  kept, _, evaluated = found["flax"]
  rows, remains = batches[0][..., 0].size, 0.9 ** len(batches)  # of the first variance, which is 1
  unbiased = (torch_layers[f"{name}_var"] - remains) * (rows - 1) / rows + remains
  np.testing.assert_allclose(kept["var"], unbiased, rtol=1e-4)
  assert np.abs(evaluated - layers.leaky_relu(torch_layers[f"{name}_evaluated"])).max() > 0.05
