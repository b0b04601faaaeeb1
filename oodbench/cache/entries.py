"""Entries of the cache: read if they exist, else made by a single process while others wait."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

from oodbench.cache.tensor_files import Kept, read_tensors, write_tensors
from oodbench.files.locks import exclusively

Kind = Literal["weights", "evidence"]
KINDS: tuple[Kind, ...] = get_args(Kind)


class Cache(Protocol):
    """Keeps tensors that are costly to compute."""

    def kept_or_made(self, kind: Kind, identity: Mapping[str, Any], make: Callable[[], Kept]) -> Kept:
        """The tensors and metadata of an identity, read from the cache or else computed and kept.

        Args:
            kind: Kind of the entry.
            identity: All that decides the values, as JSON values.
            make: Computes the tensors and metadata.

        Raises:
            OodbenchError: The entry cannot be written.
        """
        ...


@dataclass(frozen=True)
class DiskCache:
    """Keeps each entry in a file, named by the hash of its identity; all processes share the files.

    Attributes:
        folder: The cache folder.
    """

    folder: Path

    def kept_or_made(self, kind: Kind, identity: Mapping[str, Any], make: Callable[[], Kept]) -> Kept:
        """As ``Cache.kept_or_made``; waits for an entry that another process is making."""
        key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
        file = self.folder / kind / f"{key}.safetensors"
        kept = read_tensors(file)
        if kept is None:
            with exclusively(file.with_suffix(".lock")):
                kept = read_tensors(file)  # another process may have made it meanwhile
                if kept is None:
                    kept = make()
                    write_tensors(file, *kept)
        return kept


@dataclass(frozen=True)
class NoCache:
    """Keeps nothing; for entries that are not worth a file."""

    def kept_or_made(self, kind: Kind, identity: Mapping[str, Any], make: Callable[[], Kept]) -> Kept:
        """Compute the entry."""
        return make()
