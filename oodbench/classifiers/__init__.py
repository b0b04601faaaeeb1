"""Classifiers: looked up, built, trained or loaded with weights, probed, and split into encoder, last layer and head.

This room must not know detectors or evidence.
"""
