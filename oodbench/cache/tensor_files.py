"""Files of tensors whose content is verified on reading; damaged files are discarded."""

import hashlib
import json
import logging
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from oodbench.files.atomic import write_atomically

logger = logging.getLogger(__name__)

Kept = tuple[dict[str, Tensor], dict[str, str]]
"""Tensors and metadata."""


def content_sha256(tensors: Mapping[str, Tensor]) -> str:
    """Hash of names, shapes, types and values; independent of the file format."""
    content = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        content.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        content.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return content.hexdigest()


def write_tensors(file: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write tensors and metadata, with a hash of both and of the file's name.

    Raises:
        OodbenchError: The file cannot be written.
    """
    whole = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    content = save(whole, metadata={**metadata, "sha256": _seal(file, whole, metadata)})
    write_atomically(file, lambda path: Path(path).write_bytes(content))


def read_tensors(file: Path) -> Kept | None:
    """Read tensors and metadata; None if the file is missing, or damaged and therefore discarded."""
    if not file.exists():
        return None
    content = verified(file)
    if not isinstance(content, str):
        with suppress(OSError):  # the time of last use decides which entries are kept
            os.utime(file)
        return content
    logger.warning("the cache entry %s is damaged (%s) and is made anew.", file, content)
    with suppress(OSError):
        file.unlink()
    return None


def verified(file: Path) -> Kept | str:
    """The tensors and metadata of a file, or a message if the file is damaged."""
    try:
        with safe_open(file, framework="pt") as kept:
            metadata = dict(kept.metadata() or {})
            # Copied, so that later changes of the file do not matter.
            tensors = {name: kept.get_tensor(name).clone() for name in kept.keys()}  # noqa: SIM118 - not a mapping
        written = metadata.pop("sha256", None) == _seal(file, tensors, metadata)
    except (SafetensorError, OSError, ValueError, TypeError, RuntimeError, LookupError, AttributeError) as cause:
        return str(cause)
    if not written:
        return "its content is not what was written"
    return tensors, metadata


def _seal(file: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    sealed = [file.name, content_sha256(tensors), sorted(metadata.items())]
    return hashlib.sha256(json.dumps(sealed).encode()).hexdigest()
