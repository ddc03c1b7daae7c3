"""Preconditions that are checked before anything is trained."""

import errno
import fcntl

import pytest
from etils import epath

from lcgen import config as configs
from lcgen.cli import preflight
from lcgen.runtime import errors
from tests.support.helpers import FACTS, config_of, context_of


@pytest.mark.parametrize(
  ("arms", "share", "words"),
  [
    ("none,clip:share=0.01", 0.125, "clip:share=0.01: clip with a share of 0.01 replaces no image of a batch of 30"),
    ("none,flip_crop+clip", 0.016, r"flip_crop\+clip: clip with a share of 0.016 replaces no image of a batch of 30"),
  ],
)
def test_arms_that_would_replace_nothing_are_refused(arms, share, words):
  settings = config_of("smoke", classifier__arms=arms, classifier__share=share)
  with pytest.raises(errors.InputError, match=f"^config.classifier.arms: {words}; make the share or config"):
    preflight.check_fit(settings, context_of(settings, FACTS))
  preflight._check_shares(config_of("smoke", classifier__arms="clip:share=0,clip:share=0.017").classifier)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_said(tmp_path, monkeypatch, caplog, number):
  def fail(*_):
    raise OSError(number, "no locks")

  monkeypatch.setattr(fcntl, "flock", fail)
  with preflight.claimed(epath.Path(tmp_path)):
    assert "its file system has no locks, so see that no other run is in it" in caplog.text


@pytest.mark.parametrize("inside", ["run", "cat/run", "train/../run", ""])
def test_a_workdir_among_the_images_is_refused(tmp_path, monkeypatch, inside):
  monkeypatch.chdir(tmp_path)
  settings = config_of("smoke", data__source="folder", data__path="pets")
  with pytest.raises(
    errors.InputError, match=r"^--workdir=.*: lies in config.data.path=pets, whose folders are read as"
  ):
    preflight.check_workdir(settings, epath.Path(tmp_path / "pets" / inside), "all")
  for outside in ("pets-run", "runs/pets"):
    assert preflight.check_workdir(settings, epath.Path(tmp_path / outside), "all") is None


def test_a_workdir_that_is_a_link_to_nothing(tmp_path):
  (tmp_path / "run").symlink_to(tmp_path / "scratch")
  link = epath.Path(tmp_path / "run")
  with pytest.raises(errors.InputError, match=f"^--workdir={link}: a link to {tmp_path}/scratch, which is not there"):
    configs.read(link)
  (tmp_path / "scratch").mkdir()
  assert configs.read(link) is None
