"""Runs jobs one after the other in this process; other processes may use the same results folder."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from oodbench.errors import OodbenchError
from oodbench.execution.coordinator import Assignment, Coordinator, Done, Finished
from oodbench.execution.queue import WorkerName
from oodbench.execution.work import WorkRequest
from oodbench.execution.worker import Worker
from oodbench.records.record import Record
from oodbench.records.store import Store
from oodbench.runs.cells import Job
from oodbench.runs.prepared import PreparedRun
from oodbench.runs.resolved import ResolvedRun
from oodbench.runs.settings import RunSettings
from oodbench.runs.summary import SeedFailed

# Seconds between two looks at jobs that another process has claimed.
LOOK_S = 0.1


@dataclass(frozen=True)
class Serial:
    """Executor that runs all jobs in this process."""

    name = "serial"

    def check(self, run: ResolvedRun) -> None:
        """Accept every run."""

    def records(self, run: PreparedRun, store: Store, settings: RunSettings) -> Iterator[Record | SeedFailed]:
        """The records of all jobs, seed by seed; finished cells are not run again."""
        return run_serially(run, store, run.all_jobs)


def run_serially(run: PreparedRun, store: Store, jobs: Mapping[int, Sequence[Job]]) -> Iterator[Record | SeedFailed]:
    """The records of some jobs of a run.

    A job that another process has claimed is left to it, and looked at again when nothing else is to do. If that
    process ended before the job was done, it is done here.

    Args:
        run: The run.
        store: The results folder.
        jobs: The jobs of each seed.
    """
    coordinator = Coordinator(jobs, store)
    worker = Worker(run, jobs)
    try:
        for _ in run.track(
            coordinator.steps(_InProcess(worker, store)), coordinator.total, "classifiers and detectors"
        ):
            pass
    finally:
        worker.close()
    yield from coordinator.results()


class _InProcess:
    """A transport that does tasks in this process, as soon as they are given."""

    def __init__(self, worker: Worker, store: Store) -> None:
        self._worker = worker
        self._store = store
        self._finished: Finished | None = None

    @property
    def is_idle(self) -> bool:
        """Whether nothing is under way."""
        return self._finished is None

    def free(self) -> Sequence[WorkerName]:
        """The single slot of this process."""
        return [None]

    def start(self, assignment: Assignment) -> None:
        """Do the tasks."""
        start = time.monotonic()
        done = [self._done(task.request) for task in assignment.tasks]
        self._finished = Finished(assignment, done, time.monotonic() - start)

    def wait(self) -> Finished | None:
        """What was done; if nothing was, wait a moment for other processes to finish their jobs."""
        finished, self._finished = self._finished, None
        if finished is None:
            time.sleep(LOOK_S)
        return finished

    def _done(self, request: WorkRequest) -> Done:
        if request.what == "run":
            return Done(request, records=self._worker.run(request, self._store))
        try:
            if request.what == "prepare":
                return Done(request, prepared=self._worker.prepare(request.seed))
            self._worker.collect(request.seed)
        except OodbenchError as error:
            return Done(request, error=error)
        return Done(request)
