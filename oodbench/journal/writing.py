"""Writes events as lines of JSON: to a file in the store for each run, and to another file if the user asks for it."""

import io
import json
import logging
import os
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from oodbench.errors import OodbenchError, UsageError, described, one_line
from oodbench.files.atomic import HOST, check_folder
from oodbench.files.locks import exclusively, is_held
from oodbench.journal.events import events, tell

logger = logging.getLogger(__name__)

FOLDER = "log"


@contextmanager
def journal(out: Path, log_file: Path | None, **facts: Any) -> Iterator[None]:  # noqa: ANN401
    """Write events and warnings to files, inside the context.

    Each run has its own file ``log/<time>-<host>-<process>.jsonl``, with a lock beside it while the run is in progress.

    Args:
        out: The store (results folder).
        log_file: Another file that they are appended to; None for no other.
        facts: Details of the run, for its first event.

    Raises:
        UsageError: The log file cannot be written to.
    """
    folder = out / FOLDER
    own = folder / f"{datetime.now(UTC):%Y%m%dT%H%M%S%f}-{HOST}-{os.getpid()}.jsonl"
    with ExitStack() as stack:
        check_folder(folder, "the results folder", "--out")
        remove_locks_of_ended(folder)
        stack.enter_context(exclusively(own.with_suffix(".lock")))
        if log_file is not None and log_file.resolve().is_relative_to(out.resolve()):
            raise UsageError(
                f"the log file {log_file} lies in the results folder, which has a journal of its own; choose another "
                "--log-file."
            )
        asked_for = [] if log_file is None else [_lines(log_file, "--log-file")]
        for handler in (_lines(own, "--out"), *asked_for):
            stack.callback(handler.end)
            for source in (events, logging.getLogger("oodbench")):
                source.addHandler(handler)
                stack.callback(source.removeHandler, handler)
        tell("run started", command=sys.argv, host=HOST, process=os.getpid(), **facts)
        how: dict[str, Any] = {"how": "interrupted"}
        start = time.monotonic()
        try:
            yield
            how = {"how": "finished"}
        except OodbenchError as error:
            how = {"how": "failed", "error": one_line(error)}
            raise
        except Exception as error:
            how = {"how": "failed", "error": described(error)}
            raise
        finally:
            tell("run ended", **how, seconds=round(time.monotonic() - start, 3))


def has_process(journal: Path) -> bool:
    """Whether the process that writes a journal is still alive."""
    return is_held(journal.with_suffix(".lock"))


def remove_locks_of_ended(folder: Path) -> None:
    """Remove lock files that killed runs have left behind."""
    for lock in folder.glob("*.lock"):
        with suppress(OodbenchError), exclusively(lock, wait=False):  # locks of another user may stay
            pass


def _lines(file: Path, option: str) -> "_Lines":
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        return _Lines(file)
    except OSError as cause:
        raise UsageError(
            f"the log file {file} cannot be written to: {cause.strerror or cause}; choose another {option}."
        ) from cause


class _Lines(logging.Handler):
    """Log handler that writes a line of JSON for each event and warning; the run goes on if that fails."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self._name = file
        # Unbuffered, so that readers get each event at once and nothing is lost at the end. Non-blocking, so that a
        # pipe without a reader does not stop the run.
        self._file: io.FileIO | None = io.FileIO(file, "a", opener=lambda name, how: os.open(name, how | os.O_NONBLOCK))

    def emit(self, record: logging.LogRecord) -> None:
        if self._file is None:
            return
        try:
            line = self.format(record).encode("utf-8", "replace") + b"\n"
        except Exception:  # a plugin's log record may be broken
            return
        try:
            self._file.write(line)
        except (OSError, ValueError) as cause:
            self.end()
            why = (cause.strerror if isinstance(cause, OSError) else None) or cause
            logger.warning("the log %s cannot be written: %s; the run goes on without it.", self._name, why)

    def close(self) -> None:
        """Do nothing, since a plugin that sets up logging closes all handlers; ``end`` closes the file."""

    def end(self) -> None:
        """Close the file and write no more."""
        if self._file is not None:
            with suppress(OSError):  # a plugin may have closed the file
                self._file.close()
            self._file = None

    def format(self, record: logging.LogRecord) -> str:
        facts = getattr(record, "facts", None)
        event = record.getMessage() if facts is not None else "message"
        details = facts if facts is not None else {"level": record.levelname.lower(), "text": record.getMessage()}
        when = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        return json.dumps({"time": when, "event": event, **details})
