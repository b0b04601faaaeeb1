"""Files that are whole or not there."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from oodbench.errors import OodbenchError


def write_atomically(target: Path, write: Callable[[str], object]) -> None:
    """Write to a temporary file beside the target, sync it, and rename it.

    Args:
        target: The file to be.
        write: Writes the file of the given name.

    Raises:
        OodbenchError: The file cannot be written; nothing is left behind.
    """
    temporary = ""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=".", suffix=".tmp")
        os.close(handle)
        write(temporary)
        with open(temporary, "rb+") as written:
            os.fsync(written.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, target)
    except OSError as cause:
        reason = cause.strerror or str(cause)
        raise OodbenchError(f"{target} cannot be written: {reason}; what was finished before is kept.") from cause
    finally:
        if temporary and os.path.exists(temporary):
            os.unlink(temporary)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
