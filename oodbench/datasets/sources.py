"""The data sets that a suite names, with their adapters looked up and their parameters checked."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from oodbench import registry
from oodbench.datasets.adapter import DatasetPlugin, load_dataset
from oodbench.registry.parameters import resolve_parameters
from oodbench.suites.reading import LISTS, PATHS, LoadedSuite, paths_below
from oodbench.suites.schema import Group, Source


@dataclass(frozen=True)
class ResolvedSource:
    """A data set of a suite, ready to be read.

    Attributes:
        name: Name in the suite.
        source: The adapter's name, parameters and group, as in the suite.
        plugin: The adapter.
        entry: Registry entry of the adapter, with the package that provides it.
        is_below_data: Whether relative paths among the parameters are relative to the data folder.
    """

    name: str
    source: Source
    plugin: DatasetPlugin
    entry: registry.PluginEntry
    is_below_data: bool = False

    def parameters(self, data: Path) -> Mapping[str, Any]:
        """Parameters of the adapter, given the data folder."""
        return paths_below(data, self.source) if self.is_below_data else self.source.parameters

    @property
    def group(self) -> Group:
        """``near`` or ``far`` for unknown sets, ``-`` for the known set."""
        return self.source.group

    @property
    def adapter(self) -> str:
        """The adapter with its parameters, without paths: a user's own files are identified by their content."""
        chosen = {} if self.source.split is None else {"split": self.source.split}
        shown = {key: value for key, value in self.source.parameters.items() if key not in self._unsaid}
        parameters = ",".join(f"{key}={value}" for key, value in (shown | chosen).items())
        return f"{self.source.adapter}:{parameters}" if parameters else self.source.adapter

    @property
    def _unsaid(self) -> tuple[str, ...]:
        """Parameters that are or have paths, or change nothing."""
        return (*PATHS, *LISTS, "official", "sha256") if self.source.adapter == "imagelist" else (*PATHS, "of")


def resolve_source(name: str, source: Source) -> ResolvedSource:
    """Look up the adapter of a data set, and check its parameters.

    Raises:
        UsageError: The adapter or a parameter is unknown.
        MissingPrerequisiteError: The adapter's package cannot be imported.
    """
    plugin = load_dataset(source.adapter)
    resolve_parameters(plugin.name, plugin.function, source.parameters)
    return ResolvedSource(name, source, plugin, registry.get("datasets", source.adapter))


def resolve_sources(suite: LoadedSuite) -> Mapping[str, ResolvedSource]:
    """Look up the adapters of all data sets of a suite; nothing is read yet.

    Returns:
        The known set first, then the unknown sets, by name.

    Raises:
        UsageError: An adapter or a parameter is unknown; the message names the file, line and key of the suite.
        MissingPrerequisiteError: An adapter's package cannot be imported.
    """
    resolved = {}
    for name, source in suite.suite.sources().items():
        with suite.blamed_source(name):
            is_below_data = suite.plugin is not None and name not in suite.replaced
            resolved[name] = replace(resolve_source(name, source), is_below_data=is_below_data)
    return resolved
