"""Data sets: adapters that read them, conversion to the suite's input, and disjoint splits.

This room must not know classifiers or detectors.
"""
