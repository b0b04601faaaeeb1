"""Reading results in Python: records, their scores, and tables of all figures."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from oodbench.errors import MissingPrerequisiteError, UsageError
from oodbench.files.folders import RESULTS
from oodbench.records.files import (
    InvalidRecordError,
    has_same_scores,
    read_own_scores,
    record_files,
)
from oodbench.records.record import Record
from oodbench.records.scored import Rejected
from oodbench.records.verification import refuse_differences

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = pa.schema([
    ("cell_id", pa.string()),
    ("suite", pa.string()),
    ("suite_version", pa.int64()),
    ("limit", pa.int64()),
    ("protocol", pa.string()),
    ("exposed", pa.list_(pa.string())),
    ("seed", pa.int64()),
    ("detector", pa.string()),
    ("detector_version", pa.string()),
    ("parameters", pa.string()),
    ("classifier", pa.string()),
    ("accuracy", pa.float64()),
    ("weights_sha256", pa.string()),
    ("dataset", pa.string()),
    ("role", pa.string()),
    ("group", pa.string()),
    ("n_known", pa.int64()),
    ("n_wrong", pa.int64()),
    ("n_unknown", pa.int64()),
    ("metric", pa.string()),
    ("value", pa.float64()),
    ("ci_low", pa.float64()),
    ("ci_high", pa.float64()),
])  # fmt: skip
"""Columns of ``Results.to_arrow``, named as in records; ``parameters`` are those of the detector, as JSON."""


@dataclass(frozen=True, repr=False)
class Results:
    """The records of some results folders.

    Attributes:
        records: The records, each cell once, also those that failed or were skipped.
        rejected: Files that are no records, or whose cell is there already with other scores, and why.
        folders: The results folder of each record, by ``cell_id``.
    """

    records: Sequence[Record]
    rejected: Sequence[Rejected]
    folders: dict[str, Path]

    def __repr__(self) -> str:
        return f"<Results: {len(self.records)} records, {len(self.rejected)} files rejected>"

    def scores(self, record: Record) -> pa.Table:
        """Read the per-sample scores of a record.

        Args:
            record: One of ``records``.

        Returns:
            A row for each sample of its test sets: ``dataset``, ``index`` (position in the adapter's split), ``label``
            (−1 for unknown), ``prediction``, ``score``.

        Raises:
            UsageError: The record has no scores, or their file was changed.
        """
        if not isinstance(record, Record) or record.cell_id not in self.folders:
            raise UsageError("scores are those of one of these results' records.")
        if record.scores is None:
            raise UsageError(f"the record {record.cell_id} is of a cell that {record.status}, and has no scores.")
        folder = self.folders[record.cell_id]
        try:
            return read_own_scores(record, folder)
        except InvalidRecordError as cause:
            raise UsageError(f"the record {record.cell_id} in {folder}: {cause}.") from cause

    def to_arrow(self) -> pa.Table:
        """A row for each record × data set × metric, with the columns ``COLUMNS``; none for cells without results."""
        rows = [row for record in self.records for row in _rows(record)]
        return pa.Table.from_pylist(rows, schema=COLUMNS)

    def to_dataframe(self) -> "pd.DataFrame":
        """The table of ``to_arrow`` as a pandas data frame.

        Raises:
            MissingPrerequisiteError: pandas is not installed.
        """
        try:
            return self.to_arrow().to_pandas()
        except ImportError as cause:
            raise MissingPrerequisiteError(
                "data frames need pandas; install it with `pip install 'oodbench[dataframe]'`, or take to_arrow()."
            ) from cause


def read_results(*folders: str | Path) -> Results:
    """Read the records of results folders.

    Records are not verified against their scores; ``oodbench leaderboard build`` does that.

    Args:
        folders: Results folders; by default that of ``oodbench run``.

    Raises:
        MissingPrerequisiteError: A folder holds no records.
        UsageError: An argument is no path.
    """
    records: dict[str, Record] = {}
    places: dict[str, Path] = {}
    rejected = []
    for folder in map(_folder, folders or (RESULTS,)):
        for file in record_files(folder):
            try:
                record = file.read()
                _refuse_other(record, file.path, records, places)
            except InvalidRecordError as error:
                rejected.append(Rejected(file.path, str(error)))
            else:
                earlier = records.get(record.cell_id)
                if earlier is None or earlier.scores is None:
                    records[record.cell_id], places[record.cell_id] = record, folder
    return Results(list(records.values()), rejected, places)


def _folder(given: object) -> Path:
    if not isinstance(given, str | PathLike):
        raise UsageError(f"the results folder is {given!r}; expected a path, and several as arguments of their own.")
    return Path(given)


def _refuse_other(record: Record, file: Path, records: dict[str, Record], places: dict[str, Path]) -> None:
    """Refuse a record whose file is not named by its cell, or whose cell is there with other scores."""
    if file.stem != record.cell_id:
        raise InvalidRecordError(f"its cell_id is {record.cell_id}, which is not its name")
    earlier = records.get(record.cell_id)
    if earlier is None or record.scores is None or earlier.scores is None:
        return
    if not has_same_scores(record, file.parents[1], earlier, places[record.cell_id]):
        raise InvalidRecordError(f"its cell is already there from {places[record.cell_id]}, with other scores")
    try:
        refuse_differences(record.results, earlier.results, resample=True)
    except InvalidRecordError as cause:
        where = places[record.cell_id]
        raise InvalidRecordError(f"its cell is already there from {where}, with other figures: {cause}") from cause


def _rows(record: Record) -> Iterator[dict[str, Any]]:
    about = {
        "cell_id": record.cell_id,
        "suite": record.suite.name,
        "suite_version": record.suite.version,
        "limit": record.suite.limit,
        "protocol": record.protocol,
        "exposed": record.exposed,
        "seed": record.seed,
        "detector": record.detector.name,
        "detector_version": record.detector.version,
        "parameters": json.dumps(record.detector.params, sort_keys=True),
        "classifier": record.classifier.name,
        "accuracy": record.classifier.accuracy,
        "weights_sha256": record.classifier.weights_sha256,
    }
    for result in record.results:
        sizes = {
            name: getattr(result, name) for name in ("dataset", "role", "group", "n_known", "n_wrong", "n_unknown")
        }
        for name, metric in result.metrics.items():
            yield {**about, **sizes, "metric": name, **metric.model_dump()}
