"""Jobs one after the other in this process, beside any other processes on the same results folder."""

import hashlib
from collections.abc import Iterator, Sequence
from itertools import groupby
from operator import attrgetter

from oodbench.cells import Draft, drafts, run_cell
from oodbench.plan import Benchmark, Job
from oodbench.records.record import Record
from oodbench.records.store import Store
from oodbench.threads import single_threaded
from oodbench.trial import Trial


def run_serially(benchmark: Benchmark, store: Store, jobs: Sequence[Job] | None = None) -> Iterator[Record]:
    """The records of all jobs, or of some, seed by seed; what is finished already is taken as it is.

    A job that another process is at is left to it, and looked at again when all others are done: if that process ended
    before it was through, it is done here.
    """
    every = [job for seed in benchmark.seeds for job in benchmark.jobs(seed)] if jobs is None else jobs
    for seed, of_seed in groupby(every, key=attrgetter("seed")):
        yield from _of_seed(benchmark, store, seed, list(of_seed))


def _of_seed(benchmark: Benchmark, store: Store, seed: int, jobs: Sequence[Job]) -> Iterator[Record]:
    trial = benchmark.trial(seed)
    asked_for = [(job, drafts(trial, job.cell)) for job in jobs]
    found: dict[int, list[Record]] = {}
    for i, (_, of_job) in enumerate(asked_for):
        kept = _kept(of_job, store)
        if len(kept) == len(of_job):
            found[i] = list(kept.values())
    if len(found) < len(asked_for):
        trial.gather()
    with single_threaded():
        for i, (job, of_job) in enumerate(benchmark.track(asked_for, len(asked_for), f"detectors, seed {seed}")):
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
    with store.claimed(_name(asked_for), wait=wait) as is_ours:
        if not is_ours:
            return None
        kept = _kept(asked_for, store)  # another process may have come far
        wanted = [draft for draft in asked_for if draft.cell_id not in kept]
        if wanted:
            kept |= {record.cell_id: record for record in run_cell(trial, job.cell, wanted, store)}
    return [kept[draft.cell_id] for draft in asked_for]


def _name(asked_for: Sequence[Draft]) -> str:
    return hashlib.sha256("".join(draft.cell_id for draft in asked_for).encode()).hexdigest()[:16]


def _kept(asked_for: Sequence[Draft], store: Store) -> dict[str, Record]:
    found = {draft.cell_id: store.finished(draft.cell_id) for draft in asked_for}
    return {cell: record for cell, record in found.items() if record is not None}
