"""A slot of a Dask worker: a thread that passes requests on to a process of its own, which a plugin may crash."""

import os
import secrets
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import count

from oodbench.execution.work import CLOSED, PASS, SLOT, WorkRequest
from oodbench.machine.waiting import with_short_waits

# Signals that are sent by the system (out of memory) or by a person, rather than caused by a plugin.
FROM_OUTSIDE = (signal.SIGKILL, signal.SIGTERM)

# Seconds between two looks at a process that does not answer.
LOOK_S = 1.0

Say = Callable[[str], None]
Answers = tuple[list[str], str | None]
"""Answers as JSON; and how the process ended, if it was ended from outside before it had answered all requests."""

_slot = threading.local()
_numbers = count()
_processes: list["WorkerProcess"] = []


class ProcessEndedError(Exception):
    """A process ended before it had answered; the argument is its exit status, or None where it had to be killed."""


class WorkerProcess:
    """A running ``oodbench.execution.worker_process``.

    Args:
        slot: Which process of this machine it is.
    """

    def __init__(self, slot: int) -> None:
        # -P: what lies in the working folder is not imported instead of what is installed.
        command = [sys.executable, "-P", "-m", "oodbench.execution.worker_process"]
        # As the processors are shared with the other slots.
        environment = {**with_short_waits(os.environ), SLOT: str(slot)}
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True, env=environment
        )
        self._setup: str | None = None
        self._read = b""
        _processes.append(self)

    @property
    def is_there(self) -> bool:
        """Whether the process still runs."""
        return self._process.poll() is None

    def ask(self, request: str, setup: str, say: Say) -> str:
        """Send a request and return the answer, all as JSON; how far a pass over images is goes to ``say`` meanwhile.

        Raises:
            ProcessEndedError: The process ended before it had answered.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        said = "null" if setup == self._setup else setup
        self._setup = setup
        # An answer begins with the seal; a line without it was written by a plugin.
        seal = secrets.token_hex(8)
        try:
            self._process.stdin.write(f'{{"seal": "{seal}", "setup": {said}, "request": {request}}}\n'.encode())
            self._process.stdin.flush()
            answer = self._line(self._process.stdout.fileno())
            while answer.startswith(f"{seal} {PASS}".encode()):
                say(answer.removeprefix(f"{seal} {PASS}".encode()).decode())
                answer = self._line(self._process.stdout.fileno())
        except BrokenPipeError:
            answer = b""
        if not answer.startswith(f"{seal} ".encode()):
            raise ProcessEndedError(self.end())
        return answer.removeprefix(f"{seal} ".encode()).decode()

    def _line(self, stdout: int) -> bytes:
        """The next line; empty if the process ends or is stopped, which no time limit notices."""
        chunks = [self._read]
        while b"\n" not in chunks[-1]:
            is_there = self.is_there
            if select.select([stdout], [], [], LOOK_S)[0]:
                chunk = os.read(stdout, 1 << 20)
                if not chunk:
                    return b""
                chunks.append(chunk)
            elif not is_there or _is_stopped(self._process.pid):  # though a child may hold its side open
                return b""
        line, _, self._read = b"".join(chunks).partition(b"\n")
        return line

    def end(self) -> int | None:
        """End the process and its children; its exit status, or None if it had to be killed."""
        if self in _processes:
            _processes.remove(self)
        # A process that has closed its side is about to end by itself; wait for its exit status.
        try:
            return self._process.wait(timeout=1)
        except subprocess.TimeoutExpired:
            return None
        finally:
            with suppress(OSError):  # its children, too, if there are any
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


def perform(requests: Sequence[str], setup: str, topic: str) -> Answers:
    """Do requests of a run in the process of this slot, one after the other; called by Dask.

    Args:
        requests: The requests.
        setup: The setup of the run.
        topic: The topic of Dask's events under which the run hears how far passes over images are.
    """
    from distributed import get_worker

    worker = get_worker()

    def say(passed: str) -> None:
        worker.log_event(topic, {"worker": worker.address, "passed": passed})

    answers: list[str] = []
    for request in requests:
        try:
            answers.append(_answer(request, setup, say))
        except ProcessEndedError as ended:
            return answers, how(ended.args[0])
    return answers, None


def _answer(request: str, setup: str, say: Say) -> str:
    """The answer to a request, as JSON; if a plugin ended the process, the answer has records of the failure.

    Raises:
        ProcessEndedError: The process ended for another reason.
    """
    try:
        return _process().ask(request, setup, say)
    except ProcessEndedError as ended:
        asked = WorkRequest.model_validate_json(request)
        status: int | None = ended.args[0]
        if asked.what != "run" or (status is not None and -status in FROM_OUTSIDE):
            raise
        return _process().ask(asked.model_copy(update={"failure": how(status)}).model_dump_json(), setup, say)


def dask_setup(worker: object) -> None:
    """Ignore Ctrl-C, which the run itself handles by ending its workers; called by Dask in each local worker."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def end_processes() -> None:
    """End the processes of all slots of this worker."""
    for process in list(_processes):
        process.end()


def how(status: int | None) -> str:
    """How a process ended, as a sentence about the plugin that it ran."""
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
    import psutil  # type: ignore[import-untyped]  # of the extra `dask`, which workers have

    with suppress(psutil.Error):
        return bool(psutil.Process(process).status() == psutil.STATUS_STOPPED)
    return False


def _process() -> WorkerProcess:
    """The process of the calling thread, a new one if it has none or an earlier one ended."""
    process: WorkerProcess | None = getattr(_slot, "process", None)
    if process is None or not process.is_there:
        if not hasattr(_slot, "number"):
            _slot.number = _first_number() + next(_numbers)
        process = _slot.process = WorkerProcess(_slot.number)
    return process


def _first_number() -> int:
    """The number of this worker's first slot: workers of a cluster on one machine are named by numbers."""
    from distributed import get_worker

    with suppress(ValueError, TypeError):
        return int(get_worker().name)
    return 0
