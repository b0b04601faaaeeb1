"""Reads scores from tables (CSV, parquet) and from numpy archives (.npz)."""

import math
import zipfile
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import cast

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from oodbench.errors import UsageError, listed, one_line, printable
from oodbench.files.bounded_io import MIB, UnreadableError
from oodbench.imports.openood import GROUPS
from oodbench.imports.scores import ImportedScores, ScoredSet, imported_scores, scored_set
from oodbench.records.files import MOST_SCORES, read_parquet
from oodbench.suites.schema import Group

REQUIRED = ("dataset", "label", "prediction", "score")
OPTIONAL = ("index", "group")
IN_TABLE = "its labels are from 0 on, and those of unknown sets −1"
ARRAYS = ("score", "label", "prediction", "index")
IN_ARCHIVE = "it has the arrays NAME/label and NAME/prediction"
LARGEST_UNPACKED = 1024 * MIB
MOST_ARRAYS = 10_000
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def read_csv(content: bytes, file: Path, known: str) -> ImportedScores:
    """The scores of a CSV file with a head line: dataset, label, prediction, score and, if need be, index and group.

    A row is a sample; ``label`` is −1 for unknown samples, ``prediction`` is −1 where it is not known, ``score`` is
    larger for samples that are more unknown, and ``group`` is near, far or −. Without ``index``, samples are counted in
    the order of the rows.

    Raises:
        UsageError: It holds something else.
    """
    if content.count(b"\n") > MOST_SCORES + 1:
        raise UsageError(f"{file} has more than {MOST_SCORES:,} rows; expected fewer.")
    integers = {name: pa.int64() for name in ("label", "prediction", "index")}
    texts = {name: pa.string() for name in ("dataset", "group")}
    convert = pa.csv.ConvertOptions(column_types={**integers, **texts, "score": pa.float64()}, null_values=[""])
    try:
        return _of_table(pa.csv.read_csv(BytesIO(content), convert_options=convert), file)
    except (pa.ArrowException, UnicodeDecodeError) as cause:
        raise UsageError(f"{file} is no CSV table of scores: {one_line(cause).rstrip('.')}.") from cause


def read_parquet_table(content: bytes, file: Path, known: str) -> ImportedScores:
    """The scores of a parquet file, with the columns of ``read_csv``; our own files of scores are such tables.

    Raises:
        UsageError: It holds something else.
    """
    try:
        with pq.ParquetFile(BytesIO(content)) as parquet:
            _refuse_columns(parquet.schema_arrow.names, file)
        return _of_table(read_parquet(content, REQUIRED, OPTIONAL), file)
    except UnreadableError as cause:
        raise UsageError(f"{file} {cause}.") from cause
    except (pa.ArrowException, OSError, UnicodeDecodeError, ValueError, OverflowError) as cause:
        raise UsageError(f"{file} is no parquet file; expected a whole one.") from cause


def _refuse_columns(names: Sequence[str], file: Path) -> None:
    """Refuse a table that lacks a column, or has others or one twice.

    Raises:
        UsageError: It does.
    """
    expected = f"expected {', '.join(REQUIRED)} and, if need be, {' and '.join(OPTIONAL)}, once each"
    strange = [name for name in names if name not in (*REQUIRED, *OPTIONAL) or names.count(name) > 1]
    missing = [name for name in REQUIRED if name not in names]
    if missing:
        raise UsageError(f"{file} lacks the column {missing[0]!r}; {expected}.")
    if strange:
        raise UsageError(f"{file} has the column {printable(strange[0][:100])!r}; {expected}; a seed has its own file.")


def _of_table(table: pa.Table, file: Path) -> ImportedScores:
    names = table.column_names
    _refuse_columns(names, file)
    if not table.num_rows:
        raise UsageError(f"{file} has no rows; expected one for each sample.")
    number, sets = _coded(table["dataset"], f"{file}: dataset")
    groups, kinds = (None, []) if "group" not in names else _coded(table["group"], f"{file}: group")
    columns = {name: _numbers(table[name], f"{file}: {name}") for name in names if name not in ("dataset", "group")}
    known: list[ScoredSet] = []
    unknown: list[ScoredSet] = []
    for code, name in enumerate(sets):
        members = number == code
        values = {column: of_all[members] for column, of_all in columns.items()}
        seen = [] if groups is None else [kinds[group] for group in np.unique(groups[members])]
        group = _group(seen, f"{file}: {printable(name)}")
        labels = values["label"]
        inside = int((labels == -1).sum())
        if inside not in (0, len(labels)):
            raise UsageError(
                f"{file}: {printable(name)} has {inside:,} samples of the label −1 among {len(labels):,}; expected "
                "none in the known set, and all in an unknown one."
            )
        made = scored_set(
            f"{file}: {printable(name)}", name, group, values["score"], None if inside else labels,
            values["prediction"], values.get("index"),
        )  # fmt: skip
        (unknown if inside else known).append(made)
    return imported_scores(file, known, unknown, IN_TABLE)


def _coded(column: pa.ChunkedArray, where: str) -> tuple[NDArray[np.integer], list[str]]:
    """The texts of a column, as numbers (n,) of a list."""
    plain = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if not (pa.types.is_string(plain) or pa.types.is_large_string(plain)) or column.null_count:
        raise UsageError(
            f"{where} is a column of {plain} with {column.null_count:,} gaps; expected texts without gaps."
        )
    coded = column.cast(plain).combine_chunks().dictionary_encode()
    return coded.indices.to_numpy(), coded.dictionary.to_pylist()


def _numbers(column: pa.ChunkedArray, where: str) -> NDArray[np.generic]:
    if column.null_count:
        raise UsageError(f"{where} has {column.null_count:,} gaps; expected a number in each row.")
    if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
        raise UsageError(f"{where} is a column of {column.type}; expected numbers.")
    return cast(NDArray[np.generic], column.to_numpy())


def _group(seen: Sequence[str], where: str) -> Group:
    found = [one or "-" for one in seen] or ["-"]
    of_set: Group | None = next((group for group in (*GROUPS, "-") if found == [group]), None)
    if of_set is None:
        shown = listed([printable(one[:100]) for one in found])
        raise UsageError(f"{where} is of the group {shown}; expected one of near, far and -, the same in each row.")
    return of_set


def read_npz(content: bytes, file: Path, known: str) -> ImportedScores:
    """The scores of a numpy archive with the arrays ``[GROUP/]NAME/score`` and, if need be, ``…/index``.

    The known set has ``NAME/label`` and ``NAME/prediction``, too; unknown sets may have ``…/prediction``. GROUP is near
    or far. A score is larger for samples that are more unknown.

    Raises:
        UsageError: It holds something else.
    """
    arrays = _unpacked(content, file)
    sets: dict[tuple[str, ...], dict[str, NDArray[np.generic]]] = {}
    for path, values in arrays.items():
        *place, kind = path.split("/")
        if kind not in ARRAYS or len(place) not in (1, 2) or (len(place) == 2 and place[0] not in GROUPS):
            raise UsageError(
                f"{file} has the array {printable(path[:100])!r}; expected NAME/score, near/NAME/score or "
                f"far/NAME/score, and beside them {', '.join(ARRAYS[1:])}."
            )
        sets.setdefault(tuple(place), {})[kind] = values
    found: dict[bool, list[ScoredSet]] = {True: [], False: []}
    for path_of_set, of_set in sets.items():
        where = f"{file}: {printable('/'.join(path_of_set))}"
        needed = ("score", "prediction") if "label" in of_set else ("score",)
        missing = [kind for kind in needed if kind not in of_set]
        if missing:
            raise UsageError(f"{where} has no array {missing[0]!r}; it has: {', '.join(of_set)}.")
        group = _group(path_of_set[:-1], where)
        others = (of_set.get(kind) for kind in ARRAYS[1:])
        found["label" in of_set].append(scored_set(where, path_of_set[-1], group, of_set["score"], *others))
    return imported_scores(file, found[True], found[False], IN_ARCHIVE)


def _unpacked(content: bytes, file: Path) -> Mapping[str, NDArray[np.generic]]:
    """The arrays of an archive; numbers only, and within limits of size."""
    try:
        with zipfile.ZipFile(BytesIO(content)) as archive:
            members = archive.infolist()
            unpacked = sum(member.file_size for member in members)
            if len(members) > MOST_ARRAYS or unpacked > LARGEST_UNPACKED:
                raise UsageError(
                    f"{file} has {len(members):,} arrays of {unpacked:,} bytes; expected at most {MOST_ARRAYS:,} of "
                    f"{LARGEST_UNPACKED:,}."
                )
            names = [member.filename.removesuffix(".npy") for member in members]
            twice = next((name for name in names if names.count(name) > 1), None)
            if twice is not None:
                raise UsageError(f"{file} has the array {printable(twice[:100])!r} twice; expected it once.")
            return {name: _array(archive, member) for name, member in zip(names, members, strict=True)}
    except UsageError:
        raise
    except Exception as cause:  # zipfile and numpy raise half a dozen kinds for a damaged archive
        raise UsageError(
            f"{file} is not a readable numpy archive (.npz without pickled objects): {one_line(cause).rstrip('.')}."
        ) from cause


def _array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> NDArray[np.generic]:
    with archive.open(member) as stream:
        header = _HEADERS[np.lib.format.read_magic(stream)]
        shape, _, dtype = header(stream)
        if dtype.kind not in "biuf":
            raise ValueError(f"{member.filename} has values of {dtype}, and numbers are expected")
        data = stream.read(member.file_size)
    if math.prod(shape) * dtype.itemsize != len(data) or len(shape) != 1:
        raise ValueError(f"{member.filename} has {len(data):,} bytes and the shape {shape}, and (n,) is expected")
    values = np.frombuffer(data, dtype) if data else np.empty(0, dtype)
    return values.astype(dtype.newbyteorder("="), copy=False)
