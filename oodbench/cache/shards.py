"""Entries of the cache that are made shard by shard.

Memory does not grow with them, and a process that is killed in the middle loses the shard under way only.
"""

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from oodbench.cache.identities import Identity, entry_file, variants
from oodbench.cache.tensor_files import Kept, read_tensors, write_joined, write_tensors
from oodbench.errors import OodbenchError
from oodbench.files.atomic import remove_orphans
from oodbench.files.locks import exclusively

ShardPlan = Sequence[tuple[int, Sequence[str]]]
"""Shards by their number, with the names of the entries that lack them."""


@dataclass(frozen=True)
class Sharding:
    """How entries are made together.

    Attributes:
        shards: Number of shards of each entry.
        make: Computes shards in the order of the plan: yields the number of each, and what it has of each entry.
        beside: Tensors that tell the network at hand, which are kept beside each entry.
        is_same: Whether an entry is of the network at hand.
    """

    shards: int
    make: Callable[[ShardPlan], Iterator[tuple[int, Mapping[str, Kept]]]]
    beside: Mapping[str, Tensor]
    is_same: Callable[[Kept], bool]


def kept_in_shards(folder: Path, identities: Mapping[str, Identity], sharding: Sharding) -> dict[str, Kept]:
    """Several entries, each read if it exists; those that are missing are made together while others wait.

    Networks that compute something else may share an identity. Each such network has entries of its own: the identity
    is extended by a number, from 1.

    Args:
        folder: The folder of the entries.
        identities: All that is known of what decides the values of each entry, as JSON values.
        sharding: How they are made.

    Raises:
        OodbenchError: An entry cannot be written, or not be read after it was written.
    """
    made: set[str] = set()
    while True:
        found = {name: _find(folder, identity, sharding.is_same) for name, identity in identities.items()}
        missing = {name: file for name, (file, kept) in found.items() if kept is None}
        if not missing:
            for file, _ in found.values():  # of a process that was killed when it had just joined them
                if file.with_suffix(".shards").exists():
                    shutil.rmtree(file.with_suffix(".shards"), ignore_errors=True)
            return {name: kept for name, (_, kept) in found.items() if kept is not None}
        if made & missing.keys():
            raise OodbenchError(
                f"{missing.popitem()[1]} was written and cannot be read again; look at the disk of the cache folder."
            )
        with ExitStack() as all_locks:
            locks = {name: all_locks.enter_context(ExitStack()) for name in missing}
            for name, file in sorted(missing.items(), key=lambda one: one[1]):
                locks[name].enter_context(exclusively(file.with_suffix(".lock")))
            # Other processes may have made some meanwhile.
            again = {name: _find(folder, identities[name], sharding.is_same) for name in missing}
            here = {name: file for name, (file, kept) in again.items() if kept is None and file == missing[name]}
            # Locks go with the work: nobody takes the lock of a finished entry again, and removes it after a kill.
            for name in missing.keys() - here.keys():
                locks[name].close()
            for name in _made(here, sharding):
                locks[name].close()
            made |= here.keys()


def _find(folder: Path, identity: Identity, is_same: Callable[[Kept], bool]) -> tuple[Path, Kept | None]:
    """The file of the first entry of the identity that is of the network at hand, or the first that is not there."""
    for _, numbered in variants(identity):
        file = entry_file(folder, numbered)
        kept = read_tensors(file, mapped=True)
        if kept is None or is_same(kept):
            return file, kept
    raise AssertionError("there is always another variant")


def _made(files: Mapping[str, Path], sharding: Sharding) -> Iterator[str]:
    """Make entries; yields the name of each as soon as its file is there."""
    if not files:
        return
    remove_orphans(next(iter(files.values())).parent)  # such as that of a process that was killed while it wrote one
    if sharding.shards == 1:
        for _, of_entries in sharding.make([(0, list(files))]):
            for name, (tensors, metadata) in of_entries.items():
                write_tensors(files[name], {**tensors, **sharding.beside}, metadata)
                yield name
        return
    folders = {name: _begun(file, sharding) for name, file in files.items()}
    plan = [
        (shard, lacking)
        for shard in range(sharding.shards)
        if (lacking := [name for name, folder in folders.items() if read_tensors(_shard(folder, shard)) is None])
    ]
    for shard, of_entries in sharding.make(plan) if plan else ():
        for name, (tensors, metadata) in of_entries.items():
            write_tensors(_shard(folders[name], shard), tensors, metadata)
    for name, folder in folders.items():
        write_joined(files[name], [_shard(folder, shard) for shard in range(sharding.shards)], sharding.beside)
        shutil.rmtree(folder, ignore_errors=True)
        yield name


def _begun(file: Path, sharding: Sharding) -> Path:
    """The folder of an entry's shards, without those of another network."""
    folder = file.with_suffix(".shards")
    of_network = folder / "network.safetensors"
    kept = read_tensors(of_network)
    if kept is None or not sharding.is_same(kept):
        shutil.rmtree(folder, ignore_errors=True)
        write_tensors(of_network, sharding.beside, {})
    return folder


def _shard(folder: Path, shard: int) -> Path:
    return folder / f"{shard:06}.safetensors"
