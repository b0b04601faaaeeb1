"""How a classifier is built."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from oodbench import registry
from oodbench.datasets.preparation import Transform

Build = Callable[[int, int, int], nn.Module]
"""Builds a network from the images' number of channels, their height and width, and the number of its outputs."""


@dataclass(frozen=True)
class ClassifierSpec:
    """How a classifier is built, and where its code is from.

    Attributes:
        name: The name that the user typed.
        build: Makes the untrained network.
        origin: Identifies the code: a name in it, its package, and the package's version.
        code: Hash of what defines the network beside its weights: the name that was asked for, and the user's own code
            with all that it imports; empty for a plugin of an installed package.
        pretrained: Makes the network with its package's pretrained weights, and may download them; None if there are
            none.
        given: Makes the network with the weights that were given as an object in Python; None if none were.
        preset: The preprocessing of the pretrained weights: keys of the suite's ``[input]`` with their values, or a
            transform where they do not suffice; None if there is none.
        channels: The only number of channels that it takes; None if it takes any.
        unused: Names of modules that evaluation does not use, so that the network has none of their weights.
        plugin: Registry entry, if the classifier is a plugin.
    """

    name: str
    build: Build
    origin: tuple[str, str, str]
    code: str = ""
    pretrained: Build | None = None
    given: Build | None = None
    preset: Callable[[], Mapping[str, Any] | Transform] | None = None
    channels: int | None = None
    unused: Sequence[str] = ()
    plugin: registry.PluginEntry | None = None
