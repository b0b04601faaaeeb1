"""Comparison: how sure a figure, a difference or a rank is, from records and their scores.

It must not know how anything is drawn.
"""
