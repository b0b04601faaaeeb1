"""The results folder: ``records/<cell_id>.json`` and, beside them, ``scores/<hash of content>.parquet``."""

import hashlib
import io
import logging
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

import pyarrow as pa
import pyarrow.parquet as pq

from oodbench.atomic import check_folder, remove_orphans, write_atomically
from oodbench.errors import UsageError
from oodbench.locks import exclusively
from oodbench.records.record import Record, ScoresPart
from oodbench.records.verification import InvalidError, parse

logger = logging.getLogger(__name__)

Rerun = Literal["missing", "failed", "all"]
"""Which cells are run: those without a record; those too whose record says that they failed; or all."""


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

    def claimed(self, name: str, *, wait: bool) -> AbstractContextManager[bool]:
        """Hold some work for this process alone."""
        return exclusively(self.out / "records" / f"{name}.lock", wait=wait)

    def keep(self, record: Record) -> Record:
        """Write a record, unless a finished one of the same cell is there.

        Returns:
            The record that is there now.
        """
        other = self._kept(record.cell_id)
        if other is not None and other.status == "ok":
            if record.status != "ok" or record.scores != other.scores:
                self.conflicts.append(record.cell_id)
            return other
        text = record.model_dump_json(indent=1) + "\n"
        write_atomically(self._file(record.cell_id), lambda path: Path(path).write_text(text, "utf-8"))
        return record

    def keep_scores(self, table: pa.Table) -> ScoresPart:
        """Write per-sample scores with the columns ``dataset``, ``index``, ``label``, ``prediction``, ``score``.

        The file is named by its content, so that records of equal scores share one.
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
        part = ScoresPart(path="", sha256=hashlib.sha256(content).hexdigest(), n=table.num_rows)
        part = part.model_copy(update={"path": f"scores/{part.sha256[:16]}.parquet"})
        if not self._has(part):
            write_atomically(self.out / part.path, lambda path: Path(path).write_bytes(content))
        return part

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

    def _has(self, scores: ScoresPart) -> bool:
        try:
            content = (self.out / scores.path).read_bytes()
        except OSError:
            return False
        return hashlib.sha256(content).hexdigest() == scores.sha256


def _state(file: Path) -> tuple[int, int]:
    """What changes whenever a file is replaced."""
    status = file.stat()
    return status.st_mtime_ns, status.st_ino
