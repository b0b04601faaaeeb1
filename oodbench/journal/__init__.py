"""The journal: the events of a run, and the files that they are written to.

This room must not know who reads them.
"""
