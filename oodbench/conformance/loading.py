"""Loading plugins of every kind."""

from typing import Any

from oodbench import registry
from oodbench.errors import UsageError


def load_plugin(kind: registry.Kind, name: str) -> Any:  # noqa: ANN401
    """Import a plugin (or read a suite) and check that it is of its kind.

    Raises:
        UsageError: The name is unknown or cannot be used, or what was loaded is no plugin of this kind.
        MissingPrerequisiteError: Its package cannot be imported, or its file is not there.
    """
    # Imported late, since listing names needs none of these modules.
    if kind == "detectors":
        from oodbench.detectors.selection import load_detector

        return load_detector(name)
    if kind == "datasets":
        from oodbench.datasets.adapter import load_dataset

        return load_dataset(name)
    if kind == "protocols":
        from oodbench.protocols.cases import load_protocol

        return load_protocol(name)
    if kind == "evidence":
        from oodbench.evidence.parts import load_part

        return load_part(name)
    if kind == "suites":
        from oodbench.suites.reading import read_suite

        return read_suite(name)
    plugin = registry.load(kind, name)
    if not callable(plugin):
        raise UsageError(f"the classifier {name} is a {type(plugin).__name__}; expected a function to a network.")
    return plugin
