"""Parses HTML and fails if its tags are not balanced."""

from html.parser import HTMLParser


class Elements(HTMLParser):
  """All elements of a document as (tag, attributes), and its text; fails where tags are not balanced."""

  def __init__(self, document):
    super().__init__()
    self.found, self.text, self._open = [], "", []
    self.feed(document)
    self.close()
    assert self._open == []

  def handle_starttag(self, tag, attrs):
    self.found.append((tag, dict(attrs)))
    assert len(dict(attrs)) == len(attrs)
    if tag not in ("meta", "link", "img"):
      self._open.append(tag)

  def handle_endtag(self, tag):
    assert self._open.pop() == tag

  def handle_data(self, data):
    self.text += data.replace("\u200b", "")

  def all(self, tag):
    return [attributes for name, attributes in self.found if name == tag]
