import json

import numpy as np
import pytest
from scipy import stats

from lcgen.reporting import figures, report, statistics, study_tables, tables
from lcgen.runtime import results as stored
from tests.support.results import drawn, roles, scored, study, typed
from tests.support.statistics import fieller

SETS = ("test", "diagnostic/noise", "diagnostic/normalised_twice", "generated_mnist_c/stripe")
NAMES = [*SETS[:-1], "generated_mnist_c: mean of stripe"]
CONDITION = {
  "limit": 1.0,
  "calibrate": False,
  "share": 0.2,
  "activate_logits": True,
  "learning_rate": 0.005,
  "schedule": "constant",
}
WORDS = {
  "": "the paper's conditions",
  "limit": "but decoder range [-2, 2]",
  "calibrate": "but pixel values fitted to the data's: True",
  "share": "but share replaced: 0.125",
  "activate_logits": "but LeakyReLU on the logits: False",
  "learning_rate": "but classifier's learning rate 0.001",
  "schedule": "but classifier's schedule cosine",
  "all": "all of these changed",
}
OURS = dict(zip(CONDITION, (2.0, True, 0.125, False, 0.001, "cosine"), strict=True))
NOISE = np.array([2.0, -1.0, -2.0, 1.0]) / 1000
BASE = np.array([0.7, 0.72, 0.69, 0.71])


def curve(arms=("none", "latent_constraints", "clip"), seeds=4):
  """A learning curve of three points whose arms gain the more the fewer labels there are."""
  sizes = ((0.01, 36, 0.02), (0.1, 360, 0.005), (1.0, 3600, 0.0))
  by_point = [drawn(arms, SETS, seeds, effect) for *_, effect in sizes]
  points = [
    {"share": share, "labelled": labelled} | scored(by_arm)
    for (share, labelled, _), by_arm in zip(sizes, by_point, strict=True)
  ]
  return {"points": points} | study(by_point[0])


def audit(seeds=3, output_limit=2.0):
  """Builds what `Audit.run` returns, with what the pipeline adds."""
  arms = {share: f"latent_constraints{suffix}" for share, suffix in ((0.125, ""), (0.5, ":share=0.5"))}
  shares = [
    {
      "share": share,
      "arms": {"none": "none", "latent_constraints": arm, "clip": arm.replace("latent_constraints", "clip")},
    }
    for share, arm in arms.items()
  ]
  names = list(dict.fromkeys(arm for one in shares for arm in one["arms"].values()))
  switched = []
  for place, changed in enumerate(WORDS):
    condition = OURS if changed == "all" else CONDITION | {name: OURS[name] for name in [changed] if name}
    values = scored(drawn(("none", "latent_constraints", "clip", "duplicate"), SETS[::2], seeds, 0.01 * place))["arms"]
    switched.append({"changed": changed, "condition": condition} | values)
  by_arm = drawn(names, SETS, seeds)
  found = {"explained": scored(by_arm), "shares": shares, "switched": switched, "sets": ["test", SETS[2]]}
  return found | {"output_limit": output_limit, "model_limit": 2.0} | study(by_arm)


def explained(method, **controls):
  """Tables of arms with these differences to `none` on each test set."""
  given = {"none": dict.fromkeys(method, BASE)}
  given |= {f"{arm}:share=0.3": {name: BASE + change for name, change in own.items()} for arm, own in controls.items()}
  given["latent_constraints:share=0.3"] = {name: BASE + change for name, change in method.items()}
  names = {"none": "none", "latent_constraints": "latent_constraints:share=0.3"}
  names |= {arm: f"{arm}:share=0.3" for arm in controls}
  return study_tables.explained_tables(typed(given), names, 0.3)


def curve_tables(found):
  return study_tables.curve_tables(study_tables.curve_points(found))


def test_what_controls_explain_of_a_known_gain():
  """`clip` has half of the gain, `contrast` twice as much, `blur` none; each with noise of its own, of mean 0."""
  method = {"test": 0.04 + NOISE}
  noise = {"clip": NOISE[::-1], "contrast": np.roll(NOISE, 1), "blur": np.roll(NOISE, 2)}
  part = {"clip": 0.5, "contrast": 2.0, "blur": 0.0}
  controls = {arm: {"test": part[arm] * 0.04 + noise[arm]} for arm in part}
  gains, shares = explained(method, **controls)
  assert gains.caption == "Gain over `none` in points of accuracy, 0.3 of each batch replaced, n = 4 seeds."
  assert [[arm, cell.split()[0]] for arm, cell in gains.rows] == [
    ["latent_constraints", "+4.0"],
    ["clip", "+2.0"],
    ["contrast", "+8.0"],
    ["blur", "+0.0"],
  ]
  assert "0.3 of each batch replaced, n = 4 seeds" in shares.caption
  assert shares.header == ["control", "test"]
  for (arm, cell), own in zip(shares.rows, part, strict=True):
    low, high = fieller(BASE + controls[arm]["test"], BASE + method["test"], BASE, 0.95)
    assert (arm, cell) == (own, f"{100 * part[arm]:.0f} [{100 * low:.0f}, {100 * high:.0f}]")
    assert low < part[arm] < high


def test_without_a_shown_gain_there_is_none_to_explain():
  method = {"test": 0.04 + NOISE, "diagnostic/noise": 10 * NOISE, "diagnostic/normalised_twice": NOISE - 0.04}
  half = {name: change / 2 for name, change in method.items()}
  gains, shares = explained(method, clip=half)
  assert gains.header == ["arm", *method]
  assert [cell.rstrip("*").split()[0] for cell in gains.rows[0][1:]] == ["+4.0", "+0.0", "-4.0"]
  assert shares.header == ["control", "test"]
  assert shares.rows == [["clip", "50 [50, 50]"]]  # without noise of its own
  del method["test"]
  (gains,) = explained(method, clip=dict.fromkeys(method, NOISE))
  assert gains.caption.startswith("Gain over")


def test_audit_has_tables_for_every_share_and_one_for_the_conditions():
  found = audit()
  made = study_tables.tables_of("audit", found)
  gains = [table for table in made if table.caption.startswith("Gain over")]
  for table, one in zip(gains, found["shares"], strict=True):
    assert f"{one['share']:g} of each batch replaced, n = 3 seeds" in table.caption
    assert [row[0] for row in table.rows] == ["latent_constraints", "clip"]
    assert table.header == ["arm", *NAMES]
    accuracy = lambda arm: found["explained"]["arms"][arm]["test"]["accuracy"]
    for row in table.rows:
      difference = statistics.paired(accuracy(one["arms"][row[0]]), accuracy("none"))
      assert row[1].rstrip("*") == statistics.difference_words(difference, scale=100)
  assert made[-1].caption.startswith("The paper's comparison under its own conditions")


def test_switched_conditions_are_told_in_words():
  found = audit()
  table = study_tables.switched_table(found)
  assert [row[0] for row in table.rows] == list(WORDS.values())
  assert "n = 3 seeds" in table.caption
  assert table.note.startswith(
    "The paper's conditions: decoder range [-1, 1]; pixel values fitted to the data's: False; share replaced: 0.2; "
    "LeakyReLU on the logits: True; classifier's learning rate 0.005; classifier's schedule constant. "
  )
  assert table.note.endswith(tables.MARKS)
  assert "decoder ends" not in table.note
  assert table.header[:3] == ["condition", "test: none, %", "test: latent_constraints"]
  differences = []
  for row, shown in zip(found["switched"], table.rows, strict=True):
    for place, name in enumerate(found["sets"]):
      none, *others = (row[arm][name]["accuracy"] for arm in ("none", "latent_constraints", "clip", "duplicate"))
      assert shown[1 + 4 * place] == tables.percent(none)
      differences += [statistics.paired(values, none) for values in others]
  cells = [cell for row in table.rows for cell in (*row[2:5], *row[6:9])]
  assert cells == tables.compared(differences)


def test_a_short_range_of_the_decoder_is_told():
  assert "This VAE's decoder ends at ±1:" in study_tables.switched_table(audit(output_limit=1.0)).note


def test_curve_tables_have_a_row_a_number_of_labels():
  found = curve()
  made = study_tables.tables_of("learning_curve", found)
  assert [table.caption.partition(": accuracy in %")[0] for table in made] == NAMES
  for table, name in zip(made, SETS, strict=True):
    assert "n = 4 seeds" in table.caption
    assert table.note == tables.MARKS
    assert table.header == ["labelled images", "none", "latent_constraints", "clip"]
    assert [row[0] for row in table.rows] == ["36", "360", "3600"]
    for row, point in zip(table.rows, found["points"], strict=True):
      none, *others = (point["arms"][arm][name]["accuracy"] for arm in table.header[1:])
      assert row[1] == tables.percent(none)
      words = [statistics.difference_words(statistics.paired(values, none), scale=100) for values in others]
      assert [cell.rstrip("*") for cell in row[2:]] == words


def test_curve_tables_are_corrected_one_by_one():
  found, stars = curve(), set()
  for table, name in zip(curve_tables(found), SETS, strict=True):
    accuracies = [[point["arms"][arm][name]["accuracy"] for arm in table.header[1:]] for point in found["points"]]
    p_values = [stats.ttest_rel(values, none).pvalue for none, *others in accuracies for values in others]
    marks = [cell.count("*") for row in table.rows for cell in row[2:]]
    adjusted = statistics.holm(p_values)
    assert marks == [int(p < 0.05) + int(q < 0.05) for p, q in zip(p_values, adjusted, strict=True)]
    stars |= set(marks)
  assert stars == {0, 1, 2}


def test_curve_tables_of_one_seed_have_no_intervals():
  for table in curve_tables(curve(seeds=1)):
    assert not any("[" in cell or "*" in cell or "±" in cell for row in table.rows for cell in row)


def test_curve_tables_of_none_alone_hold_its_accuracies():
  for table in curve_tables(curve(("none",))):
    assert table.header == ["labelled images", "none"]
    assert {len(row) for row in table.rows} == {2}


@pytest.mark.parametrize("seeds", [1, 4])
def test_curves_are_drawn_with_their_spread(seeds, monkeypatch, tmp_path):
  kept, found = [], curve(seeds=seeds)
  monkeypatch.setattr(figures, "_save", lambda figure, path: kept.append(figure))
  figures.draw_learning_curve(tmp_path / "learning_curve.png", study_tables.curve_points(found))
  (figure,) = kept
  assert [panel.get_title() for panel in figure.axes] == NAMES
  panel = figure.axes[0]
  assert panel.get_xscale() == "log"
  assert [label.get_text() for label in panel.get_xticklabels()] == ["36", "360", "3600"]
  assert [text.get_text() for text in panel.get_legend().get_texts()] == ["none", "latent_constraints", "clip"]
  for container, arm in zip(panel.containers, ("none", "latent_constraints", "clip"), strict=True):
    accuracies = 100 * np.array([point["arms"][arm]["test"]["accuracy"] for point in found["points"]])  # [points, S]
    line, _, bars = container
    np.testing.assert_array_equal(line.get_xdata(), [36, 360, 3600])
    np.testing.assert_allclose(line.get_ydata(), accuracies.mean(axis=1))
    if seeds == 1:
      assert bars == ()
      continue
    ends = np.array(bars[0].get_segments())[..., 1]  # [points, 2]
    np.testing.assert_allclose(np.diff(ends)[:, 0], 2 * accuracies.std(axis=1, ddof=1))
  words = "one seed" if seeds == 1 else "mean ± standard deviation of 4 seeds"
  assert figure.get_suptitle() == words


def benchmark(phases=("vae", "judge"), points=((1, 1.5), (2, 2.0)), rates=("sampling", "evaluation")):
  names = (
    *("ms_per_step", "ms_spread", "of_loop", "compile_s", "images_per_s", "flops_per_s", "bytes_per_s"),
    *("of_flops", "of_bytes", "peak_bytes"),
  )
  return {
    "device": "1 x cpu",
    "seeds": 2,
    "ceilings": {"flops_per_s": 2e9, "bytes_per_s": 3e9},
    "phases": {name: dict.fromkeys(names, 0.5) | {"bound": "memory"} for name in phases},
    "curve": {name: [{"seeds": seeds, "ms_per_step": ms} for seeds, ms in points] for name in phases},
    **{name: {f"{name}_rate": {"images_per_s": 1234.0, "compile_s": 1.0}} for name in rates},
  }


def test_benchmark_has_tables_of_all_that_was_timed():
  phases, curve, images = study_tables.tables_of("benchmark", benchmark())
  assert [row[0] for row in phases.rows] == ["vae", "judge"]
  assert "2 GFLOP/s in a matrix product, 3.0 GB/s in a copy" in phases.note
  assert curve.header == ["phase", "1", "2"]
  assert curve.rows == [[name, "1.5", "2"] for name in ("vae", "judge")]
  assert [row[:2] for row in images.rows] == [["sampling_rate", "1,234"], ["evaluation_rate", "1,234"]]
  assert len(study_tables.tables_of("benchmark", benchmark(points=(), rates=()))) == 1
  assert len(study_tables.tables_of("benchmark", benchmark(phases=(), rates=("sampling",)))) == 1
  assert not any("repetition" in text for table in (phases, curve, images) for text in (table.caption, table.note))


@pytest.mark.parametrize("name", study_tables.STUDIES)
def test_tables_are_made_again_from_the_stored_numbers(name, tmp_path, capsys):
  found = {"audit": audit, "learning_curve": curve, "benchmark": benchmark}[name]()
  (tmp_path / f"{name}.json").write_text(json.dumps({"schema": 1} | found))
  report.build_tables(tmp_path, name)
  text = (tmp_path / f"{name}.md").read_text()
  assert text == "\n".join(map(tables.markdown, study_tables.tables_of(name, found)))
  assert text in capsys.readouterr().out


def test_tables_of_older_studies_stay_as_they_are(tmp_path):
  table = tables.Table("The caption", ["arm", "gain"], [["`clip`", "+1.0"]], "Its note")
  (tmp_path / "audit.json").write_text(json.dumps({"tables": [table._asdict()]}))
  assert study_tables.tables_of("audit", stored.read_study(tmp_path / "audit.json")) == [table]


def test_roles_and_not_names_say_which_arm_is_which():
  given = {"plain": {"test": BASE}, "mine": {"test": BASE + 0.04 + NOISE}, "theirs": {"test": BASE + 0.02 + NOISE}}
  found = scored(given) | study(given) | {"roles": {"plain": "baseline", "mine": "method", "theirs": "control"}}
  assert roles(given) != found["roles"]
  names = {arm: arm for arm in given}
  gains, shares = study_tables.explained_tables(stored.arm_scores(found, found), names, 0.3)
  assert gains.caption.startswith("Gain over `plain`")
  assert "gain of `mine`" in shares.caption
  assert [row[0] for row in shares.rows] == ["theirs"]
