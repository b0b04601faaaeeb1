"""Evaluation: scores to metrics and their confidence intervals.

This room must not know detectors or runs: arrays go in, results come out.
"""
