"""Whether a record says what its scores say: what anyone who publishes or merges records wants to know."""

import hashlib
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import ValidationError

from oodbench.errors import MissingPrerequisiteError, printable
from oodbench.progress import Track, silent
from oodbench.records.record import Metric, Record, Result, identity
from oodbench.records.results import CALIBRATED, Memo, Samples, results
from oodbench.untrusted import MIB, UnreadableError, read_limited, refuse_ambiguous_json

COLUMNS = {
    "dataset": (lambda kind: pa.types.is_string(_plain(kind)), "text without gaps"),
    "index": (pa.types.is_integer, "whole numbers without gaps"),
    "label": (pa.types.is_integer, "whole numbers without gaps"),
    "prediction": (pa.types.is_integer, "whole numbers without gaps"),
    "score": (lambda kind: kind in (pa.float32(), pa.float64()), "float32 or float64 without gaps"),
}
# The two ways to sweep resamples agree to float32 accuracy; whoever edits a figure by less changes none on a board.
TOLERANCE = 1e-6
LARGEST_RECORD = 64 * MIB
LARGEST_SCORES = 1024 * MIB
# Rows of equal values take next to nothing in a file, and all of their size in memory.
MOST_SCORES = 20_000_000


@dataclass(frozen=True)
class Measured:
    """A record with the scores that it follows from.

    Attributes:
        record: The record.
        file: The record's file.
        samples: Its test sets by name, the known one first; empty where the cell has no results.
    """

    record: Record
    file: Path
    samples: Mapping[str, Samples]


@dataclass(frozen=True)
class Rejected:
    """A file that is no record, or says what its scores do not say.

    Attributes:
        file: The file.
        reason: What is wrong with it, without a full stop.
    """

    file: Path
    reason: str

    def __str__(self) -> str:
        return printable(f"{self.file}: {self.reason}.")


def _plain(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


class InvalidError(Exception):
    """Why a record is rejected."""


@dataclass(frozen=True)
class _ScoreFile:
    """A file of scores.

    Attributes:
        sha256: Hash of its bytes.
        n: Number of rows.
        orders: Of each test set the hash of its indices and labels.
        sets: Of each test set the labels (n,), predictions (n,) and scores (n,).
    """

    sha256: str
    n: int
    orders: Mapping[str, str]
    sets: Mapping[str, tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.floating]]]


def read_measured(
    folders: Iterable[Path], track: Track = silent, *, resample: bool = True
) -> tuple[list[Measured], list[Rejected]]:
    """The records of some results folders, each cell once, with their scores; and what had to be left out.

    Args:
        folders: Results folders.
        track: Shows progress.
        resample: Whether the intervals that come from resampling are computed again too, which takes as long as it took
            in the run. All else is computed again from the scores and compared in any case.

    Raises:
        MissingPrerequisiteError: A folder holds no records.
    """
    measured: dict[str, Measured] = {}
    rejected: list[Rejected] = []
    scores: dict[Path, _ScoreFile] = {}
    memo: Memo = {}
    orders: dict[str, tuple[str, Path]] = {}
    files = [file for folder in folders for file in _by_seed(record_files(folder))]
    for file in track(files, len(files), "verifying records"):
        try:
            one = _measured(file, scores, memo, resample=resample)
            _refuse_other_order(one, scores, orders)
        except InvalidError as error:
            rejected.append(Rejected(file, str(error)))
        else:
            other = measured.setdefault(one.record.cell_id, one)
            mine, theirs = one.record.scores, other.record.scores
            if mine is not None and theirs is None:
                measured[one.record.cell_id] = one
            elif mine is not None and theirs is not None and mine.sha256 != theirs.sha256:
                rejected.append(Rejected(file, f"its cell is already there from {other.file}, with other scores"))
    return list(measured.values()), rejected


def with_scores(folder: Path, records: Iterable[Record]) -> list[Measured]:
    """Records that were just made, with the scores that were just written."""
    files: dict[Path, _ScoreFile] = {}
    return [_with_scores(record, folder / "records" / f"{record.cell_id}.json", files) for record in records]


def record_files(folder: Path) -> list[Path]:
    """The files of a results folder's records.

    Raises:
        MissingPrerequisiteError: There are none.
    """
    files = sorted((folder / "records").glob("*.json"))
    if not files:
        raise MissingPrerequisiteError(
            f"there are no records in {folder / 'records'}; expected a results folder of `oodbench run --out`."
        )
    return files


def _by_seed(files: list[Path]) -> list[Path]:
    """Files of one seed after the other: they share their resamples, which are costly to draw again."""

    def seed(file: Path) -> int:
        try:
            return parse(file).seed
        except InvalidError:
            return -1

    return sorted(files, key=seed)


def _measured(file: Path, files: dict[Path, _ScoreFile], memo: Memo, *, resample: bool) -> Measured:
    record = parse(file)
    try:
        expected = identity(record)
    except KeyError as cause:
        raise InvalidError(f"it lacks the version of {cause.args[0]}") from cause
    if expected != record.cell_id or file.stem != record.cell_id:
        raise InvalidError(
            f"its name and cell_id are {file.stem} and {record.cell_id}, and what it says of suite, detector, weights, "
            f"data and versions gives {expected}, so one of them was changed"
        )
    measured = _with_scores(record, file, files)
    if record.status == "ok":
        _refuse_differences(record.results, _results_again(measured, memo, resample=resample), resample=resample)
    return measured


def _refuse_other_order(measured: Measured, files: dict[Path, _ScoreFile], orders: dict[str, tuple[str, Path]]) -> None:
    """Samples are paired by their place in the file: all files have the same samples of a data set at the same places.

    Raises:
        InvalidError: This record's file has others.
    """
    record = measured.record
    if record.scores is None:
        return
    file = files[path_of(record.scores.path, measured.file)]
    for name in measured.samples:
        digest = file.orders[name]
        first, where = orders.setdefault(f"{record.suite.name} {record.datasets[name].sha256}", (digest, measured.file))
        if first != digest:
            raise InvalidError(f"its samples of {name} have another order or other labels than those of {where}")


def _with_scores(record: Record, file: Path, files: dict[Path, _ScoreFile]) -> Measured:
    if record.status != "ok":
        if record.results or record.scores is not None:
            raise InvalidError(f"it is of a cell that {record.status}, and has results or scores")
        return Measured(record, file, {})
    if record.scores is None:
        raise InvalidError("it has results and names no scores")
    path = path_of(record.scores.path, file)
    if path not in files:
        files[path] = _read_scores(path)
    return Measured(record, file, _samples(record, files[path]))


def path_of(scores: str, file: Path) -> Path:
    """Where a record's scores are.

    Raises:
        InvalidError: Outside the results folder, or nowhere.
    """
    folder = file.parents[1]
    try:
        path = (folder / scores).resolve()
        inside = path.is_relative_to(folder.resolve())
    except (OSError, RuntimeError, ValueError) as cause:
        raise InvalidError(f"its scores are at {scores!r}, which is no path") from cause
    if not inside:
        raise InvalidError(f"its scores are at {scores}, outside its results folder")
    return path


def _results_again(measured: Measured, memo: Memo, *, resample: bool) -> list[Result]:
    record, (known, *_) = measured.record, measured.samples
    unknown = [(name, record.datasets[name].group, samples) for name, samples in measured.samples.items()][1:]
    stated = any(CALIBRATED in result.metrics for result in record.results)
    base = known, measured.samples[known]
    return results(base, unknown, record.threshold, memo, log_odds=stated, resample=resample)


def parse(file: Path) -> Record:
    """One record.

    Raises:
        InvalidError: The file is none; the sentence names the first key that is wrong.
    """
    try:
        content = read_limited(file, LARGEST_RECORD)
        record = Record.model_validate_json(content)
        refuse_ambiguous_json(content)
    except ValidationError as cause:
        first = cause.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise InvalidError(f"it is no valid record: {where}: {first['msg'].lower()}") from cause
    except OSError as cause:
        raise InvalidError(f"it cannot be read: {cause.strerror}") from cause
    except UnreadableError as cause:
        raise InvalidError(f"it {cause}") from cause
    return record


def _read_scores(path: Path) -> _ScoreFile:
    try:
        content = read_limited(path, LARGEST_SCORES)
        table = _read_table(content)
    except OSError as cause:
        raise InvalidError(f"its scores {path} cannot be read: {cause.strerror or 'the file is damaged'}") from cause
    except UnreadableError as cause:
        raise InvalidError(f"the file of its scores {path} {cause}") from cause
    except (pa.ArrowException, UnicodeDecodeError, ValueError, OverflowError) as cause:
        raise InvalidError(f"its scores {path} are no parquet file") from cause
    for name, (fits, expected) in COLUMNS.items():
        column = table[name]
        if not fits(column.type) or column.null_count:
            raise InvalidError(f"its scores {path} have the column {name!r} of {column.type}; expected {expected}")
    names = np.asarray(table["dataset"].cast(pa.string()).to_pylist(), dtype=object)
    indices, labels, predictions, scores = (
        table[name].to_numpy() for name in ("index", "label", "prediction", "score")
    )
    if not np.isfinite(scores).all():
        raise InvalidError(f"its scores {path} hold NaN or infinite scores")
    sets, orders = {}, {}
    for name in dict.fromkeys(names):
        members = names == name
        sets[name] = labels[members], predictions[members], scores[members]
        order = np.stack([indices[members], labels[members]]).astype("<i8")
        orders[name] = hashlib.sha256(order.tobytes()).hexdigest()
    return _ScoreFile(hashlib.sha256(content).hexdigest(), len(names), orders, sets)


def _read_table(content: bytes) -> pa.Table:
    """The columns of a file of scores, of no more rows than there can be, and equal names kept once."""
    with pq.ParquetFile(io.BytesIO(content), read_dictionary=["dataset"]) as file:
        for name in COLUMNS:
            if file.schema_arrow.names.count(name) != 1:
                raise UnreadableError(f"lacks the column {name!r}; expected one each of {', '.join(COLUMNS)}")
        if file.metadata.num_rows > MOST_SCORES:
            raise UnreadableError(f"has {file.metadata.num_rows:,} rows; expected at most {MOST_SCORES:,}")
        unpacked = sum(file.metadata.row_group(group).total_byte_size for group in range(file.metadata.num_row_groups))
        if unpacked > LARGEST_SCORES:
            raise UnreadableError(f"unpacks to {unpacked // MIB:,} MiB; expected at most {LARGEST_SCORES // MIB:,} MiB")
        return file.read(columns=list(COLUMNS))


def _samples(record: Record, file: _ScoreFile) -> dict[str, Samples]:
    """The samples of the record's test sets, the known one first."""
    if record.scores is None or (record.scores.sha256, record.scores.n) != (file.sha256, file.n):
        raise InvalidError("the SHA-256 of its scores is not that of the file, so one of them was changed")
    known = [name for name, (labels, _, _) in file.sets.items() if (labels >= 0).all()]
    if len(known) != 1:
        raise InvalidError(f"its scores hold {len(known)} sets with labels; expected one, the known test split")
    samples = {}
    tested = [name for name in record.datasets if name in file.sets]
    for name in dict.fromkeys([*known, *tested, *(result.dataset for result in record.results)]):
        if name not in tested:
            raise InvalidError(f"its scores or its data sets lack {name}, which it has results of")
        labels, predictions, scores = file.sets[name]
        if record.datasets[name].n != len(scores):
            raise InvalidError(f"of {name} it has {len(scores)} scores; expected {record.datasets[name].n}")
        samples[name] = Samples(scores, predictions != labels)
    if not abs(1 - samples[known[0]].wrong.mean() - record.classifier.accuracy) <= TOLERANCE:
        raise InvalidError(
            f"the classifier's accuracy is {record.classifier.accuracy}, and its predictions give "
            f"{1 - samples[known[0]].wrong.mean():.6f}"
        )
    return samples


def _refuse_differences(stated: list[Result], expected: list[Result], *, resample: bool) -> None:
    """Compare what a record states with what its scores give.

    Raises:
        InvalidError: Names the first difference.
    """
    if len(stated) != len(expected):
        raise InvalidError(f"it has {len(stated)} results; expected {len(expected)}")
    for one, other in zip(stated, expected, strict=True):
        counts = ("dataset", "role", "group", "n_known", "n_wrong", "n_unknown")
        for key in counts:
            if getattr(one, key) != getattr(other, key):
                raise InvalidError(
                    f"{one.dataset}: {key} is {getattr(one, key)}, and its scores give {getattr(other, key)}"
                )
        if one.metrics.keys() != other.metrics.keys():
            strange = sorted(one.metrics.keys() ^ other.metrics.keys())
            raise InvalidError(f"{one.dataset}: it lacks or adds the metric {strange[0]}")
        for name, metric in one.metrics.items():
            _refuse_other(f"{one.dataset}: {name}", metric, other.metrics[name], resample=resample)


def _refuse_other(what: str, stated: Metric, expected: Metric, *, resample: bool) -> None:
    resampled = not resample and expected.ci_low is None
    for key in ("value",) if resampled else ("value", "ci_low", "ci_high"):
        one, other = getattr(stated, key), getattr(expected, key)
        if (one is None) != (other is None) or (one is not None and not abs(one - other) <= TOLERANCE):
            raise InvalidError(f"{what}.{key} is {one}, and its scores give {other}")
