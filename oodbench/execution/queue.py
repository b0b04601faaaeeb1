"""The order of work: which tasks are ready, wait, are tried again or are given up.

Nothing here runs a task: a coordinator asks for the next one and reports what came of it. A seed is prepared first, by
training its classifier where that was not done before, which says what cells there are; then its evidence is collected,
if a cell is to be run; then its jobs are run. A worker stays with a seed while that has tasks.
"""

from collections import Counter, deque
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from oodbench.execution.work import WorkRequest

# How often a task is tried again if its worker or process was ended from outside.
RETRIES = 3
# Short jobs are given to a worker together: at most this many seconds, and this many jobs.
BATCH_S = 0.1
BATCH = 32

WorkerName = str | None
"""The address of a worker, or None for the process of the run itself."""


@dataclass
class Task:
    """A request, and how often it was tried."""

    request: WorkRequest
    tries: int = 0

    @property
    def can_be_batched(self) -> bool:
        """Whether it may be given together with others: a job that was not tried before."""
        return self.request.what == "run" and not self.tries and self.request.failure is None


@dataclass(frozen=True)
class Verdict:
    """What becomes of a task whose worker or process ended.

    Attributes:
        task: The task.
        fate: It is tried ``again``; it has ``failed``, which is yet to be recorded; or its seed is ``given up``.
        why: How the worker or process ended.
    """

    task: Task
    fate: Literal["again", "failed", "given up"]
    why: str


class WorkQueue:
    """The tasks of all seeds, apart from those under way."""

    def __init__(self, seeds: Iterable[int]) -> None:
        self._ready = {seed: deque([Task(WorkRequest(what="prepare", seed=seed))]) for seed in seeds}
        self._waiting: dict[int, list[Task]] = {}
        self._postponed: list[Task] = []
        self._dropped: set[int] = set()
        self._seed_of: dict[WorkerName, int] = {}
        self._batches: dict[WorkerName, int] = {}

    @property
    def is_empty(self) -> bool:
        """Whether nothing is left that could be given to a worker, now or later."""
        return not self._postponed and not any(self._ready.values())

    def next(self, worker: WorkerName, beside: Sequence[Task] = ()) -> Task | None:
        """The next task of a worker: of its own seed, or else of the seed with the fewest workers.

        Args:
            worker: The worker.
            beside: Tasks that it is given together with this one.

        Returns:
            The task; None if there is none, or none that may be given together with ``beside``.
        """
        ready = self._ready.get(self._seed_of.get(worker, -1))
        if beside:
            is_full = len(beside) >= self._batches.get(worker, 1) or not beside[0].can_be_batched
            return ready.popleft() if not is_full and ready and ready[0].can_be_batched else None
        if ready:
            return ready.popleft()
        at = Counter(self._seed_of.values())
        seeds = [seed for seed, tasks in self._ready.items() if tasks]
        if not seeds:
            return None
        self._seed_of[worker] = seed = min(seeds, key=lambda candidate: at[candidate])
        return self._ready[seed].popleft()

    def postpone(self, task: Task) -> None:
        """Set a task aside that another process has claimed; ``look_again`` makes it ready again."""
        if task.request.seed not in self._dropped:
            self._postponed.append(task)

    def look_again(self) -> None:
        """Make all postponed tasks ready."""
        for task in self._postponed:
            self._ready[task.request.seed].append(task)
        self._postponed.clear()

    def prepared(self, seed: int, jobs: Sequence[WorkRequest]) -> None:
        """Take the jobs of a prepared seed that are to be run; if there are any, its evidence is collected first."""
        if jobs:
            self._waiting[seed] = [Task(request) for request in jobs]
            self._ready[seed].append(Task(WorkRequest(what="collect", seed=seed)))

    def collected(self, seed: int) -> None:
        """Make the jobs of a seed ready, now that its evidence is collected."""
        self._ready[seed].extend(self._waiting.pop(seed))

    def drop(self, seed: int) -> None:
        """Drop all tasks of a seed."""
        self._dropped.add(seed)
        self._ready[seed].clear()
        self._waiting.pop(seed, None)
        self._postponed = [task for task in self._postponed if task.request.seed != seed]

    def put_back(self, tasks: Sequence[Task]) -> None:
        """Put tasks that were given but not begun back to the front."""
        for task in reversed(tasks):
            if task.request.seed not in self._dropped:
                self._ready[task.request.seed].appendleft(task)

    def lost(self, tasks: Sequence[Task], why: str, tries: int = 1) -> list[Verdict]:
        """Decide what becomes of tasks whose worker or process ended, where no plugin is known to be the cause.

        Of several tasks, any may be the cause, so that each is tried alone. A job that was tried too often has failed,
        which another worker records; any other task, and a job whose failure cannot be recorded, is given up.

        Args:
            tasks: The tasks.
            why: How the worker or process ended.
            tries: How many tries this counts as.
        """
        verdicts = []
        for task in reversed(tasks):
            task.tries += tries if len(tasks) == 1 else 1
            verdict = self._verdict(task, why)
            verdicts.append(verdict)
            if verdict.fate != "given up":
                self.put_back([verdict.task])
        return verdicts

    def _verdict(self, task: Task, why: str) -> Verdict:
        if task.tries <= RETRIES:
            return Verdict(task, "again", why)
        if task.request.failure is not None:
            return Verdict(task, "given up", f"{why}, and so it was with its failure")
        if task.request.what != "run":
            return Verdict(task, "given up", f"{task.request.what} failed {task.tries} times: {why}")
        failure = f"{why}; it was tried {task.tries} times"
        return Verdict(Task(task.request.model_copy(update={"failure": failure})), "failed", why)

    def took(self, worker: WorkerName, tasks: int, seconds: float) -> None:
        """Note how long a worker took for some tasks, which decides how many it is given together next time."""
        seconds_each = seconds / tasks
        # No more than twice as many: the next may take longer.
        self._batches[worker] = max(1, min(2 * tasks, BATCH, int(BATCH_S / seconds_each) if seconds_each else BATCH))

    def forget_workers_but(self, there: Container[WorkerName]) -> None:
        """Forget the seeds of workers that are gone."""
        self._seed_of = {worker: seed for worker, seed in self._seed_of.items() if worker in there}
