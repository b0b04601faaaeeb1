"""Data sets: adapters that find and decode their pictures, preprocessing, and disjoint splits.

This room must not know classifiers or detectors.
"""
