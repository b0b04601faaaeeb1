"""Whether the data sets that a suite names can be read by somebody, before any of them is."""

from oodbench.datasets.adapter import load_dataset
from oodbench.parameters import resolve
from oodbench.suites.suite import Suite


def check_sources(suite: Suite) -> None:
    """Look up the adapter of every data set, and its parameters.

    Raises:
        UsageError: One is unknown; the sentence names the file, line and key of the suite.
        MissingPrerequisiteError: An adapter's package cannot be imported.
    """
    for name, source in suite.sources().items():
        with suite.blamed_source(name):
            plugin = load_dataset(source.adapter)
            resolve(plugin.name, plugin.function, source.parameters)
