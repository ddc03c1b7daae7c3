"""The figures of a run, drawn from its files; images always on the fixed range [0, 1]."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from lcgen.classifiers import policies
from lcgen.constraints import samplers
from lcgen.reporting import statistics, tables

_TITLES = {"loss": "training loss", "accuracy": "accuracy on training batches"}

Records = Sequence[Mapping[str, Any]]


def draw_all(
  directory: epath.Path,
  records: Records,
  samples: Mapping[str, np.ndarray],
  results: Mapping[str, Any],
) -> None:
  """Draws every figure as PNG.

  Args:
    directory: where they go.
    records: of `metrics.jsonl`.
    samples: uint8 images of `samples.npz`.
    results: of `results.json`.
  """
  class_names = results["data"]["class_names"]
  _start(directory)
  by_phase: dict[str, list[Mapping[str, Any]]] = {}
  for record in records:
    by_phase.setdefault(record["phase"], []).append(record)
  arms = _by_arm([record for record in records if record["phase"].startswith("classifier-")])
  arms = {arm: arms[arm] for arm in results["arms"] if arm in arms}

  _curves(directory / "vae_loss.png", "VAE", {"": by_phase["vae"]}, ("loss", "validation_loss", "reconstruction", "kl"))
  terms = [name for name in by_phase["actor_critic"][0] if name.startswith(("critic_", "actor_"))]
  _curves(directory / "actor_critic_loss.png", "actor and critic", {"": by_phase["actor_critic"]}, terms)
  terms = [name for name in by_phase["energy"][0] if name.startswith("critic_")]
  _curves(directory / "energy_loss.png", "energy", {"": by_phase["energy"]}, terms)
  _curves(directory / "classifier_loss.png", "classifier", arms, ("loss",))
  _curves(directory / "classifier_accuracy.png", "classifier", arms, ("validation_accuracy", "accuracy"))
  draw_grid(
    directory / "reconstructions.png",
    _pairs(samples["originals"], samples["reconstructions"]),
    10,
    "originals over reconstructions",
  )
  draw_samples(directory, samples, class_names)
  count = len(class_names)
  strips = [samples["edit_originals"][:, None], samples["edit_reconstructions"][:, None]]
  strips.append(samples["edits"].reshape(count, count, *samples["edits"].shape[1:]))
  columns = ("image", "reconstr.", *class_names)
  rows = np.concatenate(strips, axis=1).reshape(-1, *samples["edits"].shape[1:])
  draw_grid(directory / "edits.png", rows, len(columns), "test images, edited to each class", (), columns)
  _trade_off(directory / "edit_trade_off.png", results["edits"])
  _gains(directory / "gains.png", results)


def _by_arm(records: Records) -> dict[str, Records]:
  """`{arm: records}` of records that hold the terms of several arms as `arm/term`."""
  arms: dict[str, list[dict[str, Any]]] = {}
  for record in records:
    terms: dict[str, dict[str, Any]] = {}
    for name, values in record.items():
      arm, slash, term = name.rpartition("/")
      if slash:
        terms.setdefault(arm, {"epoch": record["epoch"]})[term] = values
    for arm, own in terms.items():
      arms.setdefault(arm, []).append(own)
  return arms


def draw_samples(directory: epath.Path, samples: Mapping[str, np.ndarray], class_names: Sequence[str] = ()) -> None:
  """A grid for each method, and one for the draws from the prior that they start from; a row a class, if there are."""
  for name in ("prior", *samplers.METHODS):
    columns = len(samples[name]) // len(class_names) if class_names else 10
    title = "decoded draws from the prior" if name == "prior" else f"the same draws, by {name}"
    draw_grid(directory / f"{name}_samples.png", samples[name], columns, title, class_names if name != "prior" else ())


def _start(directory: epath.Path) -> None:
  import matplotlib

  matplotlib.use("Agg")
  directory.mkdir(parents=True, exist_ok=True)


def _trade_off(path: epath.Path, edits: Mapping[str, Any]) -> None:
  """Success of edits against the distance they move: a point for each distance weight."""
  from matplotlib import pyplot

  success, moved = 100 * np.array(edits["success"]), np.array(edits["moved"])  # [weights, S]
  figure, panel = pyplot.subplots(figsize=(5.5, 4), layout="constrained")
  spread = lambda values: values.std(axis=1, ddof=1) if values.shape[1] > 1 else None
  panel.errorbar(moved.mean(axis=1), success.mean(axis=1), spread(success), spread(moved), fmt="o-", label="edit")
  for weight, x, y in zip(edits["distance_weights"], moved.mean(axis=1), success.mean(axis=1), strict=True):
    panel.annotate(f"{weight:g}", (x, y), xytext=(4, -12), textcoords="offset points", fontsize=8)
  actor = edits["actor"]
  panel.plot(np.mean(actor["moved"]), 100 * np.mean(actor["success"]), "s", label="actor, from the encoding")
  panel.axvline(np.mean(edits["anew"]), linestyle=":", color="gray", label="a sample drawn anew")
  panel.set(
    title="edits, numbers are distance weights",
    xlabel="distance moved, root mean square over latents",
    ylabel="judge gives the requested class, %",
  )
  panel.legend()
  _save(figure, path)


def _gains(path: epath.Path, results: Mapping[str, Any]) -> None:
  """A panel a test set, a row an arm: its gain over `none` with its interval."""
  from matplotlib import pyplot

  others, wanted = tables.compared_arms(results), tables.headlines(results)
  if not others:
    return path.unlink(missing_ok=True)
  rows = -(-len(wanted) // 3)
  size = (4.4 * min(len(wanted), 3) + 1.5, rows * (0.24 * len(others) + 1.3))
  figure, panels = pyplot.subplots(rows, min(len(wanted), 3), figsize=size, squeeze=False, layout="constrained")
  for panel, score in zip(panels.flat, wanted, strict=False):
    for row, arm in enumerate(reversed(others)):
      difference = statistics.paired(score.values[arm], score.values[policies.NONE])
      shown = statistics.verdict(difference) in ("gain", "loss")
      low, high = difference.t_interval or (difference.mean, difference.mean)
      panel.plot([100 * low, 100 * high], [row, row], color="C0")
      panel.plot(100 * difference.mean, row, "o", color="C0", markerfacecolor="C0" if shown else "white")
    panel.axvline(0, color="gray", linewidth=0.8)
    panel.set_title(score.name, fontsize=9)
    first = panel in panels[:, 0]
    panel.set_yticks(range(len(others)), reversed(others) if first else [""] * len(others), fontsize=8)
    panel.grid(axis="y", alpha=0.3)
  for panel in panels.flat[len(wanted) :]:
    panel.remove()
  figure.suptitle(f"gain over none, points of accuracy, n = {len(results['seeds'])} seeds", fontsize=10)
  _save(figure, path)


def draw_learning_curve(path: epath.Path, points: Sequence[Mapping[str, Any]]) -> None:
  """A panel a score, a line an arm: accuracy over the number of labelled images."""
  from matplotlib import pyplot

  by_point = [tables.headlines(point) for point in points]
  labelled, panels_wanted = [point["labelled"] for point in points], len(by_point[0])
  columns = min(panels_wanted, 3)
  rows = -(-panels_wanted // columns)
  size = (4.2 * columns, 3.4 * rows)
  figure, panels = pyplot.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained")
  for panel, same in zip(panels.flat, zip(*by_point, strict=True), strict=False):
    for arm in same[0].values:
      values = 100 * np.array([score.values[arm] for score in same])  # [points, S]
      spread = values.std(axis=1, ddof=1) if values.shape[1] > 1 else None
      panel.errorbar(labelled, values.mean(axis=1), spread, fmt="o-", capsize=2, markersize=4, label=arm)
    panel.set(title=same[0].name, xlabel="labelled images", ylabel="accuracy, %", xscale="log")
    panel.set_xticks(labelled, [str(count) for count in labelled])
    panel.minorticks_off()
  panels[0, 0].legend(fontsize=7)
  for panel in panels.flat[panels_wanted:]:
    panel.remove()
  seeds = values.shape[1]
  figure.suptitle(f"mean ± standard deviation of {seeds} seeds" if seeds > 1 else "one seed")
  _save(figure, path)


def _curves(path: epath.Path, title: str, groups: Mapping[str, Records], terms: Sequence[str]) -> None:
  """One panel a term, one line a group: the mean over seeds, and the range of the seeds as a band."""
  from matplotlib import pyplot

  columns = min(len(terms), 4)
  rows = -(-len(terms) // columns)
  size = (4.2 * columns + (3.2 if len(groups) > 1 else 0), max(3.0 * rows, 0.2 * len(groups)))
  figure, panels = pyplot.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained")
  for panel in panels.flat if len(groups) > 10 else ():
    panel.set_prop_cycle(color=pyplot.get_cmap("tab20").colors)
  for panel, term in zip(panels.flat, terms, strict=False):
    for group, records in groups.items():
      points = [(record["epoch"], record[term]) for record in records if term in record]
      epochs, values = [epoch for epoch, _ in points], np.array([value for _, value in points])
      panel.plot(epochs, values.mean(axis=1), label=group)
      panel.fill_between(epochs, values.min(axis=1), values.max(axis=1), alpha=0.25)
    panel.set(title=_TITLES.get(term, term.replace("_", " ")), xlabel="epoch")
  for panel in panels.flat[len(terms) :]:
    panel.remove()
  if len(groups) > 1:
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside right upper", fontsize=8)
  figure.suptitle(
    f"{title}: mean and range of {values.shape[1]} seeds" if values.shape[1] > 1 else f"{title}: one seed"
  )
  _save(figure, path)


def _pairs(above: np.ndarray, below: np.ndarray, columns: int = 10) -> np.ndarray:
  """Rows of `above` and `below` in turn."""
  rows = [part[start : start + columns] for start in range(0, len(above), columns) for part in (above, below)]
  return np.concatenate(rows)


def draw_grid(
  path: epath.Path,
  images: np.ndarray,
  columns: int,
  title: str,
  row_names: Sequence[str] = (),
  column_names: Sequence[str] = (),
) -> None:
  """Images `[N, H, W, C]` in rows of `columns`, black 0 and white 255, whatever the images hold."""
  _start(path.parent)
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
  if column_names:
    panel.set_xticks([(width + 2) * (column + 0.5) for column in range(columns)], column_names, rotation=90)
  if row_names:
    panel.set_yticks([(height + 2) * (row + 0.5) for row in range(rows)], row_names)
  _save(figure, path)


def _save(figure, path: epath.Path) -> None:
  from matplotlib import pyplot

  with path.open("wb") as file:
    figure.savefig(file, format="png", dpi=110)
  pyplot.close(figure)
