"""Execution: who runs the jobs of a run, in this process or on a cluster, with the same numbers.

It must not know what a job computes.
"""
