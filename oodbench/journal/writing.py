"""Events as lines of JSON, in a file of the results folder for each run and wherever else the user wants them."""

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

from oodbench.atomic import HOST, check_folder
from oodbench.errors import OodbenchError, UsageError, described, one_line
from oodbench.journal.events import events, tell
from oodbench.locks import exclusively, is_held

logger = logging.getLogger(__name__)

FOLDER = "log"


@contextmanager
def journal(out: Path, log_file: Path | None, **facts: Any) -> Iterator[None]:  # noqa: ANN401
    """Inside, events and warnings are written down.

    Each run has a file ``log/<time>-<host>-<process>.jsonl`` of its own, beside which is a lock while it goes on.

    Args:
        out: The results folder.
        log_file: Where else they are written to, behind what is there.
        facts: Of the run, for its first event.

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
    """Whether the process that writes a journal is still there."""
    return is_held(journal.with_suffix(".lock"))


def remove_locks_of_ended(folder: Path) -> None:
    """Remove what runs that were killed have left."""
    for lock in folder.glob("*.lock"):
        with suppress(OodbenchError), exclusively(lock, wait=False):  # another user's may stay
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
    """One line of JSON for each event and each warning; a log that cannot be written costs no result."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self._name = file
        # Without a buffer: whoever reads it has all that happened, and nothing is left to be written in the end.
        # Nor is a pipe waited for that nobody reads.
        self._file: io.FileIO | None = io.FileIO(file, "a", opener=lambda name, how: os.open(name, how | os.O_NONBLOCK))

    def emit(self, record: logging.LogRecord) -> None:
        if self._file is None:
            return
        try:
            line = self.format(record).encode("utf-8", "replace") + b"\n"
        except Exception:  # what a plugin logs may be no message
            return
        try:
            self._file.write(line)
        except (OSError, ValueError) as cause:
            self.end()
            why = (cause.strerror if isinstance(cause, OSError) else None) or cause
            logger.warning("the log %s cannot be written: %s; the run goes on without it.", self._name, why)

    def close(self) -> None:
        """Nothing: a plugin that sets up logging anew closes whatever is there."""

    def end(self) -> None:
        """Write no more."""
        if self._file is not None:
            with suppress(OSError):  # a plugin may have closed it
                self._file.close()
            self._file = None

    def format(self, record: logging.LogRecord) -> str:
        facts = getattr(record, "facts", None)
        event = record.getMessage() if facts is not None else "message"
        told = facts if facts is not None else {"level": record.levelname.lower(), "text": record.getMessage()}
        when = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        return json.dumps({"time": when, "event": event, **told})
