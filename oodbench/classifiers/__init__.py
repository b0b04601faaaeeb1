"""Classifiers: built by plugins, trained once per suite and seed, kept by content."""
