"""Records with their scores to boards: a pure function, whatever is drawn of it afterwards."""

import hashlib
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

from oodbench.comparison.claims import claims
from oodbench.errors import printable
from oodbench.leaderboard.board import Board, ClassifierStamp, DatasetStamp, DetectorStamp
from oodbench.leaderboard.curves import curves, risk_curves
from oodbench.leaderboard.layers import layers, of_single_layer
from oodbench.leaderboard.merging import refuse_conflicts
from oodbench.leaderboard.tables import datasets_of, suites_of, tables
from oodbench.records.record import DatasetPart, Record
from oodbench.records.verification import Measured

# Fields of records that came after boards were published.
LATER = ("identity_version", "phase", "phases", "evidence_batch")


def boards(cells: Sequence[Measured], note: str = "", command: str = "") -> list[Board]:
    """One board for each suite and version in the records.

    Args:
        cells: Records with their scores, of complete runs, in any order.
        note: A remark of whoever publishes the boards.
        command: The command that makes them again.

    Raises:
        UsageError: Two records cannot stand on one board.
    """
    made = [_board(name, number, of_suite, note, command) for (name, number), of_suite in suites_of(cells).items()]
    return [Board.model_validate(_rounded(board.model_dump())) for board in made]


def _rounded(part: Any) -> Any:  # noqa: ANN401
    """Floats to six digits, below which processors and versions of libraries need not agree; texts to be shown."""
    match part:
        case str():
            return printable(part, keep="\n")
        case float():
            return float(f"{part:.6g}")
        case dict():
            return {key: _rounded(value) for key, value in part.items()}
        case list() | tuple():
            return [_rounded(value) for value in part]
    return part


def _board(name: str, number: int, cells: list[Measured], note: str, command: str) -> Board:
    ordered = sorted(cells, key=lambda one: one.record.cell_id)
    refuse_conflicts(ordered)
    records = [one.record for one in ordered]
    # Of single layers there are many; they answer another question than the ranking does.
    whole = [one for one in ordered if not of_single_layer(one.record)] or ordered
    unknown = {result.dataset for record in records for result in record.results if result.role == "unknown"}
    tested = [dataset for dataset in datasets_of(ordered) if dataset in unknown]
    return Board(
        suite=name,
        version=number,
        generator=version("oodbench"),
        records=len(records),
        digest=digest(records),
        seeds=tuple(sorted({record.seed for record in records})),
        note=note,
        subset=_subset(records),
        claims=tuple(claims(whole)),
        tables=tuple(tables(whole)),
        layers=layers(ordered, tested),
        curves=tuple(curves(whole, tested)),
        risks=tuple(risk_curves(whole)),
        datasets=tuple(_dataset(name, part) for name, part in _datasets(records).items()),
        classifiers=_classifiers(records),
        detectors=_detectors(records),
        made_with=_made_with(records),
        command=command,
    )


def digest(records: Sequence[Record]) -> str:
    """SHA-256 over all that the records say, in the order of their cells."""
    content = hashlib.sha256()
    for record in sorted(records, key=lambda one: one.cell_id):
        # What records of before did not say changes nothing of boards that were made of them.
        unsaid = {name for name in LATER if getattr(record, name) == Record.model_fields[name].default}
        content.update(record.model_dump_json(exclude=unsaid).encode() + b"\n")
    return content.hexdigest()


def _datasets(records: Sequence[Record]) -> dict[str, DatasetPart]:
    found: dict[str, DatasetPart] = {}
    for record in records:
        for name, part in record.datasets.items():
            found.setdefault(name, part)
    return dict(sorted(found.items(), key=lambda item: item[0]))


def _dataset(name: str, part: DatasetPart) -> DatasetStamp:
    return DatasetStamp(name=name, **part.model_dump(exclude={"group"}))


def _subset(records: Sequence[Record]) -> str:
    incomplete = {
        f"{part.adapter} ({part.split}): {part.available:,} of {part.official:,}"
        for part in _datasets(records).values()
        if part.official is not None and part.available < part.official and ":" not in part.adapter
    }
    return f"Found of the official samples: {'; '.join(sorted(incomplete))}." if incomplete else ""


def _classifiers(records: Sequence[Record]) -> tuple[ClassifierStamp, ...]:
    """All classifiers; a seed has several where records of other machines were merged."""
    found = {(record.seed, record.classifier.weights_sha256): record.classifier for record in records}
    return tuple(
        ClassifierStamp(seed=seed, name=one.name, accuracy=one.accuracy, weights_sha256=one.weights_sha256)
        for (seed, _), one in sorted(found.items())
    )


def _detectors(records: Sequence[Record]) -> tuple[DetectorStamp, ...]:
    found = {(record.detector.name, record.detector.version, record.detector.distribution) for record in records}
    return tuple(DetectorStamp(name=n, version=v, distribution=d) for n, v, d in sorted(found))


def _made_with(records: Sequence[Record]) -> tuple[str, ...]:
    return tuple(sorted({f"{key} {value}" for record in records for key, value in record.provenance.versions.items()}))
