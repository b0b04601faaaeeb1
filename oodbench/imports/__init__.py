"""Imports: records of scores that were computed elsewhere, by another harness or an own script.

It must not know how detectors, classifiers and data of this package work: nothing is run here.
"""
