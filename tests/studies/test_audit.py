import json
import zlib

import numpy as np
import pytest

from lcgen.api import build
from lcgen.classifiers.arms import controls, known, parse, role
from lcgen.data import sources, test_sets
from lcgen.reporting import statistics, study_tables, tables
from lcgen.studies import audit
from lcgen.studies.study import Study
from tests.support.helpers import config_of, context_of
from tests.support.results import scored

FACTS = sources.Facts("mnist5k", (8, 8, 1), ("a", "b"), 40, 10, 10)
PAIR = ["test", "diagnostic/normalised_twice"]
FIRST, LAST = "the paper's conditions", "all of these changed"
CLASSIFIER = ("activate_logits", "learning_rate", "schedule")  # conditions that are settings of the classifier
AS_THE_RUN = {"limit": 2.0, "calibrate": True, "share": 0.125, "activate_logits": False, "learning_rate": 0.001}
SWITCHES = [
  "but decoder range [-2, 2]",
  "but pixel values fitted to the data's: True",
  "but share replaced: 0.125",
  "but LeakyReLU on the logits: False",
  "but classifier's learning rate 0.001",
  "but classifier's schedule cosine",
]


def settings(classifier):
  return tuple(getattr(classifier, name) for name in CLASSIFIER)


def accuracy(trained_under, arm, name):
  """One value a seed: a number drawn for these settings of the classifier, this arm and this test set."""
  return np.random.default_rng(zlib.crc32(f"{trained_under} {arm} {name}".encode())).uniform(0.5, 0.9, 3).tolist()


@pytest.fixture
def audited(monkeypatch):
  """Audits without training: `audited(sets, **config values) -> (what was found, what classifiers were asked for)`."""

  def _audited(sets=("test",), **changes):
    asked = []

    def score(self, classifier, folder, arms, wanted):
      asked.append((folder, settings(classifier), arms, [one.name for one in wanted]))
      names = [one.name for one in wanted]
      names += [name for name in test_sets.DIRTY if {f"{name}/{half}" for half in test_sets.HALVES} <= set(names)]
      return scored({arm: {name: accuracy(settings(classifier), arm, name) for name in names} for arm in arms})

    monkeypatch.setattr(audit.Audit, "_score", score)
    known = config_of("smoke", seeds=3, **changes)
    study = Study(context_of(known, FACTS), None, None, None, build.sections(known))
    found = audit.Audit(study, known.audit, test_sets.expand(test_sets.with_mistakes(sets))).run()
    return found, asked

  return _audited


def stored(found):
  """The file of the audit: what it found, with the seeds and the roles."""
  return found | {"schema": 1, "seeds": [0, 1, 2], "roles": {arm: role(arm) for arm in found["explained"]["arms"]}}


def tables_of(found):
  return study_tables.audit_tables(stored(found))


def words(found):
  """The conditions that the audit trained under, as its table has them."""
  return [row[0] for row in tables_of(found)[-1].rows]


def test_every_share_is_held_against_every_control(audited):
  found, asked = audited(("test", "generated_mnist_c/fog"))
  names = ["latent_constraints", *controls()]
  half = [f"{name}:share=0.5" for name in names]
  sets = ["test", "diagnostic/noise", "diagnostic/normalised_twice", "generated_mnist_c/fog"]
  assert asked[0] == ("classifier", (False, 0.001, "cosine"), ["none", *names, *half], sets)  # scored once
  assert list(found["explained"]["arms"]) == ["none", *names, *half]
  suffixes = {"none": ""} | dict.fromkeys(names, ":share=0.5")
  assert found["shares"] == [
    {"share": 0.125, "arms": {name: name for name in ("none", *names)}},
    {"share": 0.5, "arms": {name: name + suffix for name, suffix in suffixes.items()}},
  ]
  gains = [table for table in tables_of(found) if table.caption.startswith("Gain over")]
  for table, share, arms in zip(gains, ("0.125", "0.5"), (names, half), strict=True):
    assert f"{share} of each batch replaced, n = 3 seeds" in table.caption
    assert [row[0] for row in table.rows] == names
    assert table.header == ["arm", *sets[:-1], "generated_mnist_c: mean of fog"]
    none = accuracy((False, 0.001, "cosine"), "none", "test")
    for row, arm in zip(table.rows, arms, strict=True):
      difference = statistics.paired(accuracy((False, 0.001, "cosine"), arm, "test"), none)
      assert row[1].rstrip("*") == statistics.difference_words(difference, scale=100)
  assert json.loads(json.dumps(found)) == found


@pytest.mark.parametrize(
  ("changes", "rows"),
  [
    ({}, SWITCHES),
    ({f"audit__{name}": value for name, value in AS_THE_RUN.items()} | {"audit__schedule": "cosine"}, []),
    ({"audit__calibrate": True, "audit__activate_logits": False}, [SWITCHES[0], SWITCHES[2], *SWITCHES[4:]]),
    ({"vae__output_limit": 1.0}, SWITCHES[1:]),
    ({"classifier__share": 0.25}, [*SWITCHES[:2], "but share replaced: 0.25", *SWITCHES[3:]]),
  ],
)
def test_every_condition_that_differs_from_the_run_is_changed_alone(audited, changes, rows):
  found, _ = audited(**changes)
  shorts = dict(zip(SWITCHES, audit.NAMES, strict=True)) | {"but share replaced: 0.25": "share"}
  assert [row["changed"] for row in found["switched"]] == ["", *(shorts[row] for row in rows), "all"]
  table = tables_of(found)[-1]
  assert [row[0] for row in table.rows] == [FIRST, *rows, LAST]
  assert "n = 3 seeds" in table.caption
  assert ("This VAE's decoder ends at ±1" in table.note) == ("vae__output_limit" in changes)


def test_a_schedule_of_ones_own_is_changed_too(audited):
  """A row changes the schedule alone where rates agree and schedules do not."""
  found, _ = audited(audit__learning_rate=0.001)
  assert words(found) == [FIRST, *SWITCHES[:4], SWITCHES[5], LAST]


def test_the_note_says_what_the_papers_conditions_are(audited):
  found, _ = audited()
  note = tables_of(found)[-1].note
  assert note.startswith(
    "The paper's conditions: decoder range [-1, 1]; pixel values fitted to the data's: False; share replaced: 0.2; "
    "LeakyReLU on the logits: True; classifier's learning rate 0.005; classifier's schedule constant. "
  )
  assert note.endswith(tables.MARKS)


def test_rows_are_of_classifiers_trained_under_their_condition(audited):
  found, asked = audited()
  theirs, ours = (True, 0.005, "constant"), (False, 0.001, "cosine")
  method = "latent_constraints:share={}:limit={}:calibrate={}".format
  conditions = {
    FIRST: (theirs, 0.2, method(0.2, 1, False)),
    SWITCHES[0]: (theirs, 0.2, method(0.2, 2, False)),
    SWITCHES[1]: (theirs, 0.2, method(0.2, 1, True)),
    SWITCHES[2]: (theirs, 0.125, method(0.125, 1, False)),
    SWITCHES[3]: ((False, 0.005, "constant"), 0.2, method(0.2, 1, False)),
    SWITCHES[4]: ((True, 0.001, "constant"), 0.2, method(0.2, 1, False)),
    SWITCHES[5]: ((True, 0.005, "cosine"), 0.2, method(0.2, 1, False)),
    LAST: (ours, 0.125, method(0.125, 2, True)),
  }
  table, needed, differences = tables_of(found)[-1], {}, []
  for row, shown in zip(found["switched"], table.rows, strict=True):
    trained_under, share, own = conditions[shown[0]]
    arms = {
      "none": "none",
      "latent_constraints": own,
      "clip": f"clip:share={share}",
      "duplicate": f"duplicate:share={share}",
    }
    assert list(row) == ["changed", "condition", *arms]
    assert row["condition"].items() >= dict(zip(CLASSIFIER, trained_under, strict=True), share=share).items()
    needed.setdefault(trained_under, set()).update(arms.values())
    for place, name in enumerate(PAIR):
      none, *others = (accuracy(trained_under, text, name) for text in arms.values())
      assert [row[arm][name]["accuracy"] for arm in arms] == [none, *others]
      assert shown[1 + 4 * place] == tables.percent(none)
      differences += [statistics.paired(values, none) for values in others]
  cells = [cell for row in table.rows for cell in (*row[2:5], *row[6:9])]
  assert cells == tables.compared(differences)
  assert table.header[:3] == ["condition", "test: none, %", "test: latent_constraints"]
  assert [name.partition(":")[0] for name in table.header[1:]] == [PAIR[0]] * 4 + [PAIR[1]] * 4

  trained = asked[1:]
  assert {under: set(arms) for _, under, arms, _ in trained} == needed
  assert len(trained) == len(needed) == 5
  assert all(len(arms) == len(set(arms)) and all(map(known, arms)) for _, _, arms, _ in trained)
  folders = {under: folder for folder, under, _, _ in trained}
  assert folders[ours] == "classifier"
  assert folders[theirs] == "audit/activate_logits-True-learning_rate-0.005-schedule-constant"
  assert len(set(folders.values())) == 5


def test_a_short_decoder_range_stays_when_all_else_is_changed(audited):
  _, asked = audited(vae__output_limit=1.0)
  arms = {arm for _, under, arms, _ in asked[1:] for arm in arms if under == (False, 0.001, "cosine")}
  assert "latent_constraints:share=0.125:limit=1:calibrate=True" in arms


@pytest.mark.parametrize(
  ("sets", "shown"),
  [
    (("test", "generated_cifar10_c/fog"), PAIR),
    (("dirty_mnist",), [*PAIR, "dirty_mnist", "dirty_mnist_twice"]),
    (("test", "dirty_mnist_like"), [*PAIR, "dirty_mnist_like", "dirty_mnist_like_twice"]),
    (("test", "dirty_mnist/ambiguous", "dirty_mnist_twice/ambiguous"), PAIR),
  ],
)
def test_conditions_are_compared_on_images_normalised_once_and_twice(audited, sets, shown):
  found, asked = audited(sets)
  assert found["sets"] == shown
  header = tables_of(found)[-1].header
  assert [name.partition(":")[0] for name in header[1::4]] == shown
  families = {name.partition("/")[0] for name in shown}
  assert all({name.partition("/")[0] for name in names} == families for *_, names in asked[1:])


def test_arms_of_a_condition():
  condition = audit.Condition(1.0, False, 0.2, True, 0.005, "constant")
  assert condition.arms == {
    "none": "none",
    "latent_constraints": "latent_constraints:share=0.2:limit=1:calibrate=False",
    "clip": "clip:share=0.2",
    "duplicate": "duplicate:share=0.2",
  }
  parsed = dict(parse(condition.arms["latent_constraints"]))["latent_constraints"]
  assert parsed.items() >= {"share": 0.2, "limit": 1.0, "calibrate": False, "source": "actor", "filter": False}.items()
  assert condition.classifier == {"activate_logits": True, "learning_rate": 0.005, "schedule": "constant"}


@pytest.mark.slow  # the learning curve's test shows that a study goes through the command
def test_a_run_is_audited(run_aside):
  less = (
    "audit.shares=0.5",
    "audit.learning_rate=0.001",
    "audit.schedule=cosine",
    "train.chunk_steps=11",
    "evaluate.sets=test",
  )
  workdir, stdout = run_aside("audit", *(f"--config.{value}" for value in less))
  found, own = (json.loads((workdir / f"{name}.json").read_text()) for name in ("audit", "results"))
  own = own["arms"]
  names = ["latent_constraints", *controls()]
  assert set(found["explained"]["arms"]) == {"none", *(f"{name}:share=0.5" for name in names)}
  assert found["explained"]["arms"]["none"]["test"]["accuracy"] == own["none"]["test"]["accuracy"]
  assert found["roles"] == {arm: role(arm) for arm in found["explained"]["arms"]}
  assert words(found) == [FIRST, *SWITCHES[:4], LAST]
  last = found["switched"][-1]  # what the run itself was trained under
  for arm in ("none", "latent_constraints"):
    assert last[arm]["test"]["accuracy"] == own[arm]["test"]["accuracy"]
  assert found["switched"][0]["none"]["test"]["nll"] != last["none"]["test"]["nll"]
  assert (workdir / "audit.md").read_text() in stdout
  assert "<h2>Audit: is it the generator that helps?</h2>" in (workdir / "report.html").read_text()
