"""A cell: one detector under one exposure, fitted once, evaluated under every protocol that has that exposure."""

import hashlib
import json
import time
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic_core import to_jsonable_python

from oodbench.classifiers.store import Classifier
from oodbench.datasets.splits import Split
from oodbench.detectors.plugin import Detector
from oodbench.detectors.selection import Chosen
from oodbench.errors import CellSkippedError, OodbenchError, one_line
from oodbench.evaluation.metrics import metrics
from oodbench.evidence import Evidence
from oodbench.evidence.store import engine
from oodbench.protocols.case import Case
from oodbench.records.provenance import provenance
from oodbench.records.record import (
    ClassifierPart,
    DatasetPart,
    DetectorPart,
    Metric,
    Record,
    Result,
    SuitePart,
    Timing,
)
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
    fitted: Fitted | Failure = _attempt(lambda: fit(cell.chosen.plugin.build(parameters), fitting))
    scored = {} if isinstance(fitted, Failure) else _score_all(trial, cell, fitted)
    for protocol, case in cell.cases:
        record = _record(trial, cell, protocol, case, parameters)
        failure = fitted if isinstance(fitted, Failure) else _failure_on(trial, case, scored)
        if failure is not None:
            record = record.model_copy(update={"status": failure.status, "error": failure.error})
        elif isinstance(fitted, Fitted):
            record = _finished(record, trial, case, fitted, scored, out)
        write_record(out, record)
        yield record


def _score_all(trial: Trial, cell: Cell, fitted: Fitted) -> dict[str, Scored | Failure]:
    """The scores of every set that one of the cases tests, by name."""
    tested = {observed.split.dataset: observed for _, case in cell.cases for observed in _test_sets(trial, case)}
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
    record: Record, trial: Trial, case: Case, fitted: Fitted, scored: Mapping[str, Scored | Failure], out: Path
) -> Record:
    """The record with its results, after its scores are written."""
    names = [observed.split.dataset for observed in _test_sets(trial, case)]
    done = {name: found for name in names if isinstance(found := scored[name], Scored)}
    scores = {name: one.scores for name, one in done.items()}
    seconds, count = sum(one.seconds for one in done.values()), sum(len(one.scores) for one in done.values())
    return record.model_copy(
        update={
            "detector": record.detector.model_copy(update={"learnt": fitted.learnt}),
            "threshold": fitted.threshold,
            "results": _results(trial, case, scores, fitted.threshold),
            "scores": write_scores(out, record.cell_id, _table(trial, case, scores)),
            "timing": Timing(fit_s=fitted.seconds, score_ms_per_sample=1e3 * seconds / count),
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


def _results(
    trial: Trial, case: Case, scores: Mapping[str, NDArray[np.floating]], threshold: float | None
) -> list[Result]:
    known_scores, known_wrong = scores[trial.test.split.dataset], trial.test.wrong
    n_known, n_wrong = len(known_wrong), int(known_wrong.sum())
    if not case.tested:
        values = _failure(metrics(known_scores, known_wrong, threshold))
        name = trial.test.split.dataset
        return [
            Result(dataset=name, role="known", group="-", n_known=n_known, n_wrong=n_wrong, n_unknown=0, metrics=values)
        ]
    results = []
    for name in case.tested:
        together = np.concatenate([known_scores, scores[name]])
        unknown = np.arange(len(together)) >= n_known
        wrong = np.concatenate([known_wrong, np.ones(len(scores[name]), dtype=bool)])
        values = {key: Metric(value=value) for key, value in metrics(together, unknown, threshold).items()}
        results.append(
            Result(
                dataset=name,
                role="unknown",
                group=trial.suite.sources()[name].group,
                n_known=n_known,
                n_wrong=n_wrong,
                n_unknown=len(scores[name]),
                metrics=values | _failure(metrics(together, wrong, threshold)),
            )
        )
    return results


def _failure(values: Mapping[str, float | None]) -> dict[str, Metric]:
    return {f"failure_{name}": Metric(value=value) for name, value in values.items()}


def _table(trial: Trial, case: Case, scores: Mapping[str, NDArray[np.floating]]) -> pa.Table:
    sets = _test_sets(trial, case)
    names = [observed.split.dataset for observed in sets]
    sizes = [len(observed.split.labels) for observed in sets]
    codes = pa.array(np.repeat(np.arange(len(names), dtype=np.int32), sizes))
    return pa.table({
        "dataset": pa.DictionaryArray.from_arrays(codes, pa.array(names)),
        "index": np.concatenate([observed.split.indices for observed in sets]),
        "label": np.concatenate([observed.split.labels for observed in sets]),
        "prediction": np.concatenate([observed.evidence.predictions.numpy() for observed in sets]),
        "score": np.concatenate([scores[name].astype(np.float64) for name in names]),
    })  # fmt: skip


def _record(trial: Trial, cell: Cell, protocol: str, case: Case, parameters: Mapping[str, Any]) -> Record:
    """The record of a cell without its results."""
    tested = _test_sets(trial, case)
    fitted = [trial.meta, *(trial.exposed[name] for name in case.exposed)]
    datasets = {observed.split.dataset: _dataset(observed.split) for observed in tested}
    for split in [trial.train, *(observed.split for observed in fitted)]:
        datasets[f"{split.dataset} ({split.part})"] = _dataset(split)
    detector = DetectorPart(
        name=cell.chosen.plugin.name,
        version=cell.chosen.version,
        params=to_jsonable_python(dict(parameters)),
        distribution=cell.chosen.distribution,
    )
    suite = SuitePart(name=trial.suite.name, version=trial.suite.version, limit=trial.limit)
    identity = {
        "suite": suite.model_dump(),
        "groups": {name: source.group for name, source in trial.suite.sources().items()},
        "protocol": protocol,
        "exposed": case.exposed,
        "tested": case.tested,
        "seed": trial.seed,
        "detector": detector.model_dump(),
        "weights": trial.classifier.weights_sha256,
        "datasets": {name: part.sha256 for name, part in datasets.items()},
        "engine": engine(),
        "oodbench": version("oodbench"),
    }
    return Record(
        cell_id=hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16],
        status="ok",
        suite=suite,
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
        provenance=provenance(),
    )


def _dataset(split: Split) -> DatasetPart:
    return DatasetPart(
        adapter=split.adapter,
        split=split.origin,
        n=len(split.labels),
        sha256=split.sha256,
        source=split.source,
        available=split.available,
        official=split.official,
    )
