import json

import pytest

from configs import mnist5k
from lcgen import config
from lcgen.reporting import expectations
from lcgen.runtime import errors, expectation
from tests.support.results import FEW


@pytest.fixture
def workdir(tmp_path):
  (tmp_path / "config.json").write_text(json.dumps(config.to_dict(config.parse(mnist5k.get_config("smoke").to_dict()))))
  (tmp_path / "results.json").write_text(json.dumps(FEW))
  return tmp_path


@pytest.mark.parametrize(
  ("text", "met", "found"),
  [
    ("judge test accuracy > 0.95", True, "0.96"),
    ("judge test accuracy > 0.96", False, "0.96"),
    ("judge test accuracy < 0.96", False, "0.96"),
    ("judge test accuracy < 0.961", True, "0.96"),
    ("arms latent_constraints:share=0.5 generated_mnist_c/fog accuracy > 4.9e-1", True, "0.5"),
    ("samples actor ms_per_sample > -1", True, "0.0625"),
    ("samples actor ms_per_sample > 1", False, "0.0625"),
    ("samples prior diversity > 0", False, "an undefined score"),
    ("samples prior diversity < 2", False, "an undefined score"),
    ("samples actor accepted > 0", False, "nothing"),
    ("samples actor > 0", False, "nothing"),
    ("samples oracle diversity < 2", False, "nothing"),
    ("judge test accuracy mean > 0", False, "nothing"),
    ("data name < 1", False, "nothing"),
    ("data class_names < 1", False, "nothing"),
  ],
)
def test_the_mean_over_seeds_is_held_against_the_bound(workdir, capsys, text, met, found):
  if met:
    expectations.check([text], workdir)
  else:
    with pytest.raises(errors.MissedError, match="1 of 1 expectations are not met in"):
      expectations.check([text], workdir)
  assert capsys.readouterr().out == f"{'met   ' if met else 'MISSED'}  {text}  (found {found})\n"


def test_every_expectation_is_told_before_any_ends_the_check(workdir, capsys):
  expected = ["judge test accuracy > 0.99", "judge test accuracy > 0.9", "nowhere > 0"]
  with pytest.raises(errors.MissedError, match="2 of 3 expectations"):
    expectations.check(expected, workdir)
  lines = capsys.readouterr().out.splitlines()
  assert [line.split()[0] for line in lines] == ["MISSED", "met", "MISSED"]
  assert all(text in line for text, line in zip(expected, lines, strict=True))


@pytest.mark.parametrize(
  ("text", "known"),
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
def test_the_form_of_an_expectation(text, known):
  assert expectation.known(text) == known
  values = mnist5k.get_config("smoke").to_dict() | {"expected": (text,)}
  if known:
    assert config.parse(values).expected == (text,)
  else:
    with pytest.raises(errors.InputError, match=r"config\.expected=.*a path in results\.json"):
      config.parse(values)


def test_an_expectation_is_parsed():
  assert expectation.parse("arms a+b:share=0.5 test nll < -1.5e-3") == (
    ("arms", "a+b:share=0.5", "test", "nll"),
    False,
    -0.0015,
  )
