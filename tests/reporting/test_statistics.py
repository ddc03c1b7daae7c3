import itertools
import runpy

import numpy as np
import pytest
from scipy import stats

from lcgen.reporting import statistics, tables
from tests.support.statistics import fieller


def arms(n, seed=0, gain=0.5):
  """Two arms that share what the seeds do to both."""
  rng = np.random.default_rng(seed)
  shared = rng.normal(size=n)
  return shared + gain + rng.normal(size=n), shared + rng.normal(size=n)


def test_a_known_difference():
  difference = statistics.paired([3.0, 5.0, 7.0], [2.0, 2.0, 2.0])  # 1, 3, 5: t = 3 / (2 / sqrt(3)) = 2.598
  assert (difference.n, difference.mean, difference.sd) == (3, 3.0, 2.0)
  np.testing.assert_allclose(difference.t_interval, (3 - 4.968275, 3 + 4.968275), atol=1e-6)
  assert difference.bootstrap_interval == (1.0, 5.0)
  assert difference.p == pytest.approx(0.121690, abs=1e-6)


@pytest.mark.parametrize("n", [2, 3, 5, 20])
@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_t_part_is_scipys_and_the_textbooks(n, confidence):
  ours, baseline = arms(n)
  difference = statistics.paired(list(ours), list(baseline), confidence)
  test = stats.ttest_rel(ours, baseline)
  np.testing.assert_allclose(difference.t_interval, test.confidence_interval(confidence))
  np.testing.assert_allclose(difference.p, test.pvalue)
  standard_error = (ours - baseline).std(ddof=1) / np.sqrt(n)
  half_width = stats.t.ppf((1 + confidence) / 2, n - 1) * standard_error
  np.testing.assert_allclose(difference.t_interval, (ours - baseline).mean() + half_width * np.array([-1, 1]))
  np.testing.assert_allclose(difference.sd, standard_error * np.sqrt(n))


@pytest.mark.parametrize("n", [2, 3, 4, 5, 6])
@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_bootstrap_of_few_seeds_is_that_of_all_resamples(n, confidence):
  ours, baseline = arms(n)
  means = np.mean(list(itertools.product(ours - baseline, repeat=n)), axis=1)  # [n^n]
  expected = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2], method="inverted_cdf")
  np.testing.assert_allclose(statistics.paired(ours, baseline, confidence).bootstrap_interval, expected)


@pytest.mark.parametrize("n", [7, 20])
def test_bootstrap_of_many_seeds_is_scipys(n):
  ours, baseline = arms(n)
  differences = ours - baseline
  expected = stats.bootstrap((differences,), np.mean, n_resamples=99_999, method="percentile", rng=1, batch=9_999)
  # An end of the interval scatters by 0.027 standard errors of the mean among sets of 9,999 resamples.
  tolerance = 4 * 0.027 * differences.std() / np.sqrt(n)
  actual = statistics.paired(ours, baseline).bootstrap_interval
  np.testing.assert_allclose(actual, expected.confidence_interval, rtol=0, atol=tolerance)


@pytest.mark.parametrize("n", [3, 20])
def test_exchanged_arms_mirror_the_intervals(n):
  ours, baseline = arms(n)
  forth, back = statistics.paired(ours, baseline), statistics.paired(baseline, ours)
  assert back.mean == -forth.mean
  assert back.p == pytest.approx(forth.p)
  for interval in ("t_interval", "bootstrap_interval"):
    np.testing.assert_allclose(getattr(back, interval), -np.array(getattr(forth, interval))[::-1])


def test_bootstrap_is_the_same_in_a_fresh_module():
  ours, baseline = arms(20)
  afresh = runpy.run_path(statistics.__file__)["paired"](ours, baseline)
  assert afresh.bootstrap_interval == statistics.paired(ours, baseline).bootstrap_interval


@pytest.mark.parametrize(("n", "bootstrap_coverage"), [(3, 0.75), (5, 0.84), (20, 0.928)])
def test_coverage_of_a_true_difference(n, bootstrap_coverage):
  """95 % for the t interval; the bootstrap's figures are those of its docstring, 3/4 for n = 3 by symmetry."""
  rng, true, repetitions = np.random.default_rng(n), 0.3, 3_000
  covered = []
  for shared, ours, baseline in rng.normal(size=(repetitions, 3, n)):
    difference = statistics.paired(shared + ours + true, shared + baseline)
    intervals = difference.t_interval, difference.bootstrap_interval
    covered.append([low <= true <= high for low, high in intervals])
  for share, expected in zip(np.mean(covered, axis=0), (0.95, bootstrap_coverage), strict=True):
    assert abs(share - expected) < 3 * np.sqrt(expected * (1 - expected) / repetitions)


def test_one_seed_has_a_difference_and_nothing_else():
  difference = statistics.paired([0.75], [0.5])
  assert difference == statistics.Difference(1, 0.25, sd=None, t_interval=None, bootstrap_interval=None, p=None)
  assert statistics.verdict(difference) == statistics.verdict(difference, adjusted_p=0.001) == "one seed"
  assert statistics.difference_words(difference, scale=100) == "+25.0"


@pytest.mark.parametrize("n", [2, 3, 20])
def test_identical_arms(n):
  arm = np.linspace(0.1, 0.9, n)
  difference = statistics.paired(arm, arm)
  assert difference == statistics.Difference(n, 0.0, 0.0, t_interval=(0.0, 0.0), bootstrap_interval=(0.0, 0.0), p=1.0)
  assert statistics.paired(arm * 3 / 7, arm / 7 * 3) == difference  # the same up to rounding
  assert statistics.verdict(difference) == "no difference shown"


@pytest.mark.parametrize("n", [3, 5, 6, 8])
def test_equal_differences_prove_as_much_as_their_signs(n):
  """As of accuracies in steps of one image; their differences are equal up to rounding only."""
  baseline = np.arange(90, 90 + n) / 100
  ours = np.arange(91, 91 + n) / 100
  difference = statistics.paired(ours, baseline)
  assert difference.sd == 0
  assert difference.t_interval == difference.bootstrap_interval == (difference.mean, difference.mean)
  sign_flips = stats.permutation_test(
    (np.arange(1, n + 1), np.arange(n)), lambda a, b: np.mean(a - b), permutation_type="samples"
  )
  assert difference.p == sign_flips.pvalue
  assert statistics.verdict(difference) == ("gain" if n >= 6 else "no difference shown")
  assert statistics.verdict(statistics.paired(baseline, ours)) == ("loss" if n >= 6 else "no difference shown")


@pytest.mark.parametrize(
  ("ours", "baseline", "confidence", "words"),
  [
    ([1.0, 2.0], [1.0], 0.95, "equally long"),
    ([], [], 0.95, "equally long"),
    ([[1.0, 2.0]], [[1.0, 2.0]], 0.95, "one value a seed"),
    ([1.0, 2.0], [1.0, 3.0], 95, "confidence"),
    ([1.0, 2.0], [1.0, 3.0], 0.0, "confidence"),
  ],
)
def test_paired_values_that_cannot_be(ours, baseline, confidence, words):
  with pytest.raises(ValueError, match=words):
    statistics.paired(ours, baseline, confidence)
  with pytest.raises(ValueError, match=words):
    statistics.share_of_gain(ours, baseline, baseline, confidence)


def test_holm_by_hand():
  """Sorted 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1 are 0.02, 0.03, 0.06, 0.04, and the last may not fall."""
  np.testing.assert_allclose(statistics.holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
  assert statistics.holm([None, 0.02, None, 0.75, 0.5]) == [None, pytest.approx(0.06), None, 1.0, 1.0]
  assert statistics.holm([0.03]) == [0.03]
  assert statistics.holm([None]) == [None]
  assert statistics.holm([]) == []


@pytest.mark.parametrize("seed", range(5))
def test_holm_against_its_procedure(seed):
  """Adjusted p-values are below a level just where stepping down through p < level / (m - k + 1) rejects."""
  rng = np.random.default_rng(seed)
  p_values = rng.uniform(size=30) ** 4
  p_values[5:8] = p_values[4]
  adjusted = np.array(statistics.holm(p_values))
  order = np.argsort(p_values, kind="stable")
  assert np.all(adjusted >= p_values)
  assert adjusted.max() <= 1
  assert np.all(np.diff(adjusted[order]) >= 0)
  for level in (0.01, 0.05, 0.2):
    passes = p_values[order] < level / (30 - np.arange(30))
    rejected = np.zeros(30, bool)
    rejected[order] = np.logical_and.accumulate(passes)
    np.testing.assert_array_equal(adjusted < level, rejected)
  shuffled = rng.permutation(30)
  np.testing.assert_array_equal(statistics.holm(p_values[shuffled]), adjusted[shuffled])


@pytest.mark.parametrize("p_value", [-0.1, 1.1, np.nan])
def test_p_values_out_of_range(p_value):
  with pytest.raises(ValueError, match="p-values"):
    statistics.holm([0.5, None, p_value])


def three_arms(rng, n, gain=10.0, ratio=0.4):
  baseline = rng.normal(size=n)
  method = baseline + gain + rng.normal(size=n)
  return baseline + ratio * gain + 0.5 * (method - baseline - gain) + rng.normal(size=n), method, baseline


@pytest.mark.parametrize("n", [3, 5, 20])
@pytest.mark.parametrize("gain", [10.0, -10.0])
@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_share_of_gain_is_fiellers(n, gain, confidence):
  control, method, baseline = three_arms(np.random.default_rng(n), n, gain)
  share = statistics.share_of_gain(control, method, baseline, confidence)
  assert share.ratio == pytest.approx((control - baseline).mean() / (method - baseline).mean())
  np.testing.assert_allclose(share.interval, fieller(control, method, baseline, confidence))
  for end in share.interval:  # where a t test begins to tell control from that share of the method's gain
    p = stats.ttest_1samp(control - baseline - end * (method - baseline), 0).pvalue
    assert p == pytest.approx(1 - confidence)


@pytest.mark.parametrize("n", [3, 5, 20])
def test_coverage_of_a_true_share(n):
  rng, repetitions = np.random.default_rng(n), 2_000
  shares = [statistics.share_of_gain(*three_arms(rng, n)) for _ in range(repetitions)]
  coverage = np.mean([share.interval[0] <= 0.4 <= share.interval[1] for share in shares])
  assert abs(coverage - 0.95) < 3 * np.sqrt(0.95 * 0.05 / repetitions)


@pytest.mark.parametrize("seed", range(10))  # rounding takes the discriminant, 0 here, to either side
def test_controls_that_explain_all_or_nothing(seed):
  _, method, baseline = three_arms(np.random.default_rng(seed), 5)
  everything = statistics.share_of_gain(method, method, baseline)
  np.testing.assert_allclose((everything.ratio, *everything.interval), 1, atol=1e-6)
  assert statistics.share_of_gain(baseline, method, baseline) == statistics.ShareOfGain(0.0, (0.0, 0.0))


def test_no_gain_to_explain():
  nothing = statistics.ShareOfGain(ratio=None, interval=None)
  assert statistics.share_of_gain([1.0], [2.0], [0.0]) == nothing
  assert statistics.share_of_gain([1.0, 2.0, 1.5], [0.0, 1.0, 2.0], [0.0, 1.0, 2.0]) == nothing
  assert statistics.share_of_gain([1.0, 2.0, 1.5], [1.0, 2.0, 3.0], [0.0, 1.0, 2.0]) == nothing
  gains = np.array([1.0, 3.0, 5.0])  # p = 0.12
  assert statistics.share_of_gain(gains / 2, gains, np.zeros(3)) == nothing
  assert statistics.share_of_gain(gains / 2, gains, np.zeros(3), confidence=0.8).ratio == 0.5


def test_verdicts():
  gain = statistics.paired([2.0, 2.1, 2.3], [1.0, 1.0, 1.0])
  loss = statistics.paired([1.0, 1.0, 1.0], [2.0, 2.1, 2.3])
  unclear = statistics.paired([3.0, 5.0, 7.0], [2.0, 2.0, 2.0])  # p = 0.12
  assert [statistics.verdict(difference) for difference in (gain, loss, unclear)] == [
    "gain",
    "loss",
    "no difference shown",
  ]
  assert statistics.verdict(gain, adjusted_p=0.049) == "gain"
  assert statistics.verdict(loss, adjusted_p=0.05) == "no difference shown"
  assert statistics.verdict(gain, level=gain.p) == "no difference shown"
  assert statistics.verdict(unclear, adjusted_p=0.001, level=0.5) == "no difference shown"


def test_false_gains_and_losses_are_as_rare_as_the_level():
  rng, repetitions = np.random.default_rng(0), 2_000
  verdicts = [statistics.verdict(statistics.paired(*pair)) for pair in rng.normal(size=(repetitions, 2, 5))]
  false = np.mean([verdict != "no difference shown" for verdict in verdicts])
  assert abs(false - 0.05) < 3 * np.sqrt(0.05 * 0.95 / repetitions)


def test_differences_in_words():
  difference = statistics.Difference(3, 0.0123, 0.01, (0.0031, 0.0214), (0.005, 0.02), 0.03)
  assert statistics.difference_words(difference, scale=100) == "+1.2 [0.3, 2.1]"
  assert statistics.difference_words(difference, scale=-100, digits=2) == "-1.23 [-2.14, -0.31]"
  slight = statistics.Difference(3, -0.01, 0.01, (0.0, 0.0), (-0.02, 0.0), 0.2)
  assert statistics.difference_words(slight) == "+0.0 [0.0, 0.0]"


@pytest.mark.parametrize(
  ("mean", "interval", "words"),
  [
    (0.7, (0.02, 1.38), "+0.70 [0.02, 1.38]"),  # one digit more: the star beside it says that it excludes 0
    (-0.7, (-1.38, -0.02), "-0.70 [-1.38, -0.02]"),
    (0.7, (0.05, 1.35), "+0.7 [0.1, 1.4]"),
    (0.7, (-0.02, 1.42), "+0.70 [-0.02, 1.42]"),
    (0.7, (0.003, 1.397), "+0.700 [0.003, 1.397]"),
    (0.7, (0.0, 1.4), "+0.7 [0.0, 1.4]"),
    (0.7, (1e-9, 1.4), "+0.7 [0.0, 1.4]"),  # rounding, and no digit would show it
  ],
)
def test_no_end_of_an_interval_rounds_to_0(mean, interval, words):
  difference = statistics.Difference(3, mean / 100, 0.01, tuple(end / 100 for end in interval), None, 0.04)
  assert statistics.difference_words(difference, scale=100) == words
  assert statistics.interval_words(interval, 1) == words.partition(" ")[2]


def test_a_difference_with_a_missing_value_is_undefined():
  for ours, baseline in (([1.0, np.nan], [1.0, 2.0]), ([1.0, 2.0], [np.inf, 2.0]), ([np.nan], [1.0])):
    for find in (statistics.paired, statistics.unpaired):
      found = find(ours, baseline)
      assert np.isnan(found.mean)
      assert (found.sd, found.t_interval, found.bootstrap_interval, found.p) == (None,) * 4
      assert statistics.verdict(found) == statistics.verdict(found, adjusted_p=0.01) == "undefined"
      assert statistics.difference_words(found) == "–"
      assert tables.compared([found]) == ["–"]
  gain = [0.5, 0.6, 0.7], [0.1, 0.2, 0.3]
  assert statistics.share_of_gain([np.nan, 0.2, 0.3], *gain).ratio is None


@pytest.mark.parametrize(
  ("values", "words"),
  [
    ([], "–"),
    ([None], "–"),
    ([float("nan")] * 2, "–"),
    ([float("inf"), float("-inf")], "–"),
    ([0.5, float("nan")], "0.50 (1 of 2)"),
    ([0.5, None, 1.5], "1.00 ± 0.71 (2 of 3)"),
  ],
)
def test_summary_of_missing_values(values, words):
  assert statistics.summary(values, digits=2) == words


@pytest.mark.parametrize("sizes", [(3, 3), (2, 5), (20, 4)])
def test_unpaired_is_welchs_as_in_textbooks(sizes):
  rng = np.random.default_rng(0)
  ours, baseline = rng.normal(1, 3, sizes[0]), rng.normal(0, 1, sizes[1])
  found = statistics.unpaired(ours.tolist(), baseline.tolist(), confidence=0.9)
  a, b = ours.var(ddof=1) / len(ours), baseline.var(ddof=1) / len(baseline)
  freedom = (a + b) ** 2 / (a**2 / (len(ours) - 1) + b**2 / (len(baseline) - 1))
  mean = ours.mean() - baseline.mean()
  half_width = stats.t.ppf(0.95, freedom) * np.sqrt(a + b)
  np.testing.assert_allclose(found.t_interval, (mean - half_width, mean + half_width))
  np.testing.assert_allclose(found.mean, mean)
  np.testing.assert_allclose(found.p, 2 * stats.t.sf(abs(mean) / np.sqrt(a + b), freedom))
  assert (found.n, found.sd, found.bootstrap_interval) == (min(sizes), None, None)


def test_unpaired_where_there_is_too_little_to_judge_by():
  one = statistics.unpaired([0.9], [0.7, 0.8])
  assert (one.n, one.t_interval, one.p) == (1, None, None)
  assert one.mean == pytest.approx(0.15)
  same = statistics.unpaired([0.3, 0.1 + 0.2], [0.3] * 3)
  assert (same.mean, same.t_interval, same.p) == (0.0, (0.0, 0.0), 1.0)
  apart = statistics.unpaired([0.9] * 3, [0.8] * 3)
  assert apart.t_interval == (apart.mean, apart.mean)
  assert tables.compared([one, same, apart]) == ["+15.0", "+0.0 [0.0, 0.0]", "+10.0 [10.0, 10.0]"]
  low, high = statistics.unpaired([0.9] * 3, [0.8, 0.85, 0.9]).t_interval  # a spread in one of them is enough
  assert low < 0 < high


def test_summary_is_mean_and_sample_deviation():
  values = [1.0, 2.0, 4.0]
  assert statistics.summary(values, digits=3) == f"{np.mean(values):.3f} ± {np.std(values, ddof=1):.3f}"
  assert statistics.summary([0.5], digits=1) == "0.5"
