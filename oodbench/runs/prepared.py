"""A run with its data read: makes the trial and the jobs of each seed."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from itertools import combinations
from pathlib import Path

import torch

from oodbench.cache.entries import DiskCache
from oodbench.classifiers.classifier import Classifier
from oodbench.classifiers.making import ClassifierMaker
from oodbench.classifiers.probe import PICTURES
from oodbench.classifiers.weights import weights_name
from oodbench.datasets.drawing import Selection, draw_splits
from oodbench.datasets.first_samples import first_samples
from oodbench.datasets.splits import Split, SuiteSplits
from oodbench.detectors.selection import BrokenDetector, SelectedDetector
from oodbench.errors import OodbenchError
from oodbench.evidence.caching import network_number
from oodbench.evidence.collector import EvidenceCollector
from oodbench.evidence.timing import evidence_ms
from oodbench.files.atomic import check_folder
from oodbench.files.folders import cache_folder, data_folder
from oodbench.machine.progress import Track
from oodbench.protocols.case import Case
from oodbench.protocols.cases import cases_of
from oodbench.records.record import ClassifierIdentity
from oodbench.runs.cells import Job
from oodbench.runs.resolved import ResolvedRun
from oodbench.runs.trial import SuiteIdentity, TrainedClassifier, Trial
from oodbench.suites.schema import Suite

logger = logging.getLogger(__name__)

Cases = Sequence[tuple[str, Case]]
"""Cases with the names of their protocols."""


@dataclass(frozen=True)
class PreparedRun:
    """A run with its data.

    Attributes:
        resolved: What is run, with all names looked up.
        splits: The samples of all splits.
        track: Shows progress.
        download: Whether pretrained weights may be downloaded.
    """

    resolved: ResolvedRun
    splits: SuiteSplits
    track: Track
    download: bool

    def say_remarks(self) -> None:
        """Say what is missing, left out of the data and converted; once for a run, whoever else prepares it."""
        for sentence in self.splits.remarks:
            logger.warning("%s", sentence)

    @property
    def seeds(self) -> Sequence[int]:
        """The seeds."""
        return self.resolved.seeds

    @cached_property
    def by_exposure(self) -> Mapping[tuple[str, ...], Cases]:
        """The cases of all protocols, by their exposed unknown sets."""
        grouped: dict[tuple[str, ...], list[tuple[str, Case]]] = {}
        cases = cases_of(self.resolved.protocols, self.resolved.spec.protocols, self.splits)
        for protocol, of_protocol in cases.items():
            for case in of_protocol:
                grouped.setdefault(case.exposed, []).append((protocol, case))
        return grouped

    @cached_property
    def _jobs(self) -> Sequence[Job]:
        """The jobs of any seed: one for each detector and exposure that changes it."""
        return [job for detector in self.resolved.detectors for job in _jobs_of(detector, self.by_exposure)]

    @cached_property
    def all_jobs(self) -> Mapping[int, Sequence[Job]]:
        """The jobs of each seed."""
        return {seed: [replace(job, seed=seed) for job in self._jobs] for seed in self.seeds}

    def jobs(self, seed: int) -> Sequence[Job]:
        """The jobs of a seed."""
        return self.all_jobs[seed]

    def trial(self, seed: int) -> Trial:
        """The trial of a seed, with its trained classifier; evidence is collected when it is first asked for.

        Raises:
            OodbenchError: The classifier cannot be built, trained or loaded.
        """
        resolved, splits, cache = self.resolved, self.splits, DiskCache(cache_folder())
        suite, known = resolved.suite.suite, splits.test if splits.train is None else splits.train
        maker = ClassifierMaker(
            suite,
            resolved.classifier,
            splits.preprocessing,
            splits.train,
            first_samples(known, splits.preprocessing, cache),
            len(splits.classes),
            cache,
            self.track,
            self.download,
            resolved.computing,
        )

        def trained(seed: int) -> TrainedClassifier:
            classifier = maker.make(seed)
            _refuse_diverged(suite, classifier, seed)
            collector = EvidenceCollector(classifier, cache, maker.example[0], self.track)
            number = network_number(classifier, splits.test, cache, collector.probe(splits.test))
            return TrainedClassifier(_identity(classifier, suite, number), collector)

        own = trained(seed)
        of_parts = evidence_ms(own.collector.classifier, splits.test)

        def milliseconds(needs: tuple[str, ...]) -> float | None:
            ms = of_parts(tuple(part for part in needs if part != "member_logits"))
            of_others = of_parts(()) if "member_logits" in needs else 0.0
            return None if ms is None or of_others is None else ms + (len(suite.seeds) - 1) * of_others

        exposed = {name for names in self.by_exposure for name in names}
        all_cases = [case for cases in self.by_exposure.values() for _, case in cases]
        tested = {name for case in all_cases for name in case.tested}
        shifted = splits.covariate if any(case.known == "with-covariate" for case in all_cases) else {}
        unknown = {name: split for name, split in splits.unknown.items() if name in tested}
        groups = {name: source.group for name, source in resolved.sources.items()}
        absent = tuple(name for name in splits.missing if name in suite.unknown)
        return Trial(
            suite=SuiteIdentity(
                suite.name, suite.version, groups, resolved.plugins, absent, weights_name(suite.weights)
            ),
            seed=seed,
            classifier=own.identity,
            probe=_summaries(own.collector, splits.test, {**shifted, **unknown}),
            is_trained=suite.weights is None,
            classes=splits.classes,
            collector=own.collector,
            members=_members(suite, seed, own, trained),
            train=splits.train,
            meta=splits.meta,
            test=splits.test,
            exposed={name: split for name, split in splits.exposed.items() if name in exposed},
            unknown=unknown,
            validation=splits.validation,
            covariate=shifted,
            held_back={name: len(split.labels) for name, split in splits.exposed.items()},
            evidence_ms=milliseconds,
            spec=resolved.spec,
            time_limit=resolved.time_limit,
        )


def prepare_run(resolved: ResolvedRun, *, data: str | Path | None, download: bool, track: Track) -> PreparedRun:
    """Read the data of a run.

    Args:
        resolved: What is run.
        data: Folder of the data sets.
        download: Whether data sets and pretrained weights may be downloaded.
        track: Shows progress.

    Raises:
        OodbenchError: Data are not there, or splits share samples.
    """
    check_folder(cache_folder(), "the cache folder", "one by the environment variable OODBENCH_CACHE")
    spec = resolved.spec
    splits = draw_splits(
        resolved.suite,
        resolved.sources,
        resolved.preprocessing,
        data_folder(data),
        classes=resolved.classes,
        download=download,
        selection=Selection(spec.limit, spec.skip_missing, spec.skip_unreadable, spec.drop_shared),
        kept=cache_folder() / "digests",
        track=track,
    )
    return PreparedRun(resolved, splits, track, download)


def _jobs_of(detector: SelectedDetector | BrokenDetector, by_exposure: Mapping[tuple[str, ...], Cases]) -> list[Job]:
    """One job for each exposure, or a single job if the detector is not fitted on exposed samples."""
    if isinstance(detector, SelectedDetector) and detector.plugin.fitted_on == "exposed":
        return [Job(0, detector, exposed, tuple(cases)) for exposed, cases in by_exposure.items()]
    return [Job(0, detector, (), tuple(case for cases in by_exposure.values() for case in cases))]


def _members(
    suite: Suite, seed: int, own: TrainedClassifier, trained: Callable[[int], TrainedClassifier]
) -> Callable[[], Mapping[int, TrainedClassifier]]:
    """Makes the classifiers of all seeds of a suite when they are first asked for.

    Args:
        suite: The suite.
        seed: The seed of the trial.
        own: Its classifier.
        trained: Makes that of a seed.
    """

    def made() -> Mapping[int, TrainedClassifier] | OodbenchError:
        found: dict[int, TrainedClassifier] = {}
        # From the next seed on, so that processes that train different seeds do not wait for the same one.
        for one in sorted(suite.seeds, key=lambda one: (one < seed, one)):
            try:
                found[one] = own if one == seed else trained(one)
            except OodbenchError as error:
                return OodbenchError(f"the network of seed {one}, a member of the ensemble, cannot be had: {error}")
        for one, other in combinations(suite.seeds, 2):
            if found[one].identity.weights_sha256 == found[other].identity.weights_sha256:
                return OodbenchError(
                    f"the networks of the seeds {one} and {other}, its members, have equal weights; expected two "
                    "trainings"
                )
        return {one: found[one] for one in suite.seeds}

    once = cache(made)

    def members() -> Mapping[int, TrainedClassifier]:
        found = once()
        if isinstance(found, OodbenchError):
            raise type(found)(*found.args)
        return found

    return members


def _refuse_diverged(suite: Suite, classifier: Classifier, seed: int) -> None:
    """Refuse a classifier whose training diverged, before every detector fails on logits of NaN.

    Raises:
        OodbenchError: A weight is NaN or infinite.
    """
    if not all(bool(torch.isfinite(weight).all()) for weight in classifier.network.state_dict().values()):
        raise OodbenchError(
            f"the training of the classifier {classifier.name} with seed {seed} diverged to weights of NaN or "
            f"infinity; lower training.learning_rate of the suite {suite.name} from {suite.training.learning_rate}."
        )


def _summaries(collector: EvidenceCollector, test: Split, unknown: Mapping[str, Split]) -> dict[str, list[float]]:
    """Numbers that stand for what a classifier computes on the fixed pictures and on samples of each test set."""
    numbers = collector.probe(test).summary("pictures and known samples")
    for name, split in unknown.items():
        numbers |= collector.probe(split).summary(name, first=PICTURES)
    return numbers


def _identity(classifier: Classifier, suite: Suite, number: int) -> ClassifierIdentity:
    """What decides the evidence of a classifier, as records have it."""
    preprocessing, computed = classifier.preprocessing, classifier.computing.identity
    return ClassifierIdentity(
        weights_sha256=classifier.weights_sha256,
        normalisation=preprocessing.normalisation,
        penultimate=classifier.penultimate,
        code=classifier.code or None,
        # The hashes of prepared images stand for it.
        preprocessing=preprocessing.identity if suite.drawing == "source" else None,
        network=number or None,
        device=computed.get("device"),
        precision=computed.get("precision"),
    )
