"""Building blocks of a report: one HTML file that needs no network and runs no script.

Texts are plain: whatever they hold is shown as it is, but for `code` in backticks. What the functions return goes into
a `Section`, and the sections into a `page`.
"""

import base64
import html
import io
import itertools
import math
import re
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
_CODE = re.compile(r"`([^`]+)`")
_NUMBER = re.compile(r"[-+−]?\d+(,\d{3})*(\.\d+)?(e[-+]?\d+)?\s*(%|[±(\[].*)?")
_NO_VALUE = {"", "-", "–", "—", "nan", "inf", "-inf"}


class Html(str):
  """Finished HTML, made by the functions of this module and by nothing else."""

  __slots__ = ()


class Section(NamedTuple):
  """A chapter: its title, plain text, and what stands under it."""

  title: str
  parts: Sequence[Html]


def page(title: str, summary: str, sections: Sequence[Section]) -> str:
  """The whole document, with a table of contents; the same input gives the same text.

  Args:
    title: plain text.
    summary: the paragraph under the title.
    sections: in their order; titles may repeat.

  Raises:
    ValueError: where a title is empty, or a part was not made by this module.
  """
  links, chapters = [], []
  for anchor, section in zip(_anchors([section.title for section in sections]), sections, strict=True):
    heading = _inline(_required(section.title, "a section's title"))
    links.append(f'<li><a href="#{anchor}">{heading}</a></li>')
    chapters.append(f'<section id="{anchor}">\n<h2>{heading}</h2>\n{_joined(section.parts)}\n</section>')
  lines = [
    '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
    f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
    '<meta name="viewport" content="width=device-width, initial-scale=1">',
    f"<title>{_unmarked(_required(title, 'the title'))}</title>",
    '<link rel="icon" href="data:,">',  # or else a browser asks the server for one
    f"<style>{_STYLE}</style>\n</head>\n<body>",
    '<a class="skip" href="#report">Skip to the report</a>',
    f"<header>\n<h1>{_inline(title)}</h1>\n{paragraph(summary)}\n</header>",
    f'<nav aria-label="Contents">\n<ol>{"".join(links)}</ol>\n</nav>',
    '<main id="report">',
    *chapters,
    "</main>\n</body>\n</html>\n",
  ]
  # Names of files that are not UTF-8 hold lone surrogates, which could not be written.
  return "\n".join(lines).encode(errors="replace").decode()


def paragraph(text: str) -> Html:
  """A paragraph of prose."""
  return Html(f"<p>{_inline(text)}</p>")


def facts(pairs: Iterable[tuple[str, str]]) -> Html:
  """A list of names, each with its value."""
  return Html(f"<dl>{''.join(f'<dt>{_inline(name)}</dt><dd>{_inline(value)}</dd>' for name, value in pairs)}</dl>")


def table(
  header: Sequence[str],
  rows: Sequence[Sequence[str]],
  caption: str,
  *,
  note: str = "",
  highlight: Collection[tuple[int, int]] = (),
) -> Html:
  """A table whose first column names the rows; a column that holds numbers and no words is set flush right.

  Args:
    header: names of the columns.
    rows: cells, as many a row as there are columns.
    caption: stands above the table.
    note: stands below it.
    highlight: which cells stand out, each by its row and its column, from 0.

  Raises:
    ValueError: where a row has more or fewer cells than the header, or the caption is empty.
  """
  for row in rows:
    if len(row) != len(header):
      raise ValueError(f"row {row!r} has {len(row)} cells and the header {len(header)}; give one for each column")
  kinds = [' class="number"' if _numeric([row[c] for row in rows]) else "" for c in range(len(header))]
  names = [f'<th scope="col"{kind}>{_inline(_breakable(name))}</th>' for kind, name in zip(kinds, header, strict=True)]
  lines = [f"<thead>\n<tr>{''.join(names)}</tr>\n</thead>\n<tbody>"]
  for r, row in enumerate(rows):
    texts = [f"<mark>{_inline(text)}</mark>" if (r, c) in highlight else _inline(text) for c, text in enumerate(row)]
    cells = [f"<td{kind}>{text}</td>" for kind, text in zip(kinds[1:], texts[1:], strict=True)]
    lines.append(f'<tr><th scope="row"{kinds[0]}>{texts[0]}</th>{"".join(cells)}</tr>')
  return _captioned_table("cells", [*lines, "</tbody>"], caption, note)


def heat_map(
  row_names: Sequence[str],
  column_names: Sequence[str],
  values: np.ndarray,
  caption: str,
  *,
  digits: int = 1,
  unit: str = "",
  low: float | None = None,
  high: float | None = None,
  row_groups: Sequence[tuple[str, int]] = (),
  column_groups: Sequence[tuple[str, int]] = (),
  note: str = "",
) -> Html:
  """A table of numbers on colours: the nearer to `high`, the more they stand out from the page.

  Args:
    row_names: one a row.
    column_names: one a column.
    values: `[R, C]`; nan is shown as a dash, and what is not finite has no colour.
    caption: stands above the table.
    digits: how many follow the decimal point.
    unit: of the values, shown beside the scale.
    low: where the scale begins, by default at the least value; what lies outside has the colour of the nearer end.
    high: where it ends, by default at the greatest value. Below `low` where small values are to stand out.
    row_groups: names of consecutive rows, each with their number.
    column_groups: the same of columns.
    note: stands below the table.

  Raises:
    ValueError: where names or groups do not fit the values, or the caption is empty.
  """
  values = np.asarray(values, np.float64)
  if values.shape != (len(row_names), len(column_names)):
    raise ValueError(f"values of shape {values.shape} for {len(row_names)} rows and {len(column_names)} columns")
  for groups, names in ((row_groups, row_names), (column_groups, column_names)):
    if groups and sum(count for _, count in groups) != len(names):
      raise ValueError(f"the groups {groups!r} do not add up to the {len(names)} names {names!r}")
  finite = values[np.isfinite(values)]
  low = min(finite, default=0.0) if low is None else low
  high = max(finite, default=low) if high is None else high
  starts = set(itertools.accumulate(count for _, count in column_groups))

  def cell(column: int, value: float) -> str:
    kind = ' class="start"' if column in starts else ""
    if not math.isfinite(value):
      return f"<td{kind}>{'–' if math.isnan(value) else value}</td>"
    share = min(max((value - low) / (high - low), 0.0), 1.0) if low != high else 0.0
    ground, ink = _colours(share)
    return f'<td{kind} style="background-color:{ground};color:{ink}">{value:.{digits}f}</td>'

  lines = ["<thead>"]
  if column_groups:
    spans = [f'<th scope="colgroup" colspan="{count}">{_inline(name)}</th>' for name, count in column_groups]
    lines.append(f"<tr><td></td>{''.join(spans)}</tr>")
  columns = [f'<th scope="col">{_inline(_breakable(name))}</th>' for name in column_names]
  lines.append(f"<tr><td></td>{''.join(columns)}</tr>\n</thead>")
  rows = zip(row_names, values, strict=True)
  for group, count in row_groups or [("", len(row_names))]:
    lines.append("<tbody>")
    if group:
      lines.append(f'<tr><th scope="rowgroup">{_inline(group)}</th><td colspan="{len(column_names)}"></td></tr>')
    for name, row in itertools.islice(rows, count):
      lines.append(f'<tr><th scope="row">{_inline(name)}</th>{"".join(itertools.starmap(cell, enumerate(row)))}</tr>')
    lines.append("</tbody>")
  stops = ",".join(_colours(share)[0] for share in (0.0, 0.5, 1.0))
  bar = f'<span style="background:linear-gradient(to right,{stops})"></span>'
  scale = f'<p class="scale">{low:.{digits}f} {bar} {high:.{digits}f} {_inline(unit)}</p>\n'
  return _captioned_table("heat", lines, caption, note, scale)


def figure(png: bytes, alt: str, caption: str) -> Html:
  """An image with its caption below.

  Args:
    png: content of a PNG file.
    alt: what the image shows, for readers who do not see it.
    caption: stands below the image.

  Raises:
    ValueError: where the bytes are no whole PNG file, or one of the texts is empty.
  """
  try:
    with Image.open(io.BytesIO(png), formats=["PNG"]) as image:
      width, height = image.size
      image.verify()
  except (OSError, SyntaxError) as error:
    raise ValueError(f"{len(png)} bytes that begin with {png[:8]!r} are no PNG file") from error
  smallest = min(round(0.6 * width), 720)  # on narrower pages it scrolls: words in it could not be read if smaller
  content = (
    f'<img src="data:image/png;base64,{base64.b64encode(png).decode()}" '
    f'alt="{_unmarked(_required(alt, "the alternative text"))}" '
    f'width="{width}" height="{height}" style="min-width:{smallest}px">'
  )
  return Html(f"<figure>\n{_scrolling(content, caption)}\n<figcaption>{_inline(caption)}</figcaption>\n</figure>")


def details(summary: str, parts: Sequence[Html]) -> Html:
  """Parts that stay folded until a reader opens them."""
  heading = _inline(_required(summary, "the summary"))
  return Html(f"<details>\n<summary>{heading}</summary>\n{_joined(parts)}\n</details>")


def _required(text: str, what: str) -> str:
  if not text.strip():
    raise ValueError(f"{what} is {text!r}; give it words")
  return text


def _joined(parts: Sequence[Html]) -> str:
  for part in parts:
    if not isinstance(part, Html):
      raise ValueError(f"{part!r} was not made by this module; text goes through paragraph()")
  return "\n".join(parts)


def _inline(text: str) -> str:
  """Escaped, and its code marked up; an option keeps its own element, else lines would end between its hyphens."""
  options = lambda code: re.sub(r"(?<!\S)(-\S+)", r"<span>\1</span>", code)
  return _CODE.sub(lambda match: f"<code>{options(match[1])}</code>", html.escape(text))


def _breakable(name: str) -> str:
  """A column's name that may continue on the next line within words such as `data/part_one`."""
  return re.sub(r"(?<=[/_:])(?=\w)", "\u200b", name)


def _unmarked(text: str) -> str:
  """Escaped, for where there can be no markup."""
  return html.escape(_CODE.sub(r"\1", text))


def _anchors(titles: Sequence[str]) -> list[str]:
  """An id for each title, made of its words."""
  anchors = ["report"]
  for title in titles:
    words = re.sub(r"\W+", "-", title.lower()).strip("-") or "section"
    candidates = itertools.chain([words], (f"{words}-{number}" for number in itertools.count(2)))
    anchors.append(next(anchor for anchor in candidates if anchor not in anchors))
  return anchors[1:]


def _numeric(cells: Sequence[str]) -> bool:
  """Whether there are numbers among the cells, and no words."""
  texts = {cell.replace("`", "").strip().lower() for cell in cells} - _NO_VALUE
  return bool(texts) and all(map(_NUMBER.fullmatch, texts))


def _scrolling(content: str, name: str) -> str:
  """A container that scrolls sideways, by keys too."""
  label = _unmarked(_required(name, "the caption"))
  return f'<div class="scroll" role="region" tabindex="0" aria-label="{label}">\n{content}\n</div>'


def _captioned_table(kind: str, lines: Sequence[str], caption: str, note: str, scale: str = "") -> Html:
  """The caption stays outside of what scrolls, so that all of it can be read."""
  rows = "\n".join(lines)
  content = _scrolling(f'<table class="{kind}" aria-label="{_unmarked(caption)}">\n{rows}\n</table>', caption)
  below = scale + (f'<p class="note">{_inline(note)}</p>\n' if note else "")
  return Html(f"<figure>\n<figcaption>{_inline(caption)}</figcaption>\n{content}\n{below}</figure>")


def _colours(share: float) -> tuple[str, str]:
  """CSS colours at `share` in [0, 1] of a scale, and of a text on it: black or white, as has more contrast (WCAG 2)."""
  light = ((243, 246, 249), (131, 176, 214), (16, 67, 120))  # sRGB at 0, 1/2 and 1: from the page's own colour away
  dark = ((31, 38, 46), (37, 91, 142), (166, 208, 245))
  grounds, inks = [], []
  for ramp in (light, dark):
    colour = [round(np.interp(share, (0.0, 0.5, 1.0), channel)) for channel in zip(*ramp, strict=True)]
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in np.array(colour) / 255]
    luminance = np.dot(linear, (0.2126, 0.7152, 0.0722))
    grounds.append("#" + bytes(colour).hex())
    inks.append("#000" if (luminance + 0.05) / 0.05 > 1.05 / (luminance + 0.05) else "#fff")
  return f"light-dark({','.join(grounds)})", f"light-dark({','.join(inks)})"


_STYLE = """
:root {
  color-scheme: light dark;
  --paper: light-dark(#fff, #15181c); --tint: light-dark(#f0f3f5, #20262d); --line: light-dark(#d5d9dd, #3a424b);
  --ink: light-dark(#1c2025, #dde2e8); --muted: light-dark(#565f69, #9ea8b3); --accent: light-dark(#175690, #82bbf0);
  --mark: light-dark(#fbf0c9, #4a3f17);
  font: 106.25%/1.6 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "Helvetica Neue", Arial, sans-serif;
  background: var(--paper); color: var(--ink); text-size-adjust: 100%;
}
body {
  display: grid; grid-template-columns: minmax(0, 1fr); gap: 2rem 3.5rem;
  max-width: 88rem; margin: 0 auto; padding: clamp(1.5rem, 4vw, 3.5rem) clamp(1rem, 4vw, 3.5rem);
  overflow-wrap: break-word;
}
h1, h2, p, dl, dd, ol, figure { margin: 0; }
h1, h2 { line-height: 1.2; text-wrap: balance; }
h1 { font-size: clamp(1.7rem, 1.2rem + 2vw, 2.4rem); letter-spacing: -0.015em; margin-bottom: 1rem; }
h2 { font-size: 1.4rem; border-top: 1px solid var(--line); padding-top: 1.2rem; margin-bottom: 1.2rem; }
p, figcaption { max-width: 58ch; text-wrap: pretty; }
header p { font-size: 1.1rem; color: var(--muted); }
section + section { margin-top: 3.5rem; }
section > * + *, details > * + *, .scroll + * { margin-top: 1rem; }
figure { margin-block: 2rem; }
code { font: 0.9em ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace; background: var(--tint);
  border-radius: 0.2rem; padding: 0.1em 0.3em; overflow-wrap: anywhere; }
code span { display: inline-block; max-width: 100%; }
a { color: var(--accent); }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
.skip { position: absolute; left: -100vw; padding: 0.5rem 1rem; background: var(--paper); z-index: 2; }
.skip:focus { left: 0.5rem; top: 0.5rem; }

nav { font-size: 0.92rem; line-height: 1.4; }
nav ol { list-style: none; padding: 0; }
nav a { display: block; padding: 0.3rem 0; text-decoration: none; }
nav a:hover { text-decoration: underline; }
@media (min-width: 70rem) {
  body { grid-template: "nav header" auto "nav main" 1fr / 13rem minmax(0, 1fr); }
  header { grid-area: header; }
  main { grid-area: main; }
  nav { grid-area: nav; position: sticky; top: 2rem; align-self: start; max-height: calc(100vh - 4rem);
    overflow-y: auto; }
}

dl { display: grid; max-width: 75ch; grid-template-columns: fit-content(40%) minmax(0, 1fr); gap: 0.25rem 1.5rem; }
dt { color: var(--muted); overflow-wrap: anywhere; }
dd { font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
details { border: 1px solid var(--line); border-radius: 0.4rem; padding: 0.4rem 1rem; }
summary { cursor: pointer; font-weight: 600; padding: 0.4rem 0; }
figcaption, .note, .scale { font-size: 0.92rem; line-height: 1.5; color: var(--muted); }
figcaption:first-child { color: var(--ink); font-weight: 600; margin-bottom: 0.6rem; }
img { display: block; max-width: 100%; height: auto; background: #fff; border-radius: 0.2rem; }
.scroll { overflow-x: auto; background:  /* a shadow at the right where there is more */
  linear-gradient(to left, var(--paper) 40%, transparent) right / 4rem 100% no-repeat local,
  linear-gradient(to left, var(--line), transparent) right / 1rem 100% no-repeat scroll; }

table { width: max-content; border-collapse: separate; border-spacing: 0; font-size: 0.9rem; line-height: 1.4;
  font-variant-numeric: tabular-nums; }
th, td { padding: 0.4rem 0.8rem; text-align: left; vertical-align: baseline; border-bottom: 1px solid var(--line); }
td { max-width: 22rem; }
thead th { vertical-align: bottom; border-color: var(--muted); }
tbody th { font-weight: inherit; }
.number { text-align: right; }
th.number { max-width: 6.5rem; }
td.number { white-space: nowrap; }
tr > :first-child { position: sticky; left: 0; z-index: 1; max-width: min(20rem, 50vw); padding-left: 0;
  background: var(--paper); box-shadow: 1px 0 var(--line); }
mark { font-weight: 600; color: inherit; background: var(--mark); border-radius: 0.2rem; padding: 0.1em 0.35em;
  margin-right: -0.35em; }
.heat { font-size: 0.82rem; border-spacing: 1px; }
.heat :is(th, td) { padding: 0.3rem 0.45rem; border: 0; text-align: right; background-clip: padding-box; }
.heat tr > :first-child { padding-left: 0; text-align: left; box-shadow: none; }
.heat [scope=colgroup] { text-align: center; border-bottom: 1px solid var(--line); }
.heat [scope=colgroup]:empty { border-color: transparent; }
.heat :is([scope=colgroup] + [scope=colgroup], .start) { border-left: 0.5rem solid transparent; }
.heat [scope=rowgroup] { color: var(--muted); font-weight: 600; padding-top: 0.8rem; }
.scale span { display: inline-block; width: 8rem; height: 0.7em; border-radius: 0.2rem; }

@media print {
  :root { color-scheme: light; font-size: 10pt; }
  body { display: block; padding: 0; }
  header { margin-bottom: 2rem; }
  .skip, nav { display: none; }
  .scroll { overflow: visible; background: none; }
  .scroll > * { min-width: 0 !important; max-width: 100%; }
  table { width: auto; font-size: 7pt; }
  td.number { white-space: normal; }
  th, td, .heat :is(th, td) { padding: 0.2rem; }
  .heat td, mark, .scale span { print-color-adjust: exact; }
  h2, figcaption:first-child, tr:has([scope=rowgroup]) { break-after: avoid; }
  .scale { break-before: avoid; }
  tr, img { break-inside: avoid; }
}
"""
