"""Safe reading of files from untrusted sources."""

import json
import os
import stat
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from oodbench.errors import UsageError

MIB = 1 << 20


class UnreadableError(UsageError):
    """A file is refused. The message completes a sentence that begins with its name, without a full stop."""


def read_limited(file: Path, largest: int) -> bytes:
    """Read a regular file of limited size.

    Pipes and devices are refused without waiting for them, and a file that grows meanwhile is not read further.

    Args:
        file: The file.
        largest: Maximum size in bytes.

    Raises:
        OSError: The file is missing or cannot be read.
        UnreadableError: The file is too large, not a regular file, or its path is not valid.
    """
    try:
        handle = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except ValueError as cause:  # a NUL, or a lone surrogate
        raise UnreadableError(f"cannot be read: its path is none ({cause})") from cause
    with open(handle, "rb") as opened:
        about = os.fstat(handle)
        if not stat.S_ISREG(about.st_mode):
            raise UnreadableError("cannot be read: it is no regular file")
        # Not more than its size: Python allocates memory for all bytes that are requested.
        content = opened.read(min(largest, about.st_size) + 1)
    if len(content) > largest:
        raise UnreadableError(f"is larger than {largest // MIB} MiB")
    return content


def read_text(file: Path, largest: int) -> str:
    """Read a text file of limited size, in UTF-8, with or without a mark at its beginning.

    Args:
        file: The file.
        largest: Maximum size in bytes.

    Raises:
        OSError: The file is missing or cannot be read.
        UnreadableError: It is not UTF-8 text, or is refused as by ``read_limited``.
    """
    try:
        return read_limited(file, largest).decode("utf-8-sig")
    except UnicodeDecodeError as cause:
        raise UnreadableError("is not UTF-8 text") from cause


def refuse_ambiguous_json(content: bytes) -> None:
    """Refuse JSON that readers interpret differently.

    Args:
        content: JSON that pydantic accepted, so that it is not nested too deeply for Python.

    Raises:
        UnreadableError: An object has a key twice, or there is a NaN or an infinity.
    """
    # Numbers are kept as text: they may have more digits than Python converts.
    json.loads(content, object_pairs_hook=_refuse_repeated, parse_int=str, parse_float=str, parse_constant=_refuse)


def _refuse_repeated(pairs: Sequence[tuple[str, Any]]) -> None:
    if len(dict(pairs)) < len(pairs):
        repeated = [key for key, n in Counter(key for key, _ in pairs).items() if n > 1]
        raise UnreadableError(f"has the key {repeated[0]!r} twice in one object")


def _refuse(constant: str) -> NoReturn:
    raise UnreadableError(f"holds {constant}, which JSON lacks")
