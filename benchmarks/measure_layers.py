"""Times the larger convolutions of the paper's CIFAR-10 networks with their gradients, by form, in milliseconds.

    python -m benchmarks.measure_layers [BATCH]

Each is timed alone: ten times inside one compiled loop, the best of four rounds.
"""

import sys
import time

import jax
import jax.numpy as jnp

from lcgen.models import layers

REPEATS, ROUNDS = 10, 4
TRANSPOSED = {"gather": layers._transpose_gather, "scatter": layers._transpose_scatter}
CASES = {  # name: (side, inputs, outputs, {form: layer})
  f"doubling {side}x{side}": (side, inputs, outputs, TRANSPOSED)
  for side, inputs, outputs in ((1, 1024, 512), (4, 256, 128), (8, 128, 64), (16, 64, 32), (32, 32, 32))
}
CASES["last, 64x64"] = (
  64,
  32,
  3,
  {"gather": lambda x, k: layers._conv_gather(x, k, 1), "scatter": layers._conv_scatter}
  | {"native": lambda x, k: layers.conv(x, k, 1, "native")},
)
CASES["doubling 32x32"][3]["native"] = lambda x, k: layers.conv_transpose(x, k, "native")


def operands(batch, side, inputs, outputs):
  """Draws images `[B, H, W, I]` and a kernel `[3, 3, I, O]`."""
  images = jax.random.normal(jax.random.key(0), (batch, side, side, inputs))
  return images, jax.random.normal(jax.random.key(1), (3, 3, inputs, outputs)) / (9 * inputs) ** 0.5


def milliseconds(layer, images, kernel):
  """Measures the layer's value and both gradients, in milliseconds."""
  loss = jax.value_and_grad(lambda x, k: jnp.tanh(layer(x, k)).sum(), (0, 1))

  @jax.jit
  def repeated(images, kernel):
    def body(both, _):
      value, slopes = loss(*both)
      return jax.tree.map(lambda a, b: a + 1e-6 * b, both, slopes), value

    return jax.lax.scan(body, (images, kernel), length=REPEATS)

  jax.block_until_ready(repeated(images, kernel))
  seconds = []
  for _ in range(ROUNDS):
    started = time.perf_counter()
    jax.block_until_ready(repeated(images, kernel))
    seconds.append(time.perf_counter() - started)
  return 1e3 * min(seconds) / REPEATS


def main():
  batch = int(sys.argv[1]) if len(sys.argv) > 1 else 32
  for name, (side, inputs, outputs, forms) in CASES.items():
    both = operands(batch, side, inputs, outputs)
    found = {form: milliseconds(layer, *both) for form, layer in forms.items()}
    print(name, *(f"{form} {value:.1f}" for form, value in found.items()), sep="  ", flush=True)


if __name__ == "__main__":
  main()
