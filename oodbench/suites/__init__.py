"""Suites: versioned TOML files that name the known and unknown data sets, the classifier, sizes and seeds.

This room must not know how data are read or classifiers built, only their names.
"""

from pathlib import Path

DIGITS = Path(__file__).with_name("digits.toml")
EMNIST = Path(__file__).with_name("emnist.toml")
OPENOOD_CIFAR10 = Path(__file__).with_name("openood-cifar10.toml")
OPENOOD_CIFAR100 = Path(__file__).with_name("openood-cifar100.toml")
OPENOOD_IMAGENET200 = Path(__file__).with_name("openood-imagenet200.toml")
OPENOOD_IMAGENET = Path(__file__).with_name("openood-imagenet.toml")
