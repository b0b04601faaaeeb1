"""Suites: what is known, what is unknown, which classifier, which sizes and seeds, as versioned TOML files."""

from pathlib import Path

DIGITS = Path(__file__).with_name("digits.toml")
EMNIST = Path(__file__).with_name("emnist.toml")
