"""What a plugin may not do to others: never return, or leave the process other than it was."""

import os
import random
import signal
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Literal, NoReturn, TypeVar

import numpy as np
import torch

from oodbench.errors import CellSkippedError, OodbenchError, UsageError, one_line

T = TypeVar("T")

# A plugin that catches everything is told again.
REMINDER_S = 0.5


class TimeoutExceededError(OodbenchError):
    """A plugin took longer than it may."""


class _Late(BaseException):
    """Raised inside a plugin; no Exception, so that its own handlers let it pass."""


@contextmanager
def isolated(seed: int) -> Iterator[None]:
    """Run a plugin with seeded random numbers, and put back what it may have changed of the process.

    That is the state of random numbers of torch, numpy and Python, torch's default type, threads and gradient mode, and
    the working folder.
    """
    random_state, numpy_state, folder = random.getstate(), np.random.get_state(), os.getcwd()
    dtype, threads = torch.get_default_dtype(), torch.get_num_threads()
    with torch.random.fork_rng(devices=[]), torch.set_grad_enabled(torch.is_grad_enabled()):
        torch.manual_seed(seed % 2**63)
        np.random.seed(seed % 2**32)
        random.seed(seed)
        try:
            yield
        finally:
            random.setstate(random_state)
            np.random.set_state(numpy_state)
            torch.set_default_dtype(dtype)
            if torch.get_num_threads() != threads:
                torch.set_num_threads(threads)
            if os.getcwd() != folder:
                os.chdir(folder)


@contextmanager
def time_limit(seconds: float | None) -> Iterator[None]:
    """End what takes longer, as soon as it is back in Python: native code cannot be interrupted.

    Raises:
        TimeoutExceededError: It took longer.
        UsageError: There is no way to interrupt here: not in the main thread, or a system without timers.
    """
    if seconds is None:
        yield
        return
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        raise UsageError("a time limit needs the main thread of a process on Linux or macOS; leave it out.")

    def interrupt(number: int, frame: FrameType | None) -> NoReturn:
        raise _Late

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, seconds, REMINDER_S)
        yield
    except _Late:
        raise TimeoutExceededError(f"it took longer than {seconds:g} seconds, which is its time limit") from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@dataclass(frozen=True)
class Failure:
    """Why there is no result.

    Attributes:
        status: ``failed``, or ``skipped`` where the plugin cannot work on what it was given.
        error: One sentence.
        traceback: Where a plugin raised, if it did.
    """

    status: Literal["failed", "skipped"]
    error: str
    traceback: str | None = None


def attempt(compute: Callable[[], T]) -> T | Failure:
    """The result, or why there is none; whatever a plugin raises stays in its cell."""
    try:
        return compute()
    except CellSkippedError as skipped:
        return Failure("skipped", one_line(skipped))
    except OodbenchError as error:
        return failed(error)
    except (Exception, SystemExit) as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(place.filename).name}, line {place.lineno}"
        return failed(error, f"it raised {type(error).__name__}: {one_line(error)} ({where})")


def failed(error: BaseException, sentence: str | None = None) -> Failure:
    """The failure that an exception is."""
    return Failure("failed", sentence or one_line(error), "".join(traceback.format_exception(error)))
