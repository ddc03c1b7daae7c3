"""Textbook forms of statistics, to test ours against."""

import numpy as np
from scipy import stats


def fieller(control, method, baseline, confidence):
  """The usual form, with g = t^2 Var(denominator) / denominator^2."""
  top, bottom = control - baseline, method - baseline
  n, a, b = len(top), top.mean(), bottom.mean()
  (v_aa, v_ab), (_, v_bb) = np.cov(top, bottom) / n
  t = stats.t.ppf((1 + confidence) / 2, n - 1)
  ratio, g = a / b, (t / b) ** 2 * v_bb
  spread = v_aa - 2 * ratio * v_ab + ratio**2 * v_bb - g * (v_aa - v_ab**2 / v_bb)
  half_width = t / abs(b) * np.sqrt(spread)
  return (ratio - g * v_ab / v_bb + half_width * np.array([-1, 1])) / (1 - g)
