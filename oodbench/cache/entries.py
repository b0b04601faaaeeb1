"""An entry of the cache: read if it is there, and otherwise made by one process while others wait for it."""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from oodbench.cache.tensor_files import Kept, read_tensors, write_tensors
from oodbench.locks import exclusively

KINDS = ("weights", "evidence")


def kept_or_made(cache: Path, kind: str, identity: Mapping[str, Any], make: Callable[[], Kept]) -> Kept:
    """The tensors and metadata that belong to an identity.

    Args:
        cache: The cache folder.
        kind: One of ``KINDS``.
        identity: All that decides their values, as JSON has it.
        make: Computes them.

    Raises:
        OodbenchError: They cannot be kept.
    """
    key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    file = cache / kind / f"{key}.safetensors"
    kept = read_tensors(file)
    if kept is None:
        with exclusively(file.with_suffix(".lock")):
            kept = read_tensors(file)  # somebody else may have made it meanwhile
            if kept is None:
                kept = make()
                write_tensors(file, *kept)
    return kept
