"""Runs: what a run is, from its specification to trials, jobs, and the records of their cells.

It must not know who runs the jobs, in which order or where.
"""
