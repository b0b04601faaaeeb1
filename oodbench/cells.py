"""A cell: one detector under one exposure, fitted once, evaluated under every protocol that has that exposure."""

import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic_core import to_jsonable_python

from oodbench.classifiers.store import Classifier
from oodbench.datasets.splits import Split
from oodbench.detectors.plugin import Detector
from oodbench.detectors.selection import Chosen
from oodbench.errors import CellSkippedError, OodbenchError, one_line
from oodbench.evidence import Evidence
from oodbench.evidence.store import engine
from oodbench.protocols.case import Case
from oodbench.records.provenance import provenance
from oodbench.records.record import (
    ClassifierPart,
    DatasetPart,
    DetectorPart,
    Record,
    Result,
    ScoresPart,
    SuitePart,
    Timing,
    identity,
)
from oodbench.records.results import Memo, Samples, results
from oodbench.records.store import write_record, write_scores
from oodbench.scoring import Fitted, Observed, fit, score
from oodbench.suites.suite import Suite


@dataclass(frozen=True)
class Trial:
    """A suite under one seed: the classifier and all evidence.

    Attributes:
        suite: The suite.
        seed: The seed.
        limit: How many samples of each split were kept, if not all.
        classifier: The trained classifier.
        train: What it was trained on.
        meta: Known samples that detectors are fitted on.
        test: Known samples that they are tested on.
        exposed: Unknown samples that they may be fitted on.
        unknown: Unknown samples that they are tested on.
        evidence_ms: Milliseconds that some parts of the evidence take for each sample.
        memo: Metrics that were computed before.
    """

    suite: Suite
    seed: int
    limit: int | None
    classifier: Classifier
    train: Split
    meta: Observed
    test: Observed
    exposed: Mapping[str, Observed]
    unknown: Mapping[str, Observed]
    evidence_ms: Callable[[tuple[str, ...]], float]
    memo: Memo = field(default_factory=dict)


@dataclass(frozen=True)
class Cell:
    """What is fitted once: a detector under an exposure, and the protocols' cases that ask for it."""

    chosen: Chosen
    exposed: tuple[str, ...]
    cases: tuple[tuple[str, Case], ...]


@dataclass(frozen=True)
class Scored:
    """Scores (N,), and the seconds they took."""

    scores: NDArray[np.floating]
    seconds: float


@dataclass(frozen=True)
class Failure:
    """Why there are no scores."""

    status: str
    error: str


def run_cell(trial: Trial, cell: Cell, out: Path) -> Iterator[Record]:
    """Fit the detector once, score each test set once, and write the records of all cases.

    A detector that fails costs its own cells only.
    """
    parameters = cell.chosen.parameters(trial.seed)
    fitting = [trial.meta, *(trial.exposed[name] for name in cell.exposed)]
    fitted: Fitted | Failure = _attempt(lambda: fit(cell.chosen.plugin, parameters, fitting))
    scored = {} if isinstance(fitted, Failure) else _score_all(trial, fitted)
    kept = write_scores(out, _table(trial, scored)) if any(isinstance(one, Scored) for one in scored.values()) else None
    for protocol, case in cell.cases:
        record = _record(trial, cell, protocol, case, parameters)
        failure = fitted if isinstance(fitted, Failure) else _failure_on(trial, case, scored)
        if failure is not None:
            record = record.model_copy(update={"status": failure.status, "error": failure.error})
        elif isinstance(fitted, Fitted) and kept is not None:
            record = _finished(record, trial, case, fitted, scored, kept)
        write_record(out, record)
        yield record


def _score_all(trial: Trial, fitted: Fitted) -> dict[str, Scored | Failure]:
    """The scores of every test set of the run, by name, so that all cases of a detector share one file of scores."""
    tested = {observed.split.dataset: observed for observed in (trial.test, *trial.unknown.values())}
    return {
        name: _attempt(partial(_timed_score, fitted.detector, observed.evidence)) for name, observed in tested.items()
    }


def _timed_score(detector: Detector, evidence: Evidence) -> Scored:
    start = time.perf_counter()
    scores = score(detector, evidence)
    return Scored(scores, time.perf_counter() - start)


def _failure_on(trial: Trial, case: Case, scored: Mapping[str, Scored | Failure]) -> Failure | None:
    """The first of the case's sets that could not be scored."""
    for observed in _test_sets(trial, case):
        found = scored[observed.split.dataset]
        if isinstance(found, Failure):
            return Failure(found.status, f"on {observed.split.dataset}: {found.error}")
    return None


def _finished(
    record: Record,
    trial: Trial,
    case: Case,
    fitted: Fitted,
    scored: Mapping[str, Scored | Failure],
    kept: ScoresPart,
) -> Record:
    """The record with its results."""
    names = [observed.split.dataset for observed in _test_sets(trial, case)]
    done = {name: found for name in names if isinstance(found := scored[name], Scored)}
    seconds, count = sum(one.seconds for one in done.values()), sum(len(one.scores) for one in done.values())
    return record.model_copy(
        update={
            "detector": record.detector.model_copy(update={"learnt": fitted.learnt}),
            "threshold": fitted.threshold,
            "results": _results(trial, case, done, fitted),
            "scores": kept,
            "timing": Timing(
                fit_s=fitted.seconds,
                score_ms_per_sample=1e3 * seconds / count,
                evidence_ms_per_sample=trial.evidence_ms(fitted.needs),
            ),
        }
    )


def _attempt(compute: Any) -> Any:  # noqa: ANN401
    """The result, or why there is none; whatever a plugin raises stays in its cell."""
    try:
        return compute()
    except CellSkippedError as skipped:
        return Failure("skipped", one_line(skipped))
    except OodbenchError as error:
        return Failure("failed", one_line(error))
    except (Exception, SystemExit) as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(place.filename).name}, line {place.lineno}"
        return Failure("failed", f"it raised {type(error).__name__}: {one_line(error)} ({where})")


def _test_sets(trial: Trial, case: Case) -> list[Observed]:
    return [trial.test, *(trial.unknown[name] for name in case.tested)]


def _results(trial: Trial, case: Case, done: Mapping[str, Scored], fitted: Fitted) -> list[Result]:
    groups = trial.suite.sources()
    known = trial.test.split.dataset
    unknown = [
        (name, groups[name].group, Samples(done[name].scores, trial.unknown[name].wrong)) for name in case.tested
    ]
    return results(
        (known, Samples(done[known].scores, trial.test.wrong)),
        unknown,
        fitted.threshold,
        trial.memo,
        log_odds=fitted.log_odds,
    )


def _table(trial: Trial, scored: Mapping[str, Scored | Failure]) -> pa.Table:
    """The scores of all test sets that could be scored."""
    sets = [
        (observed, found.scores)
        for observed in (trial.test, *trial.unknown.values())
        if isinstance(found := scored[observed.split.dataset], Scored)
    ]
    sizes = [len(scores) for _, scores in sets]
    codes = pa.array(np.repeat(np.arange(len(sets), dtype=np.int32), sizes))
    return pa.table({
        "dataset": pa.DictionaryArray.from_arrays(codes, pa.array([observed.split.dataset for observed, _ in sets])),
        "index": np.concatenate([observed.split.indices for observed, _ in sets]),
        "label": np.concatenate([observed.split.labels for observed, _ in sets]),
        "prediction": np.concatenate([observed.evidence.predictions.numpy() for observed, _ in sets]),
        "score": np.concatenate([scores for _, scores in sets]),
    })  # fmt: skip


def _record(trial: Trial, cell: Cell, protocol: str, case: Case, parameters: Mapping[str, Any]) -> Record:
    """The record of a cell without its results."""
    tested = _test_sets(trial, case)
    fitted = [trial.meta, *(trial.exposed[name] for name in case.exposed)]
    groups = {name: source.group for name, source in trial.suite.sources().items()}
    datasets = {one.split.dataset: _dataset(one.split, groups[one.split.dataset]) for one in tested}
    for split in [trial.train, *(observed.split for observed in fitted)]:
        datasets[f"{split.dataset} ({split.part})"] = _dataset(split, groups[split.dataset])
    detector = DetectorPart(
        name=cell.chosen.plugin.name,
        version=cell.chosen.version,
        params=to_jsonable_python(dict(parameters)),
        distribution=cell.chosen.distribution,
    )
    record = Record(
        cell_id="",
        status="ok",
        suite=SuitePart(name=trial.suite.name, version=trial.suite.version, limit=trial.limit),
        protocol=protocol,
        exposed=list(case.exposed),
        seed=trial.seed,
        detector=detector,
        classifier=ClassifierPart(
            name=trial.classifier.name,
            accuracy=float(1 - trial.test.wrong.mean()),
            weights_sha256=trial.classifier.weights_sha256,
        ),
        results=[],
        datasets=datasets,
        provenance=provenance(engine()),
    )
    return record.model_copy(update={"cell_id": identity(record)})


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
