"""Draws the imports of `lcgen/`, in `docs/architecture.svg` and `docs/architecture.md`.

python docs/draw_architecture.py                   writes both files
python docs/draw_architecture.py --check           exits 1 if they are not current
python docs/draw_architecture.py --measure PATH    prints the figures of another package folder
"""

import argparse
import dataclasses
import pathlib
import sys
import textwrap
from collections.abc import Iterable, Mapping
from xml.sax import saxutils

from import_graph import ORDER, PURPOSES, Graph, Tree, measure, read, reduced, upward

ROOT = pathlib.Path(__file__).resolve().parent.parent
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"

# The picture has a row for each floor. A wing alone on its floor has the whole row.
_WIDTH, _GAP, _FLOOR_GAP, _MARGIN, _LANE, _LINE = 760, 24, 34, 72, 14, 16
_STYLE = """
  .box { fill: #f6f8fa; stroke: #8c959f; }
  .name { font: 600 14px ui-monospace, Menlo, Consolas, monospace; fill: #0b4f9e; }
  .text { font: 12px system-ui, "Segoe UI", Helvetica, Arial, sans-serif; fill: #1f2328; }
  .arrow { fill: none; stroke: #57606a; stroke-width: 1.3; }
  .head { fill: #57606a; }
  @media (prefers-color-scheme: dark) {
    .box { fill: #1b222c; stroke: #596573; }
    .name { fill: #79b8ff; }
    .text { fill: #e6edf3; }
    .arrow { stroke: #9aa5b1; }
    .head { fill: #9aa5b1; }
  }
"""


@dataclasses.dataclass(frozen=True)
class Box:
  """A wing in the picture; `row` counts floors from the bottom."""

  row: int
  x: float
  y: float
  width: float
  height: float

  @property
  def middle(self) -> float:
    return self.x + self.width / 2


def draw(tree: Tree, order: list[list[str]] = ORDER) -> str:
  """Draws the wings as an SVG, each above its imports; arrows that a longer way replaces are left out."""
  house = tree.house()
  rows = [names for floor in order if (names := [name for name in floor if name in house])]
  texts, boxes, y = {}, {}, 16.0
  for row, names in reversed(list(enumerate(rows))):
    width = (_WIDTH - _GAP * (len(names) - 1)) / len(names)
    for name in names:
      texts[name] = textwrap.wrap(PURPOSES.get(name) or tree.purposes.get(name, ""), int((width - 28) / 6.4))
    height = 34 + _LINE * max(len(texts[name]) for name in names)
    for place, name in enumerate(names):
      boxes[name] = Box(row, _MARGIN + place * (width + _GAP), y, width, height)
    y += height + _FLOOR_GAP
  arrows = {name: {target for target in targets if target in boxes} for name, targets in house.items() if name in boxes}
  parts = [_path(points) for points in _routes(boxes, reduced(arrows))]
  for name, box in boxes.items():
    parts.append(
      f'<rect class="box" x="{box.x:g}" y="{box.y:g}" width="{box.width:g}" height="{box.height:g}" rx="6"/>'
    )
    parts.append(f'<text class="name" x="{box.x + 14:g}" y="{box.y + 22:g}">{name}</text>')
    for place, line in enumerate(texts[name]):
      height = box.y + 22 + _LINE * (place + 1)
      parts.append(f'<text class="text" x="{box.x + 14:g}" y="{height:g}">{saxutils.escape(line)}</text>')
  size = f"{_WIDTH + 2 * _MARGIN} {y - _FLOOR_GAP + 16:g}"
  head = (
    '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
    '<path class="head" d="M0 0 L8 4 L0 8 z"/></marker></defs>'
  )
  title = "<title>The wings of lcgen: each imports only wings below it</title>"
  opening = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size}" role="img">'
  return "\n".join([opening, title, f"<style>{_STYLE}</style>", head, *parts, "</svg>", ""])


def _routes(boxes: Mapping[str, Box], arrows: Graph) -> list[list[tuple[float, float]]]:
  """Gives the corners of each arrow. An arrow that skips floors goes down beside the house, in its own lane."""
  routes, lanes, entries = [], {"left": 0, "right": 0}, {}
  for name, source in boxes.items():
    for target_name in sorted(arrows[name], key=lambda other: (-boxes[other].row, boxes[other].x)):
      target = boxes[target_name]
      if source.row - target.row == 1:
        # A box that spans the row meets a half one above or below that half's middle.
        start, end = source.middle, target.middle
        if source.width != target.width:
          start = end = min(source, target, key=lambda box: box.width).middle
        elif start != end:
          start, end = start + (30 if end > start else -30), end + (30 if start > end else -30)
        routes.append([(start, source.y + source.height), (end, target.y)])
        continue
      # It enters a half box from that box's side of the house. It leaves a box of the other side through the gap below.
      side = _side(target) or _side(source) or "right"
      edge = (lambda box: box.x) if side == "left" else (lambda box: box.x + box.width)
      lanes[side] += 1
      out = 8 + _LANE * lanes[side]
      lane = _MARGIN - out if side == "left" else _MARGIN + _WIDTH + out
      end = target.y + 18 + 10 * entries.get((target_name, side), 0)
      entries[target_name, side] = entries.get((target_name, side), 0) + 1
      if _side(source) in (None, side):
        start = source.y + 18 + 10 * entries.get((name, side), 0)
        entries[name, side] = entries.get((name, side), 0) + 1
        beginning = [(edge(source), start)]
      else:
        start, bottom = source.y + source.height + _FLOOR_GAP / 2, source.y + source.height
        beginning = [(source.middle - 30, bottom), (source.middle - 30, start)]
      routes.append([*beginning, (lane, start), (lane, end), (edge(target), end)])
  return routes


def _side(box: Box) -> str | None:
  """Gives the side of the house that a half box stands on; None for a whole box."""
  if box.width == _WIDTH:
    return None
  return "left" if box.middle < _MARGIN + _WIDTH / 2 else "right"


def _path(points: Iterable[tuple[float, float]]) -> str:
  return f'<path class="arrow" marker-end="url(#head)" d="M{" L".join(f"{x:g} {y:g}" for x, y in points)}"/>'


def report(tree: Tree, order: list[list[str]] = ORDER) -> str:
  """Writes the wings and the figures in Markdown."""
  found = measure(tree)
  rows = [
    ("wings", found.wings),
    ("import floors", found.floors),
    ("imports that go up", len(upward(tree, order))),
    ("longest chain of files", len(found.chain)),
    ("circles", len(found.circles)),
    ("files", found.files),
    ("imports between files", found.arrows),
    ("longest file", f"`{found.longest_file[0]}`, {found.longest_file[1]} lines"),
  ]
  house = tree.house()
  wings = [
    f"* `{name}`: {PURPOSES.get(name) or tree.purposes.get(name, '')}"
    for floor in reversed(order)
    for name in floor
    if name in house
  ]
  table = ["| | |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in rows)]
  chain = " > ".join(f"`{name}`" for name in found.chain)
  return "\n".join([*wings, "", *table, "", f"The longest chain: {chain}.", ""])


def between_markers(page: str, text: str) -> str:
  """Gives the page with this text between its two markers."""
  head, begin, rest = page.partition(BEGIN)
  _, end, tail = rest.partition(END)
  if not begin or not end:
    raise SystemExit(f"docs/architecture.md lacks {BEGIN} or {END}")
  return f"{head}{BEGIN}\n{text}{END}{tail}"


def _print(tree: Tree) -> None:
  found = measure(tree)
  built = ORDER[0][0] in tree.wings
  print(f"wings                   {found.wings}, {found.wing_arrows} arrows")
  print(f"import floors           {found.floors}" + (" (a circle is one floor)" if found.wing_circles else ""))
  print(f"imports that go up      {len(upward(tree)) if built else 'unknown: the package has no declared order'}")
  print(f"longest chain of files  {len(found.chain)}: {' > '.join(found.chain)}")
  print(f"files                   {found.files}, {found.arrows} arrows, {found.lazy} imports inside functions")
  print(f"longest file            {found.longest_file[0]}, {found.longest_file[1]} lines")
  for kind, several in (("files", found.circles), ("wings", found.wing_circles)):
    for circle in several:
      print(f"circle of {len(circle)} {kind}: {', '.join(circle)}")
  if built:
    print(*upward(tree), sep="\n")


def main(arguments: list[str] | None = None) -> int:
  """Writes, checks or prints; returns the exit status."""
  parser = argparse.ArgumentParser(description="Measures and draws the imports of lcgen.")
  parser.add_argument("--check", action="store_true", help="exit 1 where the files in docs/ are not current")
  parser.add_argument("--measure", metavar="PATH", type=pathlib.Path, help="print the figures of this package folder")
  given = parser.parse_args(arguments)
  if given.measure:
    _print(read(given.measure.resolve()))
    return 0
  tree = read(ROOT / "lcgen")
  page, picture = ROOT / "docs" / "architecture.md", ROOT / "docs" / "architecture.svg"
  wanted = {page: between_markers(page.read_text(), report(tree)), picture: draw(tree)}
  stale = [path for path, text in wanted.items() if not path.exists() or path.read_text() != text]
  if given.check:
    for path in stale:
      print(f"{path.relative_to(ROOT)} is not current: run python docs/draw_architecture.py")
    return 1 if stale else 0
  for path in stale:
    path.write_text(wanted[path])
  return 0


if __name__ == "__main__":
  sys.exit(main())
