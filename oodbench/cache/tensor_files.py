"""Files of tensors whose content is verified on reading; damaged files are discarded."""

import hashlib
import json
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from oodbench.errors import OodbenchError
from oodbench.files.atomic import write_atomically

logger = logging.getLogger(__name__)

Kept = tuple[dict[str, Tensor], dict[str, str]]
"""Tensors and metadata."""

# Copies of at least so many bytes are another view of the file, where a tensor is one.
LARGE = 16 * 2**20
# The header of a file takes a multiple of so many bytes, by which tensors are aligned.
ALIGNED = 8

_mappings: dict[int, tuple[StorageWeakRef, Path]] = {}
"""The files that are mapped into memory, by the address of their bytes."""


def content_sha256(tensors: Mapping[str, Tensor]) -> str:
    """Hash of names, shapes, types and values; independent of the file format."""
    return _content_of_joined({name: [tensor] for name, tensor in tensors.items()})


def write_tensors(file: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write tensors and metadata, with a hash of both and of the file's name.

    Raises:
        OodbenchError: The file cannot be written.
    """
    whole = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    content = save(whole, metadata={**metadata, "sha256": _seal(file, content_sha256(whole), metadata)})
    write_atomically(file, lambda path: Path(path).write_bytes(content))


def write_joined(file: Path, shards: Sequence[Path], beside: Mapping[str, Tensor]) -> None:
    """Write the tensors of several files, joined along their first dimension, with the metadata of the first.

    No more than one shard is in memory.

    Args:
        file: The file to write.
        shards: Files with the same tensors, of all sizes in the first dimension.
        beside: Further tensors.

    Raises:
        OodbenchError: A shard is damaged or of another kind than the first, or the file cannot be written.
    """
    opened = [_opened(shard) for shard in shards]
    metadata = opened[0][1]
    if any(kind_of(kept) != kind_of(opened[0]) for kept in opened):
        raise OodbenchError(
            f"the values in {shards[0].parent} differ in their names, types or shapes, so they cannot be joined; "
            "delete that folder, and run again."
        )
    chunks = {name: [tensors[name] for tensors, _ in opened] for name in opened[0][0]}
    chunks |= {name: [tensor.detach()] for name, tensor in beside.items()}
    sealed = {**metadata, "sha256": _seal(file, _content_of_joined(chunks), metadata)}
    header: dict[str, object] = {"__metadata__": sealed}
    end = 0
    for name, of_tensor in chunks.items():
        start, end = end, end + sum(chunk.nbytes for chunk in of_tensor)
        # The names of dtypes in this format; see github.com/huggingface/safetensors, "Format".
        dtype = {"float32": "F32", "float64": "F64", "int64": "I64", "uint8": "U8"}[str(of_tensor[0].dtype)[6:]]
        header[name] = {"dtype": dtype, "shape": _shape(of_tensor), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % ALIGNED)

    def write(path: str) -> None:
        with open(path, "wb") as opened_file:
            opened_file.write(len(text).to_bytes(8, "little") + text)
            for of_tensor in chunks.values():
                for chunk in of_tensor:
                    opened_file.write(_bytes(chunk).data)

    write_atomically(file, write)


def kind_of(kept: Kept) -> object:
    """What has to be equal where tensors are joined: their names, types and shapes beyond the first dimension."""
    tensors, metadata = kept
    shapes = {name: (str(tensor.dtype), tuple(tensor.shape[1:])) for name, tensor in tensors.items()}
    return shapes, {key: value for key, value in metadata.items() if key != "sha256"}


def joined(shards: Sequence[Kept]) -> Kept:
    """The tensors of several shards, joined along their first dimension, with the metadata of the first."""
    tensors = {name: torch.cat([of_shard[name] for of_shard, _ in shards]) for name in shards[0][0]}
    return tensors, shards[0][1]


def read_tensors(file: Path, *, mapped: bool = False) -> Kept | None:
    """Read tensors and metadata; None if the file is missing, or damaged and therefore discarded.

    Args:
        file: The file.
        mapped: Whether tensors are views of the file, which take no memory; otherwise they are copies.
    """
    if not file.exists():
        return None
    content = verified(file, mapped=mapped)
    if not isinstance(content, str):
        with suppress(OSError):  # the time of last use decides which entries are kept
            os.utime(file)
        return content
    logger.warning("the cache entry %s is damaged (%s) and is made anew.", file, content)
    with suppress(OSError):
        file.unlink()
    return None


def verified(file: Path, *, mapped: bool = False) -> Kept | str:
    """The tensors and metadata of a file, or a message if the file is damaged."""
    try:
        with safe_open(file, framework="pt") as kept:
            metadata = dict(kept.metadata() or {})
            names = kept.keys()  # it is no mapping itself
            # Clones, so that later changes of the file do not matter.
            tensors = _views(file, kept, names) if mapped else {name: kept.get_tensor(name).clone() for name in names}
        written = metadata.pop("sha256", None) == _seal(file, content_sha256(tensors), metadata)
    except (SafetensorError, OSError, ValueError, TypeError, RuntimeError, LookupError, AttributeError) as cause:
        return str(cause)
    if not written:
        return "its content is not what was written"
    return tensors, metadata


def _views(file: Path, kept: Any, names: Iterable[str]) -> dict[str, Tensor]:  # noqa: ANN401
    """Views of the tensors in a file, by a mapping whose changes are private."""
    with file.open("rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        header = json.loads(opened.read(length))
    storage = _map(file)
    views = {}
    for name in names:
        tensor = kept.get_tensor(name)
        start = 8 + length + header[name]["data_offsets"][0]
        if start % tensor.itemsize == 0 and tensor.numel():
            tensor = torch.empty(0, dtype=tensor.dtype).set_(
                storage, start // tensor.itemsize, tensor.shape, tensor.stride()
            )
        views[name] = tensor
    return views


def changeable(tensor: Tensor) -> Tensor:
    """A copy of a tensor that may be changed; of a large view of a file another, so that only changes take memory."""
    if tensor.nbytes < LARGE or tensor.device.type != "cpu" or not tensor.is_contiguous():
        return tensor.clone()
    storage = tensor.untyped_storage()
    there, file = _mappings.get(storage.data_ptr(), (None, None))
    if file is not None and there is not None and not there.expired():  # type: ignore[no-untyped-call]
        with suppress(RuntimeError, OSError):  # the file may not be there any more
            other = _map(file)
            if other.nbytes() == storage.nbytes():
                where = tensor.storage_offset(), tensor.shape, tensor.stride()
                return torch.empty(0, dtype=tensor.dtype).set_(other, *where)
    return tensor.clone()


def _map(file: Path) -> torch.UntypedStorage:
    """The bytes of a file, mapped into memory; what is changed is changed in memory alone."""
    storage = torch.UntypedStorage.from_file(str(file), False, file.stat().st_size)
    assert isinstance(storage, torch.UntypedStorage)
    for address, (there, _) in list(_mappings.items()):
        if there.expired():  # type: ignore[no-untyped-call]
            _mappings.pop(address, None)
    _mappings[storage.data_ptr()] = StorageWeakRef(storage), file  # type: ignore[no-untyped-call]
    return storage


def _opened(shard: Path) -> Kept:
    content = verified(shard, mapped=True)
    if isinstance(content, str):
        raise OodbenchError(f"the file {shard} of the cache is damaged ({content}); run again to make it anew.")
    return content


def _seal(file: Path, content: str, metadata: Mapping[str, str]) -> str:
    sealed = [file.name, content, sorted(metadata.items())]
    return hashlib.sha256(json.dumps(sealed).encode()).hexdigest()


def _content_of_joined(chunks: Mapping[str, Sequence[Tensor]]) -> str:
    """``content_sha256`` of tensors that lie in chunks of their first dimension."""
    content = hashlib.sha256()
    for name in sorted(chunks):
        of_tensor = chunks[name]
        content.update(f"{name} {tuple(_shape(of_tensor))} {of_tensor[0].dtype}".encode())
        for chunk in of_tensor:
            content.update(_bytes(chunk).data)
    return content.hexdigest()


def _shape(chunks: Sequence[Tensor]) -> list[int]:
    """The shape of a tensor that lies in chunks of its first dimension."""
    if len(chunks) == 1:
        return list(chunks[0].shape)
    return [sum(len(chunk) for chunk in chunks), *chunks[0].shape[1:]]


def _bytes(tensor: Tensor) -> NDArray[np.uint8]:
    return tensor.detach().cpu().contiguous().reshape(-1).numpy().view(np.uint8)
