"""Tensors on disk that are whole, unchanged and what they say they are, or else made anew."""

import hashlib
import logging
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from oodbench.atomic import write_atomically

logger = logging.getLogger(__name__)


def content_sha256(tensors: Mapping[str, Tensor]) -> str:
    """Hash of names, shapes, types and values, whatever file they came from."""
    content = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        content.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        content.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return content.hexdigest()


def write_tensors(file: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write tensors with their hash.

    Raises:
        OodbenchError: The file cannot be written.
    """
    whole = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    content = save(whole, metadata={**metadata, "sha256": content_sha256(whole)})
    write_atomically(file, lambda path: Path(path).write_bytes(content))


def read_tensors(file: Path) -> tuple[dict[str, Tensor], dict[str, str]] | None:
    """The tensors and their metadata; None if the file is not there, or damaged and therefore discarded."""
    if not file.exists():
        return None
    try:
        with safe_open(file, framework="pt") as kept:
            metadata = dict(kept.metadata() or {})
            tensors = {name: kept.get_tensor(name) for name in kept.keys()}  # noqa: SIM118 - not a mapping
        reason = "" if metadata.get("sha256") == content_sha256(tensors) else "its content is not what was written"
    except (SafetensorError, OSError, ValueError) as cause:
        reason = str(cause)
    if not reason:
        return tensors, metadata
    logger.warning("the cache entry %s is damaged (%s) and is made anew.", file, reason)
    file.unlink(missing_ok=True)
    return None
