"""The figures of a run, drawn from its files; images always on the fixed range [0, 1]."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

_TITLES = {"loss": "training loss", "accuracy": "accuracy on training batches"}

Records = Sequence[Mapping[str, Any]]


def draw_all(
  directory: epath.Path, records: Records, samples: Mapping[str, np.ndarray], class_names: Sequence[str]
) -> None:
  """Draws every figure as PNG.

  Args:
    directory: where they go.
    records: of `metrics.jsonl`.
    samples: uint8 images of `samples.npz`.
    class_names: names of the rows of the actor's samples.
  """
  import matplotlib

  matplotlib.use("Agg")
  directory.mkdir(parents=True, exist_ok=True)
  by_phase: dict[str, list[Mapping[str, Any]]] = {}
  for record in records:
    by_phase.setdefault(record["phase"], []).append(record)
  arms = {name.partition("/")[2]: part for name, part in by_phase.items() if name.startswith("classifier/")}

  _curves(directory / "vae_loss.png", "VAE", {"": by_phase["vae"]}, ("loss", "validation_loss", "reconstruction", "kl"))
  terms = [name for name in by_phase["actor_critic"][0] if name.startswith(("critic_", "actor_"))]
  _curves(directory / "actor_critic_loss.png", "actor and critic", {"": by_phase["actor_critic"]}, terms)
  _curves(directory / "classifier_loss.png", "classifier", arms, ("loss",))
  _curves(directory / "classifier_accuracy.png", "classifier", arms, ("validation_accuracy", "accuracy"))
  _grid(
    directory / "reconstructions.png",
    _pairs(samples["originals"], samples["reconstructions"]),
    10,
    "originals over reconstructions",
  )
  _grid(directory / "prior_samples.png", samples["prior"], 10, "decoded draws from the prior")
  per_class = len(samples["actor"]) // len(class_names)
  _grid(directory / "actor_samples.png", samples["actor"], per_class, "actor samples, a row a class", class_names)


def _curves(path: epath.Path, title: str, groups: Mapping[str, Records], terms: Sequence[str]) -> None:
  """One panel a term, one line a group: the mean over seeds, and the range of the seeds as a band."""
  from matplotlib import pyplot

  columns = min(len(terms), 4)
  rows = -(-len(terms) // columns)
  figure, panels = pyplot.subplots(
    rows, columns, figsize=(4.2 * columns, 3.0 * rows), squeeze=False, layout="constrained"
  )
  for panel, term in zip(panels.flat, terms, strict=False):
    for group, records in groups.items():
      points = [(record["epoch"], record[term]) for record in records if term in record]
      epochs, values = [epoch for epoch, _ in points], np.array([value for _, value in points])
      panel.plot(epochs, values.mean(axis=1), label=group)
      panel.fill_between(epochs, values.min(axis=1), values.max(axis=1), alpha=0.25)
    panel.set(title=_TITLES.get(term, term.replace("_", " ")), xlabel="epoch")
    if len(groups) > 1:
      panel.legend()
  for panel in panels.flat[len(terms) :]:
    panel.remove()
  figure.suptitle(
    f"{title}: mean and range of {values.shape[1]} seeds" if values.shape[1] > 1 else f"{title}: one seed"
  )
  _save(figure, path)


def _pairs(above: np.ndarray, below: np.ndarray, columns: int = 10) -> np.ndarray:
  """Rows of `above` and `below` in turn."""
  rows = [part[start : start + columns] for start in range(0, len(above), columns) for part in (above, below)]
  return np.concatenate(rows)


def _grid(path: epath.Path, images: np.ndarray, columns: int, title: str, row_names: Sequence[str] = ()) -> None:
  """Images `[N, H, W, C]` in rows of `columns`, black 0 and white 255, whatever the images hold."""
  from matplotlib import pyplot

  count, height, width, colours = images.shape
  rows = -(-count // columns)
  canvas = np.full((rows * columns, height + 2, width + 2, colours), 255, np.uint8)
  canvas[:count, 1:-1, 1:-1] = images
  canvas = canvas.reshape(rows, columns, height + 2, width + 2, colours).swapaxes(1, 2)
  canvas = canvas.reshape(rows * (height + 2), columns * (width + 2), colours)
  figure, panel = pyplot.subplots(figsize=(0.6 * columns + 0.6, 0.6 * rows + 0.5), layout="constrained")
  panel.imshow(canvas if colours == 3 else canvas[..., 0], cmap="gray", vmin=0, vmax=255, interpolation="nearest")
  panel.set(title=title, xticks=[], yticks=[])
  if row_names:
    panel.set_yticks([(height + 2) * (row + 0.5) for row in range(rows)], row_names)
  _save(figure, path)


def _save(figure, path: epath.Path) -> None:
  from matplotlib import pyplot

  with path.open("wb") as file:
    figure.savefig(file, format="png", dpi=110)
  pyplot.close(figure)
