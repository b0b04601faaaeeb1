"""Entries of the cache: read if they exist, else made by a single process while others wait."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, get_args

from oodbench.cache.identities import Identity, entry_file, variants
from oodbench.cache.shards import Sharding, kept_in_shards
from oodbench.cache.tensor_files import Kept, joined, read_tensors, write_tensors
from oodbench.errors import UsageError
from oodbench.files.atomic import remove_orphans
from oodbench.files.locks import exclusively

Kind = Literal["weights", "evidence", "networks", "digests", "samples"]
KINDS: tuple[Kind, ...] = get_args(Kind)


class Cache(Protocol):
    """Keeps tensors that are costly to compute."""

    def kept_or_made(self, kind: Kind, identity: Identity, make: Callable[[], Kept]) -> Kept:
        """The tensors and metadata of an identity, read from the cache or else computed and kept.

        Args:
            kind: Kind of the entry.
            identity: All that decides the values, as JSON values.
            make: Computes the tensors and metadata.

        Raises:
            OodbenchError: The entry cannot be written.
        """
        ...

    def kept_in_shards(self, kind: Kind, identities: Mapping[str, Identity], sharding: Sharding) -> dict[str, Kept]:
        """As ``oodbench.cache.shards.kept_in_shards``, for entries of a kind."""
        ...


@dataclass(frozen=True)
class DiskCache:
    """Keeps each entry in a file, named by the hash of its identity; all processes share the files.

    Attributes:
        folder: The cache folder.
    """

    folder: Path

    def kept_or_made(self, kind: Kind, identity: Identity, make: Callable[[], Kept]) -> Kept:
        """As ``Cache.kept_or_made``; waits for an entry that another process is making."""
        file = entry_file(self.folder / kind, identity)
        kept = read_tensors(file)
        if kept is None:
            with exclusively(file.with_suffix(".lock")):
                kept = read_tensors(file)  # another process may have made it meanwhile
                if kept is None:
                    kept = make()
                    remove_orphans(file.parent)  # such as that of a process that was killed while it wrote this one
                    write_tensors(file, *kept)
        return kept

    def kept_in_shards(self, kind: Kind, identities: Mapping[str, Identity], sharding: Sharding) -> dict[str, Kept]:
        """As ``Cache.kept_in_shards``."""
        return kept_in_shards(self.folder / kind, identities, sharding)


@dataclass(frozen=True)
class NoCache:
    """Keeps nothing; for entries that are not worth a file."""

    def kept_or_made(self, kind: Kind, identity: Identity, make: Callable[[], Kept]) -> Kept:
        """Compute the entry."""
        return make()

    def kept_in_shards(self, kind: Kind, identities: Mapping[str, Identity], sharding: Sharding) -> dict[str, Kept]:
        """Compute the entries."""
        shards = [made for _, made in sharding.make([(shard, list(identities)) for shard in range(sharding.shards)])]
        return {name: joined([of_entries[name] for of_entries in shards]) for name in identities}


def kept_of_same_network(
    cache: Cache,
    kind: Kind,
    identity: Identity,
    make: Callable[[], Kept],
    is_same: Callable[[Kept], bool],
) -> tuple[Kept, int]:
    """As ``Cache.kept_or_made``, where networks that compute something else may share an identity.

    Each such network has entries of its own: the identity is extended by a number, from 1.

    Args:
        cache: The cache.
        kind: Kind of the entry.
        identity: All that is known of what decides the values, as JSON values.
        make: Computes the tensors and metadata.
        is_same: Whether an entry is of the network at hand.

    Returns:
        The entry, and the number of its network.

    Raises:
        UsageError: Not even the entry that was made is of the network.
    """
    is_made = False

    def make_once() -> Kept:
        nonlocal is_made
        is_made = True
        return make()

    for variant, numbered in variants(identity):
        kept = cache.kept_or_made(kind, numbered, make_once)
        if is_same(kept):
            return kept, variant
        if is_made:
            break
    raise UsageError(
        "the network does not compute the same again when it is built anew with the same weights; expected no "
        "chance in it in eval mode, and all that it learns in its state dict."
    )
