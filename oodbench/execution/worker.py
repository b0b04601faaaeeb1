"""A worker: does the requests of a run, with the trial of one seed at a time in memory."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Literal

from oodbench.detectors.selection import BrokenDetector
from oodbench.errors import UsageError
from oodbench.execution.work import PreparedSeed, WorkRequest
from oodbench.machine.device import full_precision
from oodbench.machine.threads import single_threaded
from oodbench.records.record import Record
from oodbench.records.store import Keeper
from oodbench.registry.isolation import Failure
from oodbench.runs.cells import Job, JobRunner, PendingRecord
from oodbench.runs.prepared import PreparedRun


class Worker:
    """Does the requests of a run, one after the other, in this process.

    Args:
        run: The run.
        jobs: The jobs of each seed; requests name a job by its position here.
    """

    def __init__(self, run: PreparedRun, jobs: Mapping[int, Sequence[Job]]) -> None:
        self._run = run
        self._jobs = jobs
        self._runner: JobRunner | None = None
        self._pending: dict[int, list[PendingRecord]] = {}
        self._threads, self._uses_one_thread = ExitStack(), False
        self._precision = ExitStack()
        self._precision.enter_context(full_precision(run.resolved.computing.device))

    def prepare(self, seed: int) -> PreparedSeed:
        """Train the classifier of a seed, unless it is cached, and return the cells of its jobs.

        Raises:
            OodbenchError: The classifier cannot be built, trained or loaded.
        """
        runner = self._at(seed, threads="all")
        cells = [
            [record.cell_id for record in self._pending_of(runner, seed, job)] for job in range(len(self._jobs[seed]))
        ]
        return PreparedSeed(cells=cells, probe=dict(runner.trial.probe), trusts_model=runner.trial.spec.trust_model)

    def collect(self, seed: int) -> None:
        """Collect the evidence of a seed.

        Raises:
            OodbenchError: The evidence cannot be computed.
        """
        self._at(seed, threads="all").collect(self._jobs[seed])

    def run(self, request: WorkRequest, keeper: Keeper) -> list[Record]:
        """Run a job and return the records that the request wants.

        Raises:
            UsageError: The cells of the job differ from those in the request.
        """
        runner = self._at(request.seed, threads="one")
        job = self._jobs[request.seed][request.job]
        pending = self._pending_of(runner, request.seed, request.job)
        if [record.cell_id for record in pending] != request.cells:
            raise UsageError(
                f"the cells of {job.detector.label}, seed {request.seed}, are others here than where the classifier "
                "was trained first; let all workers share the folder $OODBENCH_CACHE, so that it is trained once."
            )
        if request.failure is not None:
            detector, why = job.detector, Failure("score", "failed", request.failure)
            broken = BrokenDetector(detector.name, detector.given, detector.provider, why)
            job = replace(job, detector=broken)
        wanted = set(request.wanted)
        return list(runner.run(job, [record for record in pending if record.cell_id in wanted], keeper))

    def close(self) -> None:
        """Use all threads again, in the precision that was set before."""
        self._use_threads("all")
        self._precision.close()

    def _at(self, seed: int, threads: Literal["one", "all"]) -> JobRunner:
        """The runner of a seed's jobs; only that of the last seed is kept in memory."""
        if self._runner is None or self._runner.trial.seed != seed:
            self._runner = None  # not both at once in memory
            self._pending.clear()
            self._use_threads("all")
            self._runner = JobRunner(self._run.trial(seed))
        self._use_threads(threads)
        return self._runner

    def _pending_of(self, runner: JobRunner, seed: int, job: int) -> list[PendingRecord]:
        if job not in self._pending:
            self._pending[job] = runner.pending(self._jobs[seed][job])
        return self._pending[job]

    def _use_threads(self, threads: Literal["one", "all"]) -> None:
        """Set the number of threads, if it changes: looking up the libraries with threads takes time."""
        if threads == "all":
            self._threads.close()
            self._uses_one_thread = False
        elif not self._uses_one_thread:
            self._threads.enter_context(single_threaded())
            self._uses_one_thread = True
