"""Scores that are undefined, as reports meet them: null in the files, a dash in the tables, and no crash on the way."""

import csv
import dataclasses
import io
import json
import math
import re

import numpy as np
import pytest
from etils import epath

from lcgen.reporting import compare_runs, findings, report, study_tables, tables
from lcgen.runtime import results as stored
from tests.reporting import test_compare_runs as comparing
from tests.reporting import test_page as paging
from tests.reporting import test_study_tables as studying
from tests.support.results import drawn, of_real, results

SEEDS = ([0], [0, 1])  # with a missing value: one of two, both
WORD = re.compile(r"(?<![\w-])(nan|inf|infinity|none)(?![\w-])", re.IGNORECASE)


def spoiled(content, seeds):
  """Takes the values of these seeds out of every list of scores."""
  if isinstance(content, dict):
    return {key: spoiled(value, seeds) for key, value in content.items()}
  if isinstance(content, list) and content and all(isinstance(value, float) for value in content):
    return [math.nan if place in seeds else value for place, value in enumerate(content)]
  return [spoiled(value, seeds) for value in content] if isinstance(content, list) else content


def of_run(seeds):
  found = paging.everything()
  parts = ("arms", "robustness", "samples", "judge", "timing")
  edits = {name: spoiled(found.edits[name], seeds) for name in ("success", "moved", "anew", "actor")}
  made = {name: spoiled(getattr(found, name), seeds) for name in parts}
  return dataclasses.replace(found, **made, edits=found.edits | edits)


def numbers_in(text):
  """The words that would stand for a missing number, without the arm `none`."""
  return [found[0] for found in WORD.finditer(re.sub(r"`?none`?", "", text))]


def strict(text):
  def refuse(constant):
    raise AssertionError(f"{constant} is no JSON")

  return json.loads(text, parse_constant=refuse)


@pytest.mark.parametrize("seeds", SEEDS)
def test_a_run_is_reported(tmp_path, seeds):
  workdir = epath.Path(paging.write(tmp_path / "run", of_run(seeds)))
  paging.write_more(workdir)
  curve = workdir / "learning_curve.json"
  study = json.loads(curve.read_text())
  stored.write_study(curve, spoiled(study, seeds), study["roles"])
  assert strict(curve.read_text())["undefined"]
  report.build(workdir, quiet=True)
  found = strict((workdir / "results.json").read_text())
  assert found["undefined"]["samples actor diversity"].startswith("the real images of a class are all alike")
  assert found["undefined"]["arms none test nll"] == "not a number"
  for name in ("table.md", "table.csv", "table.tex", "samples.csv", "learning_curve.md"):
    assert numbers_in((workdir / name).read_text()) == [], name
  cells = re.findall(r"<td[^>]*>(.*?)</td>", (workdir / "report.html").read_text(), re.DOTALL)
  assert [cell for cell in cells if numbers_in(cell)] == []
  assert "–" in cells or len(seeds) == 1
  assert [cell for cell in cells if "(1 of 2)" in cell] or len(seeds) == 2


@pytest.mark.parametrize("seeds", [[0], [0, 1, 2]])
def test_runs_are_compared(tmp_path, seeds):
  whole = comparing.made()
  broken = spoiled(whole, seeds)
  folders = [comparing.write(tmp_path / name, content) for name, content in (("a", whole), ("b", broken))]
  for order in (folders, folders[::-1]):
    made = compare_runs.build(compare_runs.read(order))
    for name in ("comparison.md", "comparison.csv"):
      assert numbers_in(made[name].decode()) == [], name
    rows = list(csv.DictReader(io.StringIO(made["comparison.csv"].decode())))
    assert {row["value"] == "" for row in rows if row["run"] == "b" and int(row["seed"]) in seeds} == {True}
    assert {row["value"] == "" for row in rows if row["run"] == "a"} == {False}
    assert "–" in made["comparison.md"].decode()


@pytest.mark.parametrize("seeds", SEEDS)
def test_studies_are_tabled(seeds):
  whole = studying.audit()
  found = {**whole, **spoiled({name: whole[name] for name in ("explained", "switched")}, seeds)}
  for table in study_tables.audit_tables(found):
    assert [cell for row in table.rows for cell in row[1:] if numbers_in(cell)] == []


def test_a_benchmark_without_times_is_tabled():
  names = "ms_per_step ms_spread images_per_s compile_s flops_per_s of_flops bytes_per_s of_bytes of_loop peak_bytes"
  one = dict.fromkeys(names.split(), math.nan) | {"bound": "neither"}
  ceilings = {"flops_per_s": math.nan, "bytes_per_s": math.nan}
  made = [
    study_tables.phase_table({"vae": one}, ceilings),
    study_tables.curve_table({"vae": [{"seeds": 1, "ms_per_step": math.nan}]}),
    study_tables.image_table([{"actor": one}]),
  ]
  assert all(numbers_in(tables.markdown(table)) == [] for table in made)


def test_the_best_control_is_one_that_has_a_score():
  given = drawn(("none", "latent_constraints", "clip", "shuffled"))
  given["shuffled"] = {name: [math.nan] * 4 for name in given["shuffled"]}
  sentences = findings.overview(results(given))
  assert sentences
  assert all("the best of 2 controls, `clip`," in sentence for sentence in sentences)
  given["latent_constraints"] = given["shuffled"]
  assert all("because a score is missing" in sentence for sentence in findings.overview(results(given)))
  assert "A score is missing on" in findings.in_short(results(given))[0]


def test_a_comparison_shows_held_out_images_beside_samples(tmp_path):
  found = comparing.made()
  found["samples"] |= of_real(found["samples"]["actor"])
  folders = [comparing.write(tmp_path / name, one) for name, one in (("a", found), ("b", comparing.made(source=1)))]
  table = compare_runs.sample_table(compare_runs.read(folders))
  columns = [table.header.index(f"{words}: Fréchet distance") for words in ("held-out images", "decoded encodings")]
  new, old = table.rows
  assert [new[column] for column in columns] == [new[table.header.index("actor: Fréchet distance")]] * 2
  assert [old[column] for column in columns] == ["–", "–"]
  assert np.isfinite(float(new[columns[0]].split()[0]))
