"""How a classifier is built."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from oodbench import registry

Build = Callable[[int, int, int], nn.Module]
"""Builds a network from the images' number of channels, their height and width, and the number of known classes."""


@dataclass(frozen=True)
class ClassifierSpec:
    """How a classifier is built, and where its code is from.

    Attributes:
        name: The name that the user typed.
        build: Makes the untrained network.
        origin: Identifies the code: a name in it, its package, and the package's version.
        code: Hash of the user's own file that defines the network; empty for code of an installed package.
        pretrained: Makes the network with its package's pretrained weights, and may download them; None if there are
            none.
        plugin: Registry entry, if the classifier is a plugin.
    """

    name: str
    build: Build
    origin: tuple[str, str, str]
    code: str = ""
    pretrained: Build | None = None
    plugin: registry.PluginEntry | None = None
