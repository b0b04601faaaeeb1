"""Plots of boards, for papers.

It must not know records: what it draws is on a board.
"""
