"""What the cache holds, whether it is whole, and what may go."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from oodbench.atomic import remove_orphans
from oodbench.cache.entries import KINDS
from oodbench.cache.tensor_files import verified
from oodbench.progress import Track


@dataclass(frozen=True)
class CacheEntry:
    """A file of the cache.

    Attributes:
        kind: What it holds.
        file: The file.
        size: Bytes.
        used: When it was last written or read, in seconds since 1970.
    """

    kind: str
    file: Path
    size: int
    used: float


def cache_entries(cache: Path) -> list[CacheEntry]:
    """All entries, the least recently used first."""
    return sorted((entry for kind in KINDS for entry in _of_kind(cache, kind)), key=lambda entry: entry.used)


def discard_damaged(entries: Sequence[CacheEntry], track: Track) -> list[tuple[CacheEntry, str]]:
    """Read entries, and remove those that are not what was written.

    Returns:
        The damaged ones, with what is wrong with each.
    """
    damaged = []
    for entry in track(entries, len(entries), "verifying the cache"):
        found = verified(entry.file)
        if isinstance(found, str) and entry.file.exists():
            entry.file.unlink(missing_ok=True)
            damaged.append((entry, found))
    return damaged


def shrink(cache: Path, max_size: int) -> list[CacheEntry]:
    """Remove entries until the others take at most so many bytes, the least recently used first.

    Whatever is removed is made anew when it is needed; a run that is using it has it in memory.
    """
    for kind in KINDS:
        remove_orphans(cache / kind)
    entries = cache_entries(cache)
    size = sum(entry.size for entry in entries)
    removed = []
    for entry in entries:
        if size <= max_size:
            break
        entry.file.unlink(missing_ok=True)
        removed.append(entry)
        size -= entry.size
    return removed


def _of_kind(cache: Path, kind: str) -> Iterator[CacheEntry]:
    for file in (cache / kind).glob("*.safetensors"):
        try:
            status = file.stat()
        except FileNotFoundError:  # removed by somebody else meanwhile
            continue
        yield CacheEntry(kind, file, status.st_size, status.st_mtime)
