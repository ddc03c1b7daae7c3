import ast
import pathlib
import subprocess
import sys

from tests.conftest import ROOT

WING = pathlib.Path(ROOT) / "lcgen" / "reporting"


def test_reporting_loads_no_jax_and_no_other_wing():
  names = [f"lcgen.reporting.{path.stem}" for path in WING.glob("[!_]*.py")]
  code = f"import {', '.join(names)}, sys; print('\\n'.join(sys.modules))"
  done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
  loaded = done.stdout.split()
  assert "lcgen.reporting.report" in loaded
  assert not {"jax", "flax", "matplotlib", "scipy.stats", "tensorflow"} & set(loaded)
  wings = {name.split(".")[1] for name in loaded if name.startswith("lcgen.")}
  assert wings == {"reporting", "runtime"}


def test_reporting_names_no_other_wing():
  """Also inside functions, which import late."""
  for path in WING.glob("*.py"):
    for node in ast.walk(ast.parse(path.read_text())):
      if isinstance(node, ast.ImportFrom | ast.Import):
        base = node.module if isinstance(node, ast.ImportFrom) else ""
        names = [f"{base}.{alias.name}".strip(".") for alias in node.names]
        own = [name for name in names if name.startswith("lcgen")]
        assert all(name.startswith(("lcgen.reporting.", "lcgen.runtime.")) for name in own), (path.name, own)
