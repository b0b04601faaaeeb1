"""Which checks a plugin has to pass, and the report of them."""

from collections.abc import Sequence
from pathlib import Path

from oodbench import registry
from oodbench.conformance import datasets, detectors, elsewhere
from oodbench.conformance.check import Check, Outcome, outcomes
from oodbench.datasets.adapter import DatasetPlugin, load_dataset
from oodbench.detectors.plugin import DetectorPlugin
from oodbench.detectors.selection import Broken, Chosen, Provider, choose
from oodbench.errors import UsageError
from oodbench.folders import data_folder
from oodbench.parameters import split_spec

Plugin = str | DetectorPlugin | DatasetPlugin
Subject = detectors.Subject | datasets.Subject


def subject_of(plugin: Plugin, files: Sequence[Path] = (), data: Path | None = None) -> Subject:
    """What is checked: a detector, or else a data set, of that name with parameters, or a plugin itself.

    Args:
        plugin: The plugin.
        files: Local files that declare it.
        data: The data folder.

    Raises:
        UsageError: There is neither.
        MissingPrerequisiteError: It cannot be loaded.
    """
    if isinstance(plugin, DatasetPlugin):
        return datasets.Subject(plugin, {}, data_folder(data))
    if isinstance(plugin, DetectorPlugin):
        return detectors.Subject(Chosen(plugin.name, plugin, {}, Provider(plugin.target.__module__, "0")))
    name, parameters = split_spec(plugin)
    try:
        registry.get("detectors", name)
    except UsageError as no_detector:
        try:
            return datasets.Subject(load_dataset(name), parameters, data_folder(data))
        except UsageError as no_dataset:
            if name in registry.entries("datasets"):
                raise
            raise no_detector from no_dataset
    (chosen,) = choose([plugin])
    assert not isinstance(chosen, Broken), "one alone that cannot be loaded is raised"
    return detectors.Subject(chosen, [str(file) for file in files])


def checks_of(subject: Subject) -> list[Check]:
    """All checks of its kind."""
    return detectors.CHECKS if isinstance(subject, detectors.Subject) else datasets.CHECKS


def report(subject: Subject) -> list[Outcome]:
    """Run all checks."""
    try:
        return list(outcomes(subject, checks_of(subject)))
    finally:
        elsewhere.close()
