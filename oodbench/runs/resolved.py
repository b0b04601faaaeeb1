"""Looks up all names in the specification of a run, once and before any data are read."""

import hashlib
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from oodbench import registry
from oodbench.classifiers.lookup import find_classifier
from oodbench.classifiers.preprocessing import preprocessing_of
from oodbench.classifiers.spec import ClassifierSpec
from oodbench.classifiers.weights import weights_file
from oodbench.datasets.classes import class_list
from oodbench.datasets.preparation import Preprocessing
from oodbench.datasets.sources import ResolvedSource, resolve_sources
from oodbench.detectors.selection import BrokenDetector, SelectedDetector, select
from oodbench.errors import UsageError
from oodbench.machine.device import Computing, find_device
from oodbench.protocols.case import Protocol
from oodbench.protocols.cases import load_protocols
from oodbench.registry.isolation import TimeLimit
from oodbench.runs.given import NOTHING, GivenObjects, given_classifier, with_given
from oodbench.runs.spec import RunSpec
from oodbench.suites.reading import LoadedSuite, read_suite
from oodbench.suites.schema import GIVEN, PRETRAINED, Suite

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ResolvedRun:
    """A specification with all its names looked up; the registry and the suite file are not read again.

    Attributes:
        spec: What was asked for.
        suite: The suite, with the classifier and data sets that the specification replaces.
        sources: Its data sets, the known one first.
        classifier: How the classifier is built.
        preprocessing: How pictures become its inputs.
        classes: The class that each of its outputs stands for; None for the known classes in sorted order.
        detectors: The detectors.
        protocols: The protocols by name.
        seeds: Seeds of the classifier's training.
        computing: Where networks compute, and how.
        time_limit: How long a detector may take.
        plugins: Distribution and version of all plugins but detectors, by kind and name.
        given: Objects that were given instead of names.
    """

    spec: RunSpec
    suite: LoadedSuite
    sources: Mapping[str, ResolvedSource]
    classifier: ClassifierSpec
    preprocessing: Preprocessing
    classes: tuple[str, ...] | None
    detectors: Sequence[SelectedDetector | BrokenDetector]
    protocols: Mapping[str, Protocol]
    seeds: Sequence[int]
    computing: Computing
    time_limit: TimeLimit
    plugins: Mapping[str, str]
    given: GivenObjects = NOTHING

    def facts(self) -> dict[str, Any]:
        """What the journal says of the run."""
        suite = self.suite.suite
        return {
            "suite": f"{suite.name} {suite.version}",
            "classifier": suite.classifier,
            "weights": suite.weights,
            "preprocessing": self.preprocessing.identity,
            "datasets": {name: source.source.adapter for name, source in self.sources.items()},
            "seeds": list(self.seeds),
            "detectors": [detector.label for detector in self.detectors],
            "protocols": list(self.spec.protocols),
            "limit": self.spec.limit,
            "device": self.computing.device.type,
            "precision": self.computing.precision,
            "batch": self.computing.batch,
        }


def resolve_run(
    spec: RunSpec, given: GivenObjects = NOTHING, *, ends_process: bool = False, slot: int = 0
) -> ResolvedRun:
    """Look up all names of a specification, so that a wrong name is refused at once.

    Args:
        spec: What is run.
        given: Objects that were given instead of names.
        ends_process: Whether a detector that does not heed its time limit may end this process.
        slot: Which process of this machine this is, by which it takes a GPU.

    Raises:
        UsageError: A name or a parameter is wrong.
        MissingPrerequisiteError: A file or a package is not there.
    """
    computing = Computing(find_device(spec.device, slot), spec.precision, spec.batch)
    for file in spec.plugins:
        registry.load_file(Path(file))
    protocols = load_protocols(spec.protocols)
    suite = _suite(spec)
    with suite.blamed("classifier"):
        if given.classifier is not None:
            classifier = given_classifier(suite.suite.classifier, given.classifier)
        else:
            name, as_pretrained = suite.suite.classifier, suite.suite.has_preset
            classifier = find_classifier(name, suite.code_folders, as_pretrained=as_pretrained)
        classifier = with_given(classifier, given)
    with suite.blamed("input"):
        preprocessing = preprocessing_of(suite.suite, classifier, suite.code_folders, given.transform)
    with suite.blamed("classes"):
        classes = class_list(suite.suite.classes)
    seeds = _seeds(suite.suite, spec.seeds)
    if suite.suite.weights not in (None, PRETRAINED, GIVEN):
        with suite.blamed("weights"):
            _refuse_equal_weights(suite.suite.weights, seeds)
    sources = resolve_sources(suite)
    time_limit = TimeLimit(spec.timeout, ends_process)
    detectors = select(spec.detectors, time_limit)
    _refuse_lone_member(detectors, suite.suite)
    return ResolvedRun(
        spec=spec,
        suite=suite,
        sources=sources,
        classifier=classifier,
        preprocessing=preprocessing,
        classes=classes,
        detectors=detectors,
        protocols=protocols,
        seeds=seeds,
        computing=computing,
        time_limit=time_limit,
        plugins=_providers([
            *(registry.get("protocols", name) for name in protocols),
            classifier.plugin,
            suite.plugin,
            *(source.entry for source in sources.values()),
        ]),
        given=given,
    )  # fmt: skip


def _refuse_lone_member(detectors: Sequence[SelectedDetector | BrokenDetector], suite: Suite) -> None:
    """Refuse ensembles where a suite has no several trainings.

    Raises:
        UsageError: There is an ensemble, and the weights are of one training, or the suite has one seed.
    """
    whole = [one for chosen in detectors if isinstance(chosen, SelectedDetector) for one in chosen.with_inputs()]
    ensembles = [detector for detector in whole if "member_logits" in detector.plugin.needs]
    if not ensembles:
        return
    if suite.is_one_training or len(suite.seeds) < 2:
        found = f"weights of one training ({suite.weights})" if suite.is_one_training else f"the seed {suite.seeds[0]}"
        raise UsageError(
            f"{ensembles[0].label} is the mean over the networks of all seeds of the suite, and {suite.name} has "
            f"{found} only; expected at least two seeds, and {{seed}} in the names of weights."
        )


def _refuse_equal_weights(weights: str, seeds: Sequence[int]) -> None:
    """Refuse a file of weights that stands for two trainings.

    Raises:
        UsageError: The files of two seeds have the same content.
        MissingPrerequisiteError: A file is not there.
    """
    seen: dict[tuple[str, str | None], Path] = {}
    for seed in seeds:
        file, key = weights_file(weights, seed)
        with file.open("rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
        first = seen.setdefault((digest, key), file)
        if first != file:
            raise UsageError(
                f"the weights {first} and {file} are equal, so their seeds are one training; give each its own, or "
                "leave a seed out."
            )


def _providers(entries: Iterable[registry.PluginEntry | None]) -> dict[str, str]:
    return {
        f"{entry.kind}/{entry.name}": f"{entry.distribution} {entry.version}".strip()
        for entry in entries
        if entry is not None
    }


def _suite(spec: RunSpec) -> LoadedSuite:
    """The suite with the classifier and the data sets that the specification replaces."""
    original = read_suite(spec.suite)
    suite = original.with_classifier(spec.classifier, spec.weights, spec.penultimate, spec.transform)
    if original.suite.weights is not None and suite.suite.weights is None:
        logger.warning(
            "the weights of the suite are those of its own classifier; %s is trained.", suite.suite.classifier
        )
    return suite.replacing(spec.replace)


def _seeds(suite: Suite, asked_for: Sequence[int] | None) -> list[int]:
    """The seeds that are asked for, by default the suite's; weights of a single training allow only one.

    Raises:
        UsageError: Several seeds are asked for, and the weights are of a single training.
    """
    if asked_for is None:
        return [0] if suite.is_one_training and len(suite.seeds) > 1 else list(suite.seeds)
    if suite.is_one_training and len(asked_for) > 1:
        raise UsageError(
            f"the weights {suite.weights} are those of one training, and {len(asked_for)} seeds are asked for; write "
            "{seed} where the names of several files have the seed, or ask for one seed."
        )
    return list(asked_for)
