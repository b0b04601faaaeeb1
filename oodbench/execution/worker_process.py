"""A process that answers requests of an executor, so that a plugin that ends its process costs its own cells only.

``python -m oodbench.execution.worker_process`` reads one request per line from stdin and writes one answer per line to
stdout, until stdin ends.
"""

import base64
import logging
import os
import queue
import signal
from contextlib import suppress
from dataclasses import dataclass, field, replace
from threading import Thread
from typing import NoReturn, TextIO

from oodbench.errors import OodbenchError, UsageError, described, one_line
from oodbench.execution.environment import environment_fingerprint
from oodbench.execution.work import CLOSED, PASS, SLOT, Passed, SealedRequest, WorkAnswer, WorkerSetup, WorkRequest
from oodbench.execution.worker import Worker
from oodbench.journal.events import events
from oodbench.machine.progress import silent
from oodbench.records.record import Record
from oodbench.records.store import ScoreFile
from oodbench.runs.prepared import prepare_run
from oodbench.runs.resolved import resolve_run

# Seconds without a request after which a process ends, to free its memory.
IDLE_S = 900


@dataclass
class _Basket:
    """Keeps the records and scores of a job in memory, for the answer."""

    records: list[Record] = field(default_factory=list)
    scores: list[ScoreFile] = field(default_factory=list)

    def keep_scores(self, scores: ScoreFile) -> None:
        self.scores.append(scores)

    def keep(self, record: Record) -> Record:
        self.records.append(record)
        return record


class _Warnings(logging.Handler):
    """Collects warnings, for the answer."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())

    def taken(self) -> list[str]:
        """The warnings since the last call."""
        texts, self.texts = self.texts, []
        return texts


class _Passes(logging.Handler):
    """Sends how far a pass over images is, ahead of the answer to the request at hand."""

    def __init__(self, outgoing: TextIO) -> None:
        super().__init__()
        self._outgoing = outgoing
        self.request: SealedRequest | None = None

    def emit(self, record: logging.LogRecord) -> None:
        if record.getMessage() == "images done" and self.request is not None:
            passed = Passed(seed=self.request.request.seed, **record.__dict__["facts"])
            self._outgoing.write(f"{self.request.seal} {PASS}{passed.model_dump_json()}\n")
            self._outgoing.flush()


def make_worker(setup: WorkerSetup) -> Worker:
    """A worker with the data of a run.

    Raises:
        UsageError: Data or packages differ from those where the run was started.
    """
    with suppress(OSError):  # on another machine, there may be no such folder
        os.chdir(setup.folder)
    resolved = resolve_run(setup.spec, ends_process=True, slot=int(os.environ.get(SLOT, "0")))
    run = prepare_run(resolved, data=setup.data, download=False, track=silent)
    _compare(setup.environment, environment_fingerprint(run))
    run = replace(run, download=setup.download)
    return Worker(run, run.all_jobs)


def answer(worker: Worker, request: WorkRequest) -> WorkAnswer:
    """Do a request.

    Raises:
        OodbenchError: It cannot be done here.
    """
    if request.what == "prepare":
        return WorkAnswer(prepared=worker.prepare(request.seed))
    if request.what == "collect":
        worker.collect(request.seed)
        return WorkAnswer()
    basket = _Basket()
    worker.run(request, basket)
    return WorkAnswer(
        records=[record.model_dump_json() for record in basket.records],
        scores=basket.scores[0].recorded if basket.scores else None,
        content=base64.b64encode(basket.scores[0].content).decode() if basket.scores else "",
    )


def _compare(there: dict[str, str], here: dict[str, str]) -> None:
    for name in sorted(there.keys() | here.keys()):
        if there.get(name) != here.get(name):
            raise UsageError(
                f"{name} is {here.get(name, 'not there')} on this worker and {there.get(name, 'not there')} where the "
                "run was started; both need the same packages and data."
            )


def main() -> NoReturn:
    """Answer requests until standard input ends, or none has come for ``IDLE_S`` seconds."""
    requests: queue.SimpleQueue[str] = queue.SimpleQueue()
    # Requests and answers use copies of stdin and stdout, which plugins then cannot disturb by reading or printing.
    incoming, outgoing = os.fdopen(os.dup(0), encoding="utf-8"), os.fdopen(os.dup(1), "w", encoding="utf-8")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    warnings = _Warnings()
    logging.getLogger("oodbench").addHandler(warnings)
    logging.getLogger("oodbench").propagate = False
    passes = _Passes(outgoing)
    events.addHandler(passes)
    # No Ctrl-C of a terminal reaches this session; one that a plugin sends is ignored.
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def read() -> None:
        for line in incoming:
            requests.put(line)
        os._exit(0)  # the executor is gone, so nobody needs the answer

    Thread(target=read, daemon=True).start()
    setup: WorkerSetup | None = None
    worker: Worker | None = None
    while True:
        try:
            sealed = SealedRequest.model_validate_json(requests.get(timeout=IDLE_S))
        except queue.Empty:
            os._exit(0)
        if sealed.setup is not None:
            if worker is not None:
                worker.close()
            setup, worker = sealed.setup, None  # not the data of two runs at once in memory
        assert setup is not None
        passes.request = sealed
        try:
            worker = worker or make_worker(setup)
            reply = answer(worker, sealed.request)
        except OodbenchError as error:
            reply = WorkAnswer(error=one_line(error))
        except KeyboardInterrupt:  # a plugin's
            os._exit(128 + signal.SIGINT)
        except Exception as error:
            reply = WorkAnswer(error=f"the request to {sealed.request.what} raised {described(error)}")
        passes.request = None
        reply_text = reply.model_copy(update={"warnings": warnings.taken()}).model_dump_json()
        try:
            outgoing.write(f"{sealed.seal} {reply_text}\n")
            outgoing.flush()
        except OSError:  # a plugin has closed it
            os._exit(CLOSED)


if __name__ == "__main__":
    main()
