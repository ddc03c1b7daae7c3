import json

import pytest

from lcgen import config
from lcgen.reporting import expectations
from lcgen.runtime import errors
from tests.support.helpers import load_config

SMOKE = "--config=configs/mnist5k.py:smoke"
RESULTS = {
  "seeds": [0, 1],
  "data": {"name": "mnist5k", "shape": [28, 28, 1], "class_names": ["0", "1"]},
  "judge": {"test": {"accuracy": [0.95, 0.97]}},
  "samples": {"prior": {"diversity": [1.0, float("nan")]}, "actor": {"ms_per_sample": 0.0625, "accepted": True}},
  "arms": {"latent_constraints:share=0.5": {"generated_mnist_c/fog": {"accuracy": [0.25, 0.75]}}},
}


@pytest.fixture
def workdir(tmp_path):
  (tmp_path / "config.json").write_text(json.dumps(config.checked(load_config("mnist5k", "smoke"))))
  (tmp_path / "results.json").write_text(json.dumps(RESULTS))
  return tmp_path


@pytest.mark.parametrize(
  ("expectation", "met", "found"),
  [
    ("judge test accuracy > 0.95", True, "0.96"),
    ("judge test accuracy > 0.96", False, "0.96"),
    ("judge test accuracy < 0.96", False, "0.96"),
    ("judge test accuracy < 0.961", True, "0.96"),
    ("arms latent_constraints:share=0.5 generated_mnist_c/fog accuracy > 4.9e-1", True, "0.5"),
    ("samples actor ms_per_sample > -1", True, "0.0625"),
    ("samples actor ms_per_sample > 1", False, "0.0625"),
    ("samples prior diversity > 0", False, "nan"),
    ("samples prior diversity < 2", False, "nan"),
    ("samples actor accepted > 0", False, "nothing"),
    ("samples actor > 0", False, "nothing"),
    ("samples oracle diversity < 2", False, "nothing"),
    ("judge test accuracy mean > 0", False, "nothing"),
    ("data name < 1", False, "nothing"),
    ("data class_names < 1", False, "nothing"),
  ],
)
def test_the_mean_over_seeds_is_held_against_the_bound(workdir, capsys, expectation, met, found):
  if met:
    expectations.check([expectation], workdir)
  else:
    with pytest.raises(errors.MissedError, match="1 of 1 expectations are not met in"):
      expectations.check([expectation], workdir)
  assert capsys.readouterr().out == f"{'met   ' if met else 'MISSED'}  {expectation}  (found {found})\n"


def test_every_expectation_is_told_before_any_ends_the_check(workdir, capsys):
  expected = ["judge test accuracy > 0.99", "judge test accuracy > 0.9", "nowhere > 0"]
  with pytest.raises(errors.MissedError, match="2 of 3 expectations"):
    expectations.check(expected, workdir)
  lines = capsys.readouterr().out.splitlines()
  assert [line.split()[0] for line in lines] == ["MISSED", "met", "MISSED"]
  assert all(text in line for text, line in zip(expected, lines, strict=True))


@pytest.mark.parametrize(
  ("expectation", "known"),
  [
    ("judge test accuracy > 0.95", True),
    ("seeds < 3", True),
    ("arms a+b:share=0.5 test nll < -1.5e-3", True),
    ("judge test accuracy >= 0.95", False),
    ("judge test accuracy = 0.95", False),
    ("judge test accuracy > high", False),
    ("judge test accuracy > nan", False),
    ("judge test accuracy>0.95", False),
    ("judge  test > 0.95", False),
    (" judge test > 0.95", False),
    ("judge test > 0.95 ", False),
    ("> 0.95", False),
    ("judge test accuracy", False),
    ("", False),
  ],
)
def test_what_an_expectation_looks_like(expectation, known):
  assert expectations.known(expectation) == known
  values = load_config("mnist5k", "smoke", expected=(expectation,))
  if known:
    assert config.checked(values)["expected"] == (expectation,)
  else:
    with pytest.raises(errors.InputError, match=r"config\.expected=.*a path in results\.json"):
      config.checked(values)


def expecting(*expected):
  return f"--config.expected={expected!r}"


def test_exit_codes(run, workdir):
  before = {path: path.read_bytes() for path in workdir.iterdir()}
  for bound, expected in ((0.9, (0, 2, 0)), (0.99, (1, 1, 1))):
    flag = expecting(f"judge test accuracy > {bound}", "seeds < 0.6")
    code, stdout, stderr = run(SMOKE, f"--workdir={workdir}", "--stage=verify", flag)
    assert (code, stdout.count("met   "), stdout.count("MISSED")) == expected, stderr
    words = f"run.py: --stage=verify: 1 of 2 expectations are not met in {workdir}"
    assert stderr.strip() == (words if code else "")
  assert before == {path: path.read_bytes() for path in workdir.iterdir()}


@pytest.mark.parametrize(
  ("arguments", "words"),
  [
    ([], ["config.expected is empty"]),
    ([expecting("judge test accuracy >= 0.9")], ["config.expected=", ">= 0.9", "a path in results.json"]),
    ([expecting("judge test accuracy > 0.9"), "--workdir=nowhere"], ["no results in nowhere", "--stage=evaluate"]),
    ([expecting("judge test accuracy > 0.9"), "--config.vae.epochs=3"], ["another config", "vae.epochs: 2 -> 3"]),
  ],
)
def test_what_cannot_be_verified_ends_in_a_sentence(run, workdir, arguments, words):
  code, stdout, stderr = run(SMOKE, f"--workdir={workdir}", "--stage=verify", *arguments)
  assert code == 2
  assert all(word in stderr for word in words)
  assert len(stderr.strip().splitlines()) == 1
  assert stdout == ""
