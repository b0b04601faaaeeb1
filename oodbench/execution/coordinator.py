"""Gives the tasks of a run to workers, claims their cells in the results folder, and writes the journal.

Tasks are done by a ``Transport``: the process itself, or the workers of a cluster.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Protocol

from oodbench.errors import OodbenchError, UsageError, one_line
from oodbench.execution.queue import Task, Verdict, WorkerName, WorkQueue
from oodbench.execution.work import PreparedSeed, WorkRequest
from oodbench.journal.events import Event, tell
from oodbench.records.networks import refuse_other_network, refuse_trusted
from oodbench.records.record import Record
from oodbench.records.store import Store
from oodbench.runs.cells import Job
from oodbench.runs.summary import Lacks, SeedFailed

logger = logging.getLogger(__name__)

LACKS: Mapping[str, Lacks] = {"prepare": "classifier", "collect": "evidence", "run": "records"}
"""What a seed has none of if a request for it fails."""


@dataclass(frozen=True)
class Assignment:
    """Tasks that are given to a worker together, and the claims of their cells.

    Attributes:
        worker: The worker.
        tasks: The tasks.
        claims: Held until the tasks are done.
    """

    worker: WorkerName
    tasks: Sequence[Task]
    claims: ExitStack = field(default_factory=ExitStack)


@dataclass(frozen=True)
class Done:
    """A request that was done, with what came of it.

    Attributes:
        request: The request.
        prepared: After ``prepare``, what the seed has.
        records: After ``run``, the records of the job, as they were kept.
        error: Why nothing more can be done for the seed; None if all went well.
    """

    request: WorkRequest
    prepared: PreparedSeed | None = None
    records: Sequence[Record] = ()
    error: OodbenchError | None = None


@dataclass(frozen=True)
class Finished:
    """An assignment that came back.

    Attributes:
        assignment: The assignment.
        done: What came of its tasks, without those that are tried again.
        seconds: How long it took.
    """

    assignment: Assignment
    done: Sequence[Done]
    seconds: float


class Transport(Protocol):
    """Brings tasks to workers."""

    def free(self) -> Sequence[WorkerName]:
        """The workers with free slots, each once for each free slot."""
        ...

    def start(self, assignment: Assignment) -> None:
        """Give tasks to a worker."""

    def wait(self) -> Finished | None:
        """The next assignment that comes back; None if none does for a while."""
        ...

    @property
    def is_idle(self) -> bool:
        """Whether nothing is under way."""
        ...


class Coordinator:
    """Gives the tasks of a run to workers until nothing is left to do.

    Args:
        jobs: The jobs of each seed.
        store: The results folder.

    Attributes:
        queue: The tasks that are not under way.
        total: How many steps there are at the most.
    """

    def __init__(self, jobs: Mapping[int, Sequence[Job]], store: Store) -> None:
        self.queue = WorkQueue(jobs)
        self.total = sum(len(of_seed) + 2 for of_seed in jobs.values())
        self._jobs = jobs
        self._store = store
        self._records: dict[tuple[int, int], Sequence[Record]] = {}
        self._errors: dict[int, SeedFailed] = {}

    def steps(self, transport: Transport) -> Iterator[None]:
        """Do all tasks; yields whenever a seed is prepared, its evidence collected, or a job done."""
        while not (transport.is_idle and self.queue.is_empty):
            for worker in transport.free():
                assignment = Assignment(worker, tasks := list[Task]())
                while (task := self.queue.next(worker, tasks)) is not None:
                    claimed = self._claimed(task, assignment.claims)
                    if claimed is not None:
                        tasks.append(claimed)
                    elif (task.request.seed, task.request.job) in self._records:
                        yield
                if tasks:
                    for task in tasks:
                        self.tell_start(task.request, worker)
                    try:
                        transport.start(assignment)
                    except BaseException:
                        assignment.claims.close()
                        raise
            finished = transport.wait()
            if finished is None:
                self.queue.look_again()
            else:
                yield from self._take(finished)

    def results(self) -> Iterator[Record | SeedFailed]:
        """The records of all jobs in their order; a seed that failed gives a single ``SeedFailed``."""
        for seed, jobs in self._jobs.items():
            if seed in self._errors:
                yield self._errors[seed]
            else:
                for i in range(len(jobs)):
                    yield from self._records[seed, i]

    def lost(self, tasks: Sequence[Task], why: str, tries: int = 1) -> list[Done]:
        """Take back tasks whose worker or process ended; returns those that are given up, with their error."""
        given_up = []
        for verdict in self.queue.lost(tasks, why, tries):
            request = verdict.task.request
            if verdict.fate == "given up":
                given_up.append(Done(request, error=OodbenchError(verdict.why)))
            else:
                self.tell_lost(request, why)
                self._warn(verdict)
        return given_up

    def tell_start(self, request: WorkRequest, worker: WorkerName) -> None:
        """Tell the journal that a worker begins a request."""
        by = {} if worker is None else {"worker": worker}
        if request.what == "run":
            tell("job started", **self._job(request).facts(), **by)
        else:
            event: Event = "seed started" if request.what == "prepare" else "evidence started"
            tell(event, seed=request.seed, **by)

    def tell_lost(self, request: WorkRequest, why: str) -> None:
        """Tell the journal that a job was lost, and will be begun again."""
        if request.what == "run":
            tell("job lost", **self._job(request).facts(), why=why)

    def _warn(self, verdict: Verdict) -> None:
        request = verdict.task.request
        if verdict.fate == "again":
            logger.warning("%s of seed %d is tried again: %s.", self._title(request), request.seed, verdict.why)

    def _title(self, request: WorkRequest) -> str:
        if request.what != "run":
            return {"prepare": "training", "collect": "evidence"}[request.what]
        job = self._job(request)
        return f"{job.detector.label}{' exposed to ' + ', '.join(job.exposed) if job.exposed else ''}"

    def _job(self, request: WorkRequest) -> Job:
        return self._jobs[request.seed][request.job]

    def _claimed(self, task: Task, claims: ExitStack) -> Task | None:
        """Claim the cells of a task; None if it is finished already, or claimed by another process."""
        request = task.request
        if request.what != "run":
            return task
        claim = ExitStack()
        if not claim.enter_context(self._store.claimed(request.cells, wait=False)):
            self.queue.postpone(task)
            return None
        kept = self._store.finished_of(request.cells)  # another process may have come far
        if len(kept) == len(request.cells):
            claim.close()
            self._records[request.seed, request.job] = list(kept.values())
            return None
        claims.push(claim)
        wanted = [cell for cell in request.cells if cell not in kept]
        return Task(request.model_copy(update={"wanted": wanted}), task.tries)

    def _take(self, finished: Finished) -> Iterator[None]:
        assignment = finished.assignment
        with assignment.claims:
            seconds_each = round(finished.seconds / len(assignment.tasks), 3)
            for done in finished.done:
                yield from self._done(done, seconds_each)

    def _done(self, done: Done, seconds: float) -> Iterator[None]:
        request, seed = done.request, done.request.seed
        if done.error is not None:
            self._fail(seed, done.error, LACKS[request.what])
        elif request.what == "prepare":
            yield from self._prepared(seed, done.prepared or PreparedSeed(cells=[]))
            yield
        elif request.what == "collect":
            tell("evidence collected", seed=seed, seconds=seconds)
            self.queue.collected(seed)
            yield
        else:
            kept = {record.cell_id: record for record in done.records}
            kept |= self._store.finished_of([cell for cell in request.cells if cell not in kept])
            self._records[seed, request.job] = [kept[cell] for cell in request.cells]
            tell("job ended", **self._job(request).facts(), seconds=seconds)
            yield

    def _fail(self, seed: int, error: OodbenchError, lacks: Lacks) -> None:
        tell("seed failed", seed=seed, error=one_line(error), lacks=lacks)
        self._errors.setdefault(seed, SeedFailed(seed, error, lacks))
        self.queue.drop(seed)

    def _prepared(self, seed: int, prepared: PreparedSeed) -> Iterator[None]:
        """Take the cells of a prepared seed, and queue its jobs that are not finished."""
        tell("seed prepared", seed=seed, jobs=prepared.cells)
        to_do = []
        for job, of_job in enumerate(prepared.cells):
            kept = self._store.finished_of(of_job)
            try:
                refuse_other_network(kept.values(), prepared.probe)
                if not prepared.trusts_model:
                    refuse_trusted(kept.values())
            except UsageError as error:
                self._fail(seed, error, "records")
                return
            if len(kept) == len(of_job):
                self._records[seed, job] = list(kept.values())
                yield
            else:
                to_do.append(WorkRequest(what="run", seed=seed, job=job, cells=list(of_job)))
        self.queue.prepared(seed, to_do)
