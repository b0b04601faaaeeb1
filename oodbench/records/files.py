"""Reading the files of records and scores: within limits of size, and refused where they are invalid."""

import hashlib
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import ValidationError

from oodbench.errors import MissingPrerequisiteError
from oodbench.files.bounded_io import MIB, UnreadableError, read_limited, refuse_ambiguous_json
from oodbench.records.record import Record

COLUMNS = {
    "dataset": (lambda kind: pa.types.is_string(_plain(kind)), "text without gaps"),
    "index": (pa.types.is_integer, "whole numbers without gaps"),
    "label": (pa.types.is_integer, "whole numbers without gaps"),
    "prediction": (pa.types.is_integer, "whole numbers without gaps"),
    "score": (lambda kind: kind in (pa.float32(), pa.float64()), "float32 or float64 without gaps"),
}
LARGEST_RECORD = 64 * MIB
LARGEST_SCORES = 1024 * MIB
# Rows of equal values take next to no space in a file, but their full size in memory.
MOST_SCORES = 20_000_000


PACKED = "records.jsonl"
"""The file of a published folder that has a record in each line, instead of a file for each in ``records``."""
LARGEST_PACKED = 1024 * MIB


class InvalidRecordError(Exception):
    """A record is rejected; the message says why."""


class ScoresAbsentError(InvalidRecordError):
    """The file of a record's scores is not there."""


@dataclass(frozen=True)
class ScoreSets:
    """The content of a file of scores, by test set.

    Attributes:
        sha256: Hash of the file's bytes.
        n: Number of rows.
        orders: For each test set, the hash of its indices and labels.
        sets: For each test set of n samples, labels int64 (n,), predictions int64 (n,) and scores (n,).
    """

    sha256: str
    n: int
    orders: Mapping[str, str]
    sets: Mapping[str, tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.floating]]]

    def is_labelled(self, name: str) -> bool:
        """Whether a test set is of known samples, which have labels."""
        return bool((self.sets[name][0] >= 0).all())


@dataclass(frozen=True)
class RecordFile:
    """Where a record is.

    Attributes:
        path: Its file, ``records/CELL.json``; or ``records.jsonl/CELL`` for a line of that file.
        line: The line; None for a file of its own.
    """

    path: Path
    line: bytes | None = None

    def read(self) -> Record:
        """Read the record.

        Raises:
            InvalidRecordError: It is no valid record.
        """
        return parse_record(self.path) if self.line is None else _parsed(self.line)


def record_files(folder: Path) -> list[RecordFile]:
    """All records in a results folder, or in one that was packed to be published.

    Raises:
        MissingPrerequisiteError: There are none.
    """
    files = [RecordFile(file) for file in sorted((folder / "records").glob("*.json"))]
    packed = folder / PACKED
    if packed.exists() or packed.is_symlink():
        files += packed_records(packed)
    if not files:
        raise MissingPrerequisiteError(
            f"there are no records in {folder / 'records'}; expected a results folder of `oodbench run --out`."
        )
    return files


def packed_records(file: Path) -> list[RecordFile]:
    """The records in a file ``records.jsonl``.

    Raises:
        MissingPrerequisiteError: It cannot be read.
    """
    try:
        lines = read_limited(file, LARGEST_PACKED).splitlines()
    except OSError as cause:
        raise MissingPrerequisiteError(f"the records {file} cannot be read: {cause.strerror}.") from cause
    except UnreadableError as cause:
        raise MissingPrerequisiteError(f"the file of records {file} {cause}.") from cause
    return [RecordFile(file / _cell_of(line, number), line) for number, line in enumerate(lines, start=1)]


def _cell_of(line: bytes, number: int) -> str:
    """The cell of a line of packed records, or which line it is, if it names none."""
    found = re.search(rb'"cell_id": ?"([0-9a-f]{16})"', line)
    return found[1].decode() if found else f"line {number}"


def packed(records: Iterable[Record]) -> str:
    """The content of ``records.jsonl``: a record in each line, without fields at their defaults."""
    ordered = sorted(records, key=lambda record: record.cell_id)
    return "".join(f"{record.model_dump_json(exclude_defaults=True)}\n" for record in ordered)


def parse_record(file: Path) -> Record:
    """Read a record.

    Raises:
        InvalidRecordError: The file is no valid record; the message names the first key that is wrong.
    """
    try:
        content = read_limited(file, LARGEST_RECORD)
    except OSError as cause:
        raise InvalidRecordError(f"it cannot be read: {cause.strerror}") from cause
    except UnreadableError as cause:
        raise InvalidRecordError(f"it {cause}") from cause
    return _parsed(content)


def _parsed(content: bytes) -> Record:
    try:
        record = Record.model_validate_json(content)
        refuse_ambiguous_json(content)
    except ValidationError as cause:
        first = cause.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise InvalidRecordError(f"it is no valid record: {where}: {first['msg'].lower()}") from cause
    except UnreadableError as cause:
        raise InvalidRecordError(f"it {cause}") from cause
    return record


def scores_path(scores: str, folder: Path) -> Path:
    """The path of a record's scores.

    Args:
        scores: The path that the record names.
        folder: Its results folder.

    Raises:
        InvalidRecordError: The path is invalid or outside the results folder.
    """
    try:
        path = (folder / scores).resolve()
        inside = path.is_relative_to(folder.resolve())
    except (OSError, RuntimeError, ValueError) as cause:
        raise InvalidRecordError(f"its scores are at {scores!r}, which is no path") from cause
    if not inside:
        raise InvalidRecordError(f"its scores are at {scores}, outside its results folder")
    return path


def read_own_scores(record: Record, folder: Path) -> pa.Table:
    """The scores of a record's own test sets; its file may hold those of other records, too.

    Args:
        record: A record with scores.
        folder: Its results folder.

    Raises:
        InvalidRecordError: They cannot be read, or are not those that the record names.
    """
    assert record.scores is not None
    table, sha256 = read_score_table(scores_path(record.scores.path, folder))
    if sha256 != record.scores.sha256:
        raise InvalidRecordError(
            f"its scores have the SHA-256 {sha256[:16]}…; expected {record.scores.sha256[:16]}…, so they were changed"
        )
    own = pc.is_in(table["dataset"].cast(pa.string()), value_set=pa.array(list(record.datasets)))
    return table.filter(own)


def has_same_scores(record: Record, folder: Path, other: Record, other_folder: Path) -> bool:
    """Whether two records of a cell are of the same scores, in whichever files."""
    if record.scores == other.scores:
        return True
    if record.scores is None or other.scores is None:
        return False
    try:
        mine, theirs = (
            _by_set(read_own_scores(owner, of_owner)) for owner, of_owner in ((record, folder), (other, other_folder))
        )
    except InvalidRecordError:
        return False
    return mine.keys() == theirs.keys() and all(np.array_equal(mine[name], theirs[name]) for name in mine)


def _by_set(table: pa.Table) -> dict[str, NDArray[np.floating]]:
    """The scores (n,) of each test set of a table."""
    scores = table["score"].to_numpy()
    return {name: scores[members] for name, members in _sets_of(table)}


def _sets_of(table: pa.Table) -> list[tuple[str, NDArray[np.bool_]]]:
    """The test sets of a table with their rows, in the order of their first rows."""
    names = table["dataset"].combine_chunks().cast(pa.string()).dictionary_encode()
    number = names.indices.to_numpy()
    return [(name, number == i) for i, name in enumerate(names.dictionary.to_pylist())]


def read_score_table(path: Path) -> tuple[pa.Table, str]:
    """The columns ``COLUMNS`` of a file of scores, and the SHA-256 of the file.

    Raises:
        InvalidRecordError: The file is not there, or is no file of scores.
    """
    try:
        content = read_limited(path, LARGEST_SCORES)
        table = read_parquet(content, list(COLUMNS))
    except FileNotFoundError as cause:
        raise ScoresAbsentError(f"its scores {path} are not there") from cause
    except OSError as cause:
        raise InvalidRecordError(
            f"its scores {path} cannot be read: {cause.strerror or 'the file is damaged'}"
        ) from cause
    except UnreadableError as cause:
        raise InvalidRecordError(f"the file of its scores {path} {cause}") from cause
    except (pa.ArrowException, UnicodeDecodeError, ValueError, OverflowError) as cause:
        raise InvalidRecordError(f"its scores {path} are no parquet file") from cause
    for name, (fits, expected) in COLUMNS.items():
        column = table[name]
        if not fits(column.type) or column.null_count:
            raise InvalidRecordError(
                f"its scores {path} have the column {name!r} of {column.type}; expected {expected}"
            )
    if not np.isfinite(table["score"].to_numpy()).all():
        raise InvalidRecordError(f"its scores {path} hold NaN or infinite scores")
    return table, hashlib.sha256(content).hexdigest()


def read_scores(path: Path) -> ScoreSets:
    """The scores of a file by test set.

    Raises:
        InvalidRecordError: The file is not there, or is no file of scores.
    """
    table, sha256 = read_score_table(path)
    indices, labels, predictions, scores = (
        table[name].to_numpy() for name in ("index", "label", "prediction", "score")
    )
    sets, orders = {}, {}
    for name, members in _sets_of(table):
        sets[name] = labels[members], predictions[members], scores[members]
        orders[name] = order_of(indices[members], labels[members])
    return ScoreSets(sha256, len(scores), orders, sets)


def order_of(indices: NDArray[np.integer], labels: NDArray[np.integer]) -> str:
    """The hash of the indices (n,) and labels (n,) of a test set, in the order of its scores."""
    return hashlib.sha256(np.stack([indices, labels]).astype("<i8").tobytes()).hexdigest()


def read_parquet(content: bytes, required: Sequence[str], optional: Sequence[str] = ()) -> pa.Table:
    """Some columns of a table, read within limits of size; equal names of data sets are stored once.

    Raises:
        UnreadableError: A column is missing or there twice, or the table is too large.
        ArrowException: It is no parquet file.
    """
    with pq.ParquetFile(io.BytesIO(content), read_dictionary=["dataset"]) as file:
        there = file.schema_arrow.names
        for name in required:
            if there.count(name) != 1:
                raise UnreadableError(f"lacks the column {name!r}; expected one each of {', '.join(required)}")
        if file.metadata.num_rows > MOST_SCORES:
            raise UnreadableError(f"has {file.metadata.num_rows:,} rows; expected at most {MOST_SCORES:,}")
        unpacked = sum(file.metadata.row_group(group).total_byte_size for group in range(file.metadata.num_row_groups))
        if unpacked > LARGEST_SCORES:
            raise UnreadableError(f"unpacks to {unpacked // MIB:,} MiB; expected at most {LARGEST_SCORES // MIB:,} MiB")
        return file.read(columns=[*required, *(name for name in optional if there.count(name) == 1)])


def _plain(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind
