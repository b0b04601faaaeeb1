"""Classifiers: looked up by name, built, trained or loaded with weights, and split into encoder, last layer and head.

This room must not know detectors or evidence.
"""
