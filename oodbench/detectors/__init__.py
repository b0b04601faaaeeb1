"""Detectors: evidence to one score per sample; larger = more likely wrong or unknown."""
