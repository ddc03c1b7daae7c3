import re

import numpy as np
import pytest
from scipy import stats

from lcgen.reporting import findings
from tests.support.results import SETS, compared, drawn, results


def test_in_short_claims_no_more_than_the_intervals():
  given = drawn(effect=0.004)
  given["shift_rotate+latent_constraints"] = {
    one: [2 * base - own for base, own in zip(given["none"][one], given["augmix"][one], strict=True)] for one in SETS
  }
  arms = [arm for arm in given if "latent_constraints" in arm]
  sentences = findings.in_short(results(given))
  assert [sentence.partition(" against")[0] for sentence in sentences] == [f"`{arm}`" for arm in arms]
  seen = set()
  for arm, sentence in zip(arms, sentences, strict=True):
    parts = re.findall(r"(A gain is|A loss is|No difference is) shown on (.*?[\])])\.(?= |$)", sentence)
    told = {name: claim for claim, names in parts for name in re.findall(r"`([^`]+)` [+-]\d", names)}
    for (one, name), (ours, baseline) in compared(given).items():
      if one == arm:
        low, high = stats.ttest_rel(ours, baseline).confidence_interval(0.95)
        claim = "No difference is" if low <= 0 <= high else "A gain is" if low > 0 else "A loss is"
        assert told.pop(name) == claim
        seen.add(claim)
    assert told == {}
  assert len(seen) == 3


@pytest.mark.parametrize("seeds", [1, 4])
def test_in_short_never_says_gain_where_none_is_shown(seeds):
  given = drawn(("none", "latent_constraints"), seeds=seeds, effect=0.0)
  given["clip"] = {one: [value + 0.1 for value in values] for one, values in given["none"].items()}
  sentences = findings.in_short(results(given))
  assert len(sentences) == 1
  assert "clip" not in sentences[0]  # there is nothing that it could do as well
  assert not re.search(r"\b(gain|loss)\b", sentences[0])
  assert ("One seed shows nothing" in sentences[0]) == (seeds == 1)


def test_in_short_names_controls_that_are_no_worse():
  base, steady = np.array([0.5, 0.52, 0.51]), np.array([0.019, 0.02, 0.021])
  given = {arm: {"test": base + gain} for arm, gain in {"none": 0.0, "blur": 0.01, "clip": 0.03}.items()}
  given["shift_rotate"] = {"test": base + 0.2}  # better, but no control
  given["latent_constraints"] = {"test": base + steady}
  sentence = "`latent_constraints` against `none`, in points: A gain is shown on `test` +2.0 [1.8, 2.2]"
  assert findings.in_short(results(given)) == [f"{sentence} (no less by `clip`)."]
  given["clip"]["test"] = base + steady
  assert findings.in_short(results(given)) == [f"{sentence} (no less by `clip`)."]
  given["clip"]["test"] = base + 0.01
  assert findings.in_short(results(given)) == [f"{sentence}."]
  del given["none"]
  assert findings.in_short(results(given)) == []


SPREAD = np.array([-0.001, 0.0, 0.001])


def of_gains(**gains):
  """Results whose arms gain this over `none` on test images and twice as much on corrupted ones."""
  base, sets = np.array([0.5, 0.52, 0.51]), ("test", "generated_mnist_c/stripe")
  given = {"none": dict.fromkeys(sets, base)}
  given |= {
    arm: {one: base + times * gain + SPREAD for times, one in enumerate(sets, 1)} for arm, gain in gains.items()
  }
  return results(given)


def test_overview_compares_samples_with_the_best_control():
  assert findings.overview(of_gains(latent_constraints=0.02, clip=0.1, blur=0.05, mixup=0.3)) == [
    "On the test images, samples (`latent_constraints`) gain 2.0 points [1.8, 2.2]; "
    "the best of 2 controls, `clip`, gains 10.0 points [9.8, 10.2].",
    "On corrupted images (generated_mnist_c), samples (`latent_constraints`) gain 4.0 points [3.8, 4.2]; "
    "the best of 2 controls, `clip`, gains 20.0 points [19.8, 20.2].",
  ]


def test_overview_claims_no_more_than_the_intervals():
  test, _ = findings.overview(of_gains(latent_constraints=-0.02, clip=0.0))
  assert test == (
    "On the test images, samples (`latent_constraints`) lose 2.0 points [1.8, 2.2]; "
    "the control `clip` shows no significant difference (+0.0 points [-0.2, 0.2])."
  )
  one_seed = results(drawn(("none", "latent_constraints"), ("test",), seeds=1))
  (sentence,) = findings.overview(one_seed)
  assert re.search(r"show [+-][\d.]+ points with one seed, which proves nothing\.", sentence)


def test_overview_needs_a_baseline_and_an_arm_on_samples():
  assert findings.overview(results(drawn(("latent_constraints", "clip")))) == []
  assert findings.overview(results(drawn(("none", "clip")))) == []


def test_overview_averages_families():
  given = drawn(("none", "latent_constraints"))
  _, sentence = findings.overview(results(given))
  assert "(mean of 2 families)" in sentence
  families = [SETS[1:6], SETS[6:]]
  mean = lambda arm: np.mean([np.mean([given[arm][one] for one in sets], axis=0) for sets in families], axis=0)
  low, high = stats.ttest_rel(mean("latent_constraints"), mean("none")).confidence_interval(0.95)
  assert f"[{100 * low:.1f}, {100 * high:.1f}]" in sentence
