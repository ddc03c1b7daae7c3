import ast
import dataclasses
import json
import math
import pathlib
import shutil

import numpy as np
import pytest
from etils import epath

from lcgen.reporting import report
from lcgen.runtime import errors, files
from lcgen.runtime import results as stored
from tests.support.results import SETS, drawn, results, roles, scored, study

OLD = epath.Path(__file__).parent.parent / "support" / "old_run"  # of the version before `schema` was stored


@pytest.fixture
def path(tmp_path):
  return epath.Path(tmp_path) / "results.json"


def made():
  given = drawn(sets=(*SETS, "dirty_mnist/ambiguous"), seeds=2)
  return results(given, samples={"actor": {"diversity": [1.0, 2.0], "ms_per_sample": 0.5}}, judge={})


def test_results_that_were_written_are_read(path):
  found = made()
  stored.write(path, found)
  assert stored.read(path) == found
  facts = stored.read(path).test_sets
  assert facts["generated_cifar10_c/contrast_3"] == stored.TestSetFacts(
    "generated_cifar10_c", "contrast", 3, "generated", 1000
  )
  assert facts["test"].ceiling is None
  assert facts["dirty_mnist/ambiguous"].ceiling == 0.855


def test_files_are_strict_json_and_null_becomes_nan(path):
  found = made()
  found.samples["actor"]["diversity"] = [math.nan, math.inf]
  found.arms["none"]["test"]["nll"][0] = math.nan
  stored.write(path, found)

  def refuse(constant):
    raise AssertionError(f"{constant} is no JSON")

  text = json.loads(path.read_text(), parse_constant=refuse)
  assert text["samples"]["actor"]["diversity"] == [None, None]
  assert text["undefined"] == {
    "samples actor diversity": "the real images of a class are all alike, there are none, or features are not finite",
    "arms none test nll": "not a number",
  }
  read = stored.read(path)
  assert all(map(math.isnan, read.samples["actor"]["diversity"]))
  assert math.isnan(read.arms["none"]["test"]["nll"][0])


def test_rules_that_were_written_are_read(path):
  rule = stored.RuleResults(name="ink", bound="above", value=0.5, seeds=[0], samples={"actor": {}}, metrics={})
  realism = dataclasses.replace(rule, name="realism", bound="", value=None)
  for found in (rule, realism):
    stored.write(path, found)
    assert stored.read_rule(path) == found


def test_keys_that_a_fork_adds_are_left_out(path):
  stored.write(path, made())
  path.write_text(json.dumps(json.loads(path.read_text()) | {"fork": 1}))
  assert stored.read(path) == made()


@pytest.mark.parametrize(
  ("text", "words"),
  [
    (None, "there is no results.json; name the workdir of a finished run"),
    ("{", "cannot be read"),
    ("[1]", "is not what a run of lcgen writes"),
    ("{}", "is not what a run of lcgen writes"),
    ('{"schema": 1, "seeds": [0]}', "is not what a run of lcgen writes"),
    ('{"schema": 1, "seeds": [0], "arms": {"none": {}}, "roles": {}, "test_sets": {}}', "roles of none"),
    ('{"schema": 2}', "has schema 2, newer than 1"),
    ('{"schema": "x"}', "is not what a run of lcgen writes"),
  ],
)
@pytest.mark.parametrize("read", [stored.read, stored.read_rule])
def test_files_that_cannot_be_used_end_in_a_sentence(path, read, text, words):
  if text is not None:
    path.write_text(text)
  if read is stored.read_rule and words == "roles of none":
    words = "is not what a run of lcgen writes"
  with pytest.raises(errors.InputError) as raised:
    read(path)
  assert words in str(raised.value)
  assert "\n" not in str(raised.value)


def test_scores_of_studies_are_typed():
  given = drawn(seeds=2)
  found = stored.arm_scores(scored(given), study(given))
  assert found.baseline == "none"
  assert found.of_role(stored.METHOD) == ["latent_constraints", "flip_crop+latent_constraints:share=0.5"]
  assert found.of_role(stored.CONTROL) == ["clip", "shuffled"]


def test_old_results_are_upgraded():
  found = stored.read(OLD / "results.json")
  assert found.schema == stored.SCHEMA
  assert found.roles == {"none": "baseline", "latent_constraints": "method"}
  assert found.test_sets["generated_cifar10_c/contrast_5"] == stored.TestSetFacts(
    "generated_cifar10_c", "contrast", 5, "generated", 100
  )
  assert found.test_sets["generated_mnist_c/stripe"].part == "stripe"
  assert found.metrics["frechet_distance"]["title"] == "Fréchet distance"
  assert [name for name, metric in found.metrics.items() if not metric["shown"]] == ["kernel_distance"]


def test_roles_of_old_arms_are_those_of_today():
  from lcgen.classifiers.arms import POLICIES
  from lcgen.runtime import old_results

  arms = [*POLICIES, "clip:share=0.5", "flip_crop+latent_constraints:share=0.5", "blur+noise"]
  assert old_results.roles(arms) == roles(arms)


def test_facts_of_old_test_sets_are_those_of_today():
  from lcgen.data import test_set_names
  from lcgen.runtime import old_results

  wanted = test_set_names.expand([*test_set_names.FAMILIES, "custom/mine.fog_1"])
  found = old_results.results({"arms": {}, "test_sets": {one.name: {"origin": one.origin} for one in wanted}})
  for one in wanted:
    place = dataclasses.asdict(one)
    assert found["test_sets"][one.name] == place | {"origin": one.origin, "images": 0}


def test_old_metrics_are_upgraded():
  records = files.MetricsFile(OLD / "metrics.jsonl").read()
  assert all(list(record) == ["phase", "kind", "step", "epoch", "terms"] for record in records)
  kinds = dict.fromkeys(record["kind"] for record in records)
  assert list(kinds) == [
    "vae",
    "actor_critic",
    "energy",
    "classifier",
    "judge",
    "audit",
    "learning_curve",
    "realism",
    "rule",
  ]
  (first, *_) = [record for record in records if record["kind"] == "classifier"]
  assert list(first["terms"]["latent_constraints:share=1.0"]) == ["accuracy", "loss"]
  assert list(next(record for record in records if record["kind"] == "vae")["terms"]) == [
    "kl",
    "loss",
    "reconstruction",
  ]


def test_records_that_were_written_are_read(tmp_path):
  metrics = files.MetricsFile(epath.Path(tmp_path) / "metrics.jsonl")
  record = {"phase": "vae", "kind": "vae", "step": 4, "epoch": 0.5, "terms": {"loss": [1.0, math.nan]}}
  metrics.write(record)
  metrics.write(record | {"step": 8})
  undefined = {"undefined": {"terms loss": "not a number"}}
  assert metrics.read()[0] == record | undefined | {"terms": {"loss": [1.0, None]}}
  metrics.truncate("vae", 4)
  assert [record["step"] for record in metrics.read()] == [4]


def test_reasons_stand_beside_what_is_null():
  reasons = {"relative": "the accuracy on clean images is 0", "all": "nearer"}
  content = {"robustness": {"fog": {"relative": {"benchmark": [math.nan], "all": [math.nan, 1.0]}}}, "x": [-math.inf]}
  assert files.strict(content, reasons)["undefined"] == {
    "robustness fog relative benchmark": "the accuracy on clean images is 0",
    "robustness fog relative all": "nearer",
    "x": "infinite",
  }
  whole = {"a": [1.0, None], "b": {"c": (2, "x")}}
  assert files.strict(whole) == {"a": [1.0, None], "b": {"c": [2, "x"]}}
  assert files.strict([math.nan]) == [None]


def test_all_json_is_written_strictly():
  """Whoever writes JSON refuses NaN, so that no writer can forget to replace it."""
  lax, seen = [], 0
  for path in sorted(pathlib.Path(files.__file__).parent.parent.rglob("*.py")):
    for node in ast.walk(ast.parse(path.read_text())):
      if isinstance(node, ast.Call) and ast.unparse(node.func) in ("json.dumps", "json.dump"):
        given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        seen += 1
        if given.get("allow_nan") != "False":
          lax.append(f"{path.name}: {ast.unparse(node)}")
  assert lax == []
  assert seen >= 5


def test_old_rules_and_studies_are_read():
  realism, rule = (
    stored.read_rule(OLD / "rules" / name / "results.json") for name in ("realism", "lcgen.rules.stroke_width")
  )
  assert (realism.bound, realism.value) == ("", None)
  assert rule.bound == "above"
  curve = stored.read_study(OLD / "learning_curve.json")
  point = stored.arm_scores(curve["points"][0], curve)
  assert point.baseline == "none"
  assert point.seeds == [0, 1]
  assert stored.read_study(OLD / "audit.json")["tables"]


def test_reports_of_an_old_run_are_what_they_were(tmp_path):
  workdir = epath.Path(shutil.copytree(OLD, tmp_path / "run"))
  report.build(workdir, quiet=True)
  same = [
    "table.csv",
    "audit.md",
    "learning_curve.md",
    *(f"rules/{name}/table.md" for name in ("realism", "lcgen.rules.stroke_width")),
  ]
  for name in same:
    assert (workdir / name).read_bytes() == (OLD / name).read_bytes(), name
  figures = {path.stem for path in pathlib.Path(workdir / "figures").iterdir()}
  assert {"vae_loss", "energy_loss", "classifier_accuracy", "refine_samples", "learning_curve"} <= figures
  assert "<h2>Fewer labels</h2>" in (workdir / "report.html").read_text()
  with (workdir / "samples.npz").open("rb") as file, np.load(file) as images:
    assert "prior" in images
