import csv
import io
import re

import numpy as np
import pytest
from scipy import stats

from lcgen.data import corruptions, test_sets
from lcgen.reporting import statistics, tables
from lcgen.runtime.results import RuleResults
from tests.support.results import ARMS, SETS, compared, drawn, of_real, results


def test_scores_are_those_of_sets_and_of_families():
  sets = (
    *SETS[:-1],
    "mnist_corrupted/identity",
    "mnist_corrupted/fog",
    "dirty_mnist/mnist",
    "dirty_mnist/ambiguous",
    "dirty_mnist",
  )
  given = drawn(sets=sets)
  scores = {score.name: score for score in tables.scores(results(given))}
  assert [(score.name, score.kind) for score in scores.values()] == [
    ("test", "set"),
    ("mnist_corrupted/identity, published", "set"),
    ("dirty_mnist/mnist, published", "set"),
    ("dirty_mnist/ambiguous, published (ceiling 85.5)", "set"),
    ("dirty_mnist/ambiguous: NLL to the drawn labels", "soft"),
    ("dirty_mnist/ambiguous: Brier score to the drawn labels", "soft"),
    ("dirty_mnist/ambiguous: KL divergence to the drawn labels", "soft"),
    ("dirty_mnist, published", "set"),
    ("test: NLL, nats", "soft"),
    ("test: Brier score", "soft"),
    ("test: expected calibration error", "soft"),
    ("generated_cifar10_c: mean of contrast", "mean"),
    ("generated_cifar10_c: digital", "group"),
    ("generated_cifar10_c: contrast, relative to clean", "relative"),
    ("mnist_corrupted: mean of fog", "mean"),
    ("mnist_corrupted: fog, relative to clean", "relative"),
  ]
  assert all(list(score.values) == list(ARMS) for score in scores.values())
  for arm, own in given.items():
    assert scores["dirty_mnist, published"].values[arm] == own["dirty_mnist"]
    contrast = np.mean([own[f"generated_cifar10_c/contrast_{severity}"] for severity in range(1, 6)], axis=0)
    np.testing.assert_allclose(scores["generated_cifar10_c: mean of contrast"].values[arm], contrast)
    nll = 1 - np.array(own["dirty_mnist/ambiguous"])
    np.testing.assert_allclose(scores["dirty_mnist/ambiguous: NLL to the drawn labels"].values[arm], nll)
    clean = np.array(own["mnist_corrupted/fog"]) / own["mnist_corrupted/identity"]
    np.testing.assert_allclose(scores["mnist_corrupted: fog, relative to clean"].values[arm], clean)


def test_whole_families_have_the_means_of_benchmark_and_of_all():
  sets = [one.name for one in test_sets.expand(["test", "generated_cifar10_c", "generated_mnist_c"])]
  scores = tables.scores(results(drawn(sets=sets)))
  assert [score.name for score in scores if score.kind == "mean"] == [
    "generated_cifar10_c: mean of the benchmark's 15",
    "generated_cifar10_c: mean of all 19",
    "generated_mnist_c: mean of all 15",
  ]
  assert [score.name for score in scores if score.kind == "group"] == [
    f"generated_cifar10_c: {group}" for group in corruptions.GROUPS
  ]


def test_scores_without_the_test_images():
  scores = tables.scores(results(drawn(sets=SETS[1:])))
  assert [(score.name, score.kind) for score in scores] == [
    ("generated_cifar10_c: mean of contrast", "mean"),
    ("generated_cifar10_c: digital", "group"),
    ("generated_mnist_c: mean of stripe", "mean"),
  ]


@pytest.mark.parametrize("count", [1, 4, 5])
def test_more_arms_than_four_are_rows(count):
  given = drawn(ARMS[:count])
  table = tables.accuracies(results(given))
  assert "Accuracy in % on mnist5k, mean ± standard deviation over 4 seeds" in table.caption
  assert "3600 training, 400 validation and 1000 test images" in table.caption
  cell = lambda values: statistics.summary([100 * value for value in values], digits=1)
  sets_and_means = ["test", "generated_cifar10_c: mean of contrast", "generated_mnist_c: mean of stripe"]
  if count > 4:
    assert list(table.header) == ["arm", *sets_and_means]
    assert [(row[0], row[1]) for row in table.rows] == [(arm, cell(own["test"])) for arm, own in given.items()]
    return
  assert table.header == ["test set", *given]
  rows = {name: cells for name, *cells in table.rows}
  assert set(sets_and_means) < set(rows)
  assert rows["test"] == [cell(own["test"]) for own in given.values()]
  nll = lambda own: statistics.summary([1 - value for value in own["test"]], digits=3)
  assert rows["test: NLL, nats"] == [nll(own) for own in given.values()]


def test_one_seed_has_no_spread():
  table = tables.accuracies(results(drawn(seeds=1)))
  assert "one seed, hence no spread" in table.caption
  assert not any("±" in cell for row in table.rows for cell in row)


def cells_of(table):
  """`{(arm, score): cell}`, whichever of the two are rows."""
  if table.header[0] != "arm":
    table = table.transposed("arm")
  return {(arm, name): cell for arm, *row in table.rows for name, cell in zip(table.header[1:], row, strict=True)}


def test_gains_are_paired_differences_with_their_intervals():
  given = drawn()
  table = tables.gains(results(given))
  assert "n = 4 seeds" in table.caption
  assert table.note == tables.MARKS
  cells, pairs = cells_of(table), compared(given)
  assert set(cells) == set(pairs)
  for place, (ours, baseline) in pairs.items():
    mean, low, high = map(float, re.fullmatch(r"([+-][\d.]+) \[(-?[\d.]+), (-?[\d.]+)\]\**", cells[place]).groups())
    difference = statistics.paired(ours, baseline)
    expected = 100 * np.array([difference.mean, *difference.t_interval])
    np.testing.assert_allclose([mean, low, high], expected, rtol=0, atol=0.0501)


def test_stars_are_where_intervals_exclude_zero_and_where_the_whole_table_allows_it():
  """Against SciPy's paired t test and Holm's steps by hand."""
  given = drawn(effect=0.004)
  cells, pairs = cells_of(tables.gains(results(given))), compared(given)
  tests = {place: stats.ttest_rel(*pair) for place, pair in pairs.items()}
  ordered = sorted(tests, key=lambda place: tests[place].pvalue)
  rejected = np.cumprod([tests[place].pvalue * (len(ordered) - k) < 0.05 for k, place in enumerate(ordered)])
  corrected = {place for place, holds in zip(ordered, rejected, strict=True) if holds}
  for place, cell in cells.items():
    low, high = tests[place].confidence_interval(0.95)
    assert cell.count("*") == (not low <= 0 <= high) + (place in corrected), (place, cell)
  assert {cell.count("*") for cell in cells.values()} == {0, 1, 2}


@pytest.mark.parametrize(("seeds", "marked"), [(3, False), (6, True)])
def test_equal_differences_of_few_seeds_are_not_marked(seeds, marked):
  base = np.arange(seeds) / 100
  given = {"none": {"test": base}, "clip": {"test": base + 0.02}}
  assert cells_of(tables.gains(results(given)))["clip", "test"].startswith("+2.0 [2.0, 2.0]")
  assert ("*" in cells_of(tables.gains(results(given)))["clip", "test"]) == marked


def test_one_seed_has_neither_intervals_nor_stars():
  cells = cells_of(tables.gains(results(drawn(seeds=1))))
  assert all(re.fullmatch(r"[+-]\d+\.\d", cell) for cell in cells.values())


@pytest.mark.parametrize("arms", [["none"], ["clip"], ["clip", "augmix"]])
def test_there_are_no_gains_without_something_to_compare(arms):
  assert tables.gains(results(drawn(arms))) is None


@pytest.mark.parametrize(("others", "corner"), [(1, "test set"), (3, "test set"), (4, "arm")])
def test_gains_of_many_arms_are_rows(others, corner):
  assert tables.gains(results(drawn(ARMS[: others + 1]))).header[0] == corner


CIFAR10_C = [one.name for one in test_sets.expand(["cifar10_corrupted"])]


@pytest.mark.parametrize(
  ("name", "sets", "rows"),
  [
    ("mnist", ["test", "dirty_mnist"], {"test": ["95", "94", "-1"], "dirty_mnist": ["41", "57", "+16"]}),
    ("mnist5k", ["test", "generated_mnist_c/stripe"], {"test": ["95", "94", "-1"]}),
    (
      "cifar10",
      ["test", *CIFAR10_C],
      {"test": ["74", "75", "+1"], "cifar10_corrupted": ["65", "66", "+1"]},
    ),
  ],
)
def test_the_papers_table_beside_ones_own(name, sets, rows):
  given = drawn(("none", "latent_constraints", "clip"), sets)
  table = tables.against_paper(results(given, name))
  assert f"beside this run on {name}, mean ± standard deviation over 4 seeds" in table.caption
  assert {row[0]: row[1:4] for row in table.rows} == rows
  for name, *_, none, method, gain in table.rows:
    parts = [part for part in sets if part.startswith(name)]
    own = [np.mean([given[arm][part] for part in parts], axis=0) for arm in ("none", "latent_constraints")]
    assert [none, method] == [tables.percent(values) for values in own]
    assert gain.startswith(statistics.difference_words(statistics.paired(own[1], own[0]), scale=100))


@pytest.mark.parametrize(
  ("name", "arms", "sets"),
  [
    ("fashion_mnist", ARMS, ["test"]),
    ("kmnist", ARMS, ["test"]),
    ("cifar100", ARMS, ["test"]),
    ("mnist", ["none", "clip"], ["test"]),
    ("mnist", ["latent_constraints", "clip"], ["test"]),
    ("mnist", ARMS, ["generated_mnist_c/stripe"]),
    ("cifar10", ARMS, ["cifar10_corrupted/fog_1"]),
  ],
)
def test_other_data_and_other_arms_are_not_held_against_the_paper(name, arms, sets):
  assert tables.against_paper(results(drawn(arms, sets), name)) is None


def test_the_papers_table_is_corrected_as_one_family():
  """Two comparisons with p = 0.03 each are 0.06 together."""
  gain = np.array([1.0, 2.0, 3.0, 4.0]) / 100  # p = 0.0305
  given = {"none": dict.fromkeys(("test", "dirty_mnist"), np.full(4, 0.5))}
  given["latent_constraints"] = dict.fromkeys(("test", "dirty_mnist"), 0.5 + gain)
  assert 0.025 < stats.ttest_1samp(gain, 0).pvalue < 0.05
  cells = [row[-1] for row in tables.against_paper(results(given, "mnist")).rows]
  assert cells == ["+2.5 [0.4, 4.6]*"] * 2


def rule(samples, **more):
  about = {
    name: {"title": name.replace("_", " "), "scale": 1.0, "digits": 2, "of": "features", "shown": True}
    for name in ("diversity", "novelty")
  }
  return RuleResults(name="ink", bound="above", value=0.5, seeds=[0, 1], samples=samples, metrics=about | more)


def test_samplers_are_rows():
  scores = ("conditional_accuracy", "diversity", "novelty", "moved")
  samples = {"actor": {name: [0.25, 0.75] for name in scores} | {"ms_per_sample": 0.0614}}
  older = tables.samples(rule(samples), "rule holds, %", "caption")
  assert older.note == ""
  table = tables.samples(rule(samples | of_real(samples["actor"])), "rule holds, %", "caption")
  titles = ["method", "rule holds, %", "diversity", "novelty", "distance moved", "ms per sample"]
  assert list(table.header) == titles
  assert older.rows == [["actor", "50.0 ± 35.4", *["0.50 ± 0.35"] * 3, "0.061"]]
  real = ["50.0 ± 35.4", *["0.50 ± 0.35"] * 2, "–", "–"]
  assert table.rows == [*older.rows, ["real", *real], ["reconstructed", *real]]
  for words in ("`real`: real images", "(40 validation and 60 training images)", "`reconstructed`: 100 test images"):
    assert words in table.note


def test_a_sampler_and_metrics_of_ones_own_are_shown():
  form = {"scale": 100.0, "digits": 0, "of": "features", "shown": True}
  own = {"ink": {"title": "ink, %", **form}, "hidden": {"title": "hidden", **form, "shown": False}}
  scores = {name: [0.25, 0.75] for name in ("conditional_accuracy", "diversity", "novelty", "moved", "ink", "hidden")}
  samples = {"teleport": scores | {"ms_per_sample": 1.0}, "older": scores | {"ms_per_sample": 2.0}}
  samples["older"] = {name: values for name, values in samples["older"].items() if name != "ink"}
  table = tables.samples(rule(samples, **own), "rule holds, %", "caption")
  assert list(table.header[4:]) == ["ink, %", "distance moved", "ms per sample"]
  assert [row[0] for row in table.rows] == ["teleport", "older"]
  assert [row[4] for row in table.rows] == ["50 ± 35", "–"]


def test_a_metric_of_logits_is_a_soft_score():
  found = results(drawn(ARMS[:2], seeds=2))
  for scored in found.arms.values():
    scored["test"]["margin"] = [0.25, 0.75]
  found.metrics["margin"] = {"title": "margin, nats", "scale": 10.0, "digits": 1, "of": "logits", "shown": True}
  (score,) = [score for score in tables.scores(found) if score.name == "test: margin, nats"]
  assert score.kind == "soft"
  rows = {name: cells for name, *cells in tables.accuracies(found).rows}
  assert rows["test: margin, nats"] == ["5.0 ± 3.5"] * 2


def test_a_score_that_is_nan_has_no_difference():
  found = results(drawn(ARMS[:2], seeds=2))
  found.arms["latent_constraints"]["test"]["margin"] = found.arms["none"]["test"]["margin"] = [0.5, float("nan")]
  lines = list(csv.DictReader(io.StringIO(tables.comma_separated(found))))
  assert {line["difference"] for line in lines if line["score"] == "margin"} == {""}


TABLE = tables.Table("Caption", ["arm", "test"], [["none", "1.0"], ["clip", "2.0"]], "Note")


def test_markdown():
  assert tables.markdown(TABLE) == "Caption\n\n| arm | test |\n| --- | --- |\n| none | 1.0 |\n| clip | 2.0 |\n\nNote\n"
  assert tables.markdown(TABLE._replace(note="")).endswith("| clip | 2.0 |\n")
  assert r"| a\|b |" in tables.markdown(tables.Table("Caption", ["x"], [["a|b"]]))


def test_transposed_twice_is_the_same():
  table = TABLE.transposed("set")
  assert [table.header, *map(list, table.rows)] == [["set", "none", "clip"], ["test", "1.0", "2.0"]]
  back = table.transposed("arm")
  assert [list(back.header), *map(list, back.rows)] == [TABLE.header, *TABLE.rows]


def test_latex():
  assert tables.latex(TABLE).splitlines() == [
    r"\begin{table}",
    r"\caption{Caption Note}",
    r"\begin{tabular}{lr}",
    r"  \hline",
    r"  arm & test \\",
    r"  \hline",
    r"  none & 1.0 \\",
    r"  clip & 2.0 \\",
    r"  \hline",
    r"\end{tabular}",
    r"\end{table}",
  ]


def test_latex_shows_texts_as_they_are():
  hostile = r"a_b & 50 % #1 $x$ {y} ~ ^ \z ± –"
  document = tables.latex(tables.Table(f"`{hostile}`", ["x"], [[hostile]]))
  shown = r"a\_b \& 50 \% \#1 \$x\$ \{y\} \textasciitilde{} \textasciicircum{} \textbackslash{}z $\pm$ --"
  assert rf"\caption{{\texttt{{{shown}}}}}" in document
  assert rf"  {shown} \\" in document


@pytest.mark.parametrize("count", [3, 6])
def test_latex_of_results_is_sound(count):
  found = results(drawn(ARMS[:count]))
  for table in (tables.accuracies(found), tables.gains(found)):
    document = tables.latex(table)
    plain = re.sub(r"\\[\\&%$#_{}]", "", document)  # what is left of escaped characters is markup
    depths = np.cumsum([{"{": 1, "}": -1}.get(character, 0) for character in plain])
    assert depths.min() == depths[-1] == 0
    assert not re.search("[_%#~^±–]", plain)
    assert plain.count("$") == 2 * document.count(r"$\pm$")
    assert r"latent\_constraints" in document
    lines = [line for line in plain.splitlines() if "&" in line]
    assert {line.count("&") for line in lines} == {len(table.header) - 1}
    assert len(lines) == len(table.rows) + 1
    assert rf"{{l{'r' * (len(table.header) - 1)}}}" in document
  assert r"\texttt{none}" in document
  assert r"$\pm$" in tables.latex(tables.accuracies(found))


@pytest.mark.parametrize("arms", [ARMS, ARMS[1:3]])
@pytest.mark.parametrize("seeds", [1, 4])
def test_comma_separated_holds_every_score(arms, seeds):
  found = results(drawn(arms, (*SETS, "dirty_mnist/ambiguous"), seeds))
  lines = list(csv.DictReader(io.StringIO(tables.comma_separated(found))))
  places = [(arm, one, score) for arm, own in found.arms.items() for one, scores in own.items() for score in scores]
  assert [(line["arm"], line["test set"], line["score"]) for line in lines] == places
  assert {("clip", "corrupted", "accuracy"), ("clip", "dirty_mnist/ambiguous", "kl")} <= set(places)
  number = lambda text: None if text == "" else float(text)
  for line, (arm, one, score) in zip(lines, places, strict=True):
    values = found.arms[arm][one][score]
    assert line["n"] == str(seeds)
    assert float(line["mean"]) == pytest.approx(np.mean(values))
    assert number(line["sd"]) == (pytest.approx(np.std(values, ddof=1)) if seeds > 1 else None)
    compared = ["difference", "t low", "t high", "bootstrap low", "bootstrap high", "p"]
    if arm == "none" or "none" not in arms:
      assert [line[name] for name in compared] == [""] * 6
      continue
    difference = statistics.paired(values, found.arms["none"][one][score])
    intervals = [*(difference.t_interval or [None] * 2), *(difference.bootstrap_interval or [None] * 2)]
    assert [number(line[name]) for name in compared] == [difference.mean, *intervals, difference.p]
