"""Plots of a board for papers, by matplotlib (extra ``plots``)."""
