"""A run to be measured, as the benchmark takes it."""

from lcgen.api import build
from lcgen.studies.benchmark import Bench
from tests.support.helpers import config_of, context_of


def bench_of(*variant, **changes):
  """The benchmark of `configs/mnist5k.py`, a variant of it, with some keys changed; the images need not be there."""
  known = config_of(*variant, **changes)
  return Bench(context_of(known), build.sections(known), known.benchmark)
