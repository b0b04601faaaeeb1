"""A cell: one detector under one exposure, fitted once, evaluated under every protocol that has that exposure."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from oodbench.datasets.splits import Split
from oodbench.detectors.selection import Broken, Chosen, input_detectors
from oodbench.evaluation.metrics import best_threshold
from oodbench.evidence.store import engine
from oodbench.isolation import Failure, attempt
from oodbench.phases import Meter
from oodbench.plain import plain
from oodbench.protocols.case import Case
from oodbench.records.provenance import provenance, versions
from oodbench.records.record import (
    IDENTITY_VERSION,
    ClassifierPart,
    DatasetPart,
    DetectorPart,
    Record,
    Result,
    ScoresPart,
    SuitePart,
    Timing,
    cell_id,
)
from oodbench.records.results import Samples, results
from oodbench.records.store import Keeper, score_file
from oodbench.registry import Kind
from oodbench.scoresheet import Key, Scored, ScoreSheet, key_of, score_sheet
from oodbench.trial import Trial


@dataclass(frozen=True)
class Cell:
    """What is fitted once: a detector under an exposure, and the protocols' cases that it serves.

    Attributes:
        chosen: The detector.
        exposed: Unknown sets whose exposed samples it is fitted on.
        cases: Of all protocols; a detector that learns nothing from exposed samples serves those of any exposure.
    """

    chosen: Chosen | Broken
    exposed: tuple[str, ...]
    cases: tuple[tuple[str, Case], ...]


@dataclass(frozen=True)
class Draft:
    """What the record of one case says before anything is scored.

    Attributes:
        case: The case.
        cell_id: Its identity.
        parts: The record's fields that are known.
    """

    case: Case
    cell_id: str
    parts: Mapping[str, Any]


def drafts(trial: Trial, cell: Cell) -> list[Draft]:
    """The drafts of all cases of a cell, for which the trained weights suffice."""
    detector = _detector(trial, cell.chosen)
    return [_draft(trial, detector, protocol, case) for protocol, case in cell.cases]


def run_cell(trial: Trial, cell: Cell, wanted: Sequence[Draft], store: Keeper) -> Iterator[Record]:
    """Fit the detector once, score each test set once, and keep the records of the wanted cases.

    A detector that fails costs its own cells only.
    """
    chosen = cell.chosen
    if isinstance(chosen, Broken):
        sheet: ScoreSheet | Failure = chosen.failure
    else:
        sheet = score_sheet(trial, chosen, cell.exposed)
    kept = None if isinstance(sheet, Failure) else _keep_scores(trial, sheet, store)
    for draft in wanted:
        record = _record(trial, chosen, draft)
        meter = Meter(dict(sheet.phases))
        if isinstance(sheet, Failure):
            found: dict[str, Any] | Failure = sheet
        else:
            with meter.during("evaluate"):
                found = attempt("evaluate", partial(_finished, record, trial, draft.case, sheet))
        told = vars(found) if isinstance(found, Failure) else {**found, "scores": kept}
        yield store.keep(record.model_copy(update={**told, "phases": meter.costs}))


def _keep_scores(trial: Trial, sheet: ScoreSheet, store: Keeper) -> ScoresPart | None:
    """Keep the scores of every test set of the run, so that all cases of a detector share one file."""
    sets = [(split, found.scores) for split in trial.tested() if isinstance(found := sheet.of(split), Scored)]
    if not sets:
        return None
    file = score_file(_table(trial, sets))
    store.keep_scores(file)
    return file.part


def _found(trial: Trial, case: Case, sheet: ScoreSheet) -> dict[Key, Scored] | Failure:
    """The scores that the case needs, or the first that are not there."""
    found: dict[Key, Scored] = {}
    for split in _used(trial, case):
        one = sheet.of(split)
        if isinstance(one, Failure):
            return replace(one, error=f"on {split.dataset} ({split.part}): {one.error}")
        found[key_of(split)] = one
    return found


def _used(trial: Trial, case: Case) -> list[Split]:
    """All splits whose scores the case needs: to choose a threshold, and to be tested."""
    return [*trial.fitting(case.exposed), *_test_sets(trial, case)]


def _finished(record: Record, trial: Trial, case: Case, sheet: ScoreSheet) -> dict[str, Any] | Failure:
    """What a finished cell adds to its record but for the file of scores, or why there is nothing."""
    found = _found(trial, case, sheet)
    if isinstance(found, Failure):
        return found
    tested = [found[key_of(split)] for split in _test_sets(trial, case)]
    seconds, count = sum(one.seconds for one in tested), sum(len(one.scores) for one in tested)
    fitting = trial.fitting(case.exposed)
    threshold = best_threshold(
        np.concatenate([found[key_of(split)].scores for split in fitting]),
        np.concatenate([trial.wrong(split) for split in fitting]),
    )
    return {
        "detector": record.detector.model_copy(update={"learnt": sheet.fitted.learnt}),
        "threshold": threshold,
        "results": _results(trial, case, found, threshold, log_odds=sheet.fitted.log_odds),
        "timing": Timing(
            fit_s=sheet.fitted.seconds,
            score_ms_per_sample=1e3 * seconds / count,
            evidence_ms_per_sample=trial.evidence_ms(sheet.needs),
        ),
    }


def _test_sets(trial: Trial, case: Case) -> list[Split]:
    return [trial.test, *(trial.unknown[name] for name in case.tested)]


def _results(
    trial: Trial, case: Case, found: Mapping[Key, Scored], threshold: float | None, *, log_odds: bool
) -> list[Result]:
    groups = trial.suite.sources()
    known, *unknown = (
        (split.dataset, Samples(found[key_of(split)].scores, trial.wrong(split))) for split in _test_sets(trial, case)
    )
    grouped = [(name, groups[name].group, samples) for name, samples in unknown]
    return results(known, grouped, threshold, trial.memo, log_odds=log_odds)


def _table(trial: Trial, sets: Sequence[tuple[Split, NDArray[np.floating]]]) -> pa.Table:
    """The scores of all test sets that could be scored."""
    codes = pa.array(np.repeat(np.arange(len(sets), dtype=np.int32), [len(scores) for _, scores in sets]))
    return pa.table({
        "dataset": pa.DictionaryArray.from_arrays(codes, pa.array([split.dataset for split, _ in sets])),
        "index": np.concatenate([split.indices for split, _ in sets]),
        "label": np.concatenate([split.labels for split, _ in sets]),
        "prediction": np.concatenate([trial.predictions(split).numpy() for split, _ in sets]),
        "score": np.concatenate([scores for _, scores in sets]),
    })  # fmt: skip


def _draft(trial: Trial, detector: DetectorPart, protocol: str, case: Case) -> Draft:
    groups = {name: source.group for name, source in trial.suite.sources().items()}
    datasets = {split.dataset: _dataset(split, groups[split.dataset]) for split in _test_sets(trial, case)}
    for split in [trial.train, *trial.fitting(case.exposed)]:
        datasets[f"{split.dataset} ({split.part})"] = _dataset(split, groups[split.dataset])
    parts: dict[str, Any] = {
        "suite": SuitePart(name=trial.suite.name, version=trial.suite.version, limit=trial.limit),
        "protocol": protocol,
        "exposed": list(case.exposed),
        "seed": trial.seed,
        "detector": detector,
        "datasets": datasets,
    }
    identity = cell_id(**parts, classifier=trial.observatory.classifier, engine=engine(), versions=versions())
    return Draft(case, identity, parts)


def _record(trial: Trial, chosen: Chosen | Broken, draft: Draft) -> Record:
    """The record of a case without its results."""
    classifier = trial.observatory.classifier
    return Record(
        identity_version=IDENTITY_VERSION,
        cell_id=draft.cell_id,
        status="ok",
        classifier=ClassifierPart(
            name=classifier.name,
            accuracy=trial.accuracy,
            weights_sha256=classifier.weights_sha256,
            normalisation=classifier.normalisation,
            penultimate=classifier.penultimate,
            code=classifier.code or None,
        ),
        results=[],
        evidence_batch=trial.observatory.batch,
        provenance=provenance(engine(), _plugins(trial, chosen, draft.parts["protocol"])),
        **draft.parts,
    )


def _plugins(trial: Trial, chosen: Chosen | Broken, protocol: str) -> list[tuple[Kind, str]]:
    """All that took part in a cell, by kind and name."""
    suite = trial.suite
    return [
        ("detectors", chosen.name),
        ("protocols", protocol),
        ("classifiers", suite.classifier),
        ("suites", suite.asked_for),
        *(("datasets", source.adapter) for source in suite.sources().values()),
    ]


def _detector(trial: Trial, chosen: Chosen | Broken) -> DetectorPart:
    version, parameters = chosen.provider.version, chosen.given
    inputs: list[Chosen] | Failure = []
    if isinstance(chosen, Chosen):
        version, parameters = chosen.version, chosen.parameters(trial.seed)
        if "scores" in chosen.plugin.needs:
            inputs = attempt("load", partial(input_detectors, chosen.name, parameters["inputs"]))
    return DetectorPart(
        name=chosen.name,
        version=version,
        params=plain(parameters, "its parameters"),
        distribution=chosen.provider.distribution,
        distribution_version=chosen.provider.version,
        given=list(chosen.given),
        inputs=[] if isinstance(inputs, Failure) else [_detector(trial, one) for one in inputs],
    )


def _dataset(split: Split, group: Literal["near", "far", "-"]) -> DatasetPart:
    return DatasetPart(
        group=group,
        adapter=split.adapter,
        split=split.origin,
        n=len(split.labels),
        sha256=split.sha256,
        source=split.source,
        available=split.available,
        official=split.official,
    )
