"""Files that anybody may have made: read within limits, and never otherwise than by their content."""

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
    """Why a file is not read: the rest of a sentence that begins with its name, without a full stop."""


def read_limited(file: Path, largest: int) -> bytes:
    """The content of a file that is no larger than it may be.

    A pipe or a device is never waited for, and a file that grows meanwhile is not read further.

    Args:
        file: The file.
        largest: Bytes that it may have.

    Raises:
        OSError: It is not there, or cannot be read.
        UnreadableError: It is larger, no regular file, or its path is none.
    """
    try:
        handle = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except ValueError as cause:  # a NUL, or a lone surrogate
        raise UnreadableError(f"cannot be read: its path is none ({cause})") from cause
    with open(handle, "rb") as opened:
        about = os.fstat(handle)
        if not stat.S_ISREG(about.st_mode):
            raise UnreadableError("cannot be read: it is no regular file")
        # Python takes the memory for all that is asked for at once.
        content = opened.read(min(largest, about.st_size) + 1)
    if len(content) > largest:
        raise UnreadableError(f"is larger than {largest // MIB} MiB")
    return content


def refuse_ambiguous_json(content: bytes) -> None:
    """Refuse JSON that is valid to some readers and says something else to others.

    Args:
        content: What pydantic took for JSON, so that it is no deeper than Python reads.

    Raises:
        UnreadableError: A key is there twice, or there is a NaN or an infinity.
    """
    # Numbers are left as texts: they may have more digits than Python converts.
    json.loads(content, object_pairs_hook=_refuse_repeated, parse_int=str, parse_float=str, parse_constant=_refuse)


def _refuse_repeated(pairs: Sequence[tuple[str, Any]]) -> None:
    repeated = [key for key, n in Counter(key for key, _ in pairs).items() if n > 1]
    if repeated:
        raise UnreadableError(f"has the key {repeated[0]!r} twice in one object")


def _refuse(constant: str) -> NoReturn:
    raise UnreadableError(f"holds {constant}, which JSON lacks")
