"""Conformance: checks that every plugin has to pass, for its author, for its users and for whoever reviews it.

It must not know suites of users: it tries plugins on a small trial of its own.
"""
