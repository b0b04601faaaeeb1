"""A process that computes cells for an executor: whatever a plugin does to its process, it does to its cell alone.

``python -m oodbench.execution.cell_process`` reads an errand a line and writes an answer a line, until nobody asks
any more.
"""

import base64
import logging
import os
import queue
import signal
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from threading import Thread
from typing import NoReturn

from oodbench import isolation
from oodbench.cells import Cell, drafts, run_cell
from oodbench.detectors.selection import Broken
from oodbench.errors import OodbenchError, UsageError, described, one_line
from oodbench.execution.errand import CLOSED, Answer, Errand, Message, Site
from oodbench.execution.surroundings import surroundings
from oodbench.plan import Benchmark, look_up, read_data
from oodbench.progress import silent
from oodbench.records.record import Record
from oodbench.records.store import ScoreFile
from oodbench.threads import single_threaded
from oodbench.trial import Trial

# Seconds without an errand after which a process, and the data that it holds, goes.
IDLE_S = 900


@dataclass
class _Basket:
    """Holds what a cell gives, for whoever asked for it."""

    records: list[Record] = field(default_factory=list)
    scores: list[ScoreFile] = field(default_factory=list)

    def keep_scores(self, scores: ScoreFile) -> None:
        self.scores.append(scores)

    def keep(self, record: Record) -> Record:
        self.records.append(record)
        return record


class _Messages(logging.Handler):
    """Collects warnings, for whoever asked."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())

    def taken(self) -> list[str]:
        """What was collected since the last time."""
        texts, self.texts = self.texts, []
        return texts


class _Bench:
    """A run with its data, and the trial of one seed, which are kept for the next errand."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._trial: Trial | None = None
        self._threads, self._is_limited = ExitStack(), False

    @cached_property
    def benchmark(self) -> Benchmark:
        """The data of the run.

        Raises:
            UsageError: They are others here than where the run was started.
        """
        site = self._site
        with suppress(OSError):  # on another machine, there may be no such folder
            os.chdir(site.folder)
        plan = look_up(**site.asked.model_dump())
        found = read_data(plan, data=site.data, download=False, track=silent)
        _compare(site.surroundings, surroundings(found))
        return replace(found, download=site.download)

    def limit_threads(self, *, to_one: bool) -> None:
        """Use one thread, or all again; which libraries have threads is looked up once for many jobs."""
        if not to_one:
            self._threads.close()
            self._is_limited = False
        elif not self._is_limited:
            self._threads.enter_context(single_threaded())
            self._is_limited = True

    def trial(self, seed: int) -> Trial:
        """The classifier of a seed."""
        if self._trial is None or self._trial.seed != seed:
            self._trial = None  # not both at once in memory
            self.limit_threads(to_one=False)
            self._trial = self.benchmark.trial(seed)
        return self._trial


def answer(bench: _Bench, errand: Errand) -> Answer:
    """Do an errand.

    Raises:
        OodbenchError: It cannot be done here.
    """
    trial = bench.trial(errand.seed)
    bench.limit_threads(to_one=errand.what == "run")
    cells = bench.benchmark.cells
    if errand.what == "prepare":
        return Answer(cells=[[draft.cell_id for draft in drafts(trial, cell)] for cell in cells])
    if errand.what == "gather":
        trial.gather()
        return Answer()
    return _ran(trial, cells[errand.job], errand)


def _ran(trial: Trial, cell: Cell, errand: Errand) -> Answer:
    found = drafts(trial, cell)
    if [draft.cell_id for draft in found] != errand.cells:
        raise UsageError(
            f"the cells of {cell.chosen.label}, seed {errand.seed}, are others here than where the classifier was "
            "trained first; let all workers share the folder $OODBENCH_CACHE, so that it is trained once."
        )
    chosen = cell.chosen
    if errand.failure is not None:
        why = isolation.Failure("score", "failed", errand.failure)
        chosen = Broken(chosen.name, chosen.given, chosen.provider, why)
    basket, wanted = _Basket(), [draft for draft in found if draft.cell_id in set(errand.wanted)]
    list(run_cell(trial, replace(cell, chosen=chosen), wanted, basket))
    return Answer(
        records=[record.model_dump_json() for record in basket.records],
        scores=basket.scores[0].part if basket.scores else None,
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
    """Answer errands until standard input ends, or nobody has asked for long."""
    errands: queue.SimpleQueue[str] = queue.SimpleQueue()
    # Plugins may read and print what they like: not what is said here.
    given, taken = os.fdopen(os.dup(0), encoding="utf-8"), os.fdopen(os.dup(1), "w", encoding="utf-8")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    messages = _Messages()
    logging.getLogger("oodbench").addHandler(messages)
    logging.getLogger("oodbench").propagate = False
    isolation.expendable = True
    # No terminal's, since this is a session of its own; and a plugin's is of no use.
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def read() -> None:
        for line in given:
            errands.put(line)
        os._exit(0)  # whoever asked is gone, and what is being computed is of use to nobody

    Thread(target=read, daemon=True).start()
    bench: _Bench | None = None
    while True:
        try:
            told = Message.model_validate_json(errands.get(timeout=IDLE_S))
        except queue.Empty:
            os._exit(0)
        if told.site is not None:
            if bench is not None:
                bench.limit_threads(to_one=False)
            bench = None  # not the data of two runs at once in memory
            bench = _Bench(told.site)
        assert bench is not None
        try:
            found = answer(bench, told.errand)
        except OodbenchError as error:
            found = Answer(error=one_line(error))
        except KeyboardInterrupt:  # a plugin's
            os._exit(128 + signal.SIGINT)
        except Exception as error:
            found = Answer(error=f"the errand {told.errand.what} raised {described(error)}")
        answered = found.model_copy(update={"messages": messages.taken()}).model_dump_json()
        try:
            taken.write(f"{told.seal} {answered}\n")
            taken.flush()
        except OSError:  # a plugin has closed it
            os._exit(CLOSED)


if __name__ == "__main__":
    main()
