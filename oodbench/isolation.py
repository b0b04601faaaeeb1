"""What a plugin may not do to others: never return, or leave the process other than it was."""

import faulthandler
import os
import random
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Literal, TypeVar

import numpy as np
import torch

from oodbench.errors import FROM_OUTSIDE, CellSkippedError, OodbenchError, Phase, Stop, UsageError, described, one_line
from oodbench.phases import PhaseCost

T = TypeVar("T")

# A plugin that catches everything is told again.
REMINDER_S = 0.5
LONGEST_S = 1e9
# Whether this process may be ended to stop a plugin that is not back in Python that many seconds after its time limit.
expendable = False
GRACE_S = 5.0
# Characters of a traceback that a record keeps, from its end.
TRACEBACK = 20_000


class TimeoutExceededError(OodbenchError):
    """A plugin took longer than it may."""


def _set_threads(threads: int) -> None:
    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)


def _set_device(device: torch.device) -> None:
    if torch.get_default_device() != device:
        # To name the usual one would cost time wherever a tensor is made.
        torch.set_default_device(None if device.type == "cpu" else device)


def _set_deterministic(enabled: bool) -> None:
    if torch.are_deterministic_algorithms_enabled() != enabled:
        # Even to say what is so already imports torch's compiler.
        torch.use_deterministic_algorithms(enabled)


def _change_folder(folder: str) -> None:
    with suppress(OSError):  # it may have been deleted
        os.chdir(folder)


# What a plugin may have set of the process: how that is read, and how it is put back.
SETTINGS: tuple[tuple[Callable[[], Any], Callable[[Any], object]], ...] = (
    (random.getstate, random.setstate),
    (np.random.get_state, np.random.set_state),
    (np.geterr, lambda errors: np.seterr(**errors)),
    (torch.get_default_dtype, torch.set_default_dtype),
    (torch.get_default_device, _set_device),
    (torch.get_num_threads, _set_threads),
    (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
    (torch.are_deterministic_algorithms_enabled, _set_deterministic),
    (lambda: torch.is_autocast_enabled("cpu"), lambda enabled: torch.set_autocast_enabled("cpu", enabled)),
    (torch._C._get_mkldnn_enabled, torch._C._set_mkldnn_enabled),
    (torch.is_anomaly_enabled, torch.autograd.set_detect_anomaly),
    (lambda: list(sys.path), lambda path: sys.path.__setitem__(slice(None), path)),
    (sys.getrecursionlimit, sys.setrecursionlimit),
    (os.getcwd, _change_folder),
)


@contextmanager
def isolated(seed: int) -> Iterator[None]:
    """Run a plugin with seeded random numbers, and put back what it may have changed of the process.

    That is the state of random numbers of torch, numpy and Python, what ``SETTINGS`` lists, the modes of gradients and
    inference, and which warnings are shown.
    """
    before = [read() for read, _ in SETTINGS]
    modes = torch.inference_mode(torch.is_inference_mode_enabled()), torch.set_grad_enabled(torch.is_grad_enabled())
    with torch.random.fork_rng(devices=[]), modes[0], modes[1], warnings.catch_warnings():
        # Without a GPU, torch would note for each time how to seed one, should it come.
        (torch if torch.cuda.is_available() else torch.default_generator).manual_seed(seed % 2**63)
        np.random.seed(seed % 2**32)
        random.seed(seed)
        try:
            yield
        finally:
            for (_, put_back), value in zip(SETTINGS, before, strict=True):
                put_back(value)


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
    # An alarm clock takes no more than some decades.
    seconds = min(seconds, LONGEST_S)
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        raise UsageError("a time limit needs the main thread of a process on Linux or macOS; leave it out.")

    outside = sys._getframe(2)  # this generator, contextlib, and then whoever sets the limit
    told, over = 0, False

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal told
        if over:
            return
        told += 1
        if told > 1:
            # What catches everything, as a loop does that tries again for ever, is told again at its next line.
            sys.settrace(_ignore)
            while frame is not None and frame is not outside:
                frame.f_trace = _say_again
                frame = frame.f_back
        raise Stop

    before, tracing = signal.signal(signal.SIGALRM, interrupt), sys.gettrace()
    try:
        signal.setitimer(signal.ITIMER_REAL, seconds, REMINDER_S)
        with _end_of_process(seconds + GRACE_S) if expendable else nullcontext():
            yield
    except KeyboardInterrupt:
        raise
    except BaseException:  # it may have made another one of what it was told
        if not told:
            raise
    finally:
        over = True
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        sys.settrace(tracing)
    if told:
        raise TimeoutExceededError(f"it took longer than {seconds:g} seconds, which is its time limit")


@contextmanager
def _end_of_process(seconds: float) -> Iterator[None]:
    """End the process with exit status 1 if this takes longer, even in native code that holds the interpreter."""
    with open(os.devnull, "w") as nowhere:
        faulthandler.dump_traceback_later(min(seconds, LONGEST_S / 1e3), exit=True, file=nowhere)
        try:
            yield
        finally:
            faulthandler.cancel_dump_traceback_later()


def _ignore(frame: FrameType, event: str, argument: object) -> None:
    """Trace no new call."""


def _say_again(frame: FrameType, event: str, argument: object) -> Callable[..., Any]:
    if event == "line":
        raise Stop
    return _say_again


@dataclass(frozen=True)
class Failure:
    """Why there is no result.

    Attributes:
        phase: What was being done.
        status: ``failed``, or ``skipped`` where the plugin cannot work on what it was given.
        error: One sentence.
        traceback: Where a plugin raised, if it did.
        phases: What was gone through before and then.
    """

    phase: Phase
    status: Literal["failed", "skipped"]
    error: str
    traceback: str | None = None
    phases: Mapping[Phase, PhaseCost] = field(default_factory=dict)


def attempt(phase: Phase, compute: Callable[[], T]) -> T | Failure:
    """The result, or why there is none; whatever a plugin raises stays in its cell, and whoever it forks ends here."""
    process = os.getpid()
    try:
        found = compute()
        _end_if_forked(process)
        return found
    except CellSkippedError as skipped:
        return Failure(phase, "skipped", one_line(skipped) or "it gives no reason")
    except OodbenchError as error:
        return failed(phase, error)
    except FROM_OUTSIDE:
        raise
    except BaseException as error:
        _end_if_forked(process)
        place = traceback.extract_tb(sys.exc_info()[2])[-1]
        where = f"{Path(place.filename).name}, line {place.lineno}"
        return failed(phase, error, f"it raised {described(error)} ({where})")


def _end_if_forked(process: int) -> None:
    """A child that a plugin forked would otherwise go on with the run, beside its parent."""
    if os.getpid() != process:
        os._exit(0)


def failed(phase: Phase, error: BaseException, sentence: str | None = None) -> Failure:
    """The failure that an exception is."""
    try:
        told = "".join(traceback.format_exception(error))
    except FROM_OUTSIDE:
        raise
    except BaseException as cause:
        told = f"the traceback cannot be printed: {described(cause)}"
    # Lone surrogates, which file names can have, are no text.
    text = told[-TRACEBACK:].encode("utf-8", "replace").decode()
    return Failure(phase, "failed", sentence or one_line(error) or type(error).__name__, text)
