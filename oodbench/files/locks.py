"""Locks between processes; a lock is released when its process ends, however it ends."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from oodbench.errors import OodbenchError

# Seconds between attempts to take a lock that another process holds.
LOOK_S = 0.1


@contextmanager
def exclusively(file: Path, *, wait: bool = True) -> Iterator[bool]:
    """Hold a lock inside the context; the file of the lock is removed at the end.

    Args:
        file: Names the lock; all processes that see the same file share it. Its folder is made if it is not there.
        wait: Whether to wait while another process holds the lock.

    Yields:
        Whether the lock was taken; always True with ``wait``.

    Raises:
        OodbenchError: The file cannot be made.
    """
    lock = FileLock(file, timeout=-1 if wait else 0, poll_interval=LOOK_S, thread_local=False)
    try:
        lock.acquire()
    except Timeout:
        yield False
        return
    except OSError as cause:
        raise OodbenchError(f"{file} cannot be locked: {cause.strerror or cause}.") from cause
    try:
        yield True
    finally:
        # Removed before release: a process that waits for it notices that the file is gone, and makes another.
        with suppress(OSError):
            file.unlink()
        lock.release()


def is_held(file: Path) -> bool:
    """Whether a process holds a lock, without taking it; a lock that cannot be read counts as held."""
    try:
        handle = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # a file system without locks, where nobody can hold one
        return False
    finally:
        os.close(handle)
    return False
