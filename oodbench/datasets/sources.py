"""The data sets that a suite names, with their adapters looked up and their parameters checked."""

from collections.abc import Mapping
from dataclasses import dataclass

from oodbench import registry
from oodbench.datasets.adapter import DatasetPlugin, load_dataset
from oodbench.registry.parameters import resolve_parameters
from oodbench.suites.reading import LISTS, PATHS, LoadedSuite
from oodbench.suites.schema import Group, Source


@dataclass(frozen=True)
class ResolvedSource:
    """A data set of a suite, ready to be read.

    Attributes:
        name: Name in the suite.
        source: The adapter's name, parameters and group, as in the suite.
        plugin: The adapter.
        entry: Registry entry of the adapter, with the package that provides it.
    """

    name: str
    source: Source
    plugin: DatasetPlugin
    entry: registry.PluginEntry

    @property
    def group(self) -> Group:
        """``near`` or ``far`` for unknown sets, ``-`` for the known set."""
        return self.source.group

    @property
    def adapter(self) -> str:
        """The adapter with its parameters, without the path: a user's own files are identified by their content."""
        chosen = {} if self.source.split is None else {"split": self.source.split}
        shown = {key: value for key, value in self.source.parameters.items() if key not in (*PATHS, *self._lists)}
        parameters = ",".join(f"{key}={value}" for key, value in (shown | chosen).items())
        return f"{self.source.adapter}:{parameters}" if parameters else self.source.adapter

    @property
    def _lists(self) -> tuple[str, ...]:
        return LISTS if self.source.adapter == "imagelist" else ()


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
            resolved[name] = resolve_source(name, source)
    return resolved
