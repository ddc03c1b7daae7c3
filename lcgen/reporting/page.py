"""`report.html`: what a run did, found and did not show, in one self-contained file made from its own files."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from lcgen import config
from lcgen.classifiers import policies
from lcgen.data import corruptions, test_sets
from lcgen.reporting import html, statistics, tables

_FIGURES = {  # file: (what it shows to those who do not see it, caption)
  "gains": (
    "Points with error bars: the gain of every arm over none on each test set.",
    "Gain over `none` in points, with Student's 95 % interval over seeds; filled where it excludes 0.",
  ),
  "vae_loss": ("Curves of the VAE's loss and its terms over epochs.", "Phase 1."),
  "actor_critic_loss": ("Curves of the actor's and the critic's losses over epochs.", "Phase 2: the game."),
  "energy_loss": ("Curves of the energy's loss terms over epochs.", "Phase 2: the energy."),
  "classifier_loss": ("Curves of every arm's training loss over epochs.", "Phase 3: training loss of every arm."),
  "classifier_accuracy": (
    "Curves of every arm's accuracy on validation images and on training batches over epochs.",
    "Phase 3: accuracy of every arm.",
  ),
  "reconstructions": ("Rows of test images, each over its reconstruction.", "Test images over reconstructions."),
  "prior_samples": ("A grid of decoded draws from the prior.", "Decoded draws from the prior, where nothing is asked."),
  "actor_samples": ("A grid of samples by the actor, a row a class.", "The same draws, moved by the actor."),
  "optimize_samples": ("A grid of samples by optimize, a row a class.", "The same draws, by `optimize`."),
  "langevin_samples": ("A grid of samples by langevin, a row a class.", "The same draws, by `langevin`."),
  "refine_samples": ("A grid of samples by refine, a row a class.", "The same draws, by `refine`."),
  "edits": (
    "Strips: a test image, its reconstruction, and its edit to each class.",
    "Test images, their reconstructions, and their edits to every class.",
  ),
  "edit_trade_off": (
    "A curve: share of successful edits against the distance moved.",
    "What an edit pays: success against distance, over distance weights.",
  ),
  "learning_curve": (
    "Curves: accuracy of each arm over the number of labelled images.",
    "Accuracy over labelled images; the VAE has seen all images, everything else the labelled ones alone.",
  ),
}


def build(workdir: epath.Path, results: Mapping[str, Any]) -> str:
  """The page.

  Args:
    workdir: with `config.json` and `figures/`; and, if there are, `audit.json` and `learning_curve.json`.
    results: of `results.json`.
  """
  values = config.read(workdir)
  extra = {name: _read(workdir / f"{name}.json") for name in ("audit", "learning_curve")}
  sections = [
    html.Section("What was run", _what_was_run(values, results)),
    html.Section("What the augmentation is worth", _arms(workdir, results)),
  ]
  if extra["audit"]:
    sections.append(
      html.Section("Audit: is it the generator that helps?", [_table(t) for t in _tables(extra["audit"])])
    )
  if extra["learning_curve"]:
    parts = [_table(table) for table in _tables(extra["learning_curve"])]
    sections.append(html.Section("Fewer labels", [*_figures(workdir, ["learning_curve"]), *parts]))
  if heat := _heat_maps(results):
    sections.append(html.Section("Corruptions", heat))
  sampling = ["prior_samples", "actor_samples", "refine_samples", "optimize_samples", "langevin_samples"]
  sections += [
    html.Section("Samples", [_table(samples_table(results)), *_figures(workdir, ["reconstructions", *sampling])]),
    html.Section("Edits", [html.paragraph(edits_words(results)), *_figures(workdir, ["edits", "edit_trade_off"])]),
    html.Section(
      "Training",
      _figures(workdir, ["vae_loss", "actor_critic_loss", "energy_loss", "classifier_loss", "classifier_accuracy"]),
    ),
    html.Section("Times", [_times(results)]),
    html.Section("Config", [html.details("Every field", [html.facts(_flat(values))])]),
  ]
  data = results["data"]
  summary = (
    f"Latent constraints on {data['name']}: {len(results['arms'])} arms, n = {len(results['seeds'])} seeds, "
    f"{data['train']} training images, {len(results['test_sets'])} test sets."
  )
  return html.page(f"lcgen: {data['name']}", summary, sections)


def samples_table(results: Mapping[str, Any]) -> tables.Table:
  """Scores of the samples by each method."""
  right = tables.percent(results["judge"][test_sets.TEST]["accuracy"])
  caption = f"Samples of all classes by each method, scored by a judge that is right on {right} % of the test images."
  return tables.methods(results["samples"], "conditional accuracy, %", f"{caption[:-1]}; {tables.spread(results)}.")


def edits_words(results: Mapping[str, Any]) -> str:
  """What edits are worth, and what a classifier learns from samples alone."""
  edits = results["edits"]
  usual = edits["distance_weights"].index(edits["distance_weight"])
  return (
    "A classifier trained on actor samples alone is right on "
    f"{tables.percent(results['samples']['actor']['classification_accuracy'])} % of the test images. "
    f"Of test images edited to another class (distance weight {edits['distance_weight']:g}) the judge gives "
    f"{tables.percent(edits['success'][usual])} % the requested class; they moved "
    f"{statistics.summary(edits['moved'][usual], digits=2)}, samples drawn anew lie "
    f"{statistics.summary(edits['anew'], digits=2)} away."
  )


def _what_was_run(values: Mapping[str, Any], results: Mapping[str, Any]) -> list[html.Html]:
  data, about = results["data"], results["about"]
  pairs = [
    ("data", f"{data['name']}, {len(data['class_names'])} classes, images {'x'.join(map(str, data['shape']))}"),
    ("images", f"{data['train']} training, {data['validation']} validation, {data['test']} test"),
    ("SHA-256 of the images and labels", ", ".join(f"{name} {digest[:16]}…" for name, digest in about["data"].items())),
    ("value ranges", about["ranges"]),
    ("seeds", ", ".join(map(str, results["seeds"]))),
    ("device", about["device"]),
    ("versions", ", ".join(f"{name} {version}" for name, version in about["versions"].items())),
    ("arms", ", ".join(f"`{arm}`" for arm in results["arms"])),
    ("share replaced, where an arm does not say", f"{values['classifier']['share']:g}"),
  ]
  return [html.facts(pairs)]


def _arms(workdir: epath.Path, results: Mapping[str, Any]) -> list[html.Html]:
  found = [tables.against_paper(results), tables.gains(results), tables.accuracies(results)]
  paper, *own = [table and _table(table) for table in found]
  words = [html.paragraph(sentence) for sentence in tables.in_short(results)]
  if words:
    words.append(html.paragraph("Each interval is Student's at 95 %, by itself; with many of them some miss."))
  return [part for part in (*words, paper, *_figures(workdir, ["gains"]), *own) if part]


def _heat_maps(results: Mapping[str, Any]) -> list[html.Html]:
  """Gains over `none` by corruption and severity, arm by arm; accuracies where there is no such arm."""
  arms, parts = list(results["arms"]), []
  base = policies.NONE if policies.NONE in arms and len(arms) > 1 else None
  shown = [arm for arm in arms if arm != base]
  seeds = len(results["seeds"])

  def mean(name: str, arm: str) -> float:
    values = np.array(results["arms"][arm][name]["accuracy"])
    return 100 * float(np.mean(values - np.array(results["arms"][base][name]["accuracy"]) if base else values))

  what = f"Mean gain over `{base}` in points" if base else "Mean accuracy in %"
  for family in next(iter(results["robustness"].values())):
    names = [name for name in results["test_sets"] if name.startswith(family + "/")]
    parts_of = {one.name: one for one in test_sets.expand([family]) if one.name in names}
    by_corruption = {}
    for name, one in parts_of.items():
      if one.part in corruptions.CIFAR10_C | corruptions.MNIST_C:
        by_corruption.setdefault(one.part, []).append(name)
    values = [[np.mean([mean(name, arm) for name in sets]) for arm in shown] for sets in by_corruption.values()]
    caption = f"{family}: {what} by corruption, n = {seeds} seeds."
    parts.append(html.heat_map(list(by_corruption), shown, np.array(values), caption, unit="points" if base else "%"))
    if any(one.severity for one in parts_of.values()):
      rows = [name for sets in by_corruption.values() for name in sets]
      full = html.heat_map(
        [f"severity {parts_of[name].severity}" for name in rows],
        shown,
        np.array([[mean(name, arm) for arm in shown] for name in rows]),
        f"{family}: {what} by corruption and severity, n = {seeds} seeds.",
        unit="points" if base else "%",
        row_groups=[(corruption, len(sets)) for corruption, sets in by_corruption.items()],
      )
      parts.append(html.details(f"{family}: every severity", [full]))
  return parts


def _times(results: Mapping[str, Any]) -> html.Html:
  rows = [
    [
      phase,
      f"{timing['compile_s']:.1f}",
      f"{timing['train_s']:.1f}",
      str(timing["steps"]),
      f"{timing['ms_per_step']:.2f}",
    ]
    for phase, timing in results["timing"].items()
  ]
  header = ["phase", "compiling, s", "training, s", "steps", "ms per step"]
  return html.table(header, rows, "Times of all repetitions together; the classifiers' steps are those of all arms.")


def _figures(workdir: epath.Path, names: Sequence[str]) -> list[html.Html]:
  paths = {name: workdir / "figures" / f"{name}.png" for name in names}
  return [html.figure(path.read_bytes(), *_FIGURES[name]) for name, path in paths.items() if path.exists()]


def _table(table: tables.Table) -> html.Html:
  return html.table(table.header, table.rows, table.caption, note=table.note)


def _tables(found: Mapping[str, Any]) -> list[tables.Table]:
  return [tables.Table(**table) for table in found["tables"]]


def _flat(values: Mapping[str, Any]) -> list[tuple[str, str]]:
  return [(name, f"`{value}`" if value != "" else "–") for name, value in config.flat(values).items()]


def _read(path: epath.Path) -> Any:
  return json.loads(path.read_text()) if path.exists() else None
