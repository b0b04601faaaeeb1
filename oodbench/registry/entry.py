"""Registry entries: plugins that are not imported yet."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

Kind = Literal["detectors", "datasets", "classifiers", "protocols", "suites", "evidence"]
KINDS: tuple[Kind, ...] = get_args(Kind)
NAME_RULE = "letters, digits, '.', '_' and '-', beginning with a letter or a digit"

Origin = Literal["installed", "file", "process", "ambiguous"]
"""Where a plugin is from: an installed package, a local file, or a decorator in this process; ``ambiguous`` means
that several packages provide the name."""


@dataclass(frozen=True)
class PluginEntry:
    """A plugin that may not be imported yet.

    Attributes:
        kind: Kind of the plugin.
        name: The name that users type; ``distribution/name`` if the name alone stands for another plugin, or several.
        target: ``module:attribute`` that it is loaded from.
        distribution: The installed distribution, or the local file, that provides it.
        version: Version of that distribution; for a local file, the first 12 digits of its SHA-256.
        summary: A line about the distribution.
        load: Imports and returns the plugin.
        rivals: Distributions that provide other plugins of the same name.
        origin: Where the plugin is from.
    """

    kind: Kind
    name: str
    target: str
    distribution: str
    version: str
    summary: str
    load: Callable[[], Any]
    rivals: tuple[str, ...] = ()
    origin: Origin = "installed"

    @property
    def qualified(self) -> str:
        """``distribution/name``."""
        return self.name if "/" in self.name else f"{self.distribution}/{self.name}"


def singular(kind: Kind) -> str:
    """The word for a plugin of a kind, such as ``detector``."""
    return {
        "detectors": "detector",
        "datasets": "dataset",
        "classifiers": "classifier",
        "protocols": "protocol",
        "suites": "suite",
        "evidence": "evidence part",
    }[kind]


def is_name(name: object) -> bool:
    """Whether a value is a well-formed plugin name (``NAME_RULE``)."""
    return isinstance(name, str) and re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name) is not None
