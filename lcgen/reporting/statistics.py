"""Statistics over seeds, most often three to five."""

import dataclasses
import functools
import itertools
import math
import warnings
from collections.abc import Sequence
from statistics import fmean, stdev

import numpy as np
from scipy import special  # `stats`, which is slow to import, where it is used

MISSING = "–"


def known(value: float | None) -> bool:
  """Tells whether a value is a finite number; files hold null, read as nan, where a score is undefined."""
  return value is not None and math.isfinite(value)


def number(value: float | None, form: str) -> str:
  """Writes a number in a format such as `.2f`; a dash if it is missing."""
  return f"{value:{form}}" if known(value) else MISSING


def summary(values: Sequence[float | None], digits: int) -> str:
  """Writes `mean ± standard deviation` (of the sample, n - 1); the mean alone if there is one value.

  Missing values do not count, and `(2 of 3)` says so. If all are missing there is a dash.
  """
  finite = [value for value in values if known(value)]
  if not finite:
    return MISSING
  words = f"{fmean(finite):.{digits}f}"
  if len(finite) > 1:
    words += f" ± {stdev(finite):.{digits}f}"
  return words if len(finite) == len(values) else f"{words} ({len(finite)} of {len(values)})"


@dataclasses.dataclass(frozen=True)
class Difference:
  """A mean paired difference and how certain it is; what one pair cannot tell is None.

  If a value is missing on either side, the mean is nan and the rest is None.

  Attributes:
    n: number of pairs.
    mean: of the differences.
    sd: standard deviation of the differences (of the sample, n - 1).
    t_interval: Student's interval of the mean, low and high.
    bootstrap_interval: percentile bootstrap interval of the mean, low and high.
    p: of the two-sided paired t test; of the sign-flip test if all differences are equal, see `paired`.
  """

  n: int
  mean: float
  sd: float | None
  t_interval: tuple[float, float] | None
  bootstrap_interval: tuple[float, float] | None
  p: float | None


@dataclasses.dataclass(frozen=True)
class ShareOfGain:
  """A ratio of two mean gains with its interval, low and high; both None if there is no gain to explain."""

  ratio: float | None
  interval: tuple[float, float] | None


def paired(ours: Sequence[float], baseline: Sequence[float], confidence: float = 0.95) -> Difference:
  """Estimates the mean of `ours - baseline`, paired by seed.

  Conclusions should rest on the t interval, which covers the true mean of normal differences at its confidence. The
  percentile bootstrap (Efron 1979) assumes no distribution but is too narrow for few seeds: intervals at 95 % cover
  that mean in 75 % of cases for n = 3, where they are the range of the differences, 84 % for n = 5 and 93 % for n = 20.
  It is exact up to n = 6 (all n^n resamples), else from 9,999 resamples, the same in every call.

  Where all differences are equal, up to rounding, the t statistic divides by zero (SciPy gives nan, or ±inf and p = 0).
  That proves nothing among few seeds: identical arms do it, and so do scores in steps coarser than the spread, such
  as accuracies on a thousand images. Both intervals are then that point, and p is that of the exact sign-flip test,
  which needs no spread: 1 where the difference is 0, else 2 / 2^n, the chance that n signs agree.

  Args:
    ours: one value a seed, `[n]`; a value that is not finite is missing, and the difference undefined.
    baseline: of the same seeds in the same order, `[n]`.
    confidence: of both intervals, in (0, 1).

  Raises:
    ValueError: on lengths that differ, no values, or a confidence out of range.
  """
  ours, baseline = np.asarray(ours, np.float64), np.asarray(baseline, np.float64)
  if ours.ndim != 1 or ours.shape != baseline.shape or not ours.size:
    raise ValueError(f"paired values must be two equally long lists, one value a seed, not {ours} and {baseline}")
  if not 0 < confidence < 1:
    raise ValueError(f"confidence must lie between 0 and 1, such as 0.95, not {confidence}")
  if not np.isfinite([ours, baseline]).all():
    return _undefined(len(ours))
  differences = ours - baseline
  n, mean = len(differences), float(differences.mean())
  if n == 1:
    return Difference(n, mean, sd=None, t_interval=None, bootstrap_interval=None, p=None)
  rounding = 1e-12 * max(np.abs(ours).max(), np.abs(baseline).max())
  if np.ptp(differences) <= rounding:
    mean, p = (0.0, 1.0) if abs(mean) <= rounding else (mean, 2.0 ** (1 - n))
    return Difference(n, mean, sd=0.0, t_interval=(mean, mean), bootstrap_interval=(mean, mean), p=p)
  from scipy import stats

  test = stats.ttest_rel(ours, baseline)
  low, high = test.confidence_interval(confidence)
  return Difference(
    n=n,
    mean=mean,
    sd=float(differences.std(ddof=1)),
    t_interval=(float(low), float(high)),
    bootstrap_interval=_bootstrap_interval(differences, confidence),
    p=float(test.pvalue),
  )


def _undefined(n: int) -> Difference:
  return Difference(n, math.nan, sd=None, t_interval=None, bootstrap_interval=None, p=None)


def _bootstrap_interval(differences: np.ndarray, confidence: float) -> tuple[float, float]:
  shares, weights = _resamples(len(differences))
  levels = (1 - confidence) / 2, (1 + confidence) / 2
  low, high = np.quantile(shares @ differences, levels, method="inverted_cdf", weights=weights)
  return float(low), float(high)


@functools.cache
def _resamples(n: int) -> tuple[np.ndarray, np.ndarray | None]:
  """The share of each of n pairs in each resample, `[R, n]`, and how often that resample counts, `[R]`, None for once.

  The n^n ordered resamples hold each set of counts n! / prod(counts!) times: 462 sets instead of 46,656 for n = 6.
  """
  if n > 6:
    return np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), size=9_999) / n, None
  draws = itertools.combinations_with_replacement(range(n), n)
  counts = np.array([np.bincount(draw, minlength=n) for draw in draws])  # [R, n]
  return counts / n, math.factorial(n) // special.factorial(counts, exact=True).prod(axis=1)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
  """Adjusts p-values for their number, by the step-down method of Holm (1979).

  The k-th smallest of m becomes the largest of (m - i + 1) p_i over i = 1 ... k, at most 1. Calling those below a
  level significant keeps the chance of any false call below that level, however the tests depend on each other.

  Args:
    p_values: in [0, 1]; None if unknown, which stays None and does not count.

  Returns:
    The adjusted p-values in the given order.

  Raises:
    ValueError: on a p-value outside [0, 1].
  """
  known = [(p, place) for place, p in enumerate(p_values) if p is not None]
  if not all(0 <= p <= 1 for p, _ in known):
    raise ValueError(f"p-values must lie in [0, 1], or be None if unknown, not {list(p_values)}")
  adjusted: list[float | None] = [None] * len(p_values)
  largest = 0.0
  for rank, (p, place) in enumerate(sorted(known)):
    largest = max(largest, min(1.0, (len(known) - rank) * p))
    adjusted[place] = largest
  return adjusted


def share_of_gain(
  control: Sequence[float], method: Sequence[float], baseline: Sequence[float], confidence: float = 0.95
) -> ShareOfGain:
  """Estimates the share of a method's gain over a baseline that a control explains: 0 is nothing, 1 all of it.

  The ratio of the mean gains, (control - baseline) / (method - baseline), with the interval of Fieller (1954) for
  paired values: all r for which a t test with n - 1 degrees of freedom does not tell the mean of
  (control - baseline) - r (method - baseline) from 0. A loss that the method causes is explained in the same way.
  It covers the true ratio at its confidence where the gain is clear; among gains that only just reach significance,
  most of which are overestimates, 95 % can become 88 %.

  Args:
    control: one value a seed, `[n]`.
    method: of the same seeds in the same order, `[n]`.
    baseline: likewise, `[n]`.
    confidence: of the interval, in (0, 1).

  Returns:
    Ratio and interval; None for both if the method's gain is not significant at this confidence (such an interval
    would be unbounded), which includes n = 1, or if a value is missing.

  Raises:
    ValueError: as `paired`.
  """
  gain, explained = paired(method, baseline, confidence), paired(control, baseline, confidence)
  if verdict(gain, level=1 - confidence) not in ("gain", "loss") or not known(explained.mean):
    return ShareOfGain(ratio=None, interval=None)
  covariance = np.cov(np.subtract(method, baseline), np.subtract(control, baseline))[0, 1] / gain.n
  t = special.stdtrit(gain.n - 1, (1 + confidence) / 2)  # quantile of Student's t
  # The ends are the roots of a r^2 - 2 b r + c. A mean squared less t^2 its variance is the product of its t interval.
  a, c = math.prod(gain.t_interval), math.prod(explained.t_interval)
  b = gain.mean * explained.mean - t**2 * covariance
  root = math.sqrt(max(0.0, b**2 - a * c))
  return ShareOfGain(ratio=explained.mean / gain.mean, interval=(float((b - root) / a), float((b + root) / a)))


def verdict(difference: Difference, adjusted_p: float | None = None, level: float = 0.05) -> str:
  """Names what a difference shows: "gain", "loss", "no difference shown", "one seed" if n = 1, "undefined".

  A gain or a loss needs a t interval that excludes 0 and a p below the level. At a level of one minus the interval's
  confidence these agree, except where all differences are equal: there p decides, below 0.05 from six seeds on.

  Args:
    difference: of values where more is better.
    adjusted_p: by `holm` if there are many comparisons; the difference's own p if None.
    level: in (0, 1).
  """
  if not known(difference.mean):
    return "undefined"
  if difference.n == 1:
    return "one seed"
  low, high = difference.t_interval
  p = difference.p if adjusted_p is None else adjusted_p
  if low <= 0 <= high or p >= level:
    return "no difference shown"
  return "gain" if difference.mean > 0 else "loss"


def difference_words(difference: Difference, scale: float = 1.0, digits: int = 1) -> str:
  """Writes the mean with its sign and t interval, such as `+1.2 [0.3, 2.1]`; the mean alone if n = 1.

  There are more digits if an end of the interval would round to 0: a reader must see on which side of 0 it lies. A
  difference that is undefined is a dash.

  Args:
    difference: what to write.
    scale: factor of all numbers, 100 for percentage points.
    digits: after the point.
  """
  if not known(difference.mean):
    return MISSING
  ends = sorted(scale * end for end in difference.t_interval or ())
  digits = digits_of(ends, digits)
  mean = f"{scale * difference.mean:+z.{digits}f}"  # z: no minus before zeros
  return f"{mean} {interval_words(ends, digits)}" if ends else mean


def interval_words(ends: Sequence[float], digits: int) -> str:
  """Writes an interval such as `[0.3, 2.1]`, with more digits if an end would round to 0."""
  low, high = ends
  digits = digits_of(ends, digits)
  return f"[{low:z.{digits}f}, {high:z.{digits}f}]"


def digits_of(ends: Sequence[float], digits: int) -> int:
  """Gives the digits after the point with which no end of an interval rounds to 0; at most three more than wanted.

  An end that is 0 stays 0.
  """
  sides = [end for end in ends if abs(end) > 0.5 * 10.0 ** -(digits + 3)]
  rounded = lambda places: [end for end in sides if float(f"{end:.{places}f}") == 0]
  return next((places for places in range(digits, digits + 3) if not rounded(places)), digits + 3)


def unpaired(ours: Sequence[float], baseline: Sequence[float], confidence: float = 0.95) -> Difference:
  """Estimates the difference of means of independent samples, `[n]` and `[m]`, of unlike variances (Welch 1947).

  Where neither has a spread, up to rounding, nothing tells how certain it is: its interval is that point, and p is 1.

  Returns:
    The difference, its `n` the smaller of both, without what only pairs have; without interval and p if that is 1.
  """
  ours, baseline = np.asarray(ours, np.float64), np.asarray(baseline, np.float64)
  if not (np.isfinite(ours).all() and np.isfinite(baseline).all()):
    return _undefined(min(len(ours), len(baseline)))
  n, mean = min(len(ours), len(baseline)), float(ours.mean() - baseline.mean())
  rounding = 1e-12 * max(np.abs(ours).max(), np.abs(baseline).max())
  interval, p = None, None
  if n > 1 and max(np.ptp(ours), np.ptp(baseline)) <= rounding:
    mean = 0.0 if abs(mean) <= rounding else mean
    interval, p = (mean, mean), 1.0
  elif n > 1:
    from scipy import stats

    with warnings.catch_warnings():
      warnings.simplefilter("ignore", RuntimeWarning)  # of one sample without a spread, which is harmless
      test = stats.ttest_ind(ours, baseline, equal_var=False)
      interval, p = tuple(map(float, test.confidence_interval(confidence))), float(test.pvalue)
  return Difference(n, mean, sd=None, t_interval=interval, bootstrap_interval=None, p=p)
