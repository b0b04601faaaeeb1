"""Plugins of every kind, each loaded as its kind demands."""

from typing import Any

from oodbench import registry
from oodbench.errors import UsageError


def load_plugin(kind: registry.Kind, name: str) -> Any:  # noqa: ANN401
    """Import a plugin, and refuse what is none of its kind: a suite is read.

    Raises:
        UsageError: The name is unknown or cannot be used, or what it is loaded from is not what it should be.
        MissingPrerequisiteError: Its package cannot be imported, or its file is not there.
    """
    # Each is imported late, as a list of names needs none of it.
    if kind == "detectors":
        from oodbench.detectors.selection import load_detector

        return load_detector(name)
    if kind == "datasets":
        from oodbench.datasets.adapter import load_dataset

        return load_dataset(name)
    if kind == "protocols":
        from oodbench.protocols.cases import load_protocol

        return load_protocol(name)
    if kind == "suites":
        from oodbench.suites.suite import read_suite

        return read_suite(name)
    plugin = registry.load(kind, name)
    if not callable(plugin):
        raise UsageError(f"the classifier {name} is a {type(plugin).__name__}; expected a function to a network.")
    return plugin
