"""Which checks a plugin has to pass, and the report of them."""

from collections.abc import Sequence
from pathlib import Path

from oodbench import registry
from oodbench.conformance import datasets, detectors, other_process
from oodbench.conformance.check import Check, CheckResult, run_checks
from oodbench.datasets.adapter import DatasetPlugin, load_dataset
from oodbench.detectors.plugin import DetectorPlugin
from oodbench.detectors.selection import BrokenDetector, Provider, SelectedDetector, select, with_inputs
from oodbench.errors import UsageError
from oodbench.files.folders import data_folder
from oodbench.registry.parameters import split_spec

Plugin = str | DetectorPlugin | DatasetPlugin
CheckedPlugin = detectors.CheckedDetector | datasets.CheckedDataset


def checked_plugin(plugin: Plugin, files: Sequence[Path] = (), data: Path | None = None) -> CheckedPlugin:
    """Load a plugin for its checks.

    Args:
        plugin: A plugin, or a name with parameters; a name is looked up as a detector first, then as a data set.
        files: Local files that declare it.
        data: The data folder.

    Raises:
        UsageError: No detector and no data set has this name.
        MissingPrerequisiteError: It cannot be loaded.
    """
    if isinstance(plugin, DatasetPlugin):
        return datasets.CheckedDataset(plugin, {}, data_folder(data))
    if isinstance(plugin, DetectorPlugin):
        selected = SelectedDetector(plugin.name, plugin, {}, Provider(plugin.target.__module__, "0"))
        return detectors.CheckedDetector(with_inputs(selected) if "scores" in plugin.needs else selected)
    name, parameters = split_spec(plugin)
    try:
        registry.get("detectors", name)
    except UsageError as no_detector:
        try:
            return datasets.CheckedDataset(load_dataset(name), parameters, data_folder(data))
        except UsageError as no_dataset:
            if name in registry.entries("datasets"):
                raise
            raise no_detector from no_dataset
    (chosen,) = select([plugin])
    assert not isinstance(chosen, BrokenDetector), "one alone that cannot be loaded is raised"
    if chosen.candidates:
        raise UsageError(f"{name} is no detector of its own, so there is nothing to check; check what it tunes.")
    return detectors.CheckedDetector(chosen, [str(file) for file in files])


def checks_of(checked: CheckedPlugin) -> list[Check]:
    """All checks of a plugin's kind."""
    return detectors.CHECKS if isinstance(checked, detectors.CheckedDetector) else datasets.CHECKS


def report(checked: CheckedPlugin) -> list[CheckResult]:
    """Run all checks of a plugin."""
    try:
        return list(run_checks(checked, checks_of(checked)))
    finally:
        other_process.close()
