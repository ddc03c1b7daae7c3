"""Makes `tests/models/torch_layers.npz`: first weights of PyTorch's layers, and what its batch norm keeps and returns.

python tests/support/make_torch_layers.py    # in an environment with torch 2.13
"""

import pathlib

import numpy as np
import torch

STEPS, ROWS, DRAWN = 20, 8, 1000


def first_weights() -> dict[str, np.ndarray]:
  """Draws kernels and biases of new layers, `DRAWN` values each."""
  makers = {
    "linear": lambda: torch.nn.Linear(50, 40),
    "conv": lambda: torch.nn.Conv2d(6, 40, 3, stride=2, padding=1),
    "conv_transpose": lambda: torch.nn.ConvTranspose2d(6, 40, 3, stride=2, padding=1, output_padding=1),
  }
  drawn = {}
  for name, make in makers.items():
    made = [make() for _ in range(DRAWN // 40)]
    for part in ("weight", "bias"):
      values = torch.cat([getattr(layer, part).detach().flatten() for layer in made])
      drawn[f"{name}_{part}"] = values[torch.randperm(len(values))[:DRAWN]].numpy()
  return drawn


def last_axis(values: torch.Tensor) -> np.ndarray:
  """Moves channels to the end, `[..., C, H, W]` -> `[..., H, W, C]`; leaves `[..., C]` of few axes alone."""
  array = values.detach().numpy()
  return np.moveaxis(array, -3, -1) if array.ndim > 3 else array


def batch_norms() -> dict[str, np.ndarray]:
  """Trains a batch norm of each kind on random batches, and evaluates it on the last one."""
  kept = {}
  for name, layer, shape in (
    ("dense", torch.nn.BatchNorm1d(5), (ROWS, 5)),
    ("conv", torch.nn.BatchNorm2d(3), (2, 3, 2, 3)),
  ):
    batches = torch.randn(STEPS, *shape) * 3 + 1
    layer.train()
    for batch in batches:
      trained = layer(batch)
    layer.eval()
    kept |= {f"{name}_batches": last_axis(batches), f"{name}_trained": last_axis(trained)}
    kept |= {f"{name}_evaluated": last_axis(layer(batches[-1]))}
    kept |= {f"{name}_mean": layer.running_mean.numpy(), f"{name}_var": layer.running_var.numpy()}
  return kept


if __name__ == "__main__":
  torch.manual_seed(0)
  folder = pathlib.Path(__file__).parents[1] / "models"
  np.savez_compressed(folder / "torch_layers.npz", **first_weights(), **batch_norms())
