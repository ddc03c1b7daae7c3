"""Opens a page of a file in headless Chromium, and measures it as a reader would see it.

A test file takes the fixture over by `driver = browser.driver`.
"""

import base64
import json
import shutil
from typing import NamedTuple

import pytest

HEIGHT = 900  # of the window, CSS pixels

_OPTIONS = (
  "--headless=new",
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
)


class Opened(NamedTuple):
  """Records the opening of a page: errors in the console, and addresses that were asked for."""

  errors: list[str]
  requests: list[str]


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
  """A Chromium that Selenium drives; the tests are skipped where something is missing."""
  webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
  browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
  executable = shutil.which("chromedriver")
  if browser is None or executable is None:
    pytest.skip("chromium or chromedriver is not installed")
  options = webdriver.ChromeOptions()
  options.binary_location = browser
  for option in (*_OPTIONS, f"--user-data-dir={tmp_path_factory.mktemp('browser')}"):
    options.add_argument(option)
  options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
  with webdriver.Chrome(options, webdriver.ChromeService(executable_path=executable)) as driver:
    yield driver


def open_report(driver, path, width, scheme):
  """Opens a file and waits until its images are there.

  Args:
    driver: of the fixture.
    path: of the HTML file.
    width: of the window, CSS pixels.
    scheme: "light" or "dark", what `prefers-color-scheme` says.
  """
  metrics = {"width": width, "height": HEIGHT, "deviceScaleFactor": 1, "mobile": False}
  driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
  features = [{"name": "prefers-color-scheme", "value": scheme}]
  driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
  driver.get("about:blank")  # ends what the browser's own first page still loads
  for log in ("browser", "performance"):
    driver.get_log(log)  # what earlier pages left
  driver.get(path.resolve().as_uri())
  driver.execute_script("return Promise.allSettled(Array.from(document.images, image => image.decode()))")
  events = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
  requests = [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
  errors = [entry["message"] for entry in driver.get_log("browser") if entry["level"] == "SEVERE"]
  return Opened(errors, requests)


def check_report(driver, path, width, scheme, images):
  """Opens a report and unfolds it: it asks for nothing, fits the window, can be read, and has this many images."""
  opened = open_report(driver, path, width, scheme)
  assert opened.errors == []
  assert path.as_uri() in opened.requests
  assert [url for url in opened.requests if url != path.as_uri() and not url.startswith("data:")] == []
  unfold(driver)
  shown = images_of(driver)
  assert len(shown) == images
  assert all(image["alt"] and image["width"] > 0 and image["height"] > 0 for image in shown)
  assert page_overflow(driver) <= 0
  assert [text for text in contrasts(driver) if text["ratio"] < 4.5] == []


def screenshot(driver):
  """The whole page as PNG bytes, also what lies below the window."""
  return base64.b64decode(driver.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True})["data"])


def unfold(driver):
  """Opens everything that is folded."""
  driver.execute_script("document.querySelectorAll('details').forEach(details => details.open = true)")


def page_overflow(driver):
  """By how many CSS pixels the page is wider than the window; none where it does not scroll sideways."""
  return driver.execute_script("const page = document.documentElement; return page.scrollWidth - page.clientWidth")


def images_of(driver):
  """Lists every image: `{"alt": text, "width": pixels of the file, "height": the same}`."""
  return driver.execute_script("""
    return Array.from(document.images,
      image => ({alt: image.alt, width: image.naturalWidth, height: image.naturalHeight}))""")


def longest_line(driver, selector):
  """How many characters the longest line of the selected elements holds."""
  return driver.execute_script(
    """
    let longest = 0;
    for (const element of document.querySelectorAll(arguments[0])) {
      let line = "", last = -1;
      const walker = document.createTreeWalker(element, NodeFilter.SHOW_TEXT), range = document.createRange();
      while (walker.nextNode())
        for (let i = 0; i < walker.currentNode.length; i++) {
          range.setStart(walker.currentNode, i);
          range.setEnd(walker.currentNode, i + 1);
          const left = range.getBoundingClientRect().left;
          line = (left < last ? "" : line) + walker.currentNode.data[i];
          last = left;
          longest = Math.max(longest, line.trim().length);
        }
    }
    return longest""",
    selector,
  )


def font_sizes(driver, selector):
  """Sizes in CSS pixels of the selected elements' text."""
  return driver.execute_script(
    "return Array.from(document.querySelectorAll(arguments[0]), e => parseFloat(getComputedStyle(e).fontSize))",
    selector,
  )


def contrasts(driver):
  """Lists every visible text: `{"tag", "text", "ratio": contrast to what lies behind it (WCAG 2)}`."""
  return driver.execute_script("""
    const pen = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
    const colours = new Map();
    const parse = text => {  // any CSS colour -> [red, green, blue, alpha] in [0, 1]
      if (!colours.has(text)) {
        pen.clearRect(0, 0, 1, 1);
        pen.fillStyle = text;
        pen.fillRect(0, 0, 1, 1);
        colours.set(text, Array.from(pen.getImageData(0, 0, 1, 1).data, value => value / 255));
      }
      return colours.get(text);
    };
    const over = (above, below) => below.map((value, i) => above[3] * above[i] + (1 - above[3]) * value);
    const behind = element => {
      if (!element) return [1, 1, 1];
      const colour = parse(getComputedStyle(element).backgroundColor);
      return colour[3] === 1 ? colour.slice(0, 3) : over(colour, behind(element.parentElement));
    };
    const linear = value => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
    const luminance = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), found = [];
    while (walker.nextNode()) {
      const element = walker.currentNode.parentElement, text = walker.currentNode.data.trim();
      if (!text || !element.checkVisibility()) continue;
      const below = behind(element), above = over(parse(getComputedStyle(element).color), below);
      const [dark, bright] = [luminance(below), luminance(above)].sort((a, b) => a - b);
      found.push({tag: element.tagName.toLowerCase(), text, ratio: (bright + 0.05) / (dark + 0.05)});
    }
    return found""")
