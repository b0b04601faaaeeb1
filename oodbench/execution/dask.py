"""Jobs on a Dask cluster: of this machine, or any that runs already.

The client says what is done next and keeps what comes back; workers need neither the results folder nor each other.
There are never more errands under way than slots, so that a worker that ends takes one errand of each of its slots with
it. Jobs that take no longer than it takes to ask for them are asked for several in an errand; whoever brings down its
process is known even so, and after a worker was lost, each is asked for alone.
"""

import base64
import logging
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import chain, count
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

from oodbench.errors import MissingPrerequisiteError, OodbenchError, one_line
from oodbench.execution.errand import Answer, Errand, Site
from oodbench.execution.outcome import SeedFailed
from oodbench.execution.slot import Done, end_processes, perform
from oodbench.journal.events import Event, tell
from oodbench.plan import Benchmark, Job
from oodbench.records.record import Record
from oodbench.records.store import ScoreFile, Store

if TYPE_CHECKING:
    from distributed import Client, Future

logger = logging.getLogger(__name__)

# How often an errand is tried again whose worker or process was ended from outside.
RETRIES = 3
# Seconds between two looks at which workers there are, and after which somebody is told that there are none.
LOOK_S = 1.0
LONELY_S = 60.0
CONNECT_S = 15
# Seconds that an errand of several jobs may take, and how many it may have.
BATCH_S = 0.1
BATCH = 32


@dataclass(frozen=True)
class Cluster:
    """Where jobs are run.

    Attributes:
        scheduler: Address of a running scheduler; None starts a cluster on this machine.
        workers: How many processes that one has.
        resources: What a job takes of a worker's Dask resources, such as ``{"GPU": 1}``.
    """

    scheduler: str | None
    workers: int
    resources: Mapping[str, float] = field(default_factory=dict)


def run_on_dask(benchmark: Benchmark, store: Store, site: Site, cluster: Cluster) -> Iterator[Record | SeedFailed]:
    """The records of all jobs, in the order of one process; what is finished already is taken as it is.

    Args:
        benchmark: What is run.
        store: Where records are kept; only this process writes there.
        site: The same for workers.
        cluster: Where.

    Raises:
        MissingPrerequisiteError: Dask is not installed, or no scheduler answers.
        OodbenchError: The connection was lost.
    """
    with _connected(cluster) as client:
        dispatch = _Dispatch(benchmark, store, site, client, cluster)
        try:
            dispatch.run()
        except OSError as cause:
            raise OodbenchError(
                f"the connection to the Dask scheduler was lost: {one_line(cause)}; what was finished is kept, and the "
                "same command goes on from there."
            ) from cause
        finally:
            dispatch.end()
    for seed in benchmark.seeds:
        if seed in dispatch.failed:
            yield SeedFailed(seed, dispatch.failed[seed])
        else:
            for i in range(len(benchmark.cells)):
                yield from dispatch.found[seed, i]


@contextmanager
def _connected(cluster: Cluster) -> "Iterator[Client]":
    try:
        from distributed import Client, LocalCluster
    except ImportError as cause:
        raise MissingPrerequisiteError(
            f"the executor dask needs a package that is not installed ({one_line(cause)}); install it with "
            "`pip install 'oodbench[dask]'`."
        ) from cause
    # What it says of its own comings and goings is nobody's business here.
    for name in ("distributed", "distributed.client"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    with ExitStack() as stack:
        if cluster.scheduler is None:
            # The data are in processes of their own, whose memory nobody but the system limits.
            local = LocalCluster(  # type: ignore[no-untyped-call]
                n_workers=cluster.workers,
                threads_per_worker=1,
                host="127.0.0.1",
                dashboard_address="127.0.0.1:0",
                memory_limit=0,
                resources=dict(cluster.resources),
                preload=["oodbench.execution.slot"],
                silence_logs=logging.CRITICAL,
            )
            address = stack.enter_context(local)
        else:
            address = cluster.scheduler
        try:
            client = Client(address, timeout=CONNECT_S, set_as_default=False)  # type: ignore[no-untyped-call]
        except (OSError, ValueError, TypeError) as cause:
            raise MissingPrerequisiteError(
                f"no Dask scheduler answers at {cluster.scheduler} ({one_line(cause)}); expected the address that "
                "`dask scheduler` prints, such as tcp://host:8786."
            ) from cause
        yield stack.enter_context(client)


@dataclass
class _Task:
    """An errand, and how often it was tried."""

    errand: Errand
    tries: int = 0


@dataclass
class _Running:
    """What a slot of a worker is at, and what holds the claims of its cells."""

    tasks: list[_Task]
    address: str
    claims: ExitStack
    future: "Future[Done]"
    since: float = field(default_factory=time.monotonic)


class _Dispatch:
    """Gives errands to free slots and takes their answers.

    A seed is prepared first, by training its classifier where that was not done before, which says what cells there
    are; then its evidence is collected, if a cell is to be run; then its jobs are run. A worker stays with a seed while
    that has jobs.
    """

    def __init__(self, benchmark: Benchmark, store: Store, site: Site, client: "Client", cluster: Cluster) -> None:
        self.found: dict[tuple[int, int], list[Record]] = {}
        self.failed: dict[int, OodbenchError] = {}
        self._benchmark, self._store = benchmark, store
        # Where a worker takes it from that has none yet; it may be large, and errands are many.
        self._site = client.submit(str, site.model_dump_json(), pure=False)
        self._client, self._cluster = client, cluster
        self._ready = {seed: deque([_Task(Errand(what="prepare", seed=seed))]) for seed in benchmark.seeds}
        self._pending: dict[int, list[_Task]] = {}
        self._elsewhere: list[_Task] = []
        self._running: dict[str, _Running] = {}
        self._ended: SimpleQueue[Future[Done]] = SimpleQueue()
        self._seed_of: dict[str, int] = {}
        self._slots: dict[str, int] = {}
        self._there: list[str] | None = None
        self._sizes: dict[str, int] = {}
        self._looked = self._lonely = -LONELY_S
        self._numbers = count()
        self._told: set[str] = set()

    def run(self) -> None:
        """Until there is nothing left to do."""
        total = len(self._benchmark.seeds) * (len(self._benchmark.cells) + 2)
        for _ in self._benchmark.track(self._steps(), total, "classifiers and detectors"):
            pass

    def end(self) -> None:
        """Let nobody work for nothing."""
        for running in self._running.values():
            running.claims.close()
        if self._running:
            with suppress(Exception):
                self._client.cancel([one.future for one in self._running.values()])  # type: ignore[no-untyped-call]
        if self._cluster.scheduler is not None:
            with suppress(Exception):
                self._client.run(end_processes)

    def _steps(self) -> Iterator[None]:
        """Yields whenever something is done."""
        while self._running or self._elsewhere or any(self._ready.values()):
            yield from self._fill()
            try:
                future = self._ended.get(timeout=LOOK_S)
            except Empty:
                for task in self._elsewhere:
                    self._ready[task.errand.seed].append(task)
                self._elsewhere.clear()
            else:
                yield from self._take(future)

    def _fill(self) -> Iterator[None]:
        """Give something to each free slot."""
        self._look()
        used = Counter(running.address for running in self._running.values())
        # One whose worker has gone counts until it is known what became of it.
        free = sum(self._slots.values()) - len(self._running)
        for address, slots in self._slots.items():
            for _ in range(min(slots - used[address], free)):
                claims, tasks = ExitStack(), list[_Task]()
                while (task := self._next(address, tasks)) is not None:
                    if self._is_finished(task, claims, tasks):
                        yield
                if tasks:
                    free -= 1
                    self._start(tasks, claims, address)

    def _look(self) -> None:
        now = time.monotonic()
        if now - self._looked < LOOK_S:
            return
        self._looked = now
        if self._client.status != "running":
            raise OSError("it does not answer any more")
        workers = self._client.scheduler_info()["workers"]
        self._slots = {address: _slots(worker, self._cluster.resources) for address, worker in workers.items()}
        self._seed_of = {address: seed for address, seed in self._seed_of.items() if address in self._slots}
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
            for task in chain.from_iterable(running.tasks for running in lost):
                self._tell_lost(task.errand, "its worker is gone")

    def _follow(self) -> None:
        """Learn to whom Dask has given what those were at that are gone."""
        lost = {key: running for key, running in self._running.items() if running.address not in self._slots}
        if not lost:
            return
        for address, keys in self._client.processing().items():  # type: ignore[no-untyped-call]
            for running in (lost[key] for key in keys if key in lost and address in self._slots):
                running.address, running.since = address, time.monotonic()
                for task in running.tasks:
                    self._tell_start(task.errand, address)

    def _job(self, errand: Errand) -> Job:
        return Job(errand.seed, self._benchmark.cells[errand.job])

    def _title(self, errand: Errand) -> str:
        if errand.what != "run":
            return errand.what
        cell = self._job(errand).cell
        return f"{cell.chosen.label}{' exposed to ' + ', '.join(cell.exposed) if cell.exposed else ''}"

    def _say_if_lonely(self) -> None:
        now = time.monotonic()
        if self._there:
            self._lonely = now
        elif now - self._lonely > LONELY_S:
            self._lonely = now
            asked = f" with {dict(self._cluster.resources)}" if self._cluster.resources else ""
            logger.warning("no Dask worker%s is there; this waits until one comes.", asked)

    def _next(self, address: str, tasks: Sequence[_Task]) -> _Task | None:
        """What a worker does next, or beside some tasks: more of its seed, or else of the seed that fewest are at."""
        mine = self._ready.get(self._seed_of.get(address, -1))
        if tasks:
            many = len(tasks) < self._sizes.get(address, 1) and _is_one_of_many(tasks[0])
            return mine.popleft() if many and mine and _is_one_of_many(mine[0]) else None
        if mine:
            return mine.popleft()
        at = Counter(self._seed_of.values())
        seeds = [seed for seed, ready in self._ready.items() if ready]
        if not seeds:
            return None
        seed = min(seeds, key=lambda one: at[one])
        self._seed_of[address] = seed
        return self._ready[seed].popleft()

    def _is_finished(self, task: _Task, claims: ExitStack, tasks: list[_Task]) -> bool:
        """Whether it was finished meanwhile; if not, and nobody is at it, it is claimed and becomes a task."""
        errand = task.errand
        if errand.what != "run":
            tasks.append(task)
            return False
        claim = ExitStack()
        if not claim.enter_context(self._store.claimed(errand.cells, wait=False)):
            self._elsewhere.append(task)
            return False
        kept = self._store.finished_of(errand.cells)
        if len(kept) == len(errand.cells):
            claim.close()
            self.found[errand.seed, errand.job] = list(kept.values())
            return True
        wanted = [cell for cell in errand.cells if cell not in kept]
        claims.push(claim)
        tasks.append(_Task(errand.model_copy(update={"wanted": wanted}), task.tries))
        return False

    def _start(self, tasks: list[_Task], claims: ExitStack, address: str) -> None:
        first = tasks[0].errand
        key = f"oodbench-{first.what}-{first.seed}-{first.job}-{next(self._numbers)}-{id(self)}"
        future = self._client.submit(
            perform,
            [task.errand.model_dump_json() for task in tasks],
            self._site,
            key=key,
            workers=[address],
            allow_other_workers=True,
            resources=dict(self._cluster.resources) or None,
            pure=False,
        )
        self._running[key] = _Running(tasks, address, claims, future)
        for task in tasks:
            self._tell_start(task.errand, address)
        future.add_done_callback(self._ended.put)  # type: ignore[no-untyped-call]

    def _tell_start(self, errand: Errand, address: str) -> None:
        if errand.what == "run":
            tell("job started", **self._job(errand).facts(), worker=address)
        else:
            event: Event = "seed started" if errand.what == "prepare" else "evidence started"
            tell(event, seed=errand.seed, worker=address)

    def _tell_lost(self, errand: Errand, why: str) -> None:
        if errand.what == "run":
            tell("job lost", **self._job(errand).facts(), why=why)

    def _take(self, future: "Future[Done]") -> Iterator[None]:
        running = self._running.pop(str(future.key), None)
        if running is None:
            return
        with running.claims:
            seconds = (time.monotonic() - running.since) / len(running.tasks)
            answers = self._answers(running.tasks, future)
            # No more than twice as many: the next may take longer.
            many = min(2 * len(running.tasks), BATCH, int(BATCH_S / seconds) if seconds else BATCH)
            self._sizes[running.address] = max(1, many)
            for errand, answer in answers:
                for text in answer.messages:
                    if text not in self._told:
                        self._told.add(text)
                        logger.warning("%s", text)
                if errand.what == "gather" and answer.error is None:
                    tell("evidence collected", seed=errand.seed, seconds=round(seconds, 3))
                yield from self._done(errand, answer)
                if errand.what == "run":
                    tell("job ended", **self._job(errand).facts(), seconds=round(seconds, 3))

    def _answers(self, tasks: Sequence[_Task], future: "Future[Done]") -> list[tuple[Errand, Answer]]:
        """What came of errands; those that are tried again are ready again."""
        from distributed import CancelledError, KilledWorker

        try:
            texts, end = future.result()
        except KilledWorker:  # Dask has tried several workers, and all of them ended
            return self._again(tasks, "every worker that it was given to ended while it was at it", RETRIES + 1)
        except (CancelledError, OSError) as cause:
            if self._client.status != "running":
                raise OSError("it does not answer any more") from cause
            return self._again(tasks, f"its worker was lost: {one_line(cause)}", 1)
        except Exception as cause:
            raise OodbenchError(
                f"a Dask worker cannot run oodbench: {type(cause).__name__}: {one_line(cause)}; workers need the same "
                "packages that are installed here."
            ) from cause
        done, rest = tasks[: len(texts)], tasks[len(texts) :]
        answers = [(task.errand, Answer.model_validate_json(text)) for task, text in zip(done, texts, strict=True)]
        if end is None:
            return answers
        for task in reversed(rest[1:]):
            self._tell_lost(task.errand, "its process ended at another")
            self._ready[task.errand.seed].appendleft(task)
        return answers + self._again(rest[:1], end, 1)

    def _again(self, tasks: Sequence[_Task], why: str, tries: int) -> list[tuple[Errand, Answer]]:
        """Try tasks again, each alone; the answers of those that were tried often enough."""
        given_up = []
        for task in reversed(tasks):
            errand = task.errand
            task.tries += tries if len(tasks) == 1 else 1
            if task.tries > RETRIES and errand.failure is not None:
                given_up.append((errand, Answer(error=f"{why}, and so it was with its failure")))
            elif task.tries > RETRIES and errand.what != "run":
                given_up.append((errand, Answer(error=f"{errand.what} failed {task.tries} times: {why}")))
            elif task.tries > RETRIES:
                self._tell_lost(errand, why)
                failing = errand.model_copy(update={"failure": f"{why}; it was tried {task.tries} times"})
                self._ready[errand.seed].appendleft(_Task(failing))
            else:
                self._tell_lost(errand, why)
                logger.warning("%s of seed %d is tried again: %s.", self._title(errand), errand.seed, why)
                self._ready[errand.seed].appendleft(task)
        return given_up

    def _done(self, errand: Errand, answer: Answer) -> Iterator[None]:
        seed = errand.seed
        if answer.error is not None:
            tell("seed failed", seed=seed, error=answer.error)
            self.failed.setdefault(seed, OodbenchError(answer.error))
            self._ready[seed].clear()
            self._pending.pop(seed, None)
            return
        if errand.what == "prepare":
            yield from self._prepared(seed, answer.cells)
        elif errand.what == "gather":
            self._ready[seed].extend(self._pending.pop(seed))
        else:
            self._keep(errand, answer)
        yield

    def _prepared(self, seed: int, cells: list[list[str]]) -> Iterator[None]:
        """Its cells are known, and so what is left of them to do."""
        tell("seed prepared", seed=seed, jobs=cells)
        pending = []
        for job, of_job in enumerate(cells):
            kept = self._store.finished_of(of_job)
            if len(kept) == len(of_job):
                self.found[seed, job] = list(kept.values())
                yield
            else:
                pending.append(_Task(Errand(what="run", seed=seed, job=job, cells=of_job)))
        if pending:
            self._pending[seed] = pending
            self._ready[seed].append(_Task(Errand(what="gather", seed=seed)))

    def _keep(self, errand: Errand, answer: Answer) -> None:
        if answer.scores is not None:
            self._store.keep_scores(ScoreFile(answer.scores, base64.b64decode(answer.content)))
        records = [self._store.keep(Record.model_validate_json(text)) for text in answer.records]
        kept = {record.cell_id: record for record in records}
        kept |= self._store.finished_of([cell for cell in errand.cells if cell not in kept])
        self.found[errand.seed, errand.job] = [kept[cell] for cell in errand.cells]


def _slots(worker: Mapping[str, Any], resources: Mapping[str, float]) -> int:
    """How many jobs a worker can be at."""
    has, threads = worker["resources"], int(worker["nthreads"])
    return min([threads, *(int(has.get(name, 0) // amount) for name, amount in resources.items())])


def _is_one_of_many(task: _Task) -> bool:
    """Whether it may be asked for beside others: a job that nothing has happened to."""
    return task.errand.what == "run" and not task.tries and task.errand.failure is None
