"""The results folder: ``records/<cell_id>.json`` and, beside them, ``scores/<hash of content>.parquet``."""

import hashlib
import io
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from oodbench.atomic import check_folder, write_atomically
from oodbench.records.record import Record, ScoresPart


def check_writable(out: Path) -> None:
    """Fail before anything is computed, not after.

    Raises:
        UsageError: The folder cannot be written to.
    """
    for folder in (out, out / "records", out / "scores"):
        check_folder(folder, "the results folder", "--out")


def write_scores(out: Path, table: pa.Table) -> ScoresPart:
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
    digest = hashlib.sha256(content).hexdigest()
    name = f"scores/{digest[:16]}.parquet"
    if not (out / name).exists():
        write_atomically(out / name, lambda path: Path(path).write_bytes(content))
    return ScoresPart(path=name, sha256=digest, n=table.num_rows)


def write_record(out: Path, record: Record) -> None:
    """Write one record."""
    text = record.model_dump_json(indent=1) + "\n"
    write_atomically(out / "records" / f"{record.cell_id}.json", lambda path: Path(path).write_text(text, "utf-8"))
