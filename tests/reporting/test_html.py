import base64
import io
import re

import numpy as np
import pytest
from matplotlib import figure as matplotlib_figure
from PIL import Image

from lcgen.reporting import html
from tests.support import browser
from tests.support.html_elements import Elements

driver = browser.driver

HOSTILE = """</title></style><script>alert("1")</script>' onload='x' & `<b>` <!-- ` " https://example.org/a.png"""
SHOWN = HOSTILE.replace("`<b>`", "<b>")


def encoded(kind="png"):
  buffer = io.BytesIO()
  Image.new("L", (30, 20), 128).save(buffer, kind)
  return buffer.getvalue()


def drawn(size, draw, transparent=False):
  buffer = io.BytesIO()
  figure = matplotlib_figure.Figure(size, layout="constrained")
  draw(figure)
  figure.savefig(buffer, format="png", dpi=110, transparent=transparent)
  return buffer.getvalue()


def representative():
  rng = np.random.default_rng(0)
  epochs = np.arange(1, 21)

  def curves(figure):
    for panel, name in zip(figure.subplots(1, 3), ("loss", "reconstruction", "KL divergence"), strict=True):
      for arm in ("plain", "with samples"):
        panel.plot(epochs, np.exp(-epochs / 8) + rng.normal(0, 0.01, 20), label=arm)
      panel.set(title=name, xlabel="epoch")
      panel.legend()

  def grid(figure):
    panel = figure.subplots()
    panel.imshow(rng.uniform(size=(100, 200)), cmap="gray")
    panel.set(title="samples", xticks=[], yticks=[])

  def points(figure):
    figure.subplots().scatter(rng.normal(size=50), rng.normal(size=50))

  prose = (
    "Of the images that the actor draws, the judge gives 99.3 % the class that was asked for. Diversity is their "
    "within-class spread in the judge's features, divided by that of test images; 1 is as varied as real images, and "
    "0 is one image for each class. The settings are those of `configs/mnist5k.py:small`, run with "
    "`python run.py --config=configs/mnist5k.py:small --workdir=runs/mnist5k --stage=evaluate`, and every number is a "
    "mean over three seeds. What differs by less than two standard deviations should be read as equal."
  )
  cell = lambda: f"{rng.uniform(60, 99):.1f} ± {rng.uniform(0, 2):.1f}"
  scores = [[name, *(cell() for _ in range(19))] for name in ("plain", "with actor samples", "with refined samples")]
  scores[1][4] = "–"
  names = [f"corruption_{number}" for number in range(15)]
  config = [[f"actor_critic.{name}", str(value)] for name, value in zip(names, rng.uniform(size=15), strict=True)]
  robustness = html.heat_map(
    names,
    ["clean", *(str(severity) for severity in (1, 2, 3, 4, 5) * 3), "mean"],
    np.linspace(20, 99, 15 * 17).reshape(15, 17),
    "Accuracy of the classifiers on corrupted test images, by corruption and severity",
    html.Scale("%"),
    row_groups=[("noise", 3), ("blur", 4), ("weather", 4), ("digital", 4)],
    column_groups=[("", 1), ("plain", 5), ("with actor samples", 5), ("with refined samples", 5), ("", 1)],
    note="The benchmark's corruptions; severity 5 is the strongest.",
  )
  summary = "Latent constraints on 5,000 digits: what samples are worth to a classifier. " * 2
  sections = [
    html.Section(
      "In short",
      [
        html.paragraph(prose),
        html.facts(
          [
            ("data", "MNIST, 3,600 training and 1,000 test images"),
            ("seeds", "0, 1, 2"),
            ("wall time, compilation included", "3 min 49 s"),
            ("directory", "/home/someone/" + "a-long-name-of-a-directory/" * 6),
          ]
        ),
        html.paragraph(prose),
        html.table(
          ["classifier", "accuracy, %", "NLL", "remark"],
          [["plain", "96.9 ± 0.5", "0.11", "no samples at all"], ["with samples", "97.4 ± 0.3", "0.09", "1/8 a batch"]],
          "Accuracy on test images",
          note="Mean ± standard deviation over three seeds.",
          highlight={(1, 1), (1, 2)},
        ),
      ],
    ),
    html.Section(
      "Robustness",
      [
        html.paragraph(prose),
        html.table(
          ["classifier", *(f"test set {number}" for number in range(19))], scores, "Accuracy in % on every test set"
        ),
        robustness,
      ],
    ),
    html.Section(
      "Figures",
      [
        html.figure(drawn((12.6, 3), curves), "Three falling curves", "Loss and its terms over epochs. " * 4),
        html.figure(drawn((5.5, 4), points, transparent=True), "A cloud of points", "Success against distance"),
        html.figure(drawn((6.6, 3.5), grid), "A grid of grey noise", "Decoded draws from the prior"),
      ],
    ),
    html.Section(
      "Settings", [html.details("All settings", [html.table(["setting", "value"], config, "The whole config")])]
    ),
  ]
  return html.page("Latent constraints: MNIST, 5,000 digits", summary, sections)


def every_block(text):
  """A page with the same text wherever there can be one."""
  parts = [
    html.paragraph(text),
    html.facts([(text, text)]),
    html.table([text, text], [[text, text]], text, note=text, highlight={(0, 1)}),
    html.heat_map(
      [text], [text], [[1.0]], text, html.Scale(text), note=text, row_groups=[(text, 1)], column_groups=[(text, 1)]
    ),
    html.figure(encoded(), text, text),
  ]
  return html.page(text, text, [html.Section(text, [*parts, html.details(text, parts)])])


def test_texts_are_shown_as_they_are():
  hostile, harmless = Elements(every_block(HOSTILE)), Elements(every_block("harmless"))
  skeleton = lambda elements: [(tag, list(attributes)) for tag, attributes in elements.found if tag != "code"]
  assert skeleton(hostile) == skeleton(harmless)
  assert hostile.text.count(SHOWN) == harmless.text.count("harmless") > 20
  labels = [
    value for _, attributes in hostile.found for name, value in attributes.items() if name in ("alt", "aria-label")
  ]
  assert set(labels) == {SHOWN, "Contents"}


def test_code_stands_between_two_backticks():
  assert html.paragraph("`a < b` and `c") == "<p><code>a &lt; b</code> and `c</p>"
  assert html.paragraph("`ls -a --x=y-z`") == "<p><code>ls <span>-a</span> <span>--x=y-z</span></code></p>"


def test_names_of_files_that_are_not_unicode_can_be_written():
  page = html.page(
    "title", "summary", [html.Section("one", [html.paragraph(b"caf\xe9".decode(errors="surrogateescape"))])]
  )
  assert "caf?" in page.encode().decode()


@pytest.mark.parametrize(
  ("titles", "anchors"),
  [
    (["Results", "Results", "Results"], ["results", "results-2", "results-3"]),
    (["Results 2", "Results", "Results"], ["results-2", "results", "results-3"]),
    (["Report", "Fréchet distance, 5 %", "?!", "…"], ["report-2", "fréchet-distance-5", "section", "section-2"]),
  ],
)
def test_contents_link_to_sections(titles, anchors):
  elements = Elements(html.page("title", "summary", [html.Section(title, []) for title in titles]))
  assert [attributes["id"] for attributes in elements.all("section")] == anchors
  assert [attributes["href"] for attributes in elements.all("a")[1:]] == ["#" + anchor for anchor in anchors]


TABLE = (["name", "value"], [["a", "1"]])
MAP = (["a"], ["b"], [[1.0]])


@pytest.mark.parametrize(
  ("message", "build"),
  [
    ("the title", lambda: html.page(" ", "summary", [])),
    ("section's title", lambda: html.page("title", "summary", [html.Section("", [])])),
    ("not made", lambda: html.page("title", "summary", [html.Section("one", ["<p>of another make</p>"])])),
    ("not made", lambda: html.page("title", "summary", [html.Section("one", html.paragraph("no list"))])),
    ("not made", lambda: html.details("summary", ["text"])),
    ("the summary", lambda: html.details("", [])),
    ("the caption", lambda: html.table(*TABLE, "")),
    ("2 cells and the header 1", lambda: html.table(["name"], [["a", "1"]], "caption")),
    ("the caption", lambda: html.heat_map(*MAP, " ")),
    ("shape", lambda: html.heat_map(["a", "b"], ["c"], [[1.0]], "caption")),
    ("groups", lambda: html.heat_map(*MAP, "caption", row_groups=[("group", 2)])),
    ("groups", lambda: html.heat_map(*MAP, "caption", column_groups=[("group", 0)])),
    ("alternative text", lambda: html.figure(encoded(), "", "caption")),
    ("the caption", lambda: html.figure(encoded(), "alternative", "")),
    ("no PNG", lambda: html.figure(b"", "alternative", "caption")),
    ("no PNG", lambda: html.figure(b"\x89PNG, not", "alternative", "caption")),
    ("no PNG", lambda: html.figure(encoded("jpeg"), "alternative", "caption")),
    ("no PNG", lambda: html.figure(encoded()[:20], "alternative", "caption")),
    ("no PNG", lambda: html.figure(encoded()[:-14], "alternative", "caption")),
  ],
)
def test_what_cannot_be_shown_is_refused(message, build):
  with pytest.raises(ValueError, match=message):
    build()


def test_figures_hold_the_file_and_its_size():
  (image,) = Elements(html.figure(encoded(), "alternative", "caption")).all("img")
  assert (image["width"], image["height"], image["alt"]) == ("30", "20", "alternative")
  assert base64.b64decode(image["src"].removeprefix("data:image/png;base64,")) == encoded()


@pytest.mark.parametrize(
  ("cells", "numeric"),
  [
    (["1", "-2.5", "−3", "1,000", "1e-05", "7 %", "97.1 ± 0.3", "0.2 (best)", "`8`"], True),
    (["1", "–", "", "nan", "-inf"], True),
    (["–", ""], False),
    (["1", "none"], False),
    (["2026-11-22"], False),
    (["3 min 49 s"], False),
    (["0.10.2"], False),
    (["[1, 2]"], False),
  ],
)
def test_columns_of_numbers_are_set_flush_right(cells, numeric):
  elements = Elements(html.table(["name", "value"], [["a", cell] for cell in cells], "caption"))
  first, second = elements.all("th")[:2]
  assert "class" not in first
  assert {attributes.get("class") for attributes in (second, *elements.all("td"))} == {"number" if numeric else None}


def test_highlighted_cells():
  table = html.table(["name", "x", "y"], [["a", "1", "2"], ["b", "3", "4"]], "caption", highlight={(0, 2), (1, 0)})
  assert re.findall("<mark>(.)</mark>", table) == ["2", "b"]


def coloured(values, **options):
  """Lists the cells of a heat map: text, and colours of ground and text, light and dark."""
  names = [[str(i) for i in range(length)] for length in np.shape(values)]
  cells = re.findall(r"<td([^>]*)>([^<]+)</td>", html.heat_map(*names, values, "caption", html.Scale(**options)))
  return [(text, re.findall(r"#\w+", style)) for style, text in cells]


def test_colours_follow_values_from_low_to_high():
  (_, low), (_, middle), (_, high) = coloured([[0.0, 5.0, 10.0]])
  assert len({colours[0] for colours in (low, middle, high)}) == 3
  given = coloured([[-1.0, 0.0, 5.0, 11.0]], low=0, high=10)
  assert [colours for _, colours in given] == [low, low, middle, high]
  turned = coloured([[0.0, 5.0, 10.0]], low=10, high=0)
  assert [colours for _, colours in turned] == [high, middle, low]


def test_values_that_are_missing_have_no_colour():
  assert coloured([[np.nan, np.inf, 1.0, 2.0]])[:2] == [("–", []), ("inf", [])]
  assert coloured([[np.nan]]) == [("–", [])]
  assert [text for text, _ in coloured([[3.0, 3.0]], digits=2)] == ["3.00", "3.00"]


def test_numbers_can_be_read_on_every_colour():
  """Contrast as WCAG 2 has it, computed here for each share of the scale."""

  def luminance(colour):
    digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
    unit = np.frombuffer(bytes.fromhex(digits), np.uint8) / 255
    return np.where(unit <= 0.04045, unit / 12.92, ((unit + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722]

  for _, (*grounds, light_ink, dark_ink) in coloured(np.linspace(0, 1, 500)[None]):
    for ground, ink in zip(grounds, (light_ink, dark_ink), strict=True):
      lower, higher = sorted((luminance(ground), luminance(ink)))
      assert (higher + 0.05) / (lower + 0.05) >= 4.5


def test_groups_of_rows_and_columns():
  values = np.arange(6.0).reshape(3, 2)
  heat_map = html.heat_map(
    ["a", "b", "c"],
    ["d", "e"],
    values,
    "caption",
    row_groups=[("one", 1), ("two", 2)],
    column_groups=[("x", 1), ("y", 1)],
  )
  shown = " ".join(re.findall(r">(\w[\w.]*)</t[hd]>", heat_map))
  assert shown == "x y d e one a 0.0 1.0 two b 2.0 3.0 c 4.0 5.0"
  scopes = [attributes["scope"] for attributes in Elements(heat_map).all("th")]
  assert scopes == ["colgroup"] * 2 + ["col"] * 2 + ["rowgroup", "row", "rowgroup", "row", "row"]


def test_page_is_the_same_every_time():
  assert representative() == representative()


def test_page_is_sound():
  document = representative()
  elements = Elements(document)
  assert document.startswith('<!DOCTYPE html>\n<html lang="en">')
  assert [tag for tag, _ in elements.found if re.fullmatch(r"h\d", tag)] == ["h1"] + 4 * ["h2"]
  assert all(len(elements.all(tag)) == 1 for tag in ("title", "header", "nav", "main"))
  assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in elements.all("meta")
  assert all(attributes["scope"] for attributes in elements.all("th"))
  assert all(attributes["aria-label"] for attributes in elements.all("table"))
  scrolling = [attributes for attributes in elements.all("div") if attributes["class"] == "scroll"]
  assert len(scrolling) == len(elements.all("table")) + len(elements.all("img")) == 7
  assert all(div["role"] == "region" and div["tabindex"] == "0" and div["aria-label"] for div in scrolling)


def test_page_loads_nothing_and_runs_nothing():
  document = representative()
  elements = Elements(document)
  assert not {"script", "iframe", "object", "embed", "form", "base"} & {tag for tag, _ in elements.found}
  assert "url(" not in document
  assert "@import" not in document
  for _, attributes in elements.found:
    assert not any(name.startswith("on") for name in attributes)
    assert all(attributes[name].startswith(("data:", "#")) for name in ("src", "href") if name in attributes)
  (policy,) = [meta["content"] for meta in elements.all("meta") if meta.get("http-equiv") == "Content-Security-Policy"]
  assert {"default-src 'none'", "img-src data:", "style-src 'unsafe-inline'"} <= set(policy.split("; "))
  assert "script-src" not in policy


@pytest.fixture(scope="module")
def path(tmp_path_factory):
  path = tmp_path_factory.mktemp("report") / "report.html"
  path.write_text(representative())
  return path


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1600])
def test_page_in_a_browser(driver, path, width, scheme):
  browser.check_report(driver, path, width, scheme, images=3)
  assert min(browser.font_sizes(driver, "p, dd, td")) >= 13
  assert min(browser.font_sizes(driver, "section > p, dd")) >= 15
  assert 30 < browser.longest_line(driver, "p") <= 85
  texts = browser.contrasts(driver)
  assert {"p", "figcaption", "td", "th", "code", "summary", "a"} <= {text["tag"] for text in texts}


def test_schemes_differ(driver, path):
  ground = "return getComputedStyle(document.documentElement).backgroundColor"
  grounds = []
  for scheme in ("light", "dark"):
    browser.open_report(driver, path, 1600, scheme)
    grounds.append(driver.execute_script(ground))
  assert grounds == ["rgb(255, 255, 255)", "rgb(21, 24, 28)"]


def test_keys_skip_to_the_report_and_scroll_tables(driver, path):
  from selenium.webdriver.common.keys import Keys
  from selenium.webdriver.support.wait import WebDriverWait

  browser.open_report(driver, path, 400, "light")
  driver.switch_to.active_element.send_keys(Keys.TAB)
  assert driver.switch_to.active_element.text == "Skip to the report"
  driver.switch_to.active_element.send_keys(Keys.ENTER)
  driver.switch_to.active_element.send_keys(Keys.TAB)
  table = driver.switch_to.active_element
  assert table.get_attribute("aria-label") == "Accuracy on test images"
  table.send_keys(Keys.ARROW_RIGHT)
  WebDriverWait(driver, 5).until(lambda driver: driver.execute_script("return arguments[0].scrollLeft", table) > 0)
