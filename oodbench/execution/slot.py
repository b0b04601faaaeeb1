"""A slot of a Dask worker: its thread passes errands on to a process of its own, which a plugin may bring down."""

import signal
import subprocess
import sys
import threading
from collections.abc import Sequence

from oodbench.execution.errand import Errand

# Not the plugin, but the system (which has run out of memory) or somebody sends these.
FROM_OUTSIDE = (signal.SIGKILL, signal.SIGTERM)

Done = tuple[list[str], int | None]
"""Answers, as JSON, and how the process ended at the next errand, if it did by no doing of the plugin's."""

_slot = threading.local()
_processes: list["CellProcess"] = []


class ProcessEndedError(Exception):
    """A process ended while it was at an errand; the argument says how."""


class CellProcess:
    """A running ``oodbench.execution.cell_process``."""

    def __init__(self) -> None:
        # -P: what lies in the working folder is not imported instead of what is installed.
        command = [sys.executable, "-P", "-m", "oodbench.execution.cell_process"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
        self._site: str | None = None
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
        try:
            self._process.stdin.write(f'{{"site": {said}, "errand": {errand}}}\n'.encode())
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        except BrokenPipeError:
            answer = b""
        if not answer.endswith(b"\n"):
            self.end()
            raise ProcessEndedError(self._process.returncode)
        return answer.decode()

    def end(self) -> None:
        """End it, whatever it is doing."""
        if self in _processes:
            _processes.remove(self)
        # Where it has closed its side, it is about to end by itself, and how is of interest.
        try:
            self._process.wait(timeout=1)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def perform(errands: Sequence[str], site: str) -> Done:
    """Do errands of a run in the process of this slot, one after the other; what Dask calls."""
    answers: list[str] = []
    for errand in errands:
        try:
            answers.append(_answer(errand, site))
        except ProcessEndedError as ended:
            return answers, ended.args[0]
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
        if asked.what != "run" or -ended.args[0] in FROM_OUTSIDE:
            raise
        return _process().ask(asked.model_copy(update={"failure": how(ended.args[0])}).model_dump_json(), site)


def end_processes() -> None:
    """End the processes of all slots of this worker."""
    for process in list(_processes):
        process.end()


def how(status: int) -> str:
    """How a process ended, as a sentence about its plugin."""
    if status >= 0:
        return (
            f"it ended its process (exit status {status}), as native code does that is not back when its time limit is "
            "over, or os._exit"
        )
    return f"it ended its process by {signal.Signals(-status).name}"


def _process() -> CellProcess:
    """The process of the calling thread, a new one if it has none or an earlier one ended."""
    process: CellProcess | None = getattr(_slot, "process", None)
    if process is None or not process.is_there:
        process = _slot.process = CellProcess()
    return process
