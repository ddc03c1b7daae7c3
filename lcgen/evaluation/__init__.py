"""Scores of classifiers, samples and edits."""
