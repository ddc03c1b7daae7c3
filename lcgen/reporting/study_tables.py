"""Makes the tables of the studies from their numbers."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lcgen.reporting import statistics, tables
from lcgen.reporting.statistics import number
from lcgen.runtime import results
from lcgen.runtime.results import BASELINE, METHOD, ArmScores

STUDIES = ("audit", "learning_curve", "benchmark")  # each of which leaves a file of its name in the workdir

_SWITCHES = {  # conditions of the paper, in words
  "limit": "decoder range [-{0:g}, {0:g}]",
  "calibrate": "pixel values fitted to the data's: {0}",
  "share": "share replaced: {0:g}",
  "activate_logits": "LeakyReLU on the logits: {0}",
  "learning_rate": "classifier's learning rate {0:g}",
  "schedule": "classifier's schedule {0}",
}


def tables_of(name: str, found: Mapping[str, Any]) -> list[tables.Table]:
  """Makes the tables of a study.

  Args:
    name: one of `STUDIES`.
    found: its file, as `results.read_study` reads it. Older ones hold finished tables, which stay as they are.
  """
  if "tables" in found:
    return [tables.Table(**table) for table in found["tables"]]
  make = {"audit": audit_tables, "learning_curve": lambda found: curve_tables(curve_points(found))}
  return make.get(name, benchmark_tables)(found)


def audit_tables(found: Mapping[str, Any]) -> list[tables.Table]:
  """Makes the tables of each share that was replaced, and that of the paper's conditions."""
  explained = results.arm_scores(found["explained"], found)
  made = [table for one in found["shares"] for table in explained_tables(explained, one["arms"], one["share"])]
  return [*made, switched_table(found)]


def explained_tables(explained: ArmScores, names: Mapping[str, str], share: float) -> list[tables.Table]:
  """Tables the gains of method and controls, and the shares of the method's gain that controls explain.

  Args:
    explained: scores of all arms.
    names: the arms by their short names.
    share: of each batch that was replaced.
  """
  scores, seeds = tables.headlines(explained), len(explained.seeds)
  of_role = lambda role: next(name for name, arm in names.items() if explained.roles[arm] == role)
  baseline, method = of_role(BASELINE), of_role(METHOD)
  plain, ours = names[baseline], names[method]
  caption = f"Gain over `{baseline}` in points of accuracy, {share:g} of each batch replaced, n = {seeds} seeds."
  others = {name: arm for name, arm in names.items() if name != baseline}
  gains = tables.gains_of(others, scores, plain, caption)
  gained = lambda score: statistics.paired(score.values[ours], score.values[plain])
  explicable = [score for score in scores if statistics.verdict(gained(score)) == "gain"]
  if not explicable:
    return [gains]
  words = lambda score, arm: _share_words(score.values[arm], score.values[ours], score.values[plain])
  shared = [[name, *(words(score, arm) for score in explicable)] for name, arm in others.items() if name != method]
  shares = tables.Table(
    f"How much of the gain of `{method}` each control explains, in %, {share:g} of each batch replaced, "
    f"n = {seeds} seeds.",
    ["control", *(score.name for score in explicable)],
    shared,
    "Ratios of the two gains with Fieller's 95 % interval, on the test sets where the method's gain is shown: on the "
    "others there is none to explain. 100 % and more: the control alone does as much.",
  )
  return [gains, shares]


def _share_words(control: Sequence[float], method: Sequence[float], baseline: Sequence[float]) -> str:
  found = statistics.share_of_gain(control, method, baseline)
  if found.ratio is None:
    return "–"
  ends = [100 * end for end in found.interval]
  digits = statistics.digits_of(ends, 0)
  return f"{100 * found.ratio:.{digits}f} {statistics.interval_words(ends, digits)}"


def switched_table(found: Mapping[str, Any]) -> tables.Table:
  """Tables for each set of conditions the accuracy of the baseline, and the gains of method and controls over it."""
  rows = {_condition_words(row): row for row in found["switched"]}
  theirs = found["switched"][0]
  baseline, *others = (key for key in theirs if key not in ("changed", "condition"))
  accuracy = lambda row, arm, name: row[arm][name]["accuracy"]
  cells = tables.marked({
    (words, name, arm): statistics.paired(accuracy(row, arm, name), accuracy(row, baseline, name))
    for words, row in rows.items()
    for name in found["sets"]
    for arm in others
  })  # fmt: skip
  header, lines = ["condition"], []
  for name in found["sets"]:
    header += [f"{name}: {baseline}, %", *(f"{name}: {arm}" for arm in others)]
  for words, row in rows.items():
    line = [words]
    for name in found["sets"]:
      line += [tables.percent(accuracy(row, baseline, name)), *(cells[words, name, arm] for arm in others)]
    lines.append(line)
  listed = "; ".join(_switch_words(name, value) for name, value in theirs["condition"].items())
  note, limit = f"The paper's conditions: {listed}. ", found["output_limit"]
  if limit < found["model_limit"]:
    note += f"This VAE's decoder ends at ±{limit:g}: the full range takes a VAE of its own. "
  caption = "The paper's comparison under its own conditions, and with one of them changed at a time"
  return tables.Table(f"{caption}, n = {len(found['seeds'])} seeds.", header, lines, note + tables.MARKS)


def _condition_words(row: Mapping[str, Any]) -> str:
  changed = row["changed"]
  whole = {"": "the paper's conditions", "all": "all of these changed"}
  return whole[changed] if changed in whole else f"but {_switch_words(changed, row['condition'][changed])}"


def _switch_words(name: str, value: Any) -> str:
  return _SWITCHES.get(name, f"{name}: {{0}}").format(value)


def curve_points(found: Mapping[str, Any]) -> list[tuple[int, ArmScores]]:
  """Gives the number of labelled images and the scores of each point of a learning curve."""
  return [(point["labelled"], results.arm_scores(point, found)) for point in found["points"]]


def curve_tables(points: Sequence[tuple[int, ArmScores]]) -> list[tables.Table]:
  """Tables each score: a row a number of labels, the accuracy of the baseline and the gain of every other arm."""
  made, (_, first) = [], points[0]
  for same in zip(*(tables.headlines(scores) for _, scores in points), strict=True):
    baseline, others, seeds = first.baseline, tables.compared_arms(first), len(first.seeds)
    differences = [statistics.paired(score.values[arm], score.values[baseline]) for score in same for arm in others]
    cells = np.array(tables.compared(differences), object).reshape(len(same), len(others))
    rows = [
      [str(labelled), tables.percent(score.values[baseline]), *line]
      for (labelled, _), score, line in zip(points, same, cells, strict=True)
    ]
    made.append(
      tables.Table(
        f"{same[0].name}: accuracy in % of `{baseline}`, and the gain of the other arms over it, "
        f"over the number of labelled images, n = {seeds} seeds.",
        ["labelled images", baseline, *others],
        rows,
        tables.MARKS,
      )
    )
  return made


def benchmark_tables(found: Mapping[str, Any]) -> list[tables.Table]:
  """Makes the tables of whatever was timed."""
  made = [phase_table(found["phases"], found["ceilings"])] if found["phases"] else []
  made += [curve_table(found["curve"])] if any(found["curve"].values()) else []
  rates = [found[name] for name in ("sampling", "evaluation") if name in found]
  return made + ([image_table(rates)] if rates else [])


def phase_table(phases: Mapping[str, Mapping[str, Any]], ceilings: Mapping[str, float]) -> tables.Table:
  """Tables the times of training steps, a row a phase."""
  header = ["phase", "ms a step", "images/s", "compilation, s", "GFLOP/s", "GB/s", "loop, %", "peak, MiB", "bound by"]
  rows = [
    [
      name,
      f"{number(one['ms_per_step'], '.3g')} ± {number(one['ms_spread'] / 2, '.2g')}",
      number(one["images_per_s"], ",.0f"),
      number(one["compile_s"], ".1f"),
      f"{number(one['flops_per_s'] / 1e9, ',.1f')} ({number(100 * one['of_flops'], '.0f')} %)",
      f"{number(one['bytes_per_s'] / 1e9, ',.1f')} ({number(100 * one['of_bytes'], '.0f')} %)",
      number(100 * one["of_loop"], ".1f"),
      number(one["peak_bytes"] / 2**20, ",.0f"),
      one["bound"],
    ]
    for name, one in phases.items()
  ]
  return tables.Table(
    "Training steps inside the loop, per seed.",
    header,
    rows,
    "Times are the median and half the spread. The compiler counts FLOPs and bytes. Brackets hold their share of this "
    f"device's measured best: {number(ceilings['flops_per_s'] / 1e9, ',.0f')} GFLOP/s in a matrix product, "
    f"{number(ceilings['bytes_per_s'] / 1e9, ',.1f')} GB/s in a copy; above 100 % comes from caches. Loop: the share "
    "of the time that it takes beside the compiled steps, fastest against fastest.",
  )


def curve_table(curve: Mapping[str, Sequence[Mapping[str, float]]]) -> tables.Table:
  """Tables the time of a step, a row a phase, a column a number of seeds."""
  counts = sorted({point["seeds"] for points in curve.values() for point in points})
  rows = []
  for name, points in curve.items():
    known = {point["seeds"]: point["ms_per_step"] for point in points}
    rows.append([name, *(number(known.get(count), ".3g") for count in counts)])
  return tables.Table("Milliseconds a step, by the number of seeds.", ["phase", *map(str, counts)], rows)


def image_table(rates: Sequence[Mapping[str, Mapping[str, float]]]) -> tables.Table:
  """Tables images a second, a row a sampler, and one for the evaluation."""
  rows = [
    [name, number(one["images_per_s"], ",.0f"), number(one["compile_s"], ".1f")]
    for timed in rates
    for name, one in timed.items()
  ]
  note = (
    "Samples are drawn, decoded and looked at by the critics; untrained ones refuse all, so that refine takes all its "
    "rounds. The 95 sets of generated_cifar10_c are made, a batch each, and scored by the classifiers of all arms."
  )
  return tables.Table("Images a second, all seeds.", ["", "images/s", "compilation, s"], rows, note)
