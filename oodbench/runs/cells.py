"""Runs jobs: fits a detector once and makes the records of all cells that the job serves."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from oodbench.datasets.splits import Split
from oodbench.detectors.selection import BrokenDetector, SelectedDetector
from oodbench.errors import OodbenchError
from oodbench.evaluation.metrics import best_threshold
from oodbench.evaluation.results import Memo, Result, Samples, results
from oodbench.evidence.caching import engine
from oodbench.machine.phases import Meter
from oodbench.protocols.case import Case
from oodbench.records.provenance import provenance, versions
from oodbench.records.record import (
    IDENTITY_VERSION,
    ClassifierIdentity,
    Record,
    RecordedClassifier,
    RecordedDataset,
    RecordedDetector,
    RecordedScores,
    RecordedSuite,
    Timing,
    cell_id,
)
from oodbench.records.store import Keeper, SetScores, score_file
from oodbench.registry.isolation import Failure, attempt
from oodbench.registry.plain_values import plain
from oodbench.runs.score_sheet import DetectorScorer, Key, ScoreSheet, SplitScores, key_of
from oodbench.runs.trial import Trial


@dataclass(frozen=True)
class Job:
    """A detector under an exposure on one seed, fitted once; the unit of work of one process.

    Attributes:
        seed: The seed.
        detector: The detector.
        exposed: Unknown sets whose exposed samples it is fitted on.
        cases: The cases of all protocols with the protocol's name, one for each cell. If the detector is not fitted on
            exposed samples, the job has the cases of all exposures.
    """

    seed: int
    detector: SelectedDetector | BrokenDetector
    exposed: tuple[str, ...]
    cases: tuple[tuple[str, Case], ...]

    def facts(self) -> dict[str, Any]:
        """What the journal says of the job."""
        return {"seed": self.seed, "detector": self.detector.label, "exposed": self.exposed}


@dataclass(frozen=True)
class PendingRecord:
    """A record before anything is scored.

    Attributes:
        case: What the cell is fitted and tested on.
        cell_id: Its identity.
        classifier: What decides the evidence.
        fields: The fields of the record that are known already.
    """

    case: Case
    cell_id: str
    classifier: ClassifierIdentity
    fields: Mapping[str, Any]


class JobRunner:
    """Runs the jobs of a trial; scores and metrics that several jobs need are computed once."""

    def __init__(self, trial: Trial) -> None:
        self.trial = trial
        self._scorer = DetectorScorer(trial)
        self._memo: Memo = {}
        self._described: dict[tuple[str, str, str], RecordedDataset] = {}

    def pending(self, job: Job) -> list[PendingRecord]:
        """The pending records of a job, which follow from the trained weights alone."""
        detector = _describe_detector(job.detector, self.trial.seed)
        chooses = isinstance(job.detector, SelectedDetector) and bool(job.detector.candidates)
        further = list(self.trial.validation.values()) if chooses else []
        classifier = self._classifier_of(job.detector)
        return [
            _make_pending_record(self.trial, detector, classifier, protocol, case, further, self._describe)
            for protocol, case in job.cases
        ]

    def _classifier_of(self, detector: SelectedDetector | BrokenDetector) -> ClassifierIdentity:
        """What decides the evidence of a detector: of an ensemble also the weights of all members, if there are any."""
        own = self.trial.classifier
        if isinstance(detector, BrokenDetector) or "member_logits" not in _needs_of(list(detector.with_inputs())):
            return own
        try:
            members = self.trial.members()
        except OodbenchError:  # which its cells say
            return own
        weights = {str(seed): member.identity.weights_sha256 for seed, member in members.items()}
        return own.model_copy(update={"members": weights})

    def _describe(self, split: Split) -> RecordedDataset:
        """The description of a split, made once for all cells."""
        key = split.dataset, split.use, split.sha256
        if key not in self._described:
            self._described[key] = _describe_dataset(self.trial, split)
        return self._described[key]

    def collect(self, jobs: Sequence[Job]) -> None:
        """Collect the evidence that some jobs need, in one pass over each split.

        Raises:
            OodbenchError: It cannot be collected.
        """
        detectors = [job.detector for job in jobs if isinstance(job.detector, SelectedDetector)]
        with_inputs = [detector for chosen in detectors for detector in chosen.with_inputs()]
        on_training = [detector for detector in with_inputs if detector.plugin.fitted_on == "training"]
        candidates = [candidate for detector in detectors for candidate in detector.candidates]
        self.trial.collect_evidence(_needs_of(with_inputs), _needs_of(on_training), _needs_of(candidates))

    def run(self, job: Job, wanted: Sequence[PendingRecord], keeper: Keeper) -> Iterator[Record]:
        """Fit the detector once, score each test set once, and keep the wanted records.

        A detector that fails costs its own cells only.
        """
        if isinstance(job.detector, BrokenDetector):
            sheet: ScoreSheet | Failure = job.detector.failure
        else:
            sheet = self._scorer.sheet(job.detector, job.exposed)
        scores = None if isinstance(sheet, Failure) else _keep_scores(self.trial, sheet, keeper)
        for pending in wanted:
            record = _begin_record(self.trial, job.detector, pending)
            meter = Meter(dict(sheet.phases))
            if isinstance(sheet, Failure):
                filled: dict[str, Any] | Failure = sheet
            else:
                with meter.during("evaluate"):
                    filled = attempt("evaluate", partial(self._evaluate, record, pending.case, sheet))
            fields = _describe_failure(filled) if isinstance(filled, Failure) else {**filled, "scores": scores}
            yield keeper.keep(record.model_copy(update={**fields, "phases": meter.costs}))

    def _evaluate(self, record: Record, case: Case, sheet: ScoreSheet) -> dict[str, Any] | Failure:
        """The fields that a finished cell adds to its record, without its scores; or why there are none."""
        trial = self.trial
        scores = _pick_scores(trial, case, sheet)
        if isinstance(scores, Failure):
            return scores
        tested = [scores[key_of(split)] for split in _list_test_sets(trial, case)]
        seconds, count = sum(of_split.seconds for of_split in tested), sum(len(of_split.scores) for of_split in tested)
        fitting = trial.fitting(case.exposed)
        threshold = best_threshold(
            np.concatenate([scores[key_of(split)].scores for split in fitting]),
            np.concatenate([trial.wrong(split) for split in fitting]),
        )
        return {
            "detector": record.detector.model_copy(update={"learnt": sheet.fitted.learnt}),
            "threshold": threshold,
            "results": self._compute_results(case, scores, threshold, log_odds=sheet.fitted.log_odds),
            "timing": Timing(
                fit_s=sheet.fitted.seconds,
                score_ms_per_sample=1e3 * seconds / count,
                evidence_ms_per_sample=trial.evidence_ms(sheet.needs),
                forward_ms_per_sample=trial.evidence_ms(()),
            ),
        }

    def _compute_results(
        self, case: Case, scores: Mapping[Key, SplitScores], threshold: float | None, *, log_odds: bool
    ) -> list[Result]:
        trial = self.trial
        sets = [
            (
                split.dataset,
                trial.suite.groups[split.dataset],
                Samples(scores[key_of(split)].scores, trial.wrong(split)),
            )
            for split in _list_test_sets(trial, case)
        ]
        known = sets[: len(sets) - len(case.tested)]
        return results(known, sets[len(known) :], threshold, self._memo, log_odds=log_odds)


def _needs_of(detectors: Sequence[SelectedDetector]) -> set[str]:
    return {part for detector in detectors for part in detector.plugin.needs}


def _describe_failure(failure: Failure) -> dict[str, Any]:
    return {
        "status": failure.status,
        "phase": failure.phase,
        "error": failure.error,
        "traceback": failure.traceback,
    }


def _keep_scores(trial: Trial, sheet: ScoreSheet, keeper: Keeper) -> RecordedScores | None:
    """Keep the scores of all test sets of the run, so that all cases of a detector share one file."""
    sets = [
        SetScores(split.dataset, split.indices, split.labels, trial.predictions(split).numpy(), scored.scores)
        for split in trial.tested()
        if isinstance(scored := sheet.of(split), SplitScores)
    ]
    if not sets:
        return None
    file = score_file(sets)
    keeper.keep_scores(file)
    return file.recorded


def _pick_scores(trial: Trial, case: Case, sheet: ScoreSheet) -> dict[Key, SplitScores] | Failure:
    """The scores that a case needs for its threshold and its test sets; or the first failure among them."""
    needed: dict[Key, SplitScores] = {}
    for split in [*trial.fitting(case.exposed), *_list_test_sets(trial, case)]:
        scores = sheet.of(split)
        if isinstance(scores, Failure):
            return replace(scores, error=f"on {split.dataset} ({split.use}): {scores.error}")
        needed[key_of(split)] = scores
    return needed


def _list_test_sets(trial: Trial, case: Case) -> list[Split]:
    shifted = trial.covariate.values() if case.known == "with-covariate" else ()
    return [trial.test, *shifted, *(trial.unknown[name] for name in case.tested)]


def _make_pending_record(
    trial: Trial,
    detector: RecordedDetector,
    classifier: ClassifierIdentity,
    protocol: str,
    case: Case,
    further: Sequence[Split],
    describe: Callable[[Split], RecordedDataset],
) -> PendingRecord:
    datasets = {split.dataset: describe(split) for split in _list_test_sets(trial, case)}
    for split in [*([] if trial.train is None else [trial.train]), *trial.fitting(case.exposed), *further]:
        datasets[f"{split.dataset} ({split.use})"] = describe(split)
    fields: dict[str, Any] = {
        "suite": RecordedSuite(
            name=trial.suite.name,
            version=trial.suite.version,
            limit=trial.spec.limit,
            missing=list(trial.suite.missing),
        ),
        "protocol": protocol,
        "exposed": list(case.exposed),
        "seed": trial.seed,
        "detector": detector,
        "datasets": datasets,
    }
    identity = cell_id(**fields, classifier=classifier, engine=_engine(trial), versions=versions())
    return PendingRecord(case, identity, classifier, fields)


def _engine(trial: Trial) -> str:
    return engine(trial.collector.classifier.computing.gradient_device)


def _begin_record(trial: Trial, detector: SelectedDetector | BrokenDetector, pending: PendingRecord) -> Record:
    """The record of a cell without its results."""
    classifier = trial.collector.classifier
    return Record(
        identity_version=IDENTITY_VERSION,
        cell_id=pending.cell_id,
        status="ok",
        classifier=RecordedClassifier(
            **dict(pending.classifier),
            name=classifier.name,
            accuracy=trial.accuracy,
            weights_from=trial.suite.weights_from,
            probe=dict(trial.probe),
            trusted=list(trial.strange),
        ),
        results=[],
        evidence_batch=trial.collector.batch,
        provenance=provenance(_engine(trial), _list_plugins(trial, detector, pending.fields["protocol"])),
        **pending.fields,
    )


def _list_plugins(trial: Trial, detector: SelectedDetector | BrokenDetector, protocol: str) -> dict[str, str]:
    """Distribution and version of all plugins that took part in a cell, by kind and name."""
    provider = f"{detector.provider.distribution} {detector.provider.version}".strip()
    name = f"protocols/{protocol}"
    return {
        f"detectors/{detector.name}": provider,
        name: trial.suite.plugins[name],
        **{key: value for key, value in trial.suite.plugins.items() if not key.startswith("protocols/")},
    }


def _describe_detector(detector: SelectedDetector | BrokenDetector, seed: int) -> RecordedDetector:
    version, parameters = detector.provider.version, detector.given
    inputs: Sequence[SelectedDetector] = ()
    if isinstance(detector, SelectedDetector):
        version, parameters = detector.version, detector.parameters(seed)
        inputs = [*(detector.inputs if isinstance(detector.inputs, tuple) else ()), *detector.candidates]
        if detector.inner is not None:
            inputs.append(detector.inner)
    return RecordedDetector(
        name=detector.name,
        version=version,
        params=plain(parameters, "its parameters"),
        distribution=detector.provider.distribution,
        distribution_version=detector.provider.version,
        given=list(detector.given),
        inputs=[_describe_detector(source, seed) for source in inputs],
    )


def _describe_dataset(trial: Trial, split: Split) -> RecordedDataset:
    return RecordedDataset(
        group=trial.suite.groups[split.dataset],
        adapter=split.adapter,
        split=split.origin,
        n=len(split.labels),
        sha256=split.sha256,
        source=split.source,
        available=split.available,
        official=split.official,
        held_back=trial.held_back.get(split.dataset) if split.use == "unknown" else None,
        left_out=dict(split.left_out),
        converted=dict(split.remarks),
    )
