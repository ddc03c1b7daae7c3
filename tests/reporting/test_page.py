import csv
import dataclasses
import json
import re
import shutil

import numpy as np
import pytest
from etils import epath

from configs import mnist5k
from lcgen import config
from lcgen.reporting import figures, findings, report, statistics, tables
from lcgen.runtime import errors, fields
from lcgen.runtime import results as stored
from tests.support import browser
from tests.support.html_elements import Elements
from tests.support.results import SETS, drawn, of_real, results, scored, study

driver = browser.driver

ARMS = ("none", "latent_constraints", "clip")
MNIST_C = ("mnist_corrupted/identity", "mnist_corrupted/fog")
CLASSES = ("round", "straight", "50 % & <b>")
METHODS = ("prior", "actor", "optimize", "langevin", "refine", "mixture", "flow")
CHAPTERS = ("What was run", "What the augmentation is worth", "Corruptions")
MORE_CHAPTERS = ("Samples", "Edits", "Training", "Times", "Config")
AUDIT, CURVE = "Audit: is it the generator that helps?", "Fewer labels"
FIGURES = (
  *(f"{name}_samples" for name in METHODS),
  *("vae_loss", "actor_critic_loss", "energy_loss", "classifier_loss", "classifier_accuracy"),
  *("reconstructions", "edits", "edit_trade_off", "gains"),
)


def everything(arms=ARMS, sets=SETS, seeds=2, samplers=METHODS):
  """All that `results.json` holds."""
  pair = [0.25, 0.5][:seeds]
  scores = ("conditional_accuracy", "diversity", "frechet_distance", "precision", "recall", "density", "coverage")
  sampled = {name: pair for name in (*scores, "novelty", "moved", "classification_accuracy")} | {"ms_per_sample": 0.1}
  times = {"compile_s": 1.5, "train_s": 22.5, "steps": 90, "ms_per_step": 250.0}
  return results(
    drawn(arms, sets, seeds),
    data={"shape": [4, 4, 1], "class_names": CLASSES},
    about={
      "device": "1 x H200, 16 CPU cores",
      "versions": {"python": "3.11.7", "jax": "0.10.2"},
      "data": {"train": "f714d305a7b3a7ba" + "0" * 48, "test": "0f5536c586011dfa" + "1" * 48},
      "ranges": "stored 0 to 255, in the networks -2 to 2, decoded -1 to 1",
    },
    samples=dict.fromkeys(samplers, sampled) | of_real(sampled),
    edits={
      "distance_weight": 0.1,
      "distance_weights": [0.0, 0.1],
      "success": [pair, pair],
      "moved": [pair, pair],
      "anew": pair,
      "actor": {"success": pair, "moved": pair},
    },
    judge={"test": {"accuracy": [0.75, 0.8][:seeds]}},
    timing=dict.fromkeys(("vae", "classifier"), times),
    phases=dict.fromkeys(arms, "classifier-0a1b2c3d"),
  )


PHASES = {  # name: (kind, terms of one network); those of studies have the same kinds
  "learning_curve/0.1/classifier-99999999": ("classifier", ["loss"]),
  "vae": ("vae", ["loss", "validation_loss", "reconstruction", "kl"]),
  "learning_curve/0.1/energy": ("energy", ["critic_loss"]),
  "actor_critic": ("actor_critic", ["actor_loss", "critic_loss"]),
  "energy": ("energy", ["critic_loss"]),
  "judge": ("judge", ["loss", "accuracy"]),
  "classifier-0a1b2c3d": ("classifier", ["loss", "accuracy", "validation_accuracy"]),
}


def records(found, phases=PHASES):
  """Two records of each phase, as `metrics.jsonl` holds them."""
  rng, made = np.random.default_rng(0), []
  values = lambda names: {name: rng.uniform(size=len(found.seeds)).tolist() for name in names}
  for phase, (kind, names) in phases.items():
    for epoch in (1.0, 2.0):
      terms = {arm: values(names) for arm in found.arms} if kind == "classifier" else values(names)
      made.append({"phase": phase, "kind": kind, "step": 5 * int(epoch), "epoch": epoch, "terms": terms})
  return made


def write(workdir, found, phases=PHASES):
  """A finished run's files, as small as they can be."""
  workdir.mkdir()
  values = mnist5k.get_config("smoke").to_dict() | {"data": {"name": "mnist5k", "dir": "<b>"}}
  (workdir / "config.json").write_text(json.dumps(config.to_dict(config.parse(values))))
  stored.write(epath.Path(workdir) / "results.json", found)
  with (workdir / "metrics.jsonl").open("w") as file:
    file.writelines(json.dumps(record) + "\n" for record in records(found, phases))
  count, rng = len(CLASSES), np.random.default_rng(0)
  drawn_by = [name for name in found.samples if name not in of_real({})]
  numbers = dict.fromkeys(drawn_by, 2 * count) | {"originals": 20, "reconstructions": 20, "edits": count**2}
  numbers |= {"edit_originals": count, "edit_reconstructions": count}
  images = {name: rng.integers(0, 256, (number, 4, 4, 1)).astype(np.uint8) for name, number in numbers.items()}
  np.savez_compressed(workdir / "samples.npz", **images)
  return workdir


def write_more(workdir):
  """Gives what the stages `audit`, of an older version, and `learning_curve` leave."""
  table = tables.Table("The caption of the audit", ["arm", "gain"], [["`clip`", "+1.0"]], "Its note")
  (workdir / "audit.json").write_text(json.dumps({"tables": [table._asdict()]}))
  given = drawn(ARMS, SETS, 2)
  points = [{"share": share, "labelled": labelled} | scored(given) for share, labelled in ((0.1, 36), (1.0, 360))]
  (workdir / "learning_curve.json").write_text(json.dumps({"points": points} | study(given)))


def read(workdir):
  return stored.read(epath.Path(workdir) / "results.json")


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
  """Reports a run with audit and learning curve."""
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
  found = read(workdir)
  kinds = (tables.accuracies(found), tables.gains(found))
  text = (workdir / "table.md").read_text()
  assert all(tables.markdown(table) in text for table in kinds)
  assert "| actor | 37.5 ± 17.7 | 0.38 ± 0.18 |" in text
  assert "right on 77.5 ± 3.5 % of the test images" in text
  assert "The judge gives 37.5 ± 17.7 % of test images that are edited to another class (distance weight 0.1)" in text
  assert "Edits move 0.38 ± 0.18; samples drawn anew lie 0.38 ± 0.18 away." in text
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
  found = read(workdir)
  about = found.about
  assert "Latent constraints on mnist5k: 3 arms, n = 2 seeds, 3600 training images, 7 test sets." in page.text
  assert "mnist5k, 3 classes, images 4x4x1" in page.text
  assert "3600 training, 400 validation, 1000 test" in page.text
  assert "train f714d305a7b3a7ba…, test 0f5536c586011dfa…" in page.text
  assert "python 3.11.7, jax 0.10.2" in page.text
  assert about["ranges"] in page.text
  assert about["device"] in page.text
  assert "seeds0, 1device" in page.text


def test_page_holds_the_whole_config(workdir, page):
  values = fields.flat(json.loads((workdir / "config.json").read_text()))
  listed = re.findall("<dt>(.*?)</dt><dd>(.*?)</dd>", (workdir / "report.html").read_text().partition("Every field")[2])
  assert [name for name, _ in listed] == list(values)
  for name, value in values.items():
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    assert f"{name}{text or '–'}" in page.text


def test_page_holds_the_tables(workdir, page):
  found = read(workdir)
  for table in (tables.accuracies(found), tables.gains(found), tables.against_paper(found)):
    for text in (table.caption.replace("`", ""), table.note, *(cell for row in table.rows for cell in row)):
      assert text in page.text
  assert len(findings.overview(found)) == 2
  for sentence in (*findings.overview(found), *findings.in_short(found)):
    assert sentence.replace("`", "") in page.text
  assert "vae1.522.590250.00" in page.text


def test_heat_maps_show_mean_gains_by_corruption_and_by_severity(workdir):
  document = (workdir / "report.html").read_text()
  arms = read(workdir).arms

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
  accuracy = read(workdir).arms["clip"]["generated_mnist_c/stripe"]["accuracy"]
  assert (columns, rows) == (["clip"], {"stripe": [f"{100 * accuracy[0]:.1f}"]})
  _, rows = heat_map(document, "mnist_corrupted: Mean accuracy")
  assert list(rows) == ["fog"]  # clean images are no corruption


def test_page_without_corruptions(tmp_path, capsys):
  workdir = write(tmp_path / "run", everything(sets=("test",)))
  report.build(workdir)
  assert (workdir / "table.md").read_text() in capsys.readouterr().out
  assert chapters((workdir / "report.html").read_text()) == [*CHAPTERS[:2], *MORE_CHAPTERS]


def test_an_unknown_sampler_is_in_tables_figures_and_page(tmp_path):
  workdir = write(tmp_path / "run", everything(samplers=("prior", "teleport")))
  report.build(workdir, quiet=True)
  assert "| teleport | 37.5 ± 17.7 |" in (workdir / "table.md").read_text()
  assert (workdir / "figures" / "teleport_samples.png").exists()
  document = (workdir / "report.html").read_text()
  assert "The same draws, by <code>teleport</code>." in document
  assert "by <code>langevin</code>" not in document


def test_an_unknown_metric_is_in_tables_and_page(tmp_path):
  found = everything()
  form = {"scale": 1.0, "digits": 2, "shown": True}
  found.metrics["ink"] = {"title": "share of ink", "of": "features", **form}
  found.metrics["margin"] = {"title": "margin, nats", "of": "logits", **form}
  found = dataclasses.replace(
    found,
    samples={name: own | {"ink": [0.125, float("nan")]} for name, own in found.samples.items()},
    arms={arm: own | {"test": own["test"] | {"margin": [1.5, 2.5]}} for arm, own in found.arms.items()},
  )
  workdir = write(tmp_path / "run", found)
  report.build(workdir, quiet=True)
  for name in ("table.md", "report.html"):
    assert "share of ink" in (workdir / name).read_text()
    assert "test: margin, nats" in (workdir / name).read_text().replace("\u200b", "")
  assert "2.00 ± 0.71" in (workdir / "table.md").read_text()


def test_another_generator_has_no_figure_of_the_vae(tmp_path):
  phases = {name: own for name, own in PHASES.items() if name != "vae"}
  workdir = write(tmp_path / "run", everything(), phases)
  (workdir / "figures").mkdir()
  (workdir / "figures" / "vae_loss.png").write_bytes(b"of an earlier run")
  report.build(workdir, quiet=True)
  assert {path.stem for path in (workdir / "figures").iterdir()} == set(FIGURES) - {"vae_loss"}


def test_losses_are_those_of_the_run_and_not_of_its_studies(tmp_path, monkeypatch):
  found, kept = everything(), {}
  monkeypatch.setattr(figures, "_save", lambda figure, path: kept.__setitem__(path.stem, figure))
  made = records(found)
  figures._losses(epath.Path(tmp_path), made, found)
  assert set(kept) == {name for name in FIGURES if name.endswith("_loss") or name == "classifier_accuracy"}
  own = [record["terms"] for record in made if record["phase"] == "classifier-0a1b2c3d"]
  for line, arm in zip(kept["classifier_loss"].axes[0].get_lines(), found.arms, strict=True):
    np.testing.assert_allclose(line.get_ydata(), [np.mean(terms[arm]["loss"]) for terms in own])
  (line,) = kept["energy_loss"].axes[0].get_lines()
  own = [record["terms"]["critic_loss"] for record in made if record["phase"] == "energy"]
  np.testing.assert_allclose(line.get_ydata(), np.mean(own, axis=1))


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
