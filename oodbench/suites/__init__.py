"""Suites: versioned TOML files that name the known and unknown data sets, the classifier, sizes and seeds.

This room must not know how data are read or classifiers built, only their names.
"""

from pathlib import Path

DIGITS = Path(__file__).with_name("digits.toml")
EMNIST = Path(__file__).with_name("emnist.toml")
