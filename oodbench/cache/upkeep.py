"""Upkeep of the cache: list, verify and remove entries."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from oodbench.cache.entries import KINDS
from oodbench.cache.tensor_files import verified
from oodbench.files.atomic import remove_orphans
from oodbench.machine.progress import Track


@dataclass(frozen=True)
class CacheEntry:
    """A file of the cache.

    Attributes:
        kind: Kind of the entry.
        file: The file.
        size: Size in bytes.
        used: Time of the last write or read, in seconds since 1970.
    """

    kind: str
    file: Path
    size: int
    used: float


def cache_entries(cache: Path) -> list[CacheEntry]:
    """All entries, the least recently used first."""
    return sorted((entry for kind in KINDS for entry in _of_kind(cache, kind)), key=lambda entry: entry.used)


def discard_damaged(entries: Sequence[CacheEntry], track: Track) -> list[tuple[CacheEntry, str]]:
    """Verify entries, and remove the damaged ones.

    Returns:
        The damaged entries, with a message for each.
    """
    damaged = []
    for entry in track(entries, len(entries), "verifying the cache"):
        content = verified(entry.file)
        if isinstance(content, str) and entry.file.exists():
            entry.file.unlink(missing_ok=True)
            damaged.append((entry, content))
    return damaged


def shrink(cache: Path, max_size: int) -> list[CacheEntry]:
    """Remove the least recently used entries until the rest takes at most ``max_size`` bytes.

    A removed entry is made anew when it is needed; a run that is using it has it in memory.

    Returns:
        The removed entries.
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
    folder = cache / kind
    # Shards of entries that are not finished count, too.
    for file in (*folder.glob("*.safetensors"), *folder.glob("*.shards/*.safetensors")):
        try:
            status = file.stat()
        except FileNotFoundError:  # removed by another process meanwhile
            continue
        yield CacheEntry(kind, file, status.st_size, status.st_mtime)
