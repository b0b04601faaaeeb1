"""Leaderboards: pure functions of records, and their drawings.

It must not know models, data or runs.
"""
