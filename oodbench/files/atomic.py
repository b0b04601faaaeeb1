"""Atomic writes: a file is either complete or not there."""

import os
import re
import socket
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from oodbench.errors import OodbenchError, UsageError


def write_atomically(target: Path, write: Callable[[str], object]) -> None:
    """Write to a temporary file beside the target, sync it, and rename it.

    Args:
        target: The file to write.
        write: Writes to the file of the given name.

    Raises:
        OodbenchError: The file cannot be written; nothing is left behind.
    """
    try:
        _write(target, write)
    except OSError as cause:
        raise OodbenchError(
            f"{target} cannot be written: {_reason(cause)}; what was finished before is kept."
        ) from cause


def write_output(target: Path, option: str, write: Callable[[str], object]) -> None:
    """Write a file as ``write_atomically``, with an error that names the option by which the user chose it.

    Args:
        target: The file to write.
        option: The option of the command line, such as ``--out``.
        write: Writes to the file of the given name.

    Raises:
        UsageError: The file cannot be written.
    """
    try:
        _write(target, write)
    except OSError as cause:
        raise UsageError(f"{target} cannot be written: {_reason(cause)}; choose another {option}.") from cause


def check_folder(folder: Path, what: str, option: str) -> None:
    """Make a folder, and check that files can be written to it, so as to fail before anything is computed.

    Args:
        folder: The folder.
        what: What the folder is, for the message.
        option: The option of the command line by which the user chooses it.

    Raises:
        UsageError: Nothing can be written to the folder.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as cause:
        raise UsageError(f"{what} {folder} cannot be written to: {_reason(cause)}; choose another {option}.") from cause


def remove_orphans(folder: Path) -> None:
    """Remove temporary files that processes of this machine left behind when they were killed."""
    for file in folder.glob(f".{HOST}-*.tmp"):
        process = re.match(r"(\d+)-", file.name.removeprefix(f".{HOST}-"))
        if process and not _is_alive(int(process.group(1))):
            file.unlink(missing_ok=True)


HOST = re.sub(r"[^A-Za-z0-9]", "_", socket.gethostname())


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # a process of another user
        return True
    return True


def _write(target: Path, write: Callable[[str], object]) -> None:
    temporary = ""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{HOST}-{os.getpid()}-", suffix=".tmp")
        os.close(handle)
        write(temporary)
        with open(temporary, "rb+") as written:
            os.fsync(written.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, target)
        _sync_folder(target.parent)
    finally:
        if temporary and os.path.exists(temporary):
            os.unlink(temporary)


def _sync_folder(folder: Path) -> None:
    """Sync a folder, so that a new name in it survives a loss of power; some systems do not support it."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _reason(cause: OSError) -> str:
    if isinstance(cause, FileExistsError):
        return "a file stands where a folder should be"
    return cause.strerror or str(cause)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
