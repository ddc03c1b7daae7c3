import ast
import itertools
import pathlib
import re
import subprocess
import sys

import draw_architecture as drawing
import import_graph
import pytest

ROOT = pathlib.Path(__file__).parent.parent
PACKAGE = ROOT / "lcgen"
MODULES = sorted(PACKAGE.rglob("*.py"))
LINES, PARAMETERS, FLOORS, CHAIN, FORWARDING_LINES = 400, 8, 10, 14, 12  # at most

ORDERED = [name for floor in import_graph.ORDER for name in floor]
WINGS = sorted(path for name in ORDERED if (path := PACKAGE / name).is_dir())


@pytest.fixture(scope="module")
def house():
  return import_graph.read(PACKAGE)


def test_imports_go_down(house):
  assert import_graph.upward(house) == []


def test_every_wing_of_the_order_exists(house):
  assert set(ORDERED) == set(house.house())


def test_the_config_reads_settings_alone(house):
  read = [one.target for one in house.imports if one.source == "config"]
  assert [name for name in read if not name.endswith(".settings") and import_graph.wing(name) != "runtime"] == []


def test_names_that_forward_do_nothing_else(house):
  assert {name: house.lines[name] for name in house.forwarding if house.lines.get(name, 0) > FORWARDING_LINES} == {}


def test_the_house_is_low(house):
  found = import_graph.measure(house)
  assert found.circles == []
  assert found.wing_circles == []
  assert found.floors <= FLOORS
  assert len(found.chain) <= CHAIN, found.chain


def test_the_picture_and_the_figures_are_current():
  result = subprocess.run(
    [sys.executable, "docs/draw_architecture.py", "--check"], cwd=ROOT, capture_output=True, text=True
  )
  assert result.returncode == 0, result.stdout + result.stderr


def test_no_file_is_long():
  assert {str(path): count for path in MODULES if (count := len(path.read_text().splitlines())) > LINES} == {}


def test_no_function_takes_many_arguments():
  assert [found for path in MODULES for found in _crowded(path)] == []


def _crowded(path):
  """Functions of more than `PARAMETERS` named parameters; `self` and `cls` are none, nor are `*args` and `**kwargs`."""
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
      given = node.args
      names = [one.arg for one in (*given.posonlyargs, *given.args)]
      names = names[names[:1] in (["self"], ["cls"]) :] + [one.arg for one in given.kwonlyargs]
      if len(names) > PARAMETERS:
        yield f"{path.relative_to(ROOT)}:{node.lineno} {node.name} takes {len(names)}"


@pytest.mark.parametrize("wing", WINGS, ids=lambda wing: wing.name)
def test_a_wing_says_what_it_offers(wing):
  text = ast.get_docstring(ast.parse((wing / "__init__.py").read_text())) or ""
  named = re.findall(r"`(\w+(?:\.\w+)+)`", text)
  assert named, "name the wing's public functions as `module.function`"
  assert [name for name in named if not _resolves(wing, name)] == []


def _resolves(wing, name):
  """Whether `module.function`, or `package.module.function`, is defined or imported in a file of the wing."""
  *modules, last = name.split(".")
  if modules[0] == wing.name and not (wing / f"{wing.name}.py").exists():
    modules = modules[1:]
  path = wing.joinpath(*modules)
  path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
  return path.exists() and last in _defined(ast.parse(path.read_text()))


def _defined(tree):
  """The names at the top level of a module."""
  names = set()
  for node in tree.body:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
      names.add(node.name)
    elif isinstance(node, ast.Import | ast.ImportFrom):
      names |= {alias.asname or alias.name for alias in node.names}
    elif isinstance(node, ast.Assign | ast.AnnAssign):
      targets = node.targets if isinstance(node, ast.Assign) else [node.target]
      names |= {part.id for target in targets for part in ast.walk(target) if isinstance(part, ast.Name)}
  return names


def _loads(module, unwanted):
  """Those of the unwanted modules that importing this one loads, in a process of its own."""
  program = f"import sys, {module}; print(*(name for name in {unwanted!r} if name in sys.modules))"
  result = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
  assert result.returncode == 0, result.stderr
  return result.stdout.split()


def test_the_package_loads_no_slow_library():
  assert _loads("lcgen", ("matplotlib", "scipy", "tensorflow_datasets")) == []


@pytest.mark.parametrize(
  "module",
  ["lcgen.config", *(f"lcgen.{path.parent.name}.settings" for path in sorted(PACKAGE.glob("*/settings.py")))],
)
def test_settings_load_no_jax(module):
  assert _loads(module, ("jax", "flax", "optax", "tensorflow_datasets", "matplotlib")) == []


# The measure itself, on packages whose figures are known.


def _package(folder, files):
  for name, text in files.items():
    path = folder / "pack" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    for parent in path.relative_to(folder).parents[:-1]:
      (folder / parent / "__init__.py").touch()
    path.write_text(text)
  return import_graph.read(folder / "pack")


ORDER = [["low"], ["left", "right"], ["high"]]
FILES = {
  "low/a.py": '"""Does the least.  No more."""\nimport os\n',
  "low/b.py": "from pack.low import a\n",
  "left/c.py": "from ..low.b import something\n",
  "right/d.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n  from pack.low import a\n",
  "high/e.py": "import pack.left.c as c\n\ndef f():\n  from pack.right import d\n  return c, d\n",
}


def test_measure_finds_a_known_chain(tmp_path):
  found = import_graph.measure(tree := _package(tmp_path, FILES))
  assert found.chain == ["high.e", "left.c", "low.b", "low.a"]
  assert (found.wings, found.floors, found.wing_arrows) == (4, 3, 4)
  assert (found.files, found.arrows, found.lazy) == (9, 5, 1)
  assert found.longest_file == ("high.e", 5)
  assert found.circles == found.wing_circles == []
  assert import_graph.upward(tree, ORDER) == []
  assert tree.purposes["low.a"] == "Does the least."
  assert {one.kind for one in tree.imports if one.source in ("right.d", "high.e")} == {"typing", "top", "lazy"}


@pytest.mark.parametrize(
  ("name", "text", "says"),
  [
    ("low/f.py", "from pack.high import e\n", "low.f:1 imports high.e, which is above it"),
    ("low/f.py", "def f():\n  import pack.high.e\n", "low.f:2 imports high.e, which is above it"),
    ("left/f.py", "from pack.right import d\n", "left.f:1 imports right.d, on the same floor"),
    ("left/f.py", "from .. import left, name\n", "left.f:1 imports the package itself, which is for users"),
    ("new/f.py", "", "new has no floor: add it to ORDER"),
  ],
)
def test_upward_imports_are_found(tmp_path, name, text, says):
  assert import_graph.upward(_package(tmp_path, FILES | {name: text}), ORDER) == [says]


def test_circles_are_found_and_are_one_link(tmp_path):
  found = import_graph.measure(
    _package(tmp_path, FILES | {"low/a.py": "def f():\n  from pack.low import b\n  return b\n"})
  )
  assert found.circles == [["low.a", "low.b"]]
  assert found.wing_circles == []
  assert found.chain == ["high.e", "left.c", "low.a+low.b"]


def test_the_script_beside_the_package_is_a_file_and_no_wing(tmp_path):
  (tmp_path / "run.py").write_text("from pack.high import e\n")
  found = import_graph.measure(_package(tmp_path, FILES))
  assert found.chain[0] == "run"
  assert (found.wings, found.floors, found.files) == (4, 3, 10)


def test_names_that_forward_may_import_upwards_and_nobody_imports_them(tmp_path):
  files = {
    "runtime/a.py": "",
    "cli/b.py": "from pack.runtime import a\n",
    "data/c.py": "from pack.runtime import a\nfrom pack import rules\n",
    "data/ambiguous.py": "from pack.cli.b import *\n",
    "rules.py": "from pack.cli.b import *\n",
  }
  tree = _package(tmp_path, files)
  assert import_graph.upward(tree) == ["data.c:2 imports rules, which is for users"]
  assert "rules" not in tree.house()
  assert import_graph.measure(tree).wing_circles == []


def test_reduced_leaves_out_what_a_longer_way_says():
  assert import_graph.reduced({"a": set(), "b": {"a"}, "c": {"a", "b"}}) == {"a": set(), "b": {"a"}, "c": {"b"}}


def test_the_picture_is_the_same_each_time_and_valid(tmp_path):
  from xml.etree import ElementTree

  tree = _package(tmp_path, FILES | {"low/__init__.py": '"""Sums a < b & c."""\n'})
  picture = drawing.draw(tree, ORDER)
  assert picture == drawing.draw(tree, ORDER)
  texts = [element.text for element in ElementTree.fromstring(picture).iter() if element.text]
  assert "Sums a < b & c." in texts
  assert {"low", "left", "right", "high"} <= set(texts)
  assert len(re.findall('class="arrow"', picture)) == 4


def test_no_arrow_of_the_picture_crosses_a_box():
  boxes = {}
  for row, (names, y) in enumerate([(["low"], 300), (["left", "right"], 200), (["x", "y"], 100), (["high"], 0)]):
    width = (drawing._WIDTH - drawing._GAP * (len(names) - 1)) / len(names)
    for place, name in enumerate(names):
      boxes[name] = drawing.Box(row, drawing._MARGIN + place * (width + drawing._GAP), y, width, 60)
  arrows = {"high": {"left", "right", "x"}, "x": {"low", "right"}, "y": {"low", "left"}, "left": {"low"}}
  routes = drawing._routes(boxes, {name: arrows.get(name, set()) for name in boxes})
  assert len(routes) == 8
  for points in routes:
    for (x0, y0), (x1, y1) in itertools.pairwise(points):
      for share in (0.02 * step for step in range(1, 50)):
        x, y = x0 + share * (x1 - x0), y0 + share * (y1 - y0)
        for box in boxes.values():
          inside = box.x < x < box.x + box.width and box.y < y < box.y + box.height
          assert not inside, (points, box)


def test_the_page_keeps_what_stands_around_the_markers():
  page = f"before\n{drawing.BEGIN}\nold\n{drawing.END}\nafter\n"
  assert drawing.between_markers(page, "new\n") == f"before\n{drawing.BEGIN}\nnew\n{drawing.END}\nafter\n"
  with pytest.raises(SystemExit, match="lacks"):
    drawing.between_markers("no markers", "new\n")


def test_a_crowded_function_is_found(tmp_path, monkeypatch):
  monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
  path = tmp_path / "a.py"
  path.write_text("class A:\n  def f(self, a, b, c, d, e, f, *g, h, i, **j): ...\n  def k(self, a, *, i): ...\n")
  assert list(_crowded(path)) == []
  path.write_text("def f(a, b, c, d, e, f, *, h, i, j): ...\n")
  assert list(_crowded(path)) == ["a.py:1 f takes 9"]


def test_names_in_a_docstring_are_resolved_in_the_wing(tmp_path):
  wing = tmp_path / "wing"
  (wing / "sub").mkdir(parents=True)
  (wing / "a.py").write_text("from os import path\nB: int = 1\nC, D = 1, 2\nclass E: ...\ndef f(): ...\n")
  (wing / "sub" / "__init__.py").write_text("G = 1\n")
  names = ("a.path", "a.B", "a.D", "a.E", "a.f", "sub.G", "wing.a.f", "a.x", "b.f", "sub.f")
  assert [name for name in names if not _resolves(wing, name)] == ["a.x", "b.f", "sub.f"]
