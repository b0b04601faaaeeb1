"""Execution: who runs the jobs of a run, in this process or on a cluster, with the same numbers.

It must not know how a job computes its scores.
"""
