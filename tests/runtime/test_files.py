"""Files of a run after a crash of the machine, a full disk, or a copy that was cut short."""

import json
import pathlib
import re

import numpy as np
import pytest
from etils import epath

from lcgen.runtime import errors, files

RECORD = {"phase": "vae", "kind": "vae", "step": 1, "epoch": 1.0, "terms": {"loss": [0.5]}}
LINE = json.dumps(RECORD).encode() + b"\n"


@pytest.mark.parametrize(
  "spoilt", [b"\0" * 40 + b"\n", LINE[:30] + LINE, b"\xff\xfe\n", b"[1]\n", b'{"step": 3}\n', b"\n", LINE[:-1]]
)
def test_broken_lines_of_metrics_are_passed_over(tmp_path, spoilt):
  path = epath.Path(tmp_path / "metrics.jsonl")
  path.write_bytes(LINE + spoilt)
  metrics = files.MetricsFile(path)
  assert metrics.read() == [RECORD]
  metrics.truncate("vae", 1)
  metrics.write(RECORD | {"step": 2})
  assert path.read_bytes() == LINE + LINE.replace(b'"step": 1', b'"step": 2')


@pytest.mark.parametrize(
  "damage", [lambda whole: whole[:200], lambda whole: b"", lambda whole: whole[:-9] + b"123456789"]
)
def test_broken_arrays_are_refused_by_name(tmp_path, damage):
  path = epath.Path(tmp_path / "samples.npz")
  with pytest.raises(errors.InputError, match=f"^{tmp_path}: there is no samples.npz; run --stage=evaluate"):
    files.read_arrays(path)
  files.write_arrays(path, {"images": np.arange(100)})
  assert files.read_arrays(path)["images"].tolist() == list(range(100))
  path.write_bytes(damage(path.read_bytes()))
  with pytest.raises(errors.InputError, match=r"^.*samples.npz cannot be read \(.*\); run --stage=evaluate"):
    files.read_arrays(path)


@pytest.mark.parametrize("name", ["run", "lr=[1, 2]", "a*b?", "[!a]"])
def test_the_name_of_a_folder_is_no_pattern(tmp_path, name):
  folder = epath.Path(tmp_path / name)
  for other in (folder, epath.Path(tmp_path / "lr=1"), epath.Path(tmp_path / "axbx")):
    (other / "rules" / "ink").mkdir(parents=True)
    (other / "rules" / "ink" / "results.json").write_text("{}")
  assert files.matching(folder, "rules/*/results.json") == [folder / "rules" / "ink" / "results.json"]


def test_no_other_place_takes_a_folders_name_for_a_pattern():
  root = pathlib.Path(files.__file__).parents[1]
  found = {str(path.relative_to(root)) for path in root.rglob("*.py") if re.search(r"\.r?glob\(", path.read_text())}
  assert found == {"runtime/files.py"}
