"""Protocols: which data sets a detector is fitted on, and which it is tested on.

A protocol must not see any sample: it gets the names of data sets only.
"""
