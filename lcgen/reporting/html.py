"""Builds a report: one HTML file that needs no network and runs no script.

Texts are plain: the page shows them as they are and marks up `code` in backticks. The functions return parts, parts
make up a `Section`, and sections make up a `page`. The markup is in `templates/report.html.j2`.
"""

import base64
import functools
import io
import itertools
import math
import re
from collections.abc import Collection, Iterable, Sequence
from importlib import resources
from typing import Any, NamedTuple

import jinja2
import numpy as np
from markupsafe import Markup, escape
from PIL import Image

_CODE = re.compile(r"`([^`]+)`")
_NUMBER = re.compile(r"[-+−]?\d+(,\d{3})*(\.\d+)?(e[-+]?\d+)?\s*(%|[±(\[].*)?")
_NO_VALUE = {"", "-", "–", "—", "nan", "inf", "-inf"}


class Section(NamedTuple):
  """A chapter: its title, plain text, and the parts under it."""

  title: str
  parts: Sequence[Markup]


def page(title: str, summary: str, sections: Sequence[Section]) -> str:
  """Builds the whole document, with a table of contents. The same input gives the same text.

  Args:
    title: plain text.
    summary: the paragraph under the title.
    sections: in their order; titles may repeat.

  Raises:
    ValueError: a title is empty, or a part was not made by this module.
  """
  anchors = _anchors([_required(section.title, "a section's title") for section in sections])
  text = _blocks().page(_required(title, "the title"), summary, list(zip(anchors, sections, strict=True)))
  # Names of files that are not UTF-8 hold lone surrogates, which could not be written.
  return text.encode(errors="replace").decode()


def paragraph(text: str) -> Markup:
  """Builds a paragraph of prose."""
  return _blocks().paragraph(text)


def facts(pairs: Iterable[tuple[str, str]]) -> Markup:
  """Builds a list of names, each with its value."""
  return _blocks().facts(pairs)


def table(
  header: Sequence[str],
  rows: Sequence[Sequence[str]],
  caption: str,
  *,
  note: str = "",
  highlight: Collection[tuple[int, int]] = (),
) -> Markup:
  """Builds a table whose first column names the rows. A column of numbers, without words, is flush right.

  Args:
    header: names of the columns.
    rows: cells, as many a row as there are columns.
    caption: stands above the table.
    note: stands below it.
    highlight: cells that stand out, each by its row and its column, from 0.

  Raises:
    ValueError: a row has more or fewer cells than the header, or the caption is empty.
  """
  for row in rows:
    if len(row) != len(header):
      raise ValueError(f"row {row!r} has {len(row)} cells and the header {len(header)}; give one for each column")
  numeric = [_numeric([row[column] for row in rows]) for column in range(len(header))]
  return _blocks().table(header, rows, numeric, highlight, _required(caption, "the caption"), note)


class Scale(NamedTuple):
  """The scale of a heat map.

  Attributes:
    unit: of the values.
    digits: after the decimal point.
    low: start of the scale, None for the least value. Values outside have the colour of the nearer end.
    high: end of the scale, None for the greatest value. Below `low`, small values stand out.
  """

  unit: str = ""
  digits: int = 1
  low: float | None = None
  high: float | None = None


_PLAIN = Scale()


def heat_map(
  row_names: Sequence[str],
  column_names: Sequence[str],
  values: np.ndarray,
  caption: str,
  scale: Scale = _PLAIN,
  *,
  row_groups: Sequence[tuple[str, int]] = (),
  column_groups: Sequence[tuple[str, int]] = (),
  note: str = "",
) -> Markup:
  """Builds a table of numbers on colours. The nearer a value is to the end of the scale, the more it stands out.

  Args:
    row_names: one a row.
    column_names: one a column.
    values: `[R, C]`. A dash stands for nan; values that are not finite have no colour.
    caption: stands above the table.
    scale: of the colours, with the unit of the values.
    row_groups: names of consecutive rows, each with their number.
    column_groups: the same of columns.
    note: stands below the table.

  Raises:
    ValueError: names or groups do not fit the values, or the caption is empty.
  """
  values = np.asarray(values, np.float64)
  if values.shape != (len(row_names), len(column_names)):
    raise ValueError(f"values of shape {values.shape} for {len(row_names)} rows and {len(column_names)} columns")
  for groups, names in ((row_groups, row_names), (column_groups, column_names)):
    if groups and sum(count for _, count in groups) != len(names):
      raise ValueError(f"the groups {groups!r} do not add up to the {len(names)} names {names!r}")
  finite = values[np.isfinite(values)]
  low = min(finite, default=0.0) if scale.low is None else scale.low
  high = max(finite, default=low) if scale.high is None else scale.high

  def cell(value: float) -> tuple[str, tuple[str, str] | None]:
    if not math.isfinite(value):
      return "–" if math.isnan(value) else f"{value}", None
    share = min(max((value - low) / (high - low), 0.0), 1.0) if low != high else 0.0
    return f"{value:.{scale.digits}f}", _colours(share)

  rows = zip(row_names, ([cell(value) for value in row] for row in values), strict=True)
  return _blocks().heat_map(
    columns=column_names,
    column_groups=column_groups,
    starts=set(itertools.accumulate(count for _, count in column_groups)),
    row_groups=[(name, list(itertools.islice(rows, count))) for name, count in row_groups or [("", len(row_names))]],
    ends=[f"{end:.{scale.digits}f}" for end in (low, high)],
    stops=[_colours(share)[0] for share in (0.0, 0.5, 1.0)],
    unit=scale.unit,
    caption=_required(caption, "the caption"),
    note=note,
  )


def figure(png: bytes, alt: str, caption: str) -> Markup:
  """Builds an image with its caption below.

  Args:
    png: content of a PNG file.
    alt: what the image shows, for readers who do not see it.
    caption: stands below the image.

  Raises:
    ValueError: the bytes are no whole PNG file, or one of the texts is empty.
  """
  try:
    with Image.open(io.BytesIO(png), formats=["PNG"]) as image:
      width, height = image.size
      image.verify()
  except (OSError, SyntaxError) as error:
    raise ValueError(f"{len(png)} bytes that begin with {png[:8]!r} are no PNG file") from error
  return _blocks().figure(
    data=base64.b64encode(png).decode(),
    width=width,
    height=height,
    smallest=min(round(0.6 * width), 720),  # narrower pages scroll it, because its words could not be read if smaller
    alt=_required(alt, "the alternative text"),
    caption=_required(caption, "the caption"),
  )


def details(summary: str, parts: Sequence[Markup]) -> Markup:
  """Folds parts away until a reader opens them."""
  return _blocks().details(_required(summary, "the summary"), parts)


@functools.cache
def _blocks() -> Any:
  """Loads the template once; its macros are attributes."""
  read = lambda name: resources.files("lcgen.reporting").joinpath("templates", name).read_text("utf-8")
  environment = jinja2.Environment(
    loader=jinja2.FunctionLoader(read),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=jinja2.StrictUndefined,
  )
  environment.filters |= {"inline": _inline, "plain": _plain, "breakable": _breakable, "joined": _joined}
  environment.globals["style"] = Markup(read("report.css"))
  return environment.get_template("report.html.j2").module


def _inline(text: str) -> Markup:
  """Escapes a text and marks up its code. An option keeps its own element, or lines would end between its hyphens."""
  options = lambda code: re.sub(r"(?<!\S)(-\S+)", r"<span>\1</span>", code)
  return Markup(_CODE.sub(lambda match: f"<code>{options(match[1])}</code>", escape(text)))


def _plain(text: str) -> str:
  """Drops the backticks, for places without markup."""
  return _CODE.sub(r"\1", text)


def _breakable(name: str) -> str:
  """Lets a column's name continue on the next line within words such as `data/part_one`."""
  return re.sub(r"(?<=[/_:])(?=\w)", "\u200b", name)


def _required(text: str, what: str) -> str:
  if not text.strip():
    raise ValueError(f"{what} is {text!r}; give it words")
  return text


def _joined(parts: Sequence[Markup]) -> Markup:
  for part in parts:
    if not isinstance(part, Markup):
      raise ValueError(f"{part!r} was not made by this module; text goes through paragraph()")
  return Markup("\n").join(parts)


def _anchors(titles: Sequence[str]) -> list[str]:
  """Makes an id for each title from its words."""
  anchors = ["report"]
  for title in titles:
    words = re.sub(r"\W+", "-", title.lower()).strip("-") or "section"
    candidates = itertools.chain([words], (f"{words}-{number}" for number in itertools.count(2)))
    anchors.append(next(anchor for anchor in candidates if anchor not in anchors))
  return anchors[1:]


def _numeric(cells: Sequence[str]) -> bool:
  """Tells whether there are numbers among the cells, and no words."""
  texts = {cell.replace("`", "").strip().lower() for cell in cells} - _NO_VALUE
  return bool(texts) and all(map(_NUMBER.fullmatch, texts))


def _colours(share: float) -> tuple[str, str]:
  """Gives CSS colours at `share` in [0, 1] of a scale: the ground's, and black or white for its text.

  The text's colour is the one with more contrast (WCAG 2).
  """
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
