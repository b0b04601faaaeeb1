"""Detectors: evidence to a score for each sample, larger for more likely wrong or unknown; and their selection.

This room must not know data sets, protocols or the metrics of tests.
"""
