"""Paths that users write: `~` is a home at every door, and a storage that cannot be reached is refused."""

import pathlib

import pytest
from etils import epath

import lcgen
from lcgen import config
from lcgen.api import export, workdir
from lcgen.cli import flags
from lcgen.reporting import compare_runs
from lcgen.runtime import errors, places


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
  monkeypatch.setenv("HOME", str(tmp_path))
  monkeypatch.chdir(tmp_path)
  return tmp_path


DOORS = {
  "load": lcgen.load,
  "Workdir": workdir.Workdir,
  "Export": export.Export,
  "export.write": export.write,
  "compare": lambda path: compare_runs.read([path, f"{path}-2"]),
  "config file": flags._file,
}


@pytest.mark.parametrize("door", DOORS)
def test_a_home_is_looked_in_at_every_door(door, home):
  """Nothing is there, so that the refusal says where it has looked."""
  (home / "a.py").touch()
  with pytest.raises(errors.InputError, match=rf"{home}/nowhere|configs/|a\.py"):
    DOORS[door]("~/nowhere")
  assert [path.name for path in home.iterdir()] == ["a.py"]


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize(
  ("path", "words"),
  [
    ("~nobody.there/x", "there is no user"),
    ("gs://bucket/run", "gs:// takes gcsfs, which is not installed; install it"),
    ("nosuch://bucket/run", "there is no storage nosuch://"),
  ],
)
def test_what_cannot_be_reached_is_refused_at_every_door(door, path, words):
  if door == "config file":
    path = path.replace("gs://bucket", "~nobody.there").replace("nosuch://bucket", "~nobody.there")
    words = "there is no user"
  with pytest.raises(errors.InputError, match=words):
    DOORS[door](path)


def test_a_file_in_the_home_is_found(home):
  (home / "my.py").write_text("x = 1")
  assert flags._file("~/my.py:small") == f"{home}/my.py:small"
  assert places.expanded("~", "--workdir") == epath.Path(home)
  assert places.expanded("a/~/b", "--workdir") == epath.Path("a/~/b")
  assert config.read(places.expanded("~/new", "--workdir")) is None
  assert not pathlib.Path("~").exists()
