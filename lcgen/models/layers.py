"""Layers that the networks share, with two forms of every convolution.

On a CPU, XLA's own convolutions are several times slower than a matrix product, and slower still inside a loop.
`form="matmul"` writes them as matrix products of slices or shifts. `form="native"` leaves them to XLA. Both take the
same parameters and compute the same numbers.

Layers compute in `dtype`, or in the type of their inputs if it is None. Parameters, batch statistics and the outputs
of networks are always float32.

`style` says whose first weights and whose batch norm layers have. `"flax"`: kernels from a truncated normal of variance
1 / fan-in (LeCun), biases of 0, and a running variance that averages the variance of n values, which divides by n.
`"pytorch"`: kernels and biases from U(-1, 1) / sqrt(fan-in), as PyTorch's `Linear`, `Conv2d` and `ConvTranspose2d` draw
them, and a running variance that averages the unbiased variance, which divides by n - 1. Both normalise a batch in
training by its variance of n values. The running variance counts in evaluation: at n = 32 Flax's is 3.1 % too small.
"""

import functools
import itertools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

FORMS = ("native", "matmul")
STYLES = ("flax", "pytorch")
_LEAKY_SLOPE = 0.01  # as in the published code
_DECAY, _EPSILON = 0.9, 1e-5  # of batch norms; PyTorch's defaults, which the published code takes
_KERNEL = 3
_DIMENSIONS = ("NHWC", "HWIO", "NHWC")


def conv(images: jax.Array, kernel: jax.Array, stride: int, form: str) -> jax.Array:
  """Computes a 3x3 convolution with one pixel of padding on each side.

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
  """Puts nine strided slices side by side and multiplies them by the kernel, in one matrix product."""
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
  """Multiplies by the kernel, then adds nine shifts; takes less memory if there are fewer outputs than inputs.

  Pixels are the innermost axis, because shifts over a few channels would not be vectorised.
  """
  batch, height, width, inputs = images.shape
  taps = kernel.transpose(0, 1, 3, 2).reshape(-1, inputs)  # [9 O, I]
  products = (taps @ images.reshape(-1, inputs).T).reshape(_KERNEL, _KERNEL, -1, batch, height, width)
  products = jnp.pad(products, ((0, 0),) * 4 + ((1, 1), (1, 1)))
  shifted = sum(
    products[row, column, ..., row : row + height, column : column + width]
    for row in range(_KERNEL)
    for column in range(_KERNEL)
  )
  return shifted.transpose(1, 2, 3, 0)


def conv_transpose(images: jax.Array, kernel: jax.Array, form: str) -> jax.Array:
  """Computes PyTorch's `ConvTranspose2d(kernel_size=3, stride=2, padding=1, output_padding=1)`.

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
  _, height, width, inputs = images.shape
  # With many pixels their copies cost most. With many channels the kernel does, so the scatter reads it once.
  return (_transpose_gather if 2 * height * width >= inputs else _transpose_scatter)(images, kernel)


# Output pixel 2i + k - 1 receives input pixel i times tap k. Even pixels see tap 1 of their own input pixel. Odd ones
# see tap 2 of it and tap 0 of the next. Pairs (offset of the input pixel, tap) for even and odd pixels:
_PHASES = (((0, 1),), ((0, 2), (1, 0)))


def _transpose_gather(images: jax.Array, kernel: jax.Array) -> jax.Array:
  """Gathers the input pixels that each of the four kinds of output pixels sees, then multiplies by its taps."""
  batch, height, width, _ = images.shape
  padded = jnp.pad(images, ((0, 0), (0, 1), (0, 1), (0, 0)))
  rows = []
  for vertical in _PHASES:
    pixels = []
    for horizontal in _PHASES:
      pairs = list(itertools.product(vertical, horizontal))
      seen = [padded[:, y : y + height, x : x + width] for (y, _), (x, _) in pairs]
      taps = [kernel[row, column] for (_, row), (_, column) in pairs]
      pixels.append(jnp.concatenate(seen, axis=-1) @ jnp.concatenate(taps))
    rows.append(jnp.stack(pixels, axis=3))  # [B, H, W, 2, O]
  return jnp.stack(rows, axis=2).reshape(batch, 2 * height, 2 * width, -1)


def _transpose_scatter(images: jax.Array, kernel: jax.Array) -> jax.Array:
  """Multiplies by all taps in one matrix product, then adds the shifted results."""
  batch, height, width, _ = images.shape
  inputs, outputs = kernel.shape[2:]
  products = images @ kernel.transpose(2, 0, 1, 3).reshape(inputs, -1)
  products = products.reshape(batch, height, width, _KERNEL, _KERNEL, outputs)
  following = jnp.pad(products, ((0, 0), (0, 1), (0, 0)) + ((0, 0),) * 3)[:, 1:]
  rows = jnp.stack([products[..., 1, :, :], products[..., 2, :, :] + following[..., 0, :, :]], axis=2)
  following = jnp.pad(rows, ((0, 0),) * 3 + ((0, 1), (0, 0), (0, 0)))[:, :, :, 1:]
  pixels = jnp.stack([rows[..., 1, :], rows[..., 2, :] + following[..., 0, :]], axis=4)  # [B, H, 2, W, 2, O]
  return pixels.reshape(batch, 2 * height, 2 * width, outputs)


class Dense(nn.Module):
  """Linear layer; `[..., I]` -> `[..., features]`, in float32 for every type of input if `head`."""

  features: int
  dtype: Any = None
  style: str = "flax"
  head: bool = False

  @nn.compact
  def __call__(self, inputs: jax.Array) -> jax.Array:
    kernel, bias = _parameters(self, (inputs.shape[-1], self.features), (self.features,), inputs.shape[-1])
    inputs, kernel, bias = nn.dtypes.promote_dtype(inputs, kernel, bias, dtype=self.dtype)
    type_of_output = jnp.float32 if self.head else None
    product = lax.dot_general(
      inputs, kernel, (((inputs.ndim - 1,), (0,)), ((), ())), preferred_element_type=type_of_output
    )
    return product + bias.reshape((1,) * (product.ndim - 1) + (-1,))


Head = functools.partial(Dense, head=True)  # the last linear layer of a network


class Conv(nn.Module):
  """3x3 convolution, one pixel of padding; `[B, H, W, I]` -> `[B, ceil(H / stride), ceil(W / stride), features]`."""

  features: int
  stride: int = 1
  form: str = "native"
  dtype: Any = None
  style: str = "flax"

  @nn.compact
  def __call__(self, images: jax.Array) -> jax.Array:
    images, kernel, bias = _conv_operands(self, images, counted=images.shape[-1])
    return conv(images, kernel, self.stride, self.form) + bias


class ConvTranspose(nn.Module):
  """3x3 transposed convolution that doubles height and width; `[B, H, W, I]` -> `[B, 2 H, 2 W, features]`."""

  features: int
  form: str = "native"
  dtype: Any = None
  style: str = "flax"

  @nn.compact
  def __call__(self, images: jax.Array) -> jax.Array:
    # PyTorch counts a transposed convolution's outputs as its fan-in, because its kernel is [I, O, 3, 3].
    images, kernel, bias = _conv_operands(self, images, counted=self.features)
    return conv_transpose(images, kernel, self.form) + bias


def _conv_operands(
  module: Conv | ConvTranspose, images: jax.Array, counted: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
  shape = (_KERNEL, _KERNEL, images.shape[-1], module.features)
  kernel, bias = _parameters(module, shape, (1, 1, 1, module.features), _KERNEL**2 * counted)
  return nn.dtypes.promote_dtype(images, kernel, bias, dtype=module.dtype)


def _parameters(
  module: Dense | Conv | ConvTranspose, kernel: tuple[int, ...], bias: tuple[int, ...], fan_in: int
) -> tuple[jax.Array, jax.Array]:
  """Declares a layer's kernel and bias of these shapes; `fan_in` is PyTorch's, Flax takes its own from the shape."""
  initial = {"kernel": nn.initializers.lecun_normal(), "bias": nn.initializers.zeros_init()}
  if module.style == "pytorch":
    initial = dict.fromkeys(initial, _uniform(fan_in**-0.5))
  return module.param("kernel", initial["kernel"], kernel), module.param("bias", initial["bias"], bias)


def _uniform(bound: float) -> nn.initializers.Initializer:
  return lambda key, shape, dtype=jnp.float32: jax.random.uniform(key, shape, dtype, -bound, bound)


def leaky_relu(inputs: jax.Array) -> jax.Array:
  return nn.leaky_relu(inputs, _LEAKY_SLOPE)


class BatchNorm(nn.BatchNorm):
  """Flax's batch norm, whose running variance averages PyTorch's unbiased variance instead."""

  def __call__(self, inputs: jax.Array, use_running_average: bool | None = None) -> jax.Array:
    known = self.has_variable("batch_stats", "var")
    before = self.get_variable("batch_stats", "var") if known else None
    outputs = super().__call__(inputs, use_running_average)
    after = self.get_variable("batch_stats", "var")
    if known and after is not before:
      count = inputs.size // inputs.shape[-1]
      kept = self.momentum * before
      self.put_variable("batch_stats", "var", kept + (after - kept) * (count / (count - 1)))
    return outputs


class NormalizedLeakyReLU(nn.Module):
  """Batch norm (running averages keep 0.9 of themselves at each step, epsilon 1e-5), then leaky ReLU."""

  dtype: Any = None
  style: str = "flax"

  @nn.compact
  def __call__(self, inputs: jax.Array, train: bool) -> jax.Array:
    kind = BatchNorm if self.style == "pytorch" else nn.BatchNorm
    normalize = kind(use_running_average=not train, momentum=_DECAY, epsilon=_EPSILON, dtype=self.dtype)
    return leaky_relu(normalize(inputs))


class DenseBlocks(nn.Module):
  """`len(widths)` times (linear, batch norm, leaky ReLU); `[B, ...]` -> `[B, widths[-1]]`."""

  widths: Sequence[int]
  dtype: Any = None
  style: str = "flax"

  @nn.compact
  def __call__(self, inputs: jax.Array, train: bool) -> jax.Array:
    hidden = inputs.reshape(inputs.shape[0], -1)
    for width in self.widths:
      hidden = Dense(width, self.dtype, self.style)(hidden)
      hidden = NormalizedLeakyReLU(self.dtype, self.style)(hidden, train)
    return hidden


class ConvBlocks(nn.Module):
  """`len(channels)` times (3x3 convolution of stride 2, batch norm, leaky ReLU); `[B, H, W, C]` -> flat `[B, D]`."""

  channels: Sequence[int]
  form: str = "native"
  dtype: Any = None
  style: str = "flax"

  @nn.compact
  def __call__(self, images: jax.Array, train: bool) -> jax.Array:
    hidden = images
    for features in self.channels:
      hidden = Conv(features, 2, self.form, self.dtype, self.style)(hidden)
      hidden = NormalizedLeakyReLU(self.dtype, self.style)(hidden, train)
    return hidden.reshape(hidden.shape[0], -1)
