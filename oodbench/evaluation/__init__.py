"""Evaluation: scores and truth to metrics."""
