"""Protection from plugins: time limits, restored process state, and failures as data."""

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
from oodbench.machine.device import CPU, deterministic, forked_random, seed_random, set_deterministic
from oodbench.machine.phases import PhaseCost

T = TypeVar("T")

# Seconds between interrupts of a plugin that catches all exceptions.
REMINDER_S = 0.5
LONGEST_S = 1e9
# Seconds beyond its time limit after which the process of a plugin in native code is ended, where that is allowed.
GRACE_S = 5.0
# Number of characters that a record keeps of a traceback, from its end.
TRACEBACK = 20_000


class TimeoutExceededError(OodbenchError):
    """A plugin exceeded its time limit."""


@dataclass(frozen=True)
class TimeLimit:
    """The time limit of a plugin.

    Attributes:
        seconds: The limit; None for no limit.
        ends_process: Whether this process is ended if the plugin does not return to Python in time: native code cannot
            be interrupted otherwise.
    """

    seconds: float | None = None
    ends_process: bool = False


UNLIMITED = TimeLimit()


def _set_threads(threads: int) -> None:
    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)


def _set_device(device: torch.device) -> None:
    if torch.get_default_device() != device:
        # None, since naming the default device would slow down every creation of a tensor.
        torch.set_default_device(None if device.type == "cpu" else device)


def _change_folder(folder: str) -> None:
    with suppress(OSError):  # it may have been deleted
        os.chdir(folder)


# Settings of the process that a plugin may change: how to read and how to restore each.
SETTINGS: tuple[tuple[Callable[[], Any], Callable[[Any], object]], ...] = (
    (random.getstate, random.setstate),
    (np.random.get_state, np.random.set_state),
    (np.geterr, lambda errors: np.seterr(**errors)),
    (torch.get_default_dtype, torch.set_default_dtype),
    (torch.get_default_device, _set_device),
    (torch.get_num_threads, _set_threads),
    (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
    (deterministic, set_deterministic),
    (lambda: torch.is_autocast_enabled("cpu"), lambda enabled: torch.set_autocast_enabled("cpu", enabled)),
    (lambda: torch.is_autocast_enabled("cuda"), lambda enabled: torch.set_autocast_enabled("cuda", enabled)),
    (torch._C._get_cudnn_allow_tf32, torch._C._set_cudnn_allow_tf32),
    (torch._C._get_cudnn_benchmark, torch._C._set_cudnn_benchmark),
    (torch._C._get_cudnn_deterministic, torch._C._set_cudnn_deterministic),
    (torch._C._get_mkldnn_enabled, torch._C._set_mkldnn_enabled),
    (torch.is_anomaly_enabled, torch.autograd.set_detect_anomaly),
    (lambda: list(sys.path), lambda path: sys.path.__setitem__(slice(None), path)),
    (sys.getrecursionlimit, sys.setrecursionlimit),
    (os.getcwd, _change_folder),
)


@contextmanager
def isolated(seed: int, device: torch.device = CPU) -> Iterator[None]:
    """Run a plugin, inside the context, with seeded random numbers, and restore the state of the process afterwards.

    Args:
        seed: The seed.
        device: A device that the plugin computes on, whose random numbers are seeded and restored, too.

    The state comprises the random number generators of torch, NumPy and Python, ``SETTINGS``, the gradient and
    inference modes, and the warning filters.
    """
    before = [read() for read, _ in SETTINGS]
    modes = torch.inference_mode(torch.is_inference_mode_enabled()), torch.set_grad_enabled(torch.is_grad_enabled())
    with forked_random(device), modes[0], modes[1], warnings.catch_warnings():
        seed_random(seed % 2**63, device)
        np.random.seed(seed % 2**32)
        random.seed(seed)
        try:
            yield
        finally:
            for (_, put_back), value in zip(SETTINGS, before, strict=True):
                put_back(value)


@contextmanager
def time_limit(limit: TimeLimit) -> Iterator[None]:
    """Interrupt a plugin, inside the context, that exceeds its time limit, as soon as it is back in Python.

    Raises:
        TimeoutExceededError: The plugin exceeded its limit.
        UsageError: Interrupts are not possible: this is not the main thread, or the system has no timers.
    """
    if limit.seconds is None:
        yield
        return
    # Timers are limited to some decades.
    seconds = min(limit.seconds, LONGEST_S)
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        raise UsageError("a time limit needs the main thread of a process on Linux or macOS; leave it out.")

    outside = sys._getframe(2)  # the caller: above this generator and contextlib
    interrupts, over = 0, False

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal interrupts
        if over:
            return
        interrupts += 1
        if interrupts > 1:
            # The plugin catches all exceptions, such as in a loop of retries: raise again at its next line.
            sys.settrace(_ignore)
            while frame is not None and frame is not outside:
                frame.f_trace = _say_again
                frame = frame.f_back
        raise Stop

    before, tracing = signal.signal(signal.SIGALRM, interrupt), sys.gettrace()
    try:
        signal.setitimer(signal.ITIMER_REAL, seconds, REMINDER_S)
        with _end_of_process(seconds + GRACE_S) if limit.ends_process else nullcontext():
            yield
    except KeyboardInterrupt:
        raise
    except BaseException:  # the plugin may have replaced Stop by another exception
        if not interrupts:
            raise
    finally:
        over = True
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        sys.settrace(tracing)
    if interrupts:
        raise TimeoutExceededError(f"it took longer than {seconds:g} seconds, which is its time limit")


@contextmanager
def _end_of_process(seconds: float) -> Iterator[None]:
    """End the process with exit status 1 if the context takes longer, even in native code that holds the GIL."""
    with open(os.devnull, "w") as nowhere:
        faulthandler.dump_traceback_later(min(seconds, LONGEST_S / 1e3), exit=True, file=nowhere)
        try:
            yield
        finally:
            faulthandler.cancel_dump_traceback_later()


def _ignore(frame: FrameType, event: str, argument: object) -> None:
    """A trace function that traces no new call."""


def _say_again(frame: FrameType, event: str, argument: object) -> Callable[..., Any]:
    if event == "line":
        raise Stop
    return _say_again


@dataclass(frozen=True)
class Failure:
    """Why a cell has no result.

    Attributes:
        phase: The phase that failed.
        status: ``failed``; or ``skipped`` if the plugin cannot work on its input.
        error: A sentence.
        traceback: Traceback of the exception; None if the cell was skipped.
        phases: Cost of the phases so far.
    """

    phase: Phase
    status: Literal["failed", "skipped"]
    error: str
    traceback: str | None = None
    phases: Mapping[Phase, PhaseCost] = field(default_factory=dict)


def attempt(phase: Phase, compute: Callable[[], T]) -> T | Failure:
    """Call ``compute``, and return its result or its failure; exceptions of a plugin do not propagate.

    A child process that a plugin forked ends here.
    """
    process = os.getpid()
    try:
        result = compute()
        _end_if_forked(process)
        return result
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
    """End this process if it is a fork of ``process``, which would otherwise go on with the run beside its parent."""
    if os.getpid() != process:
        os._exit(0)


def failed(phase: Phase, error: BaseException, sentence: str | None = None) -> Failure:
    """The failure for an exception.

    Args:
        phase: The phase that failed.
        error: The exception.
        sentence: The message, if not that of the exception.
    """
    try:
        formatted = "".join(traceback.format_exception(error))
    except FROM_OUTSIDE:
        raise
    except BaseException as cause:
        formatted = f"the traceback cannot be printed: {described(cause)}"
    # Replace lone surrogates, which file names can have: UTF-8 cannot encode them.
    text = formatted[-TRACEBACK:].encode("utf-8", "replace").decode()
    return Failure(phase, "failed", sentence or one_line(error) or type(error).__name__, text)
