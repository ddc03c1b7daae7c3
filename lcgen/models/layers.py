"""Layers that the networks share, with two forms of every convolution.

XLA's own convolutions are several times slower than a matrix product on a CPU, and slower still inside a
loop. `form="matmul"` writes them as one matrix product with slices or shifts around it; `form="native"` leaves
them to XLA. Both take the same parameters and compute the same numbers.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

FORMS = ("native", "matmul")
_LEAKY_SLOPE = 0.01  # as in the published code
_KERNEL = 3
_DIMENSIONS = ("NHWC", "HWIO", "NHWC")


def conv(images: jax.Array, kernel: jax.Array, stride: int, form: str) -> jax.Array:
  """3x3 convolution with one pixel of padding on each side.

  Args:
    images: `[B, H, W, I]`.
    kernel: `[3, 3, I, O]`, the layout of `nn.Conv`.
    stride: 1 or 2.
    form: one of `FORMS`.

  Returns:
    `[B, ceil(H / stride), ceil(W / stride), O]`.
  """
  if form == "native":
    return lax.conv_general_dilated(images, kernel, (stride, stride), ((1, 1), (1, 1)), dimension_numbers=_DIMENSIONS)
  inputs, outputs = kernel.shape[2:]
  if stride == 1 and outputs < inputs:
    return _conv_scatter(images, kernel)
  return _conv_gather(images, kernel, stride)


def _conv_gather(images: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
  """Nine strided slices side by side, then one matrix product."""
  height, width = images.shape[1:3]
  padded = jnp.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
  taps = [
    padded[:, row : row + height : stride, column : column + width : stride]
    for row in range(_KERNEL)
    for column in range(_KERNEL)
  ]
  patches = jnp.concatenate(taps, axis=-1)  # [B, H', W', 9 I]
  return patches @ kernel.reshape(-1, kernel.shape[-1])


def _conv_scatter(images: jax.Array, kernel: jax.Array) -> jax.Array:
  """One matrix product, then nine shifts added: less memory where there are fewer outputs than inputs."""
  height, width = images.shape[1:3]
  products = jnp.einsum("bhwi,yxio->yxbhwo", images, kernel)
  products = jnp.pad(products, ((0, 0),) * 3 + ((1, 1), (1, 1), (0, 0)))
  return sum(
    products[row, column, :, row : row + height, column : column + width]
    for row in range(_KERNEL)
    for column in range(_KERNEL)
  )


def conv_transpose(images: jax.Array, kernel: jax.Array, form: str) -> jax.Array:
  """What PyTorch's `ConvTranspose2d(kernel_size=3, stride=2, padding=1, output_padding=1)` computes.

  Args:
    images: `[B, H, W, I]`.
    kernel: `[3, 3, I, O]`; PyTorch keeps the same numbers as `[I, O, 3, 3]`.
    form: one of `FORMS`.

  Returns:
    `[B, 2 H, 2 W, O]`.
  """
  if form == "native":
    return lax.conv_general_dilated(
      images, kernel[::-1, ::-1], (1, 1), ((1, 2), (1, 2)), lhs_dilation=(2, 2), dimension_numbers=_DIMENSIONS
    )
  batch, height, width, _ = images.shape
  inputs, outputs = kernel.shape[2:]
  products = images @ kernel.transpose(2, 0, 1, 3).reshape(inputs, -1)
  products = products.reshape(batch, height, width, _KERNEL, _KERNEL, outputs)
  # Output pixel 2i + k - 1 receives input pixel i times tap k: even pixels see tap 1, odd pixels tap 2 of
  # their own input pixel and tap 0 of the next.
  following = jnp.pad(products, ((0, 0), (0, 1), (0, 0)) + ((0, 0),) * 3)[:, 1:]
  rows = jnp.stack([products[..., 1, :, :], products[..., 2, :, :] + following[..., 0, :, :]], axis=2)
  following = jnp.pad(rows, ((0, 0),) * 3 + ((0, 1), (0, 0), (0, 0)))[:, :, :, 1:]
  pixels = jnp.stack([rows[..., 1, :], rows[..., 2, :] + following[..., 0, :]], axis=4)  # [B, H, 2, W, 2, O]
  return pixels.reshape(batch, 2 * height, 2 * width, outputs)


class Conv(nn.Module):
  """3x3 convolution, one pixel of padding; `[B, H, W, I]` -> `[B, H / stride, W / stride, features]`."""

  features: int
  stride: int = 1
  form: str = "native"

  @nn.compact
  def __call__(self, images: jax.Array) -> jax.Array:
    kernel, bias = _conv_parameters(self, images.shape[-1], self.features)
    return conv(images, kernel, self.stride, self.form) + bias


class ConvTranspose(nn.Module):
  """3x3 transposed convolution that doubles both sides; `[B, H, W, I]` -> `[B, 2 H, 2 W, features]`."""

  features: int
  form: str = "native"

  @nn.compact
  def __call__(self, images: jax.Array) -> jax.Array:
    kernel, bias = _conv_parameters(self, images.shape[-1], self.features)
    return conv_transpose(images, kernel, self.form) + bias


def _conv_parameters(module: nn.Module, inputs: int, outputs: int) -> tuple[jax.Array, jax.Array]:
  shape = (_KERNEL, _KERNEL, inputs, outputs)
  kernel = module.param("kernel", nn.initializers.lecun_normal(), shape)
  bias = module.param("bias", nn.initializers.zeros_init(), (1, 1, 1, outputs))
  return kernel, bias


def leaky_relu(inputs: jax.Array) -> jax.Array:
  return nn.leaky_relu(inputs, _LEAKY_SLOPE)


class NormalizedLeakyReLU(nn.Module):
  """Batch norm (momentum 0.9, epsilon 1e-5, as in the published code), then leaky ReLU."""

  @nn.compact
  def __call__(self, inputs: jax.Array, train: bool) -> jax.Array:
    return leaky_relu(nn.BatchNorm(use_running_average=not train, momentum=0.9, epsilon=1e-5)(inputs))


class DenseBlocks(nn.Module):
  """`len(widths)` times (linear, batch norm, leaky ReLU); `[B, ...]` -> `[B, widths[-1]]`."""

  widths: Sequence[int]

  @nn.compact
  def __call__(self, inputs: jax.Array, train: bool) -> jax.Array:
    hidden = inputs.reshape(inputs.shape[0], -1)
    for width in self.widths:
      hidden = NormalizedLeakyReLU()(nn.Dense(width)(hidden), train)
    return hidden


class ConvBlocks(nn.Module):
  """`len(channels)` times (3x3 convolution of stride 2, batch norm, leaky ReLU); `[B, H, W, C]` -> flat `[B, D]`."""

  channels: Sequence[int]
  form: str = "native"

  @nn.compact
  def __call__(self, images: jax.Array, train: bool) -> jax.Array:
    hidden = images
    for features in self.channels:
      hidden = NormalizedLeakyReLU()(Conv(features, stride=2, form=self.form)(hidden), train)
    return hidden.reshape(hidden.shape[0], -1)
