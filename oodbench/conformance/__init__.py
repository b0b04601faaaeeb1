"""Checks that every plugin has to pass, for its author, for its users and for whoever reviews it."""
