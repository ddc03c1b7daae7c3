"""Writes `docs/configuration.md` from the declared settings: python docs/write_configuration.py"""

import pathlib

from lcgen import config

_HEAD = """# Configuration

Every key is a flag: `python run.py --config.vae.epochs=3`. Its default, range and help are declared once, in the
`settings.py` of its wing. `python run.py --help` prints the same list, with the keys of plug-ins. A key that is *fixed
once trained* decides what is trained: a finished workdir refuses another value. The others may change from one command
to the next. `configs/*.py` set values for a data set and may have a `sweep()`.

`python docs/write_configuration.py` writes this page.
"""


def page() -> str:
  """Makes the page."""
  return f"{_HEAD}\n{config.markdown_table()}"


if __name__ == "__main__":
  pathlib.Path(__file__).with_name("configuration.md").write_text(page())
