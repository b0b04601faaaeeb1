"""The results folder: ``records/<cell_id>.json`` and, beside them, ``scores/<hash of content>.parquet``."""

import hashlib
import io
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Literal, NamedTuple, Protocol, get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from oodbench.errors import UsageError
from oodbench.files.atomic import check_folder, remove_orphans, write_atomically
from oodbench.files.bounded_io import UnreadableError, read_limited
from oodbench.files.locks import exclusively
from oodbench.journal.events import tell
from oodbench.records.files import LARGEST_SCORES, InvalidRecordError, has_same_scores, parse_record, scores_path
from oodbench.records.record import Record, RecordedScores

logger = logging.getLogger(__name__)

Rerun = Literal["missing", "failed", "all"]
"""Which cells are run: those without a record (``missing``), also those that failed (``failed``), or ``all``."""


@dataclass(frozen=True)
class ScoreFile:
    """The content of a file of per-sample scores, and the reference to it in records."""

    recorded: RecordedScores
    content: bytes


class Keeper(Protocol):
    """Keeps records and scores as soon as they are made."""

    def keep_scores(self, scores: ScoreFile) -> None:
        """Keep per-sample scores; called before the records that refer to them are kept."""

    def keep(self, record: Record) -> Record:
        """Keep a record, and return the record that its cell has from now on."""
        ...


@dataclass(frozen=True)
class Store:
    """A results folder, which several runs may use at once. A finished record is never overwritten.

    Attributes:
        out: The folder.
        rerun: Which cells are run again.
        before: The records that were there when the run began: by cell, time of change and inode of the file.
        conflicts: Cells that were run again and gave other scores than their finished record has.
    """

    out: Path
    rerun: Rerun
    before: Mapping[str, tuple[int, int]]
    conflicts: list[str] = field(default_factory=list)

    @classmethod
    def open(cls, out: Path, rerun: Rerun = "failed") -> "Store":
        """Open a results folder, and make it if it is not there.

        Raises:
            UsageError: The folder cannot be written to, or ``rerun`` is none of its values.
        """
        if rerun not in get_args(Rerun):
            raise UsageError(f"rerun is {rerun!r}; expected one of: {', '.join(get_args(Rerun))}.")
        for folder in (out, out / "records", out / "scores"):
            check_folder(folder, "the results folder", "--out")
            remove_orphans(folder)
        return cls(out, rerun, {file.stem: _state(file) for file in (out / "records").glob("*.json")})

    def finished_of(self, cells: Sequence[str]) -> dict[str, Record]:
        """The records of those cells that need not be run, by cell."""
        has = cache(self._has)  # as cells share files of scores
        records = {cell: self._finished(cell, has) for cell in cells}
        return {cell: record for cell, record in records.items() if record is not None}

    def _finished(self, cell: str, has: Callable[[RecordedScores], bool]) -> Record | None:
        record = self._kept(cell, has)
        if record is None:
            return None
        is_of_this_run = self.before.get(cell) != _state(self._file(cell))
        wanted_again = self.rerun == "all" or (self.rerun == "failed" and record.status == "failed")
        return None if wanted_again and not is_of_this_run else record

    def claimed(self, cells: Sequence[str], *, wait: bool) -> AbstractContextManager[bool]:
        """Lock the cells of a job for this process.

        Args:
            cells: The cells of the job.
            wait: Whether to wait until another process has released them.
        """
        name = hashlib.sha256("".join(cells).encode()).hexdigest()[:16]
        return exclusively(self.out / "records" / f"{name}.lock", wait=wait)

    def keep(self, record: Record) -> Record:
        """Write a record, unless a finished record of the same cell is there.

        Returns:
            The record that is in the folder now.
        """
        kept = self._kept(record.cell_id, self._has)
        if kept is not None and kept.status == "ok":
            # Their files may differ in scores of other cells.
            if record.status != kept.status or not has_same_scores(record, self.out, kept, self.out):
                self.conflicts.append(record.cell_id)
            tell("record confirmed", cell_id=record.cell_id, conflicts=record.cell_id in self.conflicts)
            return kept
        text = record.model_dump_json(indent=1) + "\n"
        write_atomically(self._file(record.cell_id), lambda path: Path(path).write_text(text, "utf-8"))
        tell(
            "record kept",
            cell_id=record.cell_id,
            seed=record.seed,
            detector=record.detector.name,
            protocol=record.protocol,
            exposed=record.exposed,
            status=record.status,
            phase=record.phase,
            error=record.error,
        )
        return record

    def keep_scores(self, scores: ScoreFile) -> None:
        """Write per-sample scores, unless they are there."""
        if not self._has(scores.recorded):
            write_atomically(self.out / scores.recorded.path, lambda path: Path(path).write_bytes(scores.content))

    def _file(self, cell: str) -> Path:
        return self.out / "records" / f"{cell}.json"

    def _kept(self, cell: str, has: Callable[[RecordedScores], bool]) -> Record | None:
        """The record of a cell; None if there is none, or if it is damaged or lacks its scores.

        Args:
            cell: The cell.
            has: Whether a file of scores is there and intact.
        """
        file = self._file(cell)
        if not file.exists():
            return None
        try:
            record = parse_record(file)
        except InvalidRecordError as error:
            logger.warning("the record %s is damaged (%s); its cell is run again.", file, error)
            return None
        if record.cell_id != cell or (record.scores is not None and not has(record.scores)):
            logger.warning("the record %s has another cell_id or lacks its scores; its cell is run again.", file)
            return None
        return record

    def _has(self, scores: RecordedScores) -> bool:
        try:
            content = read_limited(scores_path(scores.path, self.out), LARGEST_SCORES)
        except (OSError, UnreadableError, InvalidRecordError):
            return False
        return hashlib.sha256(content).hexdigest() == scores.sha256


class SetScores(NamedTuple):
    """The scores of n samples of a test set, with their positions, labels and predictions, (n,) each."""

    name: str
    indices: NDArray[np.int64]
    labels: NDArray[np.int64]
    predictions: NDArray[np.int64]
    scores: NDArray[np.floating]


def score_file(sets: Sequence[SetScores]) -> ScoreFile:
    """Encode the scores of some test sets as a file.

    The file is named by its content, so that records with equal scores share it.
    """
    codes = pa.array(np.repeat(np.arange(len(sets), dtype=np.int32), [len(one.scores) for one in sets]))
    table = pa.table({
        "dataset": pa.DictionaryArray.from_arrays(codes, pa.array([one.name for one in sets])),
        "index": np.concatenate([one.indices for one in sets]),
        "label": np.concatenate([one.labels for one in sets]),
        "prediction": np.concatenate([one.predictions for one in sets]),
        "score": np.concatenate([one.scores for one in sets]),
    })  # fmt: skip
    buffer = io.BytesIO()
    pq.write_table(
        table,
        buffer,
        compression="zstd",
        use_dictionary=["dataset", "label", "prediction"],
        column_encoding={"index": "DELTA_BINARY_PACKED", "score": "BYTE_STREAM_SPLIT"},
    )
    content = buffer.getvalue()
    sha256 = hashlib.sha256(content).hexdigest()
    return ScoreFile(RecordedScores(path=f"scores/{sha256[:16]}.parquet", sha256=sha256, n=table.num_rows), content)


def _state(file: Path) -> tuple[int, int]:
    """Time of change and inode of a file, which change whenever the file is replaced."""
    status = file.stat()
    return status.st_mtime_ns, status.st_ino
