import csv
import json
import re
import shutil

import numpy as np
import pytest

from lcgen import config
from lcgen.reporting import figures, report, statistics, tables
from lcgen.runtime import errors
from lcgen.studies import learning_curve
from tests.reporting.test_html import Elements
from tests.reporting.test_tables import SETS, drawn, results
from tests.support import browser
from tests.support.helpers import load_config

driver = browser.driver

ARMS = ("none", "latent_constraints", "clip")
MNIST_C = ("mnist_corrupted/identity", "mnist_corrupted/fog")
CLASSES = ("round", "straight", "50 % & <b>")
METHODS = ("prior", "actor", "optimize", "langevin", "refine")
CHAPTERS = ("What was run", "What the augmentation is worth", "Corruptions")
MORE_CHAPTERS = ("Samples", "Edits", "Training", "Times", "Config")
AUDIT, CURVE = "Audit: is it the generator that helps?", "Fewer labels"
FIGURES = (
  *(f"{name}_samples" for name in METHODS),
  *("vae_loss", "actor_critic_loss", "energy_loss", "classifier_loss", "classifier_accuracy"),
  *("reconstructions", "edits", "edit_trade_off", "gains"),
)


def everything(arms=ARMS, sets=SETS, seeds=2):
  """All that `results.json` holds."""
  found, pair = results(drawn(arms, sets, seeds)), [0.25, 0.5][:seeds]
  scores = ("conditional_accuracy", "diversity", "frechet_distance", "precision", "recall", "density", "coverage")
  sampled = {name: pair for name in (*scores, "novelty", "moved", "classification_accuracy")} | {"ms_per_sample": 0.1}
  times = {"compile_s": 1.5, "train_s": 22.5, "steps": 90, "ms_per_step": 250.0}
  return found | {
    "data": found["data"] | {"shape": [4, 4, 1], "class_names": CLASSES},
    "about": {
      "device": "1 x H200, 16 CPU cores",
      "versions": {"python": "3.11.7", "jax": "0.10.2"},
      "data": {"train": "f714d305a7b3a7ba" + "0" * 48, "test": "0f5536c586011dfa" + "1" * 48},
      "ranges": "stored 0 to 255, in the networks -2 to 2, decoded -1 to 1",
    },
    "samples": dict.fromkeys(METHODS, sampled),
    "edits": {
      "distance_weight": 0.1,
      "distance_weights": [0.0, 0.1],
      "success": [pair, pair],
      "moved": [pair, pair],
      "anew": pair,
      "actor": {"success": pair, "moved": pair},
    },
    "judge": {"test": {"accuracy": [0.75, 0.8][:seeds]}},
    "timing": dict.fromkeys(("vae", "classifier"), times),
  }


def write(workdir, found):
  """A finished run's files, as small as they can be."""
  workdir.mkdir()
  (workdir / "config.json").write_text(
    json.dumps(config.checked(load_config("mnist5k", "smoke", sample__labels="<b>")))
  )
  (workdir / "results.json").write_text(json.dumps(found))
  seeds, rng = len(found["seeds"]), np.random.default_rng(0)
  with (workdir / "metrics.jsonl").open("w") as file:
    terms = {
      "vae": ["loss", "validation_loss", "reconstruction", "kl"],
      "actor_critic": ["actor_loss", "critic_loss"],
      "energy": ["critic_loss"],
      "classifier-0a1b": [
        f"{arm}/{term}" for arm in found["arms"] for term in ("loss", "accuracy", "validation_accuracy")
      ],
    }
    for phase, names in terms.items():
      for epoch in (1.0, 2.0):
        values = {name: rng.uniform(size=seeds).tolist() for name in names}
        file.write(json.dumps({"phase": phase, "step": 5 * epoch, "epoch": epoch} | values) + "\n")
  count = len(CLASSES)
  numbers = dict.fromkeys(METHODS, 2 * count) | {"originals": 20, "reconstructions": 20, "edits": count**2}
  numbers |= {"edit_originals": count, "edit_reconstructions": count}
  images = {name: rng.integers(0, 256, (number, 4, 4, 1)).astype(np.uint8) for name, number in numbers.items()}
  np.savez_compressed(workdir / "samples.npz", **images)
  return workdir


def write_more(workdir):
  """What the stages `audit` and `learning_curve` leave."""
  table = tables.Table("The caption of the audit", ["arm", "gain"], [["`clip`", "+1.0"]], "Its note")
  (workdir / "audit.json").write_text(json.dumps({"tables": [table._asdict()]}))
  points = [{"share": share, "labelled": labelled} | everything() for share, labelled in ((0.1, 36), (1.0, 360))]
  found = {"tables": [table._asdict() for table in learning_curve.curve_tables(points)], "points": points}
  (workdir / "learning_curve.json").write_text(json.dumps(found))


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
  """Of a run with audit and learning curve, reported."""
  workdir = write(tmp_path_factory.mktemp("page") / "run", everything())
  write_more(workdir)
  report.build(workdir, quiet=True)
  return workdir


@pytest.fixture(scope="module")
def page(workdir):
  return Elements((workdir / "report.html").read_text())


def chapters(document):
  return re.findall("<h2>(.*?)</h2>", document)


def heat_map(document, caption):
  """Names of columns and `{row: cells}` of the heat map under a caption that begins like this."""
  (block,) = [part for part in document.split("<figure>") if f"<figcaption>{caption}" in part]
  block = block.replace("\u200b", "").partition("</table>")[0]
  rows = {
    name: re.findall("<td[^>]*>([^<]+)</td>", row)
    for name, row in re.findall('<tr><th scope="row">(.*?)</th>(.*?)</tr>', block)
  }
  return re.findall('<th scope="col">(.*?)</th>', block), rows


def test_report_writes_tables_figures_and_page(workdir):
  found = json.loads((workdir / "results.json").read_text())
  kinds = (tables.accuracies(found), tables.gains(found))
  text = (workdir / "table.md").read_text()
  assert all(tables.markdown(table) in text for table in kinds)
  assert "| actor | 37.5 ± 17.7 | 0.38 ± 0.18 |" in text
  assert "right on 77.5 ± 3.5 % of the test images" in text
  assert "(distance weight 0.1) the judge gives 37.5 ± 17.7 % the requested class; they moved 0.38 ± 0.18" in text
  assert (workdir / "table.csv").read_text() == tables.comma_separated(found)
  with (workdir / "table.csv").open() as file:
    assert {line["n"] for line in csv.DictReader(file)} == {"2"}
  assert (workdir / "table.tex").read_text() == "\n".join(map(tables.latex, kinds))
  assert {path.stem for path in (workdir / "figures").iterdir()} == {*FIGURES, "learning_curve"}
  assert (workdir / "report.html").exists()
  assert not list(workdir.rglob("*.unfinished"))


def test_nothing_is_written_without_results(workdir, tmp_path):
  copied = shutil.copytree(workdir, tmp_path / "run", ignore=shutil.ignore_patterns("results.json"))
  before = {path: path.read_bytes() for path in copied.rglob("*") if path.is_file()}
  with pytest.raises(errors.InputError, match=r"no results in .*run --stage=evaluate first"):
    report.build(copied)
  assert before == {path: path.read_bytes() for path in copied.rglob("*") if path.is_file()}


def test_the_same_input_gives_the_same_bytes(workdir, tmp_path, capsys):
  inputs = ("config.json", "results.json", "audit.json", "learning_curve.json", "metrics.jsonl", "samples.npz")
  again = tmp_path / "another-place"
  again.mkdir()
  for name in inputs:
    shutil.copy(workdir / name, again / name)
  report.build(again, quiet=True)
  content = lambda folder: {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
  assert content(again) == content(workdir)
  printed = capsys.readouterr().out
  assert str(again / "report.html") in printed
  assert "Accuracy in %" not in printed  # it is to be quiet


def test_page_says_what_was_run(workdir, page):
  found = json.loads((workdir / "results.json").read_text())
  about = found["about"]
  assert "Latent constraints on mnist5k: 3 arms, n = 2 seeds, 3600 training images, 7 test sets." in page.text
  assert "mnist5k, 3 classes, images 4x4x1" in page.text
  assert "3600 training, 400 validation, 1000 test" in page.text
  assert "train f714d305a7b3a7ba…, test 0f5536c586011dfa…" in page.text
  assert "python 3.11.7, jax 0.10.2" in page.text
  assert about["ranges"] in page.text
  assert about["device"] in page.text
  assert "seeds0, 1device" in page.text


def test_page_holds_the_whole_config(workdir, page):
  values = config.flat(config.read(workdir))
  listed = re.findall("<dt>(.*?)</dt><dd>(.*?)</dd>", (workdir / "report.html").read_text().partition("Every field")[2])
  assert [name for name, _ in listed] == list(values)
  for name, value in values.items():
    assert f"{name}{value if value != '' else '–'}" in page.text


def test_page_holds_the_tables(workdir, page):
  found = json.loads((workdir / "results.json").read_text())
  for table in (tables.accuracies(found), tables.gains(found), tables.against_paper(found)):
    for text in (table.caption.replace("`", ""), table.note, *(cell for row in table.rows for cell in row)):
      assert text in page.text
  for sentence in tables.in_short(found):
    assert sentence.replace("`", "") in page.text
  assert "vae1.522.590250.00" in page.text


def test_heat_maps_show_mean_gains_by_corruption_and_by_severity(workdir):
  document = (workdir / "report.html").read_text()
  arms = json.loads((workdir / "results.json").read_text())["arms"]

  def gain(arm, names):
    return f"{100 * np.mean([np.subtract(arms[arm][n]['accuracy'], arms['none'][n]['accuracy']) for n in names]):.1f}"

  graded = [f"generated_cifar10_c/contrast_{severity}" for severity in range(1, 6)]
  words = "Mean gain over <code>none</code> in points by corruption"
  columns, rows = heat_map(document, f"generated_cifar10_c: {words}, n = 2 seeds.")
  assert columns == list(ARMS[1:])
  assert rows == {"contrast": [gain(arm, graded) for arm in columns]}
  columns, rows = heat_map(document, f"generated_mnist_c: {words}, n = 2 seeds.")
  assert rows == {"stripe": [gain(arm, ["generated_mnist_c/stripe"]) for arm in columns]}
  _, rows = heat_map(document, f"generated_cifar10_c: {words} and severity, n = 2 seeds.")
  expected = {
    f"severity {severity}": [gain(arm, [graded[severity - 1]]) for arm in columns] for severity in range(1, 6)
  }
  assert rows == expected
  (folded,) = re.findall(r"<summary>generated_\w+: every severity</summary>.*?</details>", document, re.DOTALL)
  assert f"{words} and severity" in folded
  assert '<th scope="rowgroup">contrast</th>' in folded


def test_page_has_the_chapters_of_all_that_there_is(workdir, page):
  document = (workdir / "report.html").read_text()
  assert chapters(document) == [*CHAPTERS[:2], AUDIT, CURVE, CHAPTERS[2], *MORE_CHAPTERS]
  assert len(page.all("img")) == len(FIGURES) + 1
  assert "The caption of the audit" in page.text
  assert "over the number of labelled images, n = 2 seeds" in page.text


def test_page_has_no_chapter_of_what_is_not_there(tmp_path):
  """Neither audit nor learning curve, no arm to compare with, and one seed."""
  workdir = write(tmp_path / "run", everything(("clip",), (*SETS, *MNIST_C), seeds=1))
  (workdir / "figures").mkdir()
  (workdir / "figures" / "gains.png").write_bytes(b"of an earlier run")
  report.build(workdir, quiet=True)
  document = (workdir / "report.html").read_text()
  assert chapters(document) == [*CHAPTERS, *MORE_CHAPTERS]
  assert {path.stem for path in (workdir / "figures").iterdir()} == set(FIGURES) - {"gains"}
  assert "Gain over" not in document
  assert "Gain over" not in (workdir / "table.md").read_text()
  columns, rows = heat_map(document, "generated_mnist_c: Mean accuracy in % by corruption, n = 1 seeds.")
  accuracy = json.loads((workdir / "results.json").read_text())["arms"]["clip"]["generated_mnist_c/stripe"]["accuracy"]
  assert (columns, rows) == (["clip"], {"stripe": [f"{100 * accuracy[0]:.1f}"]})
  _, rows = heat_map(document, "mnist_corrupted: Mean accuracy")
  assert list(rows) == ["fog"]  # clean images are no corruption


def test_page_without_corruptions(tmp_path, capsys):
  workdir = write(tmp_path / "run", everything(sets=("test",)))
  report.build(workdir)
  assert (workdir / "table.md").read_text() in capsys.readouterr().out
  assert chapters((workdir / "report.html").read_text()) == [*CHAPTERS[:2], *MORE_CHAPTERS]


def test_other_stages_tables_are_written_and_printed(workdir, capsys):
  report.build_tables(workdir, "audit")
  text = (workdir / "audit.md").read_text()
  (workdir / "audit.md").unlink()
  assert text == "The caption of the audit\n\n| arm | gain |\n| --- | --- |\n| `clip` | +1.0 |\n\nIts note\n"
  assert text in capsys.readouterr().out


@pytest.mark.parametrize("seeds", [1, 4])
def test_gains_are_drawn_with_intervals_and_filled_where_they_exclude_zero(seeds, monkeypatch, tmp_path):
  kept = []
  monkeypatch.setattr(figures, "_save", lambda figure, path: kept.append(figure))
  found = results(drawn(("none", *ARMS[1:], "augmix"), (*SETS, "diagnostic/noise"), seeds, effect=0.004))
  figures._gains(tmp_path / "gains.png", found)
  scores = [score for score in tables.scores(found) if score.kind in ("set", "mean")]
  (figure,) = kept
  fills = set()
  assert [panel.get_title() for panel in figure.axes] == [score.name for score in scores]
  for panel, score in zip(figure.axes, scores, strict=True):
    lines = panel.get_lines()[:-1]  # the last one is at 0
    for row, arm in enumerate(("augmix", "clip", "latent_constraints")):
      interval, point = lines[2 * row : 2 * row + 2]
      difference = statistics.paired(score.values[arm], score.values["none"])
      low, high = difference.t_interval or (difference.mean, difference.mean)
      np.testing.assert_allclose(interval.get_xdata(), [100 * low, 100 * high])
      np.testing.assert_allclose(point.get_xdata(), [100 * difference.mean])
      assert {*interval.get_ydata(), *point.get_ydata()} == {row}
      assert (point.get_markerfacecolor() == "white") == (seeds == 1 or low <= 0 <= high)
      fills.add(point.get_markerfacecolor())
  assert len(fills) == (1 if seeds == 1 else 2)
  assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["augmix", "clip", "latent_constraints"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1600])
def test_page_in_a_browser(driver, workdir, width, scheme):
  browser.check_report(driver, workdir / "report.html", width, scheme, images=len(FIGURES) + 1)
