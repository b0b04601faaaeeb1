"""Digests of images that were seen before: a file of the same size and times is not opened again, as in git.

What is generated in the same way is not generated again.
"""

import hashlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from oodbench.cache.tensor_files import read_tensors, write_tensors
from oodbench.datasets.decoding import Pictures

# To be raised when pictures are decoded, prepared or hashed otherwise.
VERSION = 1
# A file that was changed less than so many seconds ago may be changed again without another time.
SETTLED_S = 2.0

Stamp = tuple[int, int, int, int]
"""Size, time of change of the content and of the file's entry in nanoseconds, and number of the file."""
GENERATED: Stamp = (0, 0, 0, 0)
"""The stamp of images that are generated, as there is no file that could change."""


@dataclass(frozen=True)
class Seen:
    """What is known of a picture that was decoded.

    Attributes:
        digest: Hash of the decoded picture.
        shape: Shape of the decoded picture.
        remarks: What was converted or assumed.
    """

    digest: bytes
    shape: tuple[int, ...]
    remarks: tuple[str, ...] = ()


def stamp_of(file: Path) -> Stamp | None:
    """The stamp of a file; None if there is none, or if the file was changed just now."""
    try:
        about = os.stat(file)
    except (OSError, ValueError):
        return None
    if time.time() - max(about.st_mtime, about.st_ctime) < SETTLED_S:
        return None
    return about.st_size, about.st_mtime_ns, about.st_ctime_ns, about.st_ino


class KeptDigests:
    """The digests of the pictures of a folder, or of a set that is generated, which a file of the cache keeps.

    Args:
        file: The file; None keeps nothing beyond this process.
    """

    def __init__(self, file: Path | None) -> None:
        kept = None if file is None else read_tensors(file)
        self._file = file
        self._kept = {} if kept is None else _unpacked(kept[0]["table"].numpy())
        self._is_changed = False

    def find(self, name: str, stamp: Stamp | None) -> Seen | None:
        """What is known of a picture, if its file has this stamp still."""
        before = self._kept.get(name)
        return before[1] if before is not None and stamp is not None and before[0] == stamp else None

    def note(self, name: str, stamp: Stamp | None, seen: Seen) -> None:
        """Note what is known of a picture, whose file had this stamp before it was opened."""
        if stamp is not None and self._kept.get(name) != (stamp, seen):
            self._kept[name] = stamp, seen
            self._is_changed = True

    def write(self) -> None:
        """Keep what was noted.

        Raises:
            OodbenchError: The file cannot be written.
        """
        if self._file is not None and self._is_changed:
            write_tensors(self._file, {"table": torch.from_numpy(_packed(self._kept))}, {})
            self._is_changed = False


@dataclass(frozen=True)
class DigestStore:
    """The digests of the pictures of all folders, and of all sets that are generated.

    Attributes:
        cache: Where the cache keeps them; None keeps nothing beyond this process.
    """

    cache: Path | None = None
    _opened: dict[str, KeptDigests] = field(init=False, default_factory=dict)

    def of(self, pictures: Pictures) -> KeptDigests:
        """The digests of the folder of some pictures, as they are decoded."""
        rule = asdict(pictures.rule) | {"invert": pictures.invert}
        return self._of([os.fsencode(pictures.folder.resolve()).hex(), rule])

    def of_generated(self, made_of: str, prepared_by: Mapping[str, Any] | None) -> KeptDigests:
        """The digests of images that are generated, or of the rows of a table, by position.

        Args:
            made_of: What they follow from.
            prepared_by: The identity of the preprocessing, if digests are those of prepared images.
        """
        return self._of([made_of, prepared_by])

    def _of(self, what: Sequence[Any]) -> KeptDigests:
        identity = [VERSION, version("pillow"), *what]
        key = hashlib.sha256(json.dumps(identity).encode()).hexdigest()
        if key not in self._opened:
            self._opened[key] = KeptDigests(None if self.cache is None else self.cache / f"{key}.safetensors")
        return self._opened[key]


def _packed(kept: Mapping[str, tuple[Stamp, Seen]]) -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
    """An arrow table as bytes."""
    # Names may have bytes that are no text, which only this encoding brings back.
    names = [os.fsencode(name) for name in kept]
    columns = {
        "name": pa.array(names, pa.binary()),
        **{
            key: pa.array([stamp[i] for stamp, _ in kept.values()], pa.uint64())
            for i, key in enumerate(("size", "changed", "entry", "number"))
        },
        "digest": pa.array([seen.digest for _, seen in kept.values()], pa.binary()),
        "shape": pa.array([list(seen.shape) for _, seen in kept.values()], pa.list_(pa.int32())),
        "remarks": pa.array([list(seen.remarks) for _, seen in kept.values()], pa.list_(pa.string())),
    }
    table = pa.table(columns)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return np.frombuffer(sink.getvalue(), dtype=np.uint8).copy()


def _unpacked(content: np.ndarray[tuple[int], np.dtype[np.uint8]]) -> dict[str, tuple[Stamp, Seen]]:
    table = pa.ipc.open_stream(pa.py_buffer(content)).read_all().to_pydict()
    stamps = zip(table["size"], table["changed"], table["entry"], table["number"], strict=True)
    seen = (
        Seen(digest, tuple(shape), tuple(remarks))
        for digest, shape, remarks in zip(table["digest"], table["shape"], table["remarks"], strict=True)
    )
    return dict(zip(map(os.fsdecode, table["name"]), zip(stamps, seen, strict=True), strict=True))
