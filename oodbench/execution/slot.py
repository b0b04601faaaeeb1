"""A slot of a Dask worker: its thread passes errands on to a process of its own, which a plugin may bring down."""

import os
import secrets
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress

import psutil  # type: ignore[import-untyped]

from oodbench.execution.errand import CLOSED, Errand

# Not the plugin, but the system (which has run out of memory) or somebody sends these.
FROM_OUTSIDE = (signal.SIGKILL, signal.SIGTERM)

# Seconds between two looks at a process that does not answer.
LOOK_S = 1.0

Done = tuple[list[str], str | None]
"""Answers, as JSON, and how the process ended at the next errand, if it did by no doing of the plugin's."""

_slot = threading.local()
_processes: list["CellProcess"] = []


class ProcessEndedError(Exception):
    """A process ended while it was at an errand; the argument is its status, or None where it had to be ended."""


class CellProcess:
    """A running ``oodbench.execution.cell_process``."""

    def __init__(self) -> None:
        # -P: what lies in the working folder is not imported instead of what is installed.
        command = [sys.executable, "-P", "-m", "oodbench.execution.cell_process"]
        # Threads that wait for the next operation leave the processor to the other slots: two trainings side by side on
        # two processors take a quarter of the time.
        environment = {"OMP_WAIT_POLICY": "PASSIVE", **os.environ}
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True, env=environment
        )
        self._site: str | None = None
        self._read = b""
        _processes.append(self)

    @property
    def is_there(self) -> bool:
        """Whether it can be asked."""
        return self._process.poll() is None

    def ask(self, errand: str, site: str) -> str:
        """The answer to an errand of a run, all as JSON.

        Raises:
            ProcessEndedError: It ended.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        said = "null" if site == self._site else site
        self._site = site
        # What a plugin writes there is no answer, and what comes after it is nobody's.
        seal = secrets.token_hex(8)
        try:
            self._process.stdin.write(f'{{"seal": "{seal}", "site": {said}, "errand": {errand}}}\n'.encode())
            self._process.stdin.flush()
            answer = self._line(self._process.stdout.fileno())
        except BrokenPipeError:
            answer = b""
        if not answer.startswith(f"{seal} ".encode()):
            raise ProcessEndedError(self.end())
        return answer.removeprefix(f"{seal} ".encode()).decode()

    def _line(self, stdout: int) -> bytes:
        """The next line; nothing, if the process ends, or stops itself, which a time limit cannot see."""
        parts = [self._read]
        while b"\n" not in parts[-1]:
            is_there = self.is_there
            if select.select([stdout], [], [], LOOK_S)[0]:
                more = os.read(stdout, 1 << 20)
                if not more:
                    return b""
                parts.append(more)
            elif not is_there or _is_stopped(self._process.pid):  # though a child may hold its side open
                return b""
        line, _, self._read = b"".join(parts).partition(b"\n")
        return line

    def end(self) -> int | None:
        """End it, whatever it is doing; its status, or None if it would not end by itself."""
        if self in _processes:
            _processes.remove(self)
        # Where it has closed its side, it is about to end by itself, and how is of interest.
        try:
            return self._process.wait(timeout=1)
        except subprocess.TimeoutExpired:
            return None
        finally:
            with suppress(OSError):  # its children, too, if there are any
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


def perform(errands: Sequence[str], site: str) -> Done:
    """Do errands of a run in the process of this slot, one after the other; what Dask calls."""
    answers: list[str] = []
    for errand in errands:
        try:
            answers.append(_answer(errand, site))
        except ProcessEndedError as ended:
            return answers, how(ended.args[0])
    return answers, None


def _answer(errand: str, site: str) -> str:
    """The answer to an errand, as JSON; if the process ended by the plugin's doing, with records that say so.

    Raises:
        ProcessEndedError: It ended by no doing of the plugin's.
    """
    try:
        return _process().ask(errand, site)
    except ProcessEndedError as ended:
        asked = Errand.model_validate_json(errand)
        status: int | None = ended.args[0]
        if asked.what != "run" or (status is not None and -status in FROM_OUTSIDE):
            raise
        return _process().ask(asked.model_copy(update={"failure": how(status)}).model_dump_json(), site)


def dask_setup(worker: object) -> None:
    """A terminal's Ctrl-C is the run's to heed, which ends its workers; what Dask calls in a worker of this machine."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def end_processes() -> None:
    """End the processes of all slots of this worker."""
    for process in list(_processes):
        process.end()


def how(status: int | None) -> str:
    """How a process ended, as a sentence about its plugin."""
    if status in (None, CLOSED):
        return "it stopped its process, closed the files of that, or wrote to one that is not its own"
    if status >= 0:
        return (
            f"it ended its process (exit status {status}), as native code does that is not back when its time limit is "
            "over, or os._exit"
        )
    name = signal.Signals(-status).name if -status in list(signal.Signals) else f"signal {-status}"
    return f"it ended its process by {name}"


def _is_stopped(process: int) -> bool:
    with suppress(psutil.Error):
        return bool(psutil.Process(process).status() == psutil.STATUS_STOPPED)
    return False


def _process() -> CellProcess:
    """The process of the calling thread, a new one if it has none or an earlier one ended."""
    process: CellProcess | None = getattr(_slot, "process", None)
    if process is None or not process.is_there:
        process = _slot.process = CellProcess()
    return process
