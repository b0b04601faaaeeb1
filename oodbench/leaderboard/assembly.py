"""Makes boards from records with their scores; a pure function, apart from how boards are drawn."""

import hashlib
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from typing import Any

from pydantic import BaseModel

from oodbench.comparison.claims import claims
from oodbench.comparison.families import families_of
from oodbench.comparison.merging import refuse_conflicts, refuse_other_samples
from oodbench.comparison.usable import suites_of
from oodbench.errors import printable
from oodbench.leaderboard.across import across
from oodbench.leaderboard.board import Board, ClassifierStamp, DatasetStamp, DetectorStamp
from oodbench.leaderboard.curves import curves, risk_curves
from oodbench.leaderboard.layers import layers, of_single_layer
from oodbench.leaderboard.tables import datasets_of, tables
from oodbench.records.record import Record, RecordedDataset
from oodbench.records.remarks import remarks_on
from oodbench.records.scored import ScoredRecord

# Fields that records, their suites, classifiers, data sets and timings got after boards had been published.
LATER = ("identity_version", "phase", "phases", "evidence_batch", "imported")
LATER_OF_SUITES = ("missing",)
LATER_OF_CLASSIFIERS = (
    "preprocessing",
    "network",
    "device",
    "precision",
    "members",
    "weights_from",
    "probe",
    "trusted",
)
LATER_OF_DATASETS = ("held_back", "left_out", "converted")
LATER_OF_TIMINGS = ("forward_ms_per_sample",)


def boards(cells: Sequence[ScoredRecord], note: str = "", command: str = "") -> list[Board]:
    """One board for each suite, version and family of classifiers in the records.

    Args:
        cells: Records with their scores, of complete runs, in any order.
        note: A remark of their publisher.
        command: The command that makes them again.

    Raises:
        UsageError: Two records cannot stand on one board.
    """
    made = [board for of_suite in suites_of(cells).values() for board in _boards(of_suite, note, command)]
    return [Board.model_validate(_rounded(board.model_dump())) for board in made]


def _rounded(content: Any) -> Any:  # noqa: ANN401
    """Floats rounded to six digits, beyond which processors and library versions may differ; texts made printable."""
    match content:
        case str():
            return printable(content, keep="\n")
        case float():
            return float(f"{content:.6g}")
        case dict():
            return {key: _rounded(value) for key, value in content.items()}
        case list() | tuple():
            return [_rounded(value) for value in content]
    return content


def _boards(cells: list[ScoredRecord], note: str, command: str) -> list[Board]:
    """The boards of one suite; the first of several has all their classifiers side by side."""
    refuse_other_samples([scored.record for scored in _ordered(cells)])
    families = {family: _ordered(own) for family, own in families_of(cells).items()}
    made = [_board(own, note, command) for own in families.values()]
    if len(made) == 1:
        return made
    named = [board.model_copy(update={"classifier": family}) for family, board in zip(families, made, strict=True)]
    return [named[0].model_copy(update={"across": across(families)}), *named[1:]]


def digests(cells: Sequence[ScoredRecord]) -> list[str]:
    """The digests of the boards that ``boards`` makes of these records, whose scores it does not take."""
    groups = [own for of_suite in suites_of(cells).values() for own in families_of(of_suite).values()]
    return [digest([scored.record for scored in own]) for own in groups]


def _ordered(cells: Iterable[ScoredRecord]) -> list[ScoredRecord]:
    return sorted(cells, key=lambda scored: scored.record.cell_id)


def _board(ordered: list[ScoredRecord], note: str, command: str) -> Board:
    refuse_conflicts(ordered)
    records = [scored.record for scored in ordered]
    # Gradient metrics of single layers are no detectors of the ranking; they have a table of their own.
    whole = [scored for scored in ordered if not of_single_layer(scored.record)] or ordered
    unknown = {result.dataset for record in records for result in record.results if result.role == "unknown"}
    tested = [dataset for dataset in datasets_of(ordered) if dataset in unknown]
    return Board(
        suite=records[0].suite.name,
        version=records[0].suite.version,
        generator=version("oodbench"),
        records=len(records),
        digest=digest(records),
        seeds=tuple(sorted({record.seed for record in records})),
        note=note,
        subset=_subset(records),
        remarks=tuple(remarks_on(records)),
        claims=tuple(claims(whole)),
        tables=tuple(tables(whole)),
        layers=layers(ordered, tested),
        curves=tuple(curves(whole, tested)),
        risks=tuple(risk_curves(whole)),
        datasets=tuple(_dataset(name, dataset) for name, dataset in _datasets(records).items()),
        classifiers=_classifiers(records),
        detectors=_detectors(records),
        made_with=_made_with(records),
        command=command,
    )


def digest(records: Sequence[Record]) -> str:
    """SHA-256 over the content of the records, in the order of their ``cell_id``."""
    content = hashlib.sha256()
    for record in sorted(records, key=lambda record: record.cell_id):
        # Later fields at their defaults are left out, so that boards of older records keep their digest.
        unsaid: dict[str, Any] = _at_defaults(record, LATER)
        unsaid["suite"] = _at_defaults(record.suite, LATER_OF_SUITES)
        unsaid["classifier"] = _at_defaults(record.classifier, LATER_OF_CLASSIFIERS)
        if record.timing is not None:
            unsaid["timing"] = _at_defaults(record.timing, LATER_OF_TIMINGS)
        unsaid["datasets"] = {
            name: _at_defaults(dataset, LATER_OF_DATASETS) for name, dataset in record.datasets.items()
        }
        content.update(record.model_dump_json(exclude=unsaid).encode() + b"\n")
    return content.hexdigest()


def _at_defaults(part: BaseModel, names: Sequence[str]) -> dict[str, bool]:
    """Those of some fields that are at their defaults, to be excluded."""
    fields = type(part).model_fields
    return {name: True for name in names if getattr(part, name) == fields[name].default}


def _datasets(records: Sequence[Record]) -> dict[str, RecordedDataset]:
    datasets: dict[str, RecordedDataset] = {}
    for record in records:
        for name, dataset in record.datasets.items():
            datasets.setdefault(name, dataset)
    return dict(sorted(datasets.items(), key=lambda item: item[0]))


def _dataset(name: str, dataset: RecordedDataset) -> DatasetStamp:
    return DatasetStamp(name=name, **dataset.model_dump(exclude={"group", *LATER_OF_DATASETS}))


def _subset(records: Sequence[Record]) -> str:
    """Which sets of the suite are absent or partial: a sentence for each kind, if there are any."""
    datasets = _datasets(records)
    absent = sorted({name for record in records for name in record.suite.missing} - datasets.keys())
    partial = {
        f"{_called(name, dataset)} ({dataset.split}): {dataset.available:,} of {dataset.official:,}"
        for name, dataset in datasets.items()
        if dataset.official is not None and dataset.available < dataset.official and ":" not in dataset.adapter
    }
    sentences = [f"Absent sets of the suite: {', '.join(absent)}."] if absent else []
    sentences += [f"Found of the official samples: {'; '.join(sorted(partial))}."] if partial else []
    return " ".join(sentences)


def _called(name: str, dataset: RecordedDataset) -> str:
    """What a data set is called by its official number: its adapter, unless that reads whatever is listed."""
    return name.partition(" (")[0] if dataset.adapter == "imagelist" else dataset.adapter


def _classifiers(records: Sequence[Record]) -> tuple[ClassifierStamp, ...]:
    """All classifiers; a seed has several where records of several machines were merged."""
    classifiers = {
        # Of imported scores the weights are not known, and other networks have other accuracies.
        (record.seed, record.classifier.weights_sha256 or f" {record.classifier.accuracy}"): record.classifier
        for record in records
    }
    return tuple(
        ClassifierStamp(
            seed=seed, name=classifier.name, accuracy=classifier.accuracy, weights_sha256=classifier.weights_sha256
        )
        for (seed, _), classifier in sorted(classifiers.items())
    )


def _detectors(records: Sequence[Record]) -> tuple[DetectorStamp, ...]:
    detectors = {(record.detector.name, record.detector.version, record.detector.distribution) for record in records}
    return tuple(DetectorStamp(name=n, version=v, distribution=d) for n, v, d in sorted(detectors))


def _made_with(records: Sequence[Record]) -> tuple[str, ...]:
    return tuple(sorted({f"{key} {value}" for record in records for key, value in record.provenance.versions.items()}))
