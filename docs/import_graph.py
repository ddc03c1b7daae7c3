"""Reads and measures the imports of a package.

Imports are read from the syntax tree, with those inside functions and under `TYPE_CHECKING`. An import points to the
module that it names. An `__init__` that Python runs on the way there counts only if a name is taken from it. The
package's own `__init__` is left out of the graph. `run.py` beside the package is one of its files.
"""

import ast
import dataclasses
import functools
import pathlib
import re
from collections.abc import Iterable, Mapping

# The floors of the house, from bottom to top. Imports go down. Wings of one floor do not import each other.
SETTINGS = "settings"
ORDER = [
  ["runtime"],
  [SETTINGS],
  ["models", "data", "config"],
  ["training", "reporting"],
  ["generator"],
  ["constraints"],
  ["classifiers", "evaluation"],
  ["studies", "api"],
  ["cli"],
]
# The settings of all wings are a floor of their own: they declare fields and names, and import no JAX. These modules
# belong to that floor too.
DECLARATIONS = ("classifiers.arms", "constraints.rule_spec", "data.test_set_names")
PURPOSES = {SETTINGS: "The settings.py of every wing: fields with type, default, range and help; no JAX."}
# Old names that forward to new ones. They may import any wing, and no wing may import them.
FORWARDING = ("compare", "rules", "data.ambiguous")

RUN = "run"  # the script beside the package

Graph = dict[str, set[str]]


@dataclasses.dataclass(frozen=True, order=True)
class Import:
  """An import of one module by another, both by their names inside the package, such as `data.sources`.

  Attributes:
    source: the module that imports.
    target: the module that is imported; "" for the package's own `__init__`.
    line: line of the first mention.
    kind: "top", "lazy" inside a function, or "typing" under `TYPE_CHECKING`.
  """

  source: str
  target: str
  line: int
  kind: str


@dataclasses.dataclass(frozen=True)
class Tree:
  """The modules of a package, and their imports of each other.

  Attributes:
    lines: number of lines of each module.
    purposes: first sentence of each module's docstring.
    imports: one import for each pair of modules, sorted.
  """

  lines: dict[str, int]
  purposes: dict[str, str]
  imports: list[Import]

  @property
  def wings(self) -> set[str]:
    """Folders and top-level modules of the package."""
    return {wing(module) for module in self.lines} - {"", RUN}

  def files(self) -> Graph:
    """Gives the imports of each module, without the package's own `__init__` and names that forward."""
    left_out = {"", *self.forwarding}
    graph: Graph = {module: set() for module in self.lines if module not in left_out}
    for one in self.imports:
      if one.source not in left_out and one.target not in left_out:
        graph[one.source].add(one.target)
    return graph

  def house(self) -> Graph:
    """Gives the wings that each wing imports."""
    graph: Graph = {}
    for module, targets in self.files().items():
      graph.setdefault(wing(module), set()).update(wing(target) for target in targets)
    graph.pop(RUN, None)
    return {name: targets - {name} for name, targets in graph.items()}

  @property
  def forwarding(self) -> tuple[str, ...]:
    """Names that forward; a package that is not built in wings has none."""
    return FORWARDING if ORDER[0][0] in self.wings else ()


@dataclasses.dataclass(frozen=True)
class Measures:
  """The figures of a package.

  Attributes:
    wings: number of folders and top-level modules.
    floors: length of the longest chain of wings; a circle of wings is one link.
    chain: the longest chain of files; a circle of files is one link.
    circles: files that import each other in a circle.
    wing_circles: wings that import each other in a circle.
    files: number of modules, with `run.py`.
    arrows: number of imports between files.
    wing_arrows: number of imports between wings.
    lazy: number of imports inside functions.
    longest_file: name and lines of the longest file.
  """

  wings: int
  floors: int
  chain: list[str]
  circles: list[list[str]]
  wing_circles: list[list[str]]
  files: int
  arrows: int
  wing_arrows: int
  lazy: int
  longest_file: tuple[str, int]


def wing(module: str) -> str:
  """Gives the folder or top-level module that a module belongs to; settings are a wing of their own."""
  if module.endswith(f".{SETTINGS}") or module in DECLARATIONS:
    return SETTINGS
  return module.partition(".")[0]


def read(package: pathlib.Path) -> Tree:
  """Reads all modules of a package folder."""
  paths = {_module(path.relative_to(package)): path for path in sorted(package.rglob("*.py"))}
  script = package.parent / f"{RUN}.py"
  if script.exists():
    paths[RUN] = script
  lines, purposes, imports = {}, {}, []
  for module, path in paths.items():
    text = path.read_text()
    tree = ast.parse(text)
    lines[module] = len(text.splitlines())
    purposes[module] = _first_sentence(ast.get_docstring(tree) or "")
    is_package = path.name == "__init__.py"
    found: dict[str, Import] = {}
    for target, line, kind in _imports(tree, _parent(package.name, module, is_package), package.name, paths):
      if target != module:
        found.setdefault(target, Import(module, target, line, kind))
    imports += found.values()
  return Tree(lines, purposes, sorted(imports))


def _module(path: pathlib.Path) -> str:
  parts = path.with_suffix("").parts
  return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _parent(package: str, module: str, is_package: bool) -> str:
  """Gives the package from which a relative import in the module starts."""
  name = f"{package}.{module}".rstrip(".")
  return name if is_package else name.rpartition(".")[0]


def _first_sentence(text: str) -> str:
  flat = " ".join(text.split())
  found = re.match(r".+?[.!?](?=\s|$)", flat)
  return found.group() if found else flat


def _imports(tree: ast.AST, parent: str, package: str, known: Iterable[str]):
  """Yields `(module of the package, line, kind)` for every import below a node."""

  def inside(name: str) -> str | None:
    """Gives the longest beginning of a dotted name that is a module of the package, or None."""
    if name != package and not name.startswith(f"{package}."):
      return None
    name = name[len(package) + 1 :]
    while name and name not in known:
      name = name.rpartition(".")[0]
    return name

  def visit(node: ast.AST, kind: str):
    for child in ast.iter_child_nodes(node):
      below = kind
      if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
        below = "lazy"
      elif isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING"):
        below = "typing"
      elif isinstance(child, ast.Import):
        yield from ((inside(alias.name), child.lineno, kind) for alias in child.names)
      elif isinstance(child, ast.ImportFrom):
        base = child.module or ""
        if child.level:
          above = parent.rsplit(".", child.level - 1)[0] if child.level > 1 else parent
          base = f"{above}.{base}".rstrip(".")
        yield from ((inside(f"{base}.{alias.name}"), child.lineno, kind) for alias in child.names)
      yield from visit(child, below)

  for target, line, kind in visit(tree, "top"):
    if target is not None:
      yield target, line, kind


def groups(graph: Mapping[str, set[str]]) -> list[list[str]]:
  """Groups the nodes of each circle; a group comes after the groups that it imports (Tarjan 1972)."""
  found: list[list[str]] = []
  index: dict[str, int] = {}
  lowest: dict[str, int] = {}
  stack: list[str] = []

  def visit(node: str) -> None:
    index[node] = lowest[node] = len(index)
    stack.append(node)
    for target in sorted(graph[node]):
      if target not in index:
        visit(target)
      if target in stack:
        lowest[node] = min(lowest[node], lowest[target])
    if lowest[node] == index[node]:
      start = stack.index(node)
      found.append(sorted(stack[start:]))
      del stack[start:]

  for node in sorted(graph):
    if node not in index:
      visit(node)
  return found


def circles(graph: Mapping[str, set[str]]) -> list[list[str]]:
  """Lists the circles of nodes that import each other."""
  return [group for group in groups(graph) if len(group) > 1]


def longest_chain(graph: Mapping[str, set[str]]) -> list[str]:
  """Gives the longest chain of nodes that import one another; a circle is one link, "a+b"."""
  best: dict[str, list[str]] = {}
  for group in groups(graph):
    below = {target for node in group for target in graph[node]} - set(group)
    tail = max((best[target] for target in sorted(below)), key=len, default=[])
    for node in group:
      best[node] = ["+".join(group), *tail]
  return max((best[node] for node in sorted(best)), key=len, default=[])


def reduced(graph: Mapping[str, set[str]]) -> Graph:
  """Removes the arrows that a longer way replaces; keeps all if there is a circle."""
  if circles(graph):
    return dict(graph)

  @functools.cache
  def reached(node: str) -> frozenset[str]:
    return frozenset().union(*(reached(target) | {target} for target in graph[node]))

  return {
    node: {target for target in targets if not any(target in reached(other) for other in targets)}
    for node, targets in graph.items()
  }


def measure(tree: Tree) -> Measures:
  """Computes the figures of a package."""
  files, house = tree.files(), tree.house()
  longest = max(sorted(files), key=lambda module: tree.lines[module])
  return Measures(
    wings=len(house),
    floors=len(longest_chain(house)),
    chain=longest_chain(files),
    circles=circles(files),
    wing_circles=circles(house),
    files=len(files),
    arrows=sum(map(len, files.values())),
    wing_arrows=sum(map(len, house.values())),
    lazy=sum(one.kind == "lazy" for one in tree.imports),
    longest_file=(longest, tree.lines[longest]),
  )


def upward(tree: Tree, order: list[list[str]] = ORDER) -> list[str]:
  """Lists the imports that break the order, in a sentence each.

  They go up, to another wing of the same floor, to the package's own `__init__`, or to a name that forwards.
  """
  floor = {name: place for place, names in enumerate(order) for name in names}
  wrong = [f"{name} has no floor: add it to ORDER" for name in sorted(set(tree.house()) - set(floor))]
  for one in tree.imports:
    if one.source in ("", RUN, *tree.forwarding):
      continue
    source, target = wing(one.source), wing(one.target)
    if one.target == "" or one.target in tree.forwarding:
      reason = "which is for users"
    elif source == target or source not in floor or target not in floor or floor[target] < floor[source]:
      continue
    else:
      reason = "on the same floor" if floor[target] == floor[source] else "which is above it"
    wrong.append(f"{one.source}:{one.line} imports {one.target or 'the package itself'}, {reason}")
  return wrong
