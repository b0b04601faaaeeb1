"""Identities of cache entries: all that is known of what decides the values of an entry, as JSON values."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from itertools import count
from pathlib import Path
from typing import Any

Identity = Mapping[str, Any]


def entry_file(folder: Path, identity: Identity) -> Path:
    """The file of an entry, named by the hash of its identity."""
    key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    return folder / f"{key}.safetensors"


def variants(identity: Identity) -> Iterator[tuple[int, Identity]]:
    """The identities of networks that share one and compute something else: each extended by a number, from 1."""
    for variant in count():
        yield variant, {**identity, "variant": variant} if variant else identity
