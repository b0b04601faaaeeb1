"""Jobs one after the other in this process, beside any other processes on the same results folder."""

import time
from collections.abc import Iterator, Sequence
from itertools import groupby
from operator import attrgetter

from oodbench.cells import Draft, drafts, run_cell
from oodbench.errors import OodbenchError, one_line
from oodbench.execution.outcome import SeedFailed
from oodbench.journal.events import tell
from oodbench.plan import Benchmark, Job
from oodbench.records.record import Record
from oodbench.records.store import Store
from oodbench.threads import single_threaded
from oodbench.trial import Trial


def run_serially(
    benchmark: Benchmark, store: Store, jobs: Sequence[Job] | None = None
) -> Iterator[Record | SeedFailed]:
    """The records of all jobs, or of some, seed by seed; what is finished already is taken as it is.

    A job that another process is at is left to it, and looked at again when all others are done: if that process ended
    before it was through, it is done here.
    """
    every = [job for seed in benchmark.seeds for job in benchmark.jobs(seed)] if jobs is None else jobs
    for seed, of_seed in groupby(every, key=attrgetter("seed")):
        asked_for = list(of_seed)
        tell("seed started", seed=seed)
        try:
            trial = benchmark.trial(seed)
        except OodbenchError as error:
            tell("seed failed", seed=seed, error=one_line(error))
            yield SeedFailed(seed, error)
        else:
            yield from _of_trial(benchmark, store, trial, asked_for)


def _of_trial(benchmark: Benchmark, store: Store, trial: Trial, jobs: Sequence[Job]) -> Iterator[Record]:
    asked_for = [(job, drafts(trial, job.cell)) for job in jobs]
    tell("seed prepared", seed=trial.seed, jobs=[_cells(of_job) for _, of_job in asked_for])
    found: dict[int, list[Record]] = {}
    for i, (_, of_job) in enumerate(asked_for):
        kept = store.finished_of(_cells(of_job))
        if len(kept) == len(of_job):
            found[i] = list(kept.values())
    if len(found) < len(asked_for):
        tell("evidence started", seed=trial.seed)
        start = time.monotonic()
        trial.gather()
        tell("evidence collected", seed=trial.seed, seconds=round(time.monotonic() - start, 3))
    with single_threaded():
        for i, (job, of_job) in enumerate(benchmark.track(asked_for, len(asked_for), f"detectors, seed {trial.seed}")):
            done = found.get(i) or run_job(trial, job, of_job, store, wait=False)
            if done is not None:
                found[i] = done
        for i, (job, of_job) in enumerate(asked_for):
            if i not in found:
                found[i] = run_job(trial, job, of_job, store, wait=True) or []
    for i in range(len(asked_for)):
        yield from found[i]


def run_job(trial: Trial, job: Job, asked_for: Sequence[Draft], store: Store, *, wait: bool) -> list[Record] | None:
    """The records of one job; None if another process is at it and is not waited for."""
    cells = _cells(asked_for)
    with store.claimed(cells, wait=wait) as is_ours:
        if not is_ours:
            return None
        kept = store.finished_of(cells)  # another process may have come far
        wanted = [draft for draft in asked_for if draft.cell_id not in kept]
        if wanted:
            tell("job started", **job.facts())
            start = time.monotonic()
            kept |= {record.cell_id: record for record in run_cell(trial, job.cell, wanted, store)}
            tell("job ended", **job.facts(), seconds=round(time.monotonic() - start, 3))
    return [kept[cell] for cell in cells]


def _cells(asked_for: Sequence[Draft]) -> list[str]:
    return [draft.cell_id for draft in asked_for]
