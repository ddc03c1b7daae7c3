import csv
import io
import json
import os
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from scipy import stats

from lcgen.reporting import compare_runs, statistics, tables
from lcgen.runtime import results as stored
from tests.conftest import ROOT
from tests.support.html_elements import Elements
from tests.support.results import roles

FAMILY = "generated_mnist_c"
SHARED = ["test", f"{FAMILY}: mean of all 2"]
FILES = ["comparison.csv", "comparison.html", "comparison.md", "comparison.png"]


def facts(name):
  family, _, part = name.partition("/")
  return {"family": family, "part": part, "severity": 0, "origin": "generated", "images": 10}


def made(arms=("none", "latent_constraints"), seeds=(0, 1, 2), gain=0.0, source=0, test_data="a" * 64):
  """The least that a run's `results.json` can hold, with made-up scores."""
  rng = np.random.default_rng([source, *seeds])
  accuracy = lambda: (0.8 + gain + 0.02 * rng.normal(size=len(seeds))).tolist()
  scored, robustness = {}, {}
  for arm in arms:
    by_corruption = {"fog": accuracy(), "stripe": accuracy()}
    mean = np.mean(list(by_corruption.values()), axis=0).tolist()
    robustness[arm] = {FAMILY: {"means": {"all": mean}, "by_corruption": by_corruption}}
    scored[arm] = {"test": {score: accuracy() for score in ("accuracy", "nll", "brier", "ece")}}
    scored[arm] |= {f"{FAMILY}/{name}": {"accuracy": values} for name, values in by_corruption.items()}
  method = lambda: {name: accuracy() for name in ("conditional_accuracy", "diversity", "frechet_distance")}
  return {
    "schema": 1,
    "seeds": list(seeds),
    "about": {"device": "1 x cpu", "versions": {"jax": "0.10.2"}, "data": {"test": test_data} if test_data else {}},
    "samples": {"prior": method(), "actor": method(), "refine": method()},
    "judge": {"test": {"accuracy": accuracy()}},
    "arms": scored,
    "roles": roles(arms),
    "test_sets": {name: facts(name) for name in scored[arms[0]]},
    "robustness": robustness,
    "timing": {"vae": {"train_s": 10.0}, "classifier": {"train_s": 2.5}},
  }


CONFIG = {"seed": 0, "vae": {"epochs": 40, "channels": [32, 64]}, "data": {"dir": ""}}


def write(workdir, results, config=CONFIG):
  workdir.mkdir(parents=True)
  (workdir / "results.json").write_text(json.dumps(results))
  (workdir / "config.json").write_text(json.dumps(config))
  return str(workdir)


@pytest.fixture
def read(tmp_path):
  """The runs of results, each alone or with a config; they are called a, b, c ..."""

  def _read(*contents):
    parts = [content if isinstance(content, tuple) else (content,) for content in contents]
    return compare_runs.read([write(tmp_path / name, *part) for name, part in zip("abcdefgh", parts, strict=False)])

  return _read


def run(arms, name="", settings=None, seeds=(0,), scores=None):
  return compare_runs.Run(name, settings or {}, list(seeds), roles(arms), scores or {}, whole={}, seconds=0.0)


def typed(found):
  """Made results as reports take them."""
  more = {"test_sets": {name: stored.TestSetFacts(**own) for name, own in found["test_sets"].items()}}
  return stored.Results(**found | more)


def column(table, name):
  return [row[list(table.header).index(name)] for row in table.rows]


def words(low_high, mean):
  low, high = low_high
  return f"{100 * mean:+z.1f} [{100 * low:z.1f}, {100 * high:z.1f}]"


def test_made_results_are_such_as_tables_take():
  found = tables.scores(typed(made()))
  assert [score.name for score in found if score.kind in ("set", "mean")] == SHARED
  assert {score.kind for score in found} == {"set", "mean", "soft"}
  assert tables.gains(typed(made())).header == ["test set", "latent_constraints"]


def test_names_are_the_shortest_tails_that_tell_runs_apart():
  paths = lambda *texts: [pathlib.PurePosixPath(text) for text in texts]
  assert compare_runs.names(paths("/r/lr/1", "/r/lr/2")) == ["1", "2"]
  assert compare_runs.names(paths("/r/a/1", "/r/b/1", "/r/b/2")) == ["a/1", "b/1", "2"]
  assert compare_runs.names(paths("/x/a/1", "/y/a/1", "/y/c/1")) == ["x/a/1", "y/a/1", "c/1"]
  assert compare_runs.names(paths("/1", "/a/1", "/b")) == ["/1", "a/1", "b"]


def test_scores_are_those_of_the_results(read):
  results = [made(), made(seeds=(7,), source=1)]
  runs = read(*results)
  table = compare_runs.score_table(runs)
  assert table.header == ["run", "arm", "n", *SHARED]
  assert [row[:3] for row in table.rows] == [[run, arm, n] for run, n in ("a3", "b1") for arm in runs[0].arms]
  values = np.array(results[0]["arms"]["latent_constraints"]["test"]["accuracy"]) * 100
  assert table.rows[1][3] == f"{values.mean():.1f} ± {values.std(ddof=1):.1f}"
  (value,) = results[1]["robustness"]["none"][FAMILY]["means"]["all"]
  assert table.rows[2][4] == f"{100 * value:.1f}"
  assert table.note == ""


def test_scores_that_some_runs_lack_are_named_and_not_compared(read):
  more, less = made(), made(source=1)
  for arm in more["arms"].values():
    arm["diagnostic/noise"] = {"accuracy": [0.5, 0.5, 0.5]}
  more["test_sets"]["diagnostic/noise"] = facts("diagnostic/noise")
  runs = read(less, more, less)
  table = compare_runs.score_table(runs)
  assert table.header[3:] == compare_runs.difference_table(runs).header[2:] == SHARED
  assert table.note == "Not shown, because not all runs have them: diagnostic/noise (`b`)."
  assert "diagnostic/noise" in compare_runs.long_form(runs)


def test_samples_times_and_what_a_run_lacks(read):
  lacking = made()
  del lacking["samples"]["refine"], lacking["samples"]["actor"]["diversity"], lacking["timing"], lacking["about"]
  table = compare_runs.sample_table(read(made(), lacking))
  assert column(table, "training, s") == ["12", "–"]
  assert column(table, "refine: Fréchet distance")[1] == column(table, "actor: diversity")[1] == "–"
  values = made()["samples"]["actor"]["diversity"]
  assert column(table, "actor: diversity")[0] == f"{np.mean(values):.2f} ± {np.std(values, ddof=1):.2f}"
  values = 100 * np.array(made()["judge"]["test"]["accuracy"])
  assert column(table, "judge: accuracy, %") == [f"{values.mean():.1f} ± {values.std(ddof=1):.1f}"] * 2


def test_same_seeds_and_test_data_are_paired(read):
  base, other = made(), made(gain=0.04, source=1)
  table = compare_runs.difference_table(read(base, other))
  assert [row[:2] for row in table.rows] == [["b", "none"], ["b", "latent_constraints"]]
  for arm, cell in zip(base["arms"], column(table, "test"), strict=True):
    ours, theirs = (np.array(results["arms"][arm]["test"]["accuracy"]) for results in (other, base))
    interval = stats.ttest_rel(ours, theirs).confidence_interval(0.95)
    assert cell.rstrip("*") == words(interval, (ours - theirs).mean())
  assert "`b`: same seeds and no sign of other test data, hence paired by seed; Student's 95 % interval." in table.note
  assert table.note.endswith(tables.MARKS.partition("95 % interval. ")[2])


@pytest.mark.parametrize(
  ("changed", "why"),
  [
    ({"seeds": (3, 4, 5)}, "seeds"),
    ({"seeds": (0, 1)}, "seeds"),
    ({"test_data": "b" * 64}, "test data"),
    ({"test_data": "b" * 64, "seeds": (5, 6, 7, 8)}, "seeds and test data"),
  ],
)
def test_other_seeds_or_test_data_are_not_paired(read, changed, why):
  base, other = made(), made(gain=0.04, source=1, **changed)
  table = compare_runs.difference_table(read(base, other))
  for arm, cell in zip(base["arms"], column(table, SHARED[1]), strict=True):
    ours, theirs = (np.array(results["robustness"][arm][FAMILY]["means"]["all"]) for results in (other, base))
    interval = stats.ttest_ind(ours, theirs, equal_var=False).confidence_interval(0.95)
    assert cell.rstrip("*") == words(interval, ours.mean() - theirs.mean())
  assert f"`b`: other {why}, hence not paired; Welch's 95 % interval." in table.note
  assert "paired by seed" not in table.note


def test_every_run_is_compared_in_its_own_way_and_all_of_them_corrected_together(read):
  contents = made(), made(gain=0.1, source=1), made(gain=0.1, seeds=(3, 4, 5)), made(gain=0.1, test_data=None)
  runs = read(*contents)
  differences = [
    way(run.scores[name].values[arm], runs[0].scores[name].values[arm])
    for run, way in zip(runs[1:], (statistics.paired, statistics.unpaired, statistics.paired), strict=True)
    for arm in runs[0].arms
    for name in SHARED
  ]
  table = compare_runs.difference_table(runs)
  assert [cell for row in table.rows for cell in row[2:]] == tables.compared(differences)
  assert "`b`, `d`: same seeds" in table.note
  assert "`c`: other seeds" in table.note


def test_what_lies_within_its_interval_is_not_marked():
  """Scores of one distribution, of which one in twenty intervals excludes 0, and clear gains."""
  arms = [f"arm{number}" for number in range(40)]
  for gain, changed in ((0.0, {}), (0.0, {"seeds": (3, 4, 5)}), (0.2, {"seeds": (3, 4, 5)})):
    contents = made(arms), made(arms, source=1, gain=gain, **changed)
    runs = [
      run(arms, scores={score.name: score for score in tables.scores(typed(one))}, seeds=one["seeds"])
      for one in contents
    ]
    marked = [cell.endswith("*") for cell in column(compare_runs.difference_table(runs), "test")]
    way = statistics.unpaired if changed else statistics.paired
    values = [[run.scores["test"].values[arm] for run in reversed(runs)] for arm in arms]
    excluding = [np.prod(np.sign(way(*pair).t_interval)) > 0 for pair in values]
    assert marked == excluding
    assert (sum(marked) > 35) == bool(gain)


def test_arms_that_one_run_has_are_shown_and_not_compared(read):
  runs = read(made(("none", "clip")), made(("mixup", "none")), made(("cutout",)))
  table = compare_runs.score_table(runs)
  shown = [("a", "none"), ("a", "clip"), ("b", "mixup"), ("b", "none"), ("c", "cutout")]
  assert [tuple(row[:2]) for row in table.rows] == shown
  assert [row[:2] for row in compare_runs.difference_table(runs).rows] == [["b", "none"]]
  assert compare_runs.difference_table(runs[::2]) is None
  assert b"No other run has an arm of `a`." in compare_runs.build(runs[::2])["comparison.md"]


def test_keys_of_configs_that_differ(read):
  fork = {"seed": 0, "vae": {"epochs": 20, "channels": [32, 64]}, "fork": {"mode": "–", "text": ""}}
  older = made()
  older["about"] |= {"device": "1 x gpu", "versions": {"jax": "0.9.0"}}
  table = compare_runs.config_table(read(made(), (older, fork), made()))
  assert table.header == ["key", "a", "b", "c"]
  assert table.rows == [
    ["`vae.epochs`", "`40`", "`20`", "`40`"],
    ["`data.dir`", '`""`', "–", '`""`'],
    ["`about.device`", '`"1 x cpu"`', '`"1 x gpu"`', '`"1 x cpu"`'],
    ["`about.versions.jax`", '`"0.10.2"`', '`"0.9.0"`', '`"0.10.2"`'],
    ["`fork.mode`", "–", '`"–"`', "–"],
    ["`fork.text`", "–", '`""`', "–"],
  ]


def test_nothing_differs(read):
  runs = read(made(), made())
  assert compare_runs.config_table(runs) is None
  text = compare_runs.build(runs)["comparison.md"].decode()
  assert text.startswith("Neither configs nor versions nor devices differ.\n\nAccuracy in %")
  assert {cell for row in compare_runs.difference_table(runs).rows for cell in row[2:]} == {"+0.0 [0.0, 0.0]"}


def test_other_test_data_are_warned_of(read):
  runs = read(made(test_data=None), made(), made(test_data="b" * 64))
  warning = "Warning: test data differ, see `about.data.test`"
  assert compare_runs.build(runs)["comparison.md"].decode().startswith(warning)
  assert compare_runs.config_table(runs).rows == [["`about.data.test`", "–", f"`{'a' * 16}…`", f"`{'b' * 16}…`"]]
  assert warning.encode() not in compare_runs.build(runs[:2])["comparison.md"]


def test_long_form_holds_every_value(read):
  results = [made(), made(("clip",), seeds=(5, 6))]
  lines = list(csv.reader(io.StringIO(compare_runs.long_form(read(*results)))))
  assert lines[0] == ["run", "arm", "score", "seed", "value"]
  values = {tuple(keys): float(value) for *keys, value in lines[1:]}
  assert len(values) == len(lines) - 1
  arms = [one["arms"] for one in results]
  assert values["a", "latent_constraints", "test", "2"] == arms[0]["latent_constraints"]["test"]["accuracy"][2]
  assert values["b", "clip", "test: NLL, nats", "5"] == arms[1]["clip"]["test"]["nll"][0]
  assert values["b", "", "samples actor diversity", "6"] == results[1]["samples"]["actor"]["diversity"][1]
  scores, whole = 5, 7  # of an arm: two accuracies, three others; of a run: the judge's and three of two methods
  assert len(values) == 3 * (2 * scores + whole) + 2 * (scores + whole)


def test_arms_that_the_figure_shows():
  others = [f"arm{number}" for number in range(6)]
  of = lambda *arms: compare_runs.arms_drawn(list(map(run, arms)))
  assert of(others, others[:2]) == (others, 6)
  share = "latent_constraints:share=0.5"
  many = [*others, share, "shift_rotate+latent_constraints", "none", "latent_constraints"]
  samples = [share, "shift_rotate+latent_constraints", "latent_constraints"]
  assert of(many, many) == (["none", *samples, *others[:2]], 10)
  assert of(many, ["arm4", "latent_constraints", "new"]) == (["latent_constraints", "arm4"], 11)
  assert of(others, ["none"]) == (["none", *others[:5]], 7)


def test_figure_shows_means_and_standard_deviations(read, monkeypatch):
  drawn = []
  point = lambda panel, x, y, xerr, **style: drawn.append((x, y, xerr, style["color"]))
  monkeypatch.setattr("matplotlib.axes.Axes.errorbar", point)
  runs = read(made(), made(("none",), seeds=(4,)))
  compare_runs.draw(runs)
  places = [("none", 0, 1), ("none", 1, 2), ("latent_constraints", 0, 4)]  # lines 0 and 3 are the names of the arms
  expected = [(100 * np.array(runs[n].scores[name].values[arm]), n, line) for name in SHARED for arm, n, line in places]
  for (x, y, bar, colour), (values, number, line) in zip(drawn, expected, strict=True):
    assert (x, y, colour) == (pytest.approx(values.mean()), line, f"C{number}")
    assert bar == (pytest.approx(values.std(ddof=1)) if len(values) > 1 else None)


def test_figure_of_many_runs_and_arms(tmp_path):
  """Warnings are errors here, such as of panels that have no room; a name may look like a formula."""
  arms = ["none", "latent_constraints", *(f"shift_rotate+arm{number}:share=0.5" for number in range(18))]
  names = ["$x_$", "b" * 60, *"cdefgh"]
  contents = [made(arms, seeds=(0,) if name == "d" else (0, 1, 2)) for name in names]
  runs = compare_runs.read([write(tmp_path / name, results) for name, results in zip(names, contents, strict=True)])
  with Image.open(io.BytesIO(compare_runs.draw(runs))) as image:
    assert image.format == "PNG"
    assert image.height > 6 * 8 * 15  # pixels a line
    assert image.width < 2000


def test_same_runs_give_the_same_bytes(read, tmp_path):
  contents = [made(), made(source=1, gain=0.1), made(seeds=(8, 9))]
  first = compare_runs.build(read(*contents))
  assert sorted(first) == FILES
  elsewhere = [write(tmp_path / "elsewhere" / name, one) for name, one in zip("abc", contents, strict=True)]
  assert compare_runs.build(compare_runs.read(elsewhere)) == first


def test_page_is_sound_and_self_contained(read):
  hostile = {"data": {"dir": "</code><script src='https://example.org/a.js'></script>"}}
  document = compare_runs.build(read(made(), (made(source=1), hostile)))["comparison.html"].decode()
  elements = Elements(document)  # fails where tags are not balanced
  assert len(elements.all("table")) == 4
  assert len(elements.all("img")) == 1
  assert "script" not in {tag for tag, _ in elements.found}
  links = [attributes[name] for _, attributes in elements.found for name in ("src", "href") if name in attributes]
  assert all(link.startswith(("data:", "#")) for link in links)
  assert "url(" not in document
  assert hostile["data"]["dir"] in elements.text


def spoil(workdir, file, change):
  path = pathlib.Path(workdir) / file
  path.write_text(change(path.read_text()))
  return workdir


def without_a_seed(text):
  results = json.loads(text)
  results["arms"]["none"]["test"]["accuracy"].pop()
  return json.dumps(results)


def on_other_sets(text):
  results = json.loads(text)
  for arm in results["arms"]:
    results["arms"][arm] = {"diagnostic/noise": results["arms"][arm]["test"]}
    results["robustness"][arm] = {}
  return json.dumps(results | {"test_sets": {"diagnostic/noise": facts("diagnostic/noise")}})


BAD = {  # arguments that cannot be used, from two workdirs that can, and what the sentence says
  "one run": (lambda a, b: [a], "one run cannot be compared"),
  "the same run twice": (lambda a, b: [a, b, f"{b}/../a"], "/../a: this run is named twice"),
  "no such folder": (lambda a, b: [a, f"{b}x"], "bx: there is no results.json"),
  "a file": (lambda a, b: [a, f"{b}/config.json"], "config.json: there is no results.json"),
  "no config": (lambda a, b: [a, os.remove(f"{b}/config.json") or b], "b: there is no config.json"),
  "broken JSON": (lambda a, b: [a, spoil(b, "results.json", lambda text: text[:-9])], "results.json cannot be read"),
  "not of a run": (lambda a, b: [a, spoil(b, "results.json", lambda text: "[1]")], "is not what a run"),
  "no config in it": (lambda a, b: [a, spoil(b, "config.json", lambda text: "3")], "is not what a run"),
  "a value short": (lambda a, b: [a, spoil(b, "results.json", without_a_seed)], "not one number a seed"),
  "no numbers": (
    lambda a, b: [a, spoil(b, "results.json", lambda text: re.sub(r"0\.8\d+", '"x"', text))],
    "is not what a run",
  ),
  "no test set in common": (lambda a, b: [a, spoil(b, "results.json", on_other_sets)], "no test set that all"),
  "out is a file": (lambda a, b: [a, b, f"--out={b}/config.json"], "config.json: cannot be written to"),
  "out lies in a file": (lambda a, b: [a, b, f"--out={b}/config.json/c"], "config.json/c: cannot be written to"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_ends_before_anything_is_written(case, tmp_path, monkeypatch, capsys):
  arguments, words = BAD[case]
  arguments = arguments(write(tmp_path / "a", made()), write(tmp_path / "b", made(source=1)))
  monkeypatch.chdir(tmp_path)
  before = {path: path.is_file() and path.read_bytes() for path in tmp_path.rglob("*")}
  with pytest.raises(SystemExit) as ended:
    compare_runs.main(arguments)
  assert ended.value.code == 2
  *_, sentence = capsys.readouterr().err.splitlines()
  assert sentence.startswith("python -m lcgen.compare: error: ")
  assert words in sentence
  assert {path: path.is_file() and path.read_bytes() for path in tmp_path.rglob("*")} == before


def test_command_writes_and_prints(tmp_path, capsys):
  good = [write(tmp_path / "lr" / name, made(source=number)) for number, name in enumerate(("1", "2"))]
  out = tmp_path / "new" / "out"
  compare_runs.main([*good, f"--out={out}"])
  text = (out / "comparison.md").read_text()
  assert capsys.readouterr() == (f"{text}\nFigure, page and CSV in {out}\n", "")
  assert sorted(path.name for path in out.iterdir()) == FILES
  assert "\n| 2 | latent_constraints |" in text


def test_command_refuses_as_a_process(tmp_path):
  arguments = [write(tmp_path / "a", made()), str(tmp_path / "b"), f"--out={tmp_path / 'out'}"]
  command = [sys.executable, "-m", "lcgen.compare", *arguments]
  done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
  assert (done.returncode, done.stdout) == (2, "")
  sentence = f"error: {tmp_path / 'b'}: there is no results.json; name the workdir of a finished run"
  assert done.stderr.splitlines()[-1] == f"python -m lcgen.compare: {sentence}"
  assert "Traceback" not in done.stderr
  assert not (tmp_path / "out").exists()
