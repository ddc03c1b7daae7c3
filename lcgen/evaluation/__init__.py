"""Scores of classifiers, samples and edits.

Start with `classifier_scores.Scorer`, `sample_scores.SampleScorer`, `metrics.register` (adds a metric),
`distances` (of features) and `robustness.summarize`.
"""
