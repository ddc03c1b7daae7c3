"""Draws the figures of a run from its files. Images always have the fixed range [0, 1]."""

import contextlib
import io
import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from etils import epath

from lcgen.reporting import statistics, tables
from lcgen.runtime.results import ArmScores, Results

if TYPE_CHECKING:
  from matplotlib.axes import Axes
  from matplotlib.figure import Figure

_CELL, _NAME = 0.6, 0.15  # inches of an image in a grid, and that a name takes
_LONGEST = 40  # inches of a grid; Matplotlib draws at most 2**16 pixels a side, and needs gigabytes for them
_TITLES = {"loss": "training loss", "accuracy": "accuracy on training batches"}

Records = Sequence[Mapping[str, Any]]


@contextlib.contextmanager
def drawing() -> Iterator[None]:
  """Draws inside in Matplotlib's own style, whatever the user's `matplotlibrc` and notebook say.

  A user's style may call for LaTeX, which is not everywhere. Dollars in names of classes are dollars, not formulas.
  """
  matplotlib = _matplotlib()
  with matplotlib.rc_context():
    matplotlib.rcdefaults()
    matplotlib.rcParams["text.parse_math"] = False
    yield


def _matplotlib() -> Any:
  """Imports Matplotlib, which is slow; not every stage draws.

  Notebooks set MPLBACKEND for the commands that they start too. Those may lack that backend, and files need none.
  """
  first, backend = "matplotlib" not in sys.modules, os.environ.get("MPLBACKEND")
  if first and backend:
    del os.environ["MPLBACKEND"]
  import matplotlib

  if first and backend:
    os.environ["MPLBACKEND"] = backend
    with contextlib.suppress(ValueError):
      matplotlib.rcParams["backend"] = backend
  return matplotlib


@drawing()
def draw_all(directory: epath.Path, records: Records, images: Mapping[str, np.ndarray], results: Results) -> None:
  """Draws every figure of a run as PNG.

  Args:
    directory: where they go.
    records: of `metrics.jsonl`.
    images: uint8, of `samples.npz`.
    results: of the run.
  """
  directory.mkdir(parents=True, exist_ok=True)
  _losses(directory, records, results)
  draw_grid(
    directory / "reconstructions.png",
    _pairs(images["originals"], images["reconstructions"]),
    10,
    "originals over reconstructions",
  )
  every = results.data["class_names"]
  class_names = [every[label] for label in images.get("shown_classes", range(len(every)))]
  draw_samples(directory, images, list(results.samples), class_names)
  count = len(class_names)
  strips = [images["edit_originals"][:, None], images["edit_reconstructions"][:, None]]
  strips.append(images["edits"].reshape(count, count, *images["edits"].shape[1:]))
  columns = ("image", "reconstr.", *class_names)
  rows = np.concatenate(strips, axis=1).reshape(-1, *images["edits"].shape[1:])
  draw_grid(directory / "edits.png", rows, len(columns), "test images, edited to each class", (), columns)
  _trade_off(directory / "edit_trade_off.png", results.edits)
  _gains(directory / "gains.png", results)


def _losses(directory: epath.Path, records: Records, results: Results) -> None:
  """Draws the curves of the phases that there are records of; another generator than the VAE has no curves."""
  of_kind = lambda kind: [record for record in records if record["kind"] == kind]
  for kind, title, terms in (
    ("vae", "VAE", ("loss", "validation_loss", "reconstruction", "kl")),
    ("actor_critic", "actor and critic", ()),
    ("energy", "energy", ()),
  ):
    path, found = directory / f"{kind}_loss.png", _of_run(of_kind(kind), kind)
    _curves(path, title, {"": found}, terms or (found[0]["terms"] if found else ()))
  classifiers, arms = of_kind("classifier"), {}
  for arm in results.arms:
    having = [record for record in classifiers if arm in record["terms"]]
    found = _of_run(having, results.phases.get(arm, ""))
    if found:
      arms[arm] = [{"epoch": record["epoch"], "terms": record["terms"][arm]} for record in found]
  _curves(directory / "classifier_loss.png", "classifier", arms, ("loss",))
  _curves(directory / "classifier_accuracy.png", "classifier", arms, ("validation_accuracy", "accuracy"))


def _of_run(records: Records, phase: str) -> Records:
  """Picks the records of this phase, if there are any, else of the first: studies have phases of the same kind."""
  phases = [record["phase"] for record in records]
  wanted = phase if phase in phases else next(iter(phases), "")
  return [record for record in records if record["phase"] == wanted]


@drawing()
def draw_samples(
  directory: epath.Path, images: Mapping[str, np.ndarray], samplers: Sequence[str], class_names: Sequence[str] = ()
) -> None:
  """Draws a grid for each sampler; a row a class, if there are classes.

  Args:
    directory: where the figures go.
    images: uint8, by sampler; `prior` is what the others start from.
    samplers: names in their order; those without images are left out.
    class_names: of the rows.
  """
  for name in filter(images.__contains__, samplers):
    columns = len(images[name]) // len(class_names) if class_names else 10
    title = "decoded draws from the prior" if name == "prior" else f"the same draws, by {name}"
    draw_grid(directory / f"{name}_samples.png", images[name], columns, title, class_names if name != "prior" else ())


def panels(count: int, columns: int, size: Callable[[int, int], tuple[float, float]]) -> "tuple[Figure, list[Axes]]":
  """Builds a figure with a grid of panels and removes the spare ones of its last row.

  Args:
    count: number of panels.
    columns: the most panels in a row.
    size: takes the grid's numbers of rows and columns, returns width and height in inches.

  Returns:
    The figure and its `count` panels, row by row.
  """
  from matplotlib.figure import Figure

  columns = min(count, columns)
  rows = -(-count // columns)
  figure = Figure(size(rows, columns), layout="constrained")
  grid = figure.subplots(rows, columns, squeeze=False).ravel().tolist()
  for spare in grid[count:]:
    spare.remove()
  return figure, grid[:count]


def png(figure: "Figure") -> bytes:
  """Encodes a figure as PNG."""
  buffer = io.BytesIO()
  figure.savefig(buffer, format="png", dpi=110)
  return buffer.getvalue()


def _trade_off(path: epath.Path, edits: Mapping[str, Any]) -> None:
  """Draws the success of edits over the distance that they move: a point for each distance weight."""
  success, moved = 100 * np.array(edits["success"]), np.array(edits["moved"])  # [weights, S]
  figure, (panel,) = panels(1, 1, lambda *_: (5.5, 4))
  spread = lambda values: values.std(axis=1, ddof=1) if values.shape[1] > 1 else None
  panel.errorbar(moved.mean(axis=1), success.mean(axis=1), spread(success), spread(moved), fmt="o-", label="edit")
  for weight, x, y in zip(edits["distance_weights"], moved.mean(axis=1), success.mean(axis=1), strict=True):
    panel.annotate(f"{weight:g}", (x, y), xytext=(4, -12), textcoords="offset points", fontsize=8)
  others = {"actor": ("s", "actor, from the encoding"), "flow": ("^", "flow of the mixture"), "map": ("v", "its map")}
  for name, (marker, label) in others.items():
    if name in edits:
      panel.plot(np.mean(edits[name]["moved"]), 100 * np.mean(edits[name]["success"]), marker, label=label)
  panel.axvline(np.mean(edits["anew"]), linestyle=":", color="gray", label="a sample drawn anew")
  panel.set(
    title="edits, numbers are distance weights",
    xlabel="distance moved, root mean square over latents",
    ylabel="judge gives the requested class, %",
  )
  panel.legend()
  _save(figure, path)


def _gains(path: epath.Path, results: ArmScores) -> None:
  """Draws the gain of each arm over the baseline with its interval: a panel a test set, a row an arm."""
  others, wanted = tables.compared_arms(results), tables.headlines(results)
  if not others:
    return path.unlink(missing_ok=True)
  size = lambda rows, columns: (4.4 * columns + 1.5, rows * (0.24 * len(others) + 1.3))
  figure, grid = panels(len(wanted), 3, size)
  for panel, score in zip(grid, wanted, strict=True):
    for row, arm in enumerate(reversed(others)):
      difference = statistics.paired(score.values[arm], score.values[results.baseline])
      shown = statistics.verdict(difference) in ("gain", "loss")
      low, high = difference.t_interval or (difference.mean, difference.mean)
      panel.plot([100 * low, 100 * high], [row, row], color="C0")
      panel.plot(100 * difference.mean, row, "o", color="C0", markerfacecolor="C0" if shown else "white")
    panel.axvline(0, color="gray", linewidth=0.8)
    panel.set_title(score.name, fontsize=9)
    first = panel.get_subplotspec().is_first_col()
    panel.set_yticks(range(len(others)), reversed(others) if first else [""] * len(others), fontsize=8)
    panel.grid(axis="y", alpha=0.3)
  figure.suptitle(f"gain over {results.baseline}, points of accuracy, n = {len(results.seeds)} seeds", fontsize=10)
  _save(figure, path)


@drawing()
def draw_learning_curve(path: epath.Path, points: Sequence[tuple[int, ArmScores]]) -> None:
  """Draws accuracy over the number of labelled images: a panel a score, a line an arm.

  Args:
    path: where the figure goes.
    points: the number of labelled images and the scores of each.
  """
  path.parent.mkdir(parents=True, exist_ok=True)
  by_point, labelled = [tables.headlines(scores) for _, scores in points], [count for count, _ in points]
  figure, grid = panels(len(by_point[0]), 3, lambda rows, columns: (4.2 * columns, 3.4 * rows))
  for panel, same in zip(grid, zip(*by_point, strict=True), strict=True):
    for arm in same[0].values:
      values = 100 * np.array([score.values[arm] for score in same])  # [points, S]
      spread = values.std(axis=1, ddof=1) if values.shape[1] > 1 else None
      panel.errorbar(labelled, values.mean(axis=1), spread, fmt="o-", capsize=2, markersize=4, label=arm)
    panel.set(title=same[0].name, xlabel="labelled images", ylabel="accuracy, %", xscale="log")
    panel.set_xticks(labelled, [str(count) for count in labelled])
    panel.minorticks_off()
  grid[0].legend(fontsize=7)
  seeds = values.shape[1]
  figure.suptitle(f"mean ± standard deviation of {seeds} seeds" if seeds > 1 else "one seed")
  _save(figure, path)


def _curves(path: epath.Path, title: str, groups: Mapping[str, Records], wanted: Iterable[str]) -> None:
  """Draws a panel a term, a line a group: the mean over seeds, and the range of the seeds as a band.

  Removes the figure of an earlier report if there is nothing to draw.
  """
  import matplotlib

  known = {term for records in groups.values() for record in records for term in record["terms"]}
  terms = [term for term in wanted if term in known]
  if not terms:
    return path.unlink(missing_ok=True)
  legend = 3.2 if len(groups) > 1 else 0
  size = lambda rows, columns: (4.2 * columns + legend, max(3.0 * rows, 0.2 * len(groups)))
  figure, grid = panels(len(terms), 4, size)
  for panel, term in zip(grid, terms, strict=True):
    if len(groups) > 10:
      panel.set_prop_cycle(color=matplotlib.colormaps["tab20"].colors)
    for group, records in groups.items():
      points = [(record["epoch"], record["terms"][term]) for record in records if term in record["terms"]]
      if points:
        epochs, values = [epoch for epoch, _ in points], np.array([value for _, value in points], float)
        panel.plot(epochs, values.mean(axis=1), label=group)
        panel.fill_between(epochs, values.min(axis=1), values.max(axis=1), alpha=0.25)
    panel.set(title=_TITLES.get(term, term.replace("_", " ")), xlabel="epoch")
  if len(groups) > 1:
    figure.legend(*grid[0].get_legend_handles_labels(), loc="outside right upper", fontsize=8)
  seeds = values.shape[1]
  figure.suptitle(f"{title}: mean and range of {seeds} seeds" if seeds > 1 else f"{title}: one seed")
  _save(figure, path)


def _pairs(above: np.ndarray, below: np.ndarray, columns: int = 10) -> np.ndarray:
  """Puts rows of `above` and of `below` in turn."""
  rows = [part[start : start + columns] for start in range(0, len(above), columns) for part in (above, below)]
  return np.concatenate(rows)


@drawing()
def draw_grid(
  path: epath.Path,
  images: np.ndarray,
  columns: int,
  title: str,
  row_names: Sequence[str] = (),
  column_names: Sequence[str] = (),
) -> None:
  """Draws images `[N, H, W, C]` in rows of `columns`; 0 is black and 255 white, whatever the images hold.

  Images of a large grid are small, and then every second, third, ... name is written.
  """
  path.parent.mkdir(parents=True, exist_ok=True)
  count, height, width, colours = images.shape
  rows = -(-count // columns)
  canvas = np.full((rows * columns, height + 2, width + 2, colours), 255, np.uint8)
  canvas[:count, 1:-1, 1:-1] = images
  canvas = canvas.reshape(rows, columns, height + 2, width + 2, colours).swapaxes(1, 2)
  canvas = canvas.reshape(rows * (height + 2), columns * (width + 2), colours)
  cell = min(_CELL, _LONGEST / max(rows, columns))
  figure, (panel,) = panels(1, 1, lambda *_: (cell * columns + 0.6, cell * rows + 0.5))
  panel.imshow(canvas if colours == 3 else canvas[..., 0], cmap="gray", vmin=0, vmax=255, interpolation="nearest")
  panel.set(title=title, xticks=[], yticks=[])
  named = math.ceil(_NAME / cell)
  if column_names:
    ticks = [(width + 2) * (column + 0.5) for column in range(0, columns, named)]
    panel.set_xticks(ticks, column_names[::named], rotation=90)
  if row_names:
    panel.set_yticks([(height + 2) * (row + 0.5) for row in range(0, rows, named)], row_names[::named])
  _save(figure, path)


def _save(figure: "Figure", path: epath.Path) -> None:
  path.write_bytes(png(figure))
