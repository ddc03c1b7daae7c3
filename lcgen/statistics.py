"""Numbers over repetitions."""

import statistics
from collections.abc import Sequence


def summary(values: Sequence[float], digits: int) -> str:
  """`mean ± standard deviation` (of the sample, n - 1); the mean alone where there is one value."""
  mean = f"{statistics.fmean(values):.{digits}f}"
  if len(values) == 1:
    return mean
  return f"{mean} ± {statistics.stdev(values):.{digits}f}"
