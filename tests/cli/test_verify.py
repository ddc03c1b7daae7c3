import json

import pytest

from configs import mnist5k
from lcgen import config
from tests.support.results import FEW

SMOKE = "--config=configs/mnist5k.py:smoke"


@pytest.fixture
def workdir(tmp_path):
  (tmp_path / "config.json").write_text(json.dumps(config.to_dict(config.parse(mnist5k.get_config("smoke").to_dict()))))
  (tmp_path / "results.json").write_text(json.dumps(FEW))
  return tmp_path


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
