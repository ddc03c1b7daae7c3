"""Writes the reports of a run, of its rules and of its studies, from the files that they left."""

from etils import epath

from lcgen.reporting import figures, findings, page, statistics, study_tables, tables
from lcgen.runtime import errors, fields, files
from lcgen.runtime import results as stored
from lcgen.runtime.results import Results, RuleResults


def results_table(results: Results) -> str:
  """Writes the tables of `table.md`, which a run prints at its end."""
  found = [tables.accuracies(results), tables.gains(results), findings.samples_table(results)]
  return "\n".join([*(tables.markdown(table) for table in found if table), findings.edits_words(results)]) + "\n"


def rule_table(rule: RuleResults) -> str:
  """Writes the scores of samples for a rule, or for realism, as Markdown."""
  bound = f" ({rule.bound} {statistics.number(rule.value, '.4g')})" if rule.bound else ""
  first = "rule holds, %" if rule.bound else "judge is 90 % sure of a class, %"
  return tables.markdown(tables.samples(rule, first, f"Samples for {rule.name}{bound}, {tables.spread(rule.seeds)}."))


def build_tables(workdir: epath.Path, name: str, quiet: bool = False) -> None:
  """Makes `<name>.md` from what the study `<name>` left in `<name>.json`, and prints it unless `quiet`."""
  if not files.is_writer():
    return
  found = study_tables.tables_of(name, stored.read_study(workdir / f"{name}.json"))
  text = "\n".join(map(tables.markdown, found))
  files.write_text(workdir / f"{name}.md", text)
  if not quiet:
    print(f"\n{text}")


def build(workdir: epath.Path, quiet: bool = False) -> None:
  """Makes tables, figures and `report.html` from a run's files, and prints the table unless `quiet`.

  It also makes the tables of every study and rule in the workdir.

  Raises:
    InputError: there are no results, or a file cannot be read.
  """
  path = workdir / "results.json"
  if not path.exists():
    raise errors.InputError(f"--stage=report: no results in {workdir}; run --stage=evaluate first")
  if not (workdir / "config.json").exists():
    raise errors.InputError(f"--stage=report: no config.json in {workdir}; put back the one it was trained with")
  if not files.is_writer():
    return
  results, config = stored.read(path), fields.flat(files.read_json(workdir / "config.json"))
  table, found = results_table(results), (tables.accuracies(results), tables.gains(results))
  files.write_text(workdir / "table.md", table)
  files.write_text(workdir / "table.csv", tables.comma_separated(results))
  files.write_text(workdir / "samples.csv", tables.samples_csv(results))
  files.write_text(workdir / "table.tex", "\n".join(tables.latex(one) for one in found if one))
  records = files.MetricsFile(workdir / "metrics.jsonl").read()
  figures.draw_all(workdir / "figures", records, files.read_arrays(workdir / "samples.npz"), results)
  curve = workdir / "learning_curve.json"
  if curve.exists():
    points = study_tables.curve_points(stored.read_study(curve))
    figures.draw_learning_curve(workdir / "figures" / "learning_curve.png", points)
  for name in study_tables.STUDIES:
    if (workdir / f"{name}.json").exists():
      build_tables(workdir, name, quiet=True)
  for rule in files.matching(workdir, "rules/*/results.json"):
    build_rule(rule.parent, quiet=True)
  files.write_text(workdir / "report.html", page.build(workdir, results, config))
  print(("" if quiet else f"\n{table}\n") + f"Figures in {workdir / 'figures'}, all of it in {workdir / 'report.html'}")


def build_rule(directory: epath.Path, quiet: bool = False) -> None:
  """Makes `table.md` and the figures of a rule from its results, and prints the table unless `quiet`."""
  if not files.is_writer():
    return
  rule = stored.read_rule(directory / "results.json")
  table = rule_table(rule)
  files.write_text(directory / "table.md", table)
  figures.draw_samples(directory, files.read_arrays(directory / "samples.npz"), list(rule.samples))
  if not quiet:
    print(f"\n{table}\nFigures in {directory}")
