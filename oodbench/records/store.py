"""The results folder: ``records/<cell_id>.json`` and, beside them, ``scores/<hash of content>.parquet``."""

import hashlib
import io
import logging
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol, get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from oodbench.atomic import check_folder, remove_orphans, write_atomically
from oodbench.errors import UsageError
from oodbench.journal.events import tell
from oodbench.locks import exclusively
from oodbench.records.record import Record, ScoresPart
from oodbench.records.verification import LARGEST_SCORES, InvalidError, parse, path_of, with_scores
from oodbench.untrusted import UnreadableError, read_limited

logger = logging.getLogger(__name__)

Rerun = Literal["missing", "failed", "all"]
"""Which cells are run: those without a record; those too whose record says that they failed; or all."""


@dataclass(frozen=True)
class ScoreFile:
    """A file of per-sample scores, and what records say of it."""

    part: ScoresPart
    content: bytes


class Keeper(Protocol):
    """Takes what a cell gives, as soon as it is there."""

    def keep_scores(self, scores: ScoreFile) -> None:
        """Keep per-sample scores; the records that have them come after them."""

    def keep(self, record: Record) -> Record:
        """Keep a record, and return the one that stands for its cell from now on."""
        ...


@dataclass(frozen=True)
class Store:
    """A results folder, as one run or several at once use it. A finished record is never overwritten.

    Attributes:
        out: The folder.
        rerun: Which cells are run again.
        before: The records that were there when the run began: by cell, when and where each was written.
        conflicts: Cells that were run again and gave other scores than their finished record has.
    """

    out: Path
    rerun: Rerun
    before: Mapping[str, tuple[int, int]]
    conflicts: list[str] = field(default_factory=list)

    @classmethod
    def open(cls, out: Path, rerun: Rerun = "failed") -> "Store":
        """Open it, and make it if it is not there.

        Raises:
            UsageError: It cannot be written to, or there is no such way to run again.
        """
        if rerun not in get_args(Rerun):
            raise UsageError(f"rerun is {rerun!r}; expected one of: {', '.join(get_args(Rerun))}.")
        for folder in (out, out / "records", out / "scores"):
            check_folder(folder, "the results folder", "--out")
            remove_orphans(folder)
        return cls(out, rerun, {file.stem: _state(file) for file in (out / "records").glob("*.json")})

    def finished(self, cell: str) -> Record | None:
        """The record of a cell that need not be run, if it has one."""
        record = self._kept(cell)
        if record is None:
            return None
        is_of_this_run = self.before.get(cell) != _state(self._file(cell))
        wanted_again = self.rerun == "all" or (self.rerun == "failed" and record.status == "failed")
        return None if wanted_again and not is_of_this_run else record

    def finished_of(self, cells: Sequence[str]) -> dict[str, Record]:
        """Those of some cells that need not be run, with their records."""
        found = {cell: self.finished(cell) for cell in cells}
        return {cell: record for cell, record in found.items() if record is not None}

    def claimed(self, cells: Sequence[str], *, wait: bool) -> AbstractContextManager[bool]:
        """Hold the cells of a job for this process alone."""
        name = hashlib.sha256("".join(cells).encode()).hexdigest()[:16]
        return exclusively(self.out / "records" / f"{name}.lock", wait=wait)

    def keep(self, record: Record) -> Record:
        """Write a record, unless a finished one of the same cell is there.

        Returns:
            The record that is there now.
        """
        other = self._kept(record.cell_id)
        if other is not None and other.status == "ok":
            if not self._has_same_scores(record, other):
                self.conflicts.append(record.cell_id)
            tell("record confirmed", cell_id=record.cell_id, conflicts=record.cell_id in self.conflicts)
            return other
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
        if not self._has(scores.part):
            write_atomically(self.out / scores.part.path, lambda path: Path(path).write_bytes(scores.content))

    def _file(self, cell: str) -> Path:
        return self.out / "records" / f"{cell}.json"

    def _kept(self, cell: str) -> Record | None:
        """The record of a cell, if it is whole and its scores are there; a damaged one is as good as none."""
        file = self._file(cell)
        if not file.exists():
            return None
        try:
            record = parse(file)
        except InvalidError as error:
            logger.warning("the record %s is damaged (%s); its cell is run again.", file, error)
            return None
        if record.cell_id != cell or (record.scores is not None and not self._has(record.scores)):
            logger.warning("the record %s has another cell_id or lacks its scores; its cell is run again.", file)
            return None
        return record

    def _has_same_scores(self, one: Record, other: Record) -> bool:
        """Whether two records of a cell are of the same scores; their files may hold those of other cells, too."""
        if one.status != other.status or one.scores == other.scores:
            return one.status == other.status
        try:
            ours, theirs = with_scores(self.out, [one, other])
        except InvalidError:
            return False
        return ours.samples.keys() == theirs.samples.keys() and all(
            np.array_equal(samples.scores, theirs.samples[name].scores) for name, samples in ours.samples.items()
        )

    def _has(self, scores: ScoresPart) -> bool:
        try:
            content = read_limited(path_of(scores.path, self._file("any")), LARGEST_SCORES)
        except (OSError, UnreadableError, InvalidError):
            return False
        return hashlib.sha256(content).hexdigest() == scores.sha256


def score_file(table: pa.Table) -> ScoreFile:
    """The file of a table with the columns ``dataset``, ``index``, ``label``, ``prediction``, ``score``.

    It is named by its content, so that records of equal scores share one.
    """
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
    return ScoreFile(ScoresPart(path=f"scores/{sha256[:16]}.parquet", sha256=sha256, n=table.num_rows), content)


def _state(file: Path) -> tuple[int, int]:
    """What changes whenever a file is replaced."""
    status = file.stat()
    return status.st_mtime_ns, status.st_ino
