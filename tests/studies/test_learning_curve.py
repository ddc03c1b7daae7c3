import itertools
import json

import numpy as np
import pytest
from scipy import stats

from lcgen.reporting import figures, statistics, tables
from lcgen.studies import learning_curve
from tests.reporting.test_tables import drawn, results

SETS = ("test", "diagnostic/noise", "diagnostic/normalised_twice", "generated_mnist_c/stripe")
NAMES = [*SETS[:-1], "generated_mnist_c: mean of stripe"]
LABELS = np.random.default_rng(0).permutation(np.repeat([0, 1, 2, 5], [400, 3, 41, 20]))


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 1.0])
def test_labelled_rows_are_a_share_of_every_class(share):
  rows = learning_curve.labelled_rows(LABELS, share, seed=3)
  assert len(set(rows)) == len(rows)
  assert np.all(np.diff(rows) > 0)
  for label in (0, 1, 2, 5):
    count, wanted = np.sum(LABELS[rows] == label), share * np.sum(LABELS == label)
    assert count >= 1
    assert abs(count - max(1, wanted)) <= 0.5
  if share == 1:
    np.testing.assert_array_equal(rows, np.arange(len(LABELS)))


def test_labelled_rows_of_larger_shares_hold_those_of_smaller_ones():
  by_share = [set(learning_curve.labelled_rows(LABELS, share, seed=3)) for share in (0.01, 0.03, 0.1, 0.3, 1.0)]
  assert all(smaller < larger for smaller, larger in itertools.pairwise(by_share))


def test_labelled_rows_are_drawn_by_the_seed():
  chosen = [tuple(learning_curve.labelled_rows(LABELS, 0.1, seed)) for seed in (0, 0, 1, 2)]
  assert chosen[0] == chosen[1]
  assert len(set(chosen)) == 3


def points(arms=("none", "latent_constraints", "clip"), seeds=4):
  """Three points whose arms gain the more the fewer labels there are."""
  return [
    {"share": share, "labelled": labelled} | results(drawn(arms, SETS, seeds, effect))
    for share, labelled, effect in ((0.01, 36, 0.02), (0.1, 360, 0.005), (1.0, 3600, 0.0))
  ]


def test_curve_tables_have_a_row_a_number_of_labels():
  given = points()
  found = learning_curve.curve_tables(given)
  assert [table.caption.partition(": accuracy in %")[0] for table in found] == NAMES
  for table, name in zip(found, SETS, strict=True):
    assert "n = 4 seeds" in table.caption
    assert table.note == tables.MARKS
    assert table.header == ["labelled images", "none", "latent_constraints", "clip"]
    assert [row[0] for row in table.rows] == ["36", "360", "3600"]
    for row, point in zip(table.rows, given, strict=True):
      none, *others = (point["arms"][arm][name]["accuracy"] for arm in table.header[1:])
      assert row[1] == tables.percent(none)
      words = [statistics.difference_words(statistics.paired(values, none), scale=100) for values in others]
      assert [cell.rstrip("*") for cell in row[2:]] == words


def test_curve_tables_are_corrected_one_by_one():
  given, stars = points(), set()
  for table, name in zip(learning_curve.curve_tables(given), SETS, strict=True):
    accuracies = [[point["arms"][arm][name]["accuracy"] for arm in table.header[1:]] for point in given]
    p_values = [stats.ttest_rel(values, none).pvalue for none, *others in accuracies for values in others]
    marks = [cell.count("*") for row in table.rows for cell in row[2:]]
    adjusted = statistics.holm(p_values)
    assert marks == [int(p < 0.05) + int(q < 0.05) for p, q in zip(p_values, adjusted, strict=True)]
    stars |= set(marks)
  assert stars == {0, 1, 2}


def test_curve_tables_of_one_seed_have_no_intervals():
  for table in learning_curve.curve_tables(points(seeds=1)):
    assert not any("[" in cell or "*" in cell or "±" in cell for row in table.rows for cell in row)


def test_curve_tables_of_none_alone_hold_its_accuracies():
  for table in learning_curve.curve_tables(points(("none",))):
    assert table.header == ["labelled images", "none"]
    assert {len(row) for row in table.rows} == {2}


@pytest.mark.parametrize("seeds", [1, 4])
def test_curves_are_drawn_with_their_spread(seeds, monkeypatch, tmp_path):
  kept, given = [], points(seeds=seeds)
  monkeypatch.setattr(figures, "_save", lambda figure, path: kept.append(figure))
  figures.draw_learning_curve(tmp_path / "learning_curve.png", given)
  (figure,) = kept
  assert [panel.get_title() for panel in figure.axes] == NAMES
  panel = figure.axes[0]
  assert panel.get_xscale() == "log"
  assert [label.get_text() for label in panel.get_xticklabels()] == ["36", "360", "3600"]
  assert [text.get_text() for text in panel.get_legend().get_texts()] == ["none", "latent_constraints", "clip"]
  for container, arm in zip(panel.containers, ("none", "latent_constraints", "clip"), strict=True):
    accuracies = 100 * np.array([point["arms"][arm]["test"]["accuracy"] for point in given])  # [points, S]
    curve, _, bars = container
    np.testing.assert_array_equal(curve.get_xdata(), [36, 360, 3600])
    np.testing.assert_allclose(curve.get_ydata(), accuracies.mean(axis=1))
    if seeds == 1:
      assert bars == ()
      continue
    ends = np.array(bars[0].get_segments())[..., 1]  # [points, 2]
    np.testing.assert_allclose(np.diff(ends)[:, 0], 2 * accuracies.std(axis=1, ddof=1))
  words = "one seed" if seeds == 1 else "mean ± standard deviation of 4 seeds"
  assert figure.get_suptitle() == words


def test_a_run_on_shares_of_the_labels(run_aside):
  workdir, stdout = run_aside("learning_curve")
  found, own = (json.loads((workdir / f"{name}.json").read_text()) for name in ("learning_curve", "results"))
  assert [(point["share"], point["labelled"]) for point in found["points"]] == [(0.2, 70), (1.0, 360)]
  for point in found["points"]:
    assert set(point["arms"]) == {"none", "latent_constraints"}
    assert list(point["test_sets"]) == ["test", "diagnostic/noise"]
  full, whole = found["points"][-1]["arms"], own["arms"]
  for arm, scores in full.items():  # with all labels they are the run's own
    assert scores["test"]["accuracy"] == whole[arm]["test"]["accuracy"]
    np.testing.assert_allclose(scores["test"]["nll"], whole[arm]["test"]["nll"], rtol=1e-6)
  assert found["points"][0]["arms"]["none"]["test"]["nll"] != full["none"]["test"]["nll"]
  assert len(found["tables"]) == 2
  assert (workdir / "learning_curve.md").read_text() in stdout
  assert (workdir / "figures" / "learning_curve.png").read_bytes().startswith(b"\x89PNG")
  assert "<h2>Fewer labels</h2>" in (workdir / "report.html").read_text()
