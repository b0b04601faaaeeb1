"""stdout for results: a failed write to it costs no records and shows no traceback."""

import ctypes
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import TYPE_CHECKING

from oodbench.errors import OodbenchError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


class _Stdout(io.FileIO):
    """Discards everything after a write has failed, and remembers the failure."""

    failure: OSError | None = None

    def write(self, data: "ReadableBuffer", /) -> int:
        if self.failure is None:
            try:
                return super().write(data)
            except OSError as failure:
                self.failure = failure
        return memoryview(data).nbytes


@contextmanager
def results_only() -> Iterator[None]:
    """Redirect what plugins and libraries print to stdout to stderr, native code included."""
    sys.stdout.flush()
    with redirect_stdout(sys.stderr):
        try:
            kept = os.dup(1)
            os.dup2(2, 1)
        except OSError:  # one of them is closed
            yield
            return
        try:
            yield
        finally:
            ctypes.CDLL(None).fflush(None)
            os.dup2(kept, 1)
            os.close(kept)


@contextmanager
def safe_stdout() -> Iterator[None]:
    """Replace the process's stdout: a reader that leaves early, as `head` does, is no error.

    Characters that its encoding lacks are replaced.

    Raises:
        OodbenchError: It could not be written to for another reason, such as a full disk.
    """
    stdout = sys.stdout
    is_the_process_own = stdout is sys.__stdout__
    if stdout is None:  # closed by `>&-`
        with open(os.devnull, "w", encoding="utf-8") as nowhere, redirect_stdout(nowhere):
            yield
        return
    if not is_the_process_own:  # somebody else in this process looks after it
        yield
        return
    raw = _Stdout(stdout.fileno(), "wb", closefd=False)
    text = io.TextIOWrapper(
        io.BufferedWriter(raw), encoding=stdout.encoding, errors="replace", line_buffering=raw.isatty()
    )
    with text, redirect_stdout(text):
        yield
    if raw.failure is not None and not isinstance(raw.failure, BrokenPipeError):
        raise OodbenchError(
            f"the results cannot be written to stdout: {raw.failure.strerror}; records that were made are kept."
        )
