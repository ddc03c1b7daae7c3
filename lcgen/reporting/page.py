"""Builds `report.html`, one self-contained file on what a run did, found and did not show."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath
from markupsafe import Markup

from lcgen.reporting import findings, html, statistics, study_tables, tables
from lcgen.runtime import results as stored
from lcgen.runtime.results import Results

_FIGURES = {  # file: (words for those who do not see it, caption)
  "gains": (
    "Points with error bars: the gain of every arm over the baseline on each test set.",
    "Gain over the baseline in points, with Student's 95 % interval over seeds; filled if it excludes 0.",
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
  "edits": (
    "Strips: a test image, its reconstruction, and its edit to each class.",
    "Test images, their reconstructions, and their edits to every class.",
  ),
  "edit_trade_off": (
    "A curve: share of successful edits against the distance moved.",
    "The price of an edit: success against distance, over distance weights.",
  ),
  "learning_curve": (
    "Curves: accuracy of each arm over the number of labelled images.",
    "Accuracy over labelled images; the VAE has seen all images, everything else the labelled ones alone.",
  ),
}


def build(workdir: epath.Path, results: Results, config: Mapping[str, Any]) -> str:
  """Builds the page.

  Args:
    workdir: with `figures/`; and, if there are, `audit.json` and `learning_curve.json`.
    results: of the run.
    config: values by dotted keys.
  """
  sections = [
    html.Section("What was run", _what_was_run(results, config)),
    html.Section("What the augmentation is worth", _arms(workdir, results)),
  ]
  if audit := _study(workdir, "audit"):
    sections.append(html.Section("Audit: is it the generator that helps?", audit))
  if curve := _study(workdir, "learning_curve"):
    sections.append(html.Section("Fewer labels", [*_figures(workdir, ["learning_curve"]), *curve]))
  if heat := _heat_maps(results):
    sections.append(html.Section("Corruptions", heat))
  samples = ["reconstructions", *(f"{sampler}_samples" for sampler in results.samples)]
  sections += [
    html.Section("Samples", [_table(findings.samples_table(results)), *_figures(workdir, samples, results.samples)]),
    html.Section(
      "Edits", [html.paragraph(findings.edits_words(results)), *_figures(workdir, ["edits", "edit_trade_off"])]
    ),
    html.Section(
      "Training",
      _figures(workdir, ["vae_loss", "actor_critic_loss", "energy_loss", "classifier_loss", "classifier_accuracy"]),
    ),
    html.Section("Times", [_times(results)]),
    html.Section("Config", [html.details("Every field", [html.facts(_config_facts(config))])]),
  ]
  data = results.data
  summary = (
    f"Latent constraints on {data['name']}: {len(results.arms)} arms, n = {len(results.seeds)} seeds, "
    f"{data['train']} training images, {len(results.test_sets)} test sets."
  )
  return html.page(f"lcgen: {data['name']}", summary, sections)


def _what_was_run(results: Results, config: Mapping[str, Any]) -> list[Markup]:
  data, about = results.data, results.about
  pairs = [
    ("data", f"{data['name']}, {len(data['class_names'])} classes, images {'x'.join(map(str, data['shape']))}"),
    ("images", f"{data['train']} training, {data['validation']} validation, {data['test']} test"),
    ("SHA-256 of the images and labels", ", ".join(f"{name} {digest[:16]}…" for name, digest in about["data"].items())),
    ("value ranges", about["ranges"]),
    ("generator", f"`{about.get('generator', 'vae')}`"),
    ("seeds", ", ".join(map(str, results.seeds))),
    ("device", about["device"]),
    ("versions", ", ".join(f"{name} {version}" for name, version in about["versions"].items())),
    ("arms", ", ".join(f"`{arm}`" for arm in results.arms)),
  ]
  if "classifier.share" in config:
    pairs.append(("share replaced, where an arm does not say", f"{config['classifier.share']:g}"))
  return [html.facts(pairs)]


def _arms(workdir: epath.Path, results: Results) -> list[Markup]:
  found = [tables.against_paper(results), tables.gains(results), tables.accuracies(results)]
  paper, *own = [table and _table(table) for table in found]
  words = [html.paragraph(" ".join(sentences))] if (sentences := findings.overview(results)) else []
  words += [html.paragraph(sentence) for sentence in findings.in_short(results)]
  if words:
    words.append(html.paragraph("Each interval is Student's at 95 %, by itself; with many of them some miss."))
  return [part for part in (*words, paper, *_figures(workdir, ["gains"]), *own) if part]


def _heat_maps(results: Results) -> list[Markup]:
  """Maps gains over the baseline by corruption and severity, arm by arm; accuracies if there is no baseline."""
  base = results.baseline if len(results.arms) > 1 else None
  shown, parts = [arm for arm in results.arms if arm != base], []
  of_seeds = f"n = {len(results.seeds)} seeds"

  def mean(name: str, arm: str) -> float:
    values = np.array(results.arms[arm][name]["accuracy"])
    return 100 * float(np.mean(values - np.array(results.arms[base][name]["accuracy"]) if base else values))

  what = f"Mean gain over `{base}` in points" if base else "Mean accuracy in %"
  scale = html.Scale("points" if base else "%")
  for family, summary in next(iter(results.robustness.values())).items():
    by_corruption: dict[str, list[str]] = {}
    for name, facts in results.test_sets.items():
      if facts.family == family and facts.part in summary["by_corruption"]:
        by_corruption.setdefault(facts.part, []).append(name)
    values = [[np.mean([mean(name, arm) for name in sets]) for arm in shown] for sets in by_corruption.values()]
    caption = f"{family}: {what} by corruption, {of_seeds}."
    parts.append(html.heat_map(list(by_corruption), shown, np.array(values), caption, scale))
    rows = [name for sets in by_corruption.values() for name in sets]
    if any(results.test_sets[name].severity for name in rows):
      full = html.heat_map(
        [f"severity {results.test_sets[name].severity}" for name in rows],
        shown,
        np.array([[mean(name, arm) for arm in shown] for name in rows]),
        f"{family}: {what} by corruption and severity, {of_seeds}.",
        scale,
        row_groups=[(corruption, len(sets)) for corruption, sets in by_corruption.items()],
      )
      parts.append(html.details(f"{family}: every severity", [full]))
  return parts


def _times(results: Results) -> Markup:
  form = {"compile_s": ".1f", "train_s": ".1f", "steps": "d", "ms_per_step": ".2f"}
  rows = [
    [phase, *(statistics.number(timing[name], digits) for name, digits in form.items())]
    for phase, timing in results.timing.items()
  ]
  header = ["phase", "compiling, s", "training, s", "steps", "ms per step"]
  return html.table(header, rows, "Times of all seeds together; the classifiers' steps are those of all arms.")


def _figures(workdir: epath.Path, names: Sequence[str], samplers: Iterable[str] = ()) -> list[Markup]:
  texts = {
    f"{name}_samples": (f"A grid of samples by {name}, a row a class.", f"The same draws, by `{name}`.")
    for name in samplers
  } | _FIGURES
  paths = {name: workdir / "figures" / f"{name}.png" for name in names}
  return [html.figure(path.read_bytes(), *texts[name]) for name, path in paths.items() if path.exists()]


def _table(table: tables.Table) -> Markup:
  return html.table(table.header, table.rows, table.caption, note=table.note)


def _study(workdir: epath.Path, name: str) -> list[Markup]:
  path = workdir / f"{name}.json"
  return [_table(table) for table in study_tables.tables_of(name, stored.read_study(path))] if path.exists() else []


def _config_facts(config: Mapping[str, Any]) -> list[tuple[str, str]]:
  text = lambda value: ", ".join(map(str, value)) if isinstance(value, list) else str(value)
  return [(name, f"`{text(value)}`" if text(value) else "–") for name, value in config.items()]
