"""Runs jobs on a Dask cluster: on this machine, or one that runs already.

The client decides what is done next and keeps the results; workers need neither the results folder nor each other.
There are never more assignments under way than slots, so that a worker that ends loses at most one for each slot.
"""

import base64
import logging
import secrets
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import chain, count
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

from oodbench import registry
from oodbench.detectors.selection import SelectedDetector
from oodbench.errors import MissingPrerequisiteError, OodbenchError, UsageError, one_line
from oodbench.execution.coordinator import Assignment, Coordinator, Done, Finished
from oodbench.execution.environment import environment_fingerprint
from oodbench.execution.queue import RETRIES, WorkerName
from oodbench.execution.slot import Answers, end_processes, perform
from oodbench.execution.work import Passed, WorkAnswer, WorkerSetup, WorkRequest
from oodbench.journal.events import tell
from oodbench.machine.device import device_count
from oodbench.machine.threads import processors
from oodbench.records.record import Record
from oodbench.records.store import ScoreFile, Store
from oodbench.runs.prepared import PreparedRun
from oodbench.runs.resolved import ResolvedRun
from oodbench.runs.settings import RunSettings
from oodbench.runs.summary import SeedFailed

if TYPE_CHECKING:
    import torch
    from distributed import Client, Future

logger = logging.getLogger(__name__)

# Seconds between two looks at the workers, and without workers before a warning.
LOOK_S = 1.0
LONELY_S = 60.0
CONNECT_S = 15


@dataclass(frozen=True)
class Dask:
    """Executor that runs jobs on a Dask cluster.

    Attributes:
        scheduler: Address of a running scheduler; None starts a cluster on this machine.
        workers: Number of processes of a cluster on this machine; None for one per processor, or per GPU if they
            compute there.
        resources: Dask resources that a job takes of a worker, such as ``{"GPU": 1}``.
    """

    scheduler: str | None = None
    workers: int | None = None
    resources: Mapping[str, float] = field(default_factory=dict)

    name = "dask"

    def __post_init__(self) -> None:
        """Refuse invalid options.

        Raises:
            UsageError: An option is invalid, or two contradict each other.
        """
        if self.scheduler is not None and self.workers is not None:
            raise UsageError(
                "the workers of a running scheduler are what they are; leave workers out, or the scheduler."
            )
        if self.workers is not None and self.workers < 1:
            raise UsageError(f"the number of workers is {self.workers!r}; expected a whole number from 1, or None.")
        for name, amount in self.resources.items():
            if not amount > 0:
                raise UsageError(f"the resource {name} is {amount!r}; expected a number above 0.")

    def check(self, run: ResolvedRun) -> None:
        """Refuse detectors and classifiers that no other process can load.

        Raises:
            UsageError: The message names the first of them.
        """
        if run.given.what:
            raise UsageError(
                f"the {run.given.what[0]} is an object that this process alone has; write it to a file, and give its "
                "name (file.py:function, or the file of weights), for Dask."
            )
        selected = [detector for detector in run.detectors if isinstance(detector, SelectedDetector)]
        for detector in chain.from_iterable(one.with_inputs() for one in selected):
            entry = registry.find("detectors", detector.name)
            if entry is not None and entry.origin == "process":
                raise UsageError(
                    f"the detector {detector.name} is known to this process alone; write it to a file, and give that "
                    "as plugin and its name as detector."
                )
            for part in detector.plugin.needs:
                needed = registry.find("evidence", part)
                if needed is not None and needed.origin == "process":
                    raise UsageError(
                        f"the evidence part {part} is known to this process alone; write it to a file, and give that "
                        "as plugin."
                    )

    def records(self, run: PreparedRun, store: Store, settings: RunSettings) -> Iterator[Record | SeedFailed]:
        """The records of all jobs, in the same order as by one process; finished cells are not run again.

        Raises:
            MissingPrerequisiteError: Dask is not installed, or no scheduler answers.
            OodbenchError: The connection was lost.
        """
        setup = WorkerSetup(
            spec=run.resolved.spec.model_copy(update={"seeds": tuple(run.seeds)}),
            data=None if settings.data is None else str(settings.data),
            download=settings.download,
            folder=str(Path.cwd()),
            environment=environment_fingerprint(run),
        )
        coordinator = Coordinator(run.all_jobs, store)
        with _connected(self, run.resolved.computing.device) as client:
            transport = _Transport(self, client, setup, coordinator, store)
            try:
                for _ in run.track(coordinator.steps(transport), coordinator.total, "classifiers and detectors"):
                    pass
            except OSError as cause:
                raise OodbenchError(
                    f"the connection to the Dask scheduler was lost: {one_line(cause)}; what was finished is kept, and "
                    "the same command goes on from there."
                ) from cause
            finally:
                transport.end()
        yield from coordinator.results()


@contextmanager
def _connected(dask: "Dask", device: "torch.device") -> "Iterator[Client]":
    try:
        from distributed import Client, LocalCluster
    except ImportError as cause:
        raise MissingPrerequisiteError(
            f"the executor dask needs a package that is not installed ({one_line(cause)}); install it with "
            "`pip install 'oodbench[dask]'`."
        ) from cause
    # Dask's own messages about connections are of no use to the user.
    for name in ("distributed", "distributed.client"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    with ExitStack() as stack:
        if dask.scheduler is None:
            # The data are in separate processes, which Dask's memory limit does not cover.
            local = LocalCluster(  # type: ignore[no-untyped-call]
                n_workers=dask.workers or _default_workers(device),
                threads_per_worker=1,
                host="127.0.0.1",
                dashboard_address="127.0.0.1:0",
                memory_limit=0,
                resources=dict(dask.resources),
                preload=["oodbench.execution.slot"],
                silence_logs=logging.CRITICAL,
            )
            address = stack.enter_context(local)
        else:
            address = dask.scheduler
        try:
            client = Client(address, timeout=CONNECT_S, set_as_default=False)  # type: ignore[no-untyped-call]
        except (OSError, ValueError, TypeError) as cause:
            raise MissingPrerequisiteError(
                f"no Dask scheduler answers at {dask.scheduler} ({one_line(cause)}); expected the address that "
                "`dask scheduler` prints, such as tcp://host:8786."
            ) from cause
        yield stack.enter_context(client)


def _default_workers(device: "torch.device") -> int:
    """A process for each processor, or for each GPU: several on one would wait for each other."""
    return processors() if device.type == "cpu" else device_count(device)


def _tell_pass(event: tuple[float, Mapping[str, str]]) -> None:
    """Pass on to the journal how far a pass over images is that a worker does; called by Dask with time and message."""
    _, message = event
    tell("images done", worker=message["worker"], **Passed.model_validate_json(message["passed"]).model_dump())


@dataclass
class _Running:
    """An assignment under way: its worker, its future, and when it was started."""

    assignment: Assignment
    address: str
    future: "Future[Answers]"
    since: float = field(default_factory=time.monotonic)


class _Transport:
    """Sends requests to the slots of workers, and keeps what comes back."""

    def __init__(
        self, dask: Dask, client: "Client", setup: WorkerSetup, coordinator: Coordinator, store: Store
    ) -> None:
        self._dask, self._client = dask, client
        self._coordinator, self._store = coordinator, store
        # Sent once to each worker rather than with each request, as it may be large.
        self._setup = client.submit(str, setup.model_dump_json(), pure=False)
        self._topic = f"oodbench-{secrets.token_hex(8)}"
        client.subscribe_topic(self._topic, _tell_pass)  # type: ignore[no-untyped-call]
        self._running: dict[str, _Running] = {}
        self._ended: SimpleQueue[Future[Answers]] = SimpleQueue()
        self._slots: dict[str, int] = {}
        self._there: list[str] | None = None
        self._looked = self._lonely = -LONELY_S
        self._numbers = count()
        self._warned: set[str] = set()

    @property
    def is_idle(self) -> bool:
        """Whether nothing is under way."""
        return not self._running

    def free(self) -> Sequence[WorkerName]:
        """The addresses of workers, once for each free slot."""
        self._look()
        used = Counter(running.address for running in self._running.values())
        slots = [address for address, n in self._slots.items() for _ in range(n - used[address])]
        # An assignment whose worker is gone takes up a slot until Dask has said what became of it.
        return slots[: max(0, sum(self._slots.values()) - len(self._running))]

    def start(self, assignment: Assignment) -> None:
        """Send requests to a worker."""
        assert assignment.worker is not None
        first = assignment.tasks[0].request
        key = f"oodbench-{first.what}-{first.seed}-{first.job}-{next(self._numbers)}-{id(self)}"
        future = self._client.submit(
            perform,
            [task.request.model_dump_json() for task in assignment.tasks],
            self._setup,
            self._topic,
            key=key,
            workers=[assignment.worker],
            allow_other_workers=True,
            resources=dict(self._dask.resources) or None,
            pure=False,
        )
        self._running[key] = _Running(assignment, assignment.worker, future)
        future.add_done_callback(self._ended.put)  # type: ignore[no-untyped-call]

    def wait(self) -> Finished | None:
        """The next assignment that comes back; None if none does within a second."""
        try:
            future = self._ended.get(timeout=LOOK_S)
        except Empty:
            return None
        running = self._running.pop(str(future.key), None)
        if running is None:
            return None
        seconds, tasks = time.monotonic() - running.since, running.assignment.tasks
        try:
            done = self._answers(running.assignment, future)
        except BaseException:
            running.assignment.claims.close()
            raise
        self._coordinator.queue.took(running.address, len(tasks), seconds)
        return Finished(running.assignment, done, seconds)

    def end(self) -> None:
        """Release all claims and cancel what is under way."""
        for running in self._running.values():
            running.assignment.claims.close()
        if self._running:
            with suppress(Exception):
                self._client.cancel([running.future for running in self._running.values()])  # type: ignore[no-untyped-call]
        with suppress(Exception):
            self._client.unsubscribe_topic(self._topic)  # type: ignore[no-untyped-call]
        if self._dask.scheduler is not None:
            with suppress(Exception):
                self._client.run(end_processes)

    def _look(self) -> None:
        """Look up which workers there are, at most once in ``LOOK_S`` seconds."""
        now = time.monotonic()
        if now - self._looked < LOOK_S:
            return
        self._looked = now
        if self._client.status != "running":
            raise OSError("it does not answer any more")
        workers = self._client.scheduler_info()["workers"]
        self._slots = {address: _slots(worker, self._dask.resources) for address, worker in workers.items()}
        self._coordinator.queue.forget_workers_but(self._slots)
        there = sorted(address for address, slots in self._slots.items() if slots)
        if there != self._there:
            tell("workers changed", workers=there)
            self._say_who_is_lost(there)
            self._there = there
        self._follow()
        self._say_if_lonely()

    def _say_who_is_lost(self, there: Sequence[str]) -> None:
        for address in sorted(set(self._there or ()).difference(there)):
            lost = [running for running in self._running.values() if running.address == address]
            if lost:
                logger.warning("the Dask worker %s is gone; what it was at is tried again by another.", address)
            for running in lost:
                for task in running.assignment.tasks:
                    self._coordinator.tell_lost(task.request, "its worker is gone")

    def _follow(self) -> None:
        """Find the workers that Dask has moved the assignments of lost workers to."""
        lost = {key: running for key, running in self._running.items() if running.address not in self._slots}
        if not lost:
            return
        for address, keys in self._client.processing().items():  # type: ignore[no-untyped-call]
            for running in (lost[key] for key in keys if key in lost and address in self._slots):
                running.address, running.since = address, time.monotonic()
                for task in running.assignment.tasks:
                    self._coordinator.tell_start(task.request, address)

    def _say_if_lonely(self) -> None:
        now = time.monotonic()
        if self._there:
            self._lonely = now
        elif now - self._lonely > LONELY_S:
            self._lonely = now
            asked = f" with {dict(self._dask.resources)}" if self._dask.resources else ""
            logger.warning("no Dask worker%s is there; this waits until one comes.", asked)

    def _answers(self, assignment: Assignment, future: "Future[Answers]") -> list[Done]:
        """What came of the requests of an assignment, without those that are tried again."""
        from distributed import CancelledError, KilledWorker

        tasks, coordinator = assignment.tasks, self._coordinator
        try:
            texts, end = future.result()
        except KilledWorker:  # Dask has tried several workers, and all of them ended
            why = "every worker that it was given to ended while it was at it"
            return coordinator.lost(tasks, why, RETRIES + 1)
        except (CancelledError, OSError) as cause:
            if self._client.status != "running":
                raise OSError("it does not answer any more") from cause
            return coordinator.lost(tasks, f"its worker was lost: {one_line(cause)}")
        except Exception as cause:
            raise OodbenchError(
                f"a Dask worker cannot run oodbench: {type(cause).__name__}: {one_line(cause)}; workers need the same "
                "packages that are installed here."
            ) from cause
        answered, rest = tasks[: len(texts)], tasks[len(texts) :]
        done = [self._done(task.request, text) for task, text in zip(answered, texts, strict=True)]
        if end is None:
            return done
        for task in rest[1:]:
            coordinator.tell_lost(task.request, "its process ended at another")
        coordinator.queue.put_back(rest[1:])
        return done + coordinator.lost(rest[:1], end)

    def _done(self, request: WorkRequest, text: str) -> Done:
        """Keep the records and scores of an answer, and pass its warnings on."""
        answer = WorkAnswer.model_validate_json(text)
        for warning in answer.warnings:
            if warning not in self._warned:
                self._warned.add(warning)
                logger.warning("%s", warning)
        if answer.error is not None:
            return Done(request, error=OodbenchError(answer.error))
        if answer.scores is not None:
            self._store.keep_scores(ScoreFile(answer.scores, base64.b64decode(answer.content)))
        records = [self._store.keep(Record.model_validate_json(record)) for record in answer.records]
        return Done(request, prepared=answer.prepared, records=records)


def _slots(worker: Mapping[str, Any], resources: Mapping[str, float]) -> int:
    """How many jobs a worker can run at once."""
    has, threads = worker["resources"], int(worker["nthreads"])
    return min([threads, *(int(has.get(name, 0) // amount) for name, amount in resources.items())])
