"""Preconditions that are checked before anything is trained."""

import pytest

from lcgen.cli import preflight
from lcgen.runtime import errors
from tests.support.helpers import FACTS, config_of, context_of


@pytest.mark.parametrize(
  ("arms", "share", "words"),
  [
    ("none,clip:share=0.01", 0.125, "clip:share=0.01: clip with a share of 0.01 replaces no image of a batch of 30"),
    ("none,flip_crop+clip", 0.016, r"flip_crop\+clip: clip with a share of 0.016 replaces no image of a batch of 30"),
  ],
)
def test_arms_that_would_replace_nothing_are_refused(arms, share, words):
  settings = config_of("smoke", classifier__arms=arms, classifier__share=share)
  with pytest.raises(errors.InputError, match=f"^config.classifier.arms: {words}; make the share or config"):
    preflight.check_fit(settings, context_of(settings, FACTS))
  preflight._check_shares(config_of("smoke", classifier__arms="clip:share=0,clip:share=0.017").classifier)
