"""The results folder: ``records/<cell_id>.json`` and, beside them, ``scores/<cell_id>.parquet``."""

import hashlib
import io
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from oodbench.atomic import check_folder, write_atomically
from oodbench.errors import MissingPrerequisiteError, UsageError
from oodbench.records.record import Record, ScoresPart


def check_writable(out: Path) -> None:
    """Fail before anything is computed, not after.

    Raises:
        UsageError: The folder cannot be written to.
    """
    for folder in (out, out / "records", out / "scores"):
        check_folder(folder, "the results folder", "--out")


def write_scores(out: Path, cell_id: str, table: pa.Table) -> ScoresPart:
    """Write per-sample scores with the columns ``dataset``, ``index``, ``label``, ``prediction``, ``score``."""
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    content = buffer.getvalue()
    name = f"scores/{cell_id}.parquet"
    write_atomically(out / name, lambda path: Path(path).write_bytes(content))
    return ScoresPart(path=name, sha256=hashlib.sha256(content).hexdigest(), n=table.num_rows)


def write_record(out: Path, record: Record) -> None:
    """Write one record."""
    text = record.model_dump_json(indent=1) + "\n"
    write_atomically(out / "records" / f"{record.cell_id}.json", lambda path: Path(path).write_text(text, "utf-8"))


def read_records(folders: Iterable[Path]) -> list[Record]:
    """All records of some results folders, each cell once.

    Raises:
        MissingPrerequisiteError: A folder holds no records.
        UsageError: A file is no valid record.
    """
    records: dict[str, Record] = {}
    for folder in folders:
        files = sorted((folder / "records").glob("*.json"))
        if not files:
            raise MissingPrerequisiteError(
                f"there are no records in {folder / 'records'}; expected a results folder of `oodbench run --out`."
            )
        for file in files:
            try:
                record = Record.model_validate_json(file.read_bytes())
            except ValidationError as cause:
                first = cause.errors()[0]
                where = ".".join(str(part) for part in first["loc"]) or "the file"
                raise UsageError(f"{file} is no valid record: {where}: {first['msg'].lower()}.") from cause
            records[record.cell_id] = record
    return list(records.values())
