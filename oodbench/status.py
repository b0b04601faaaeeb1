"""How far runs on a results folder have come: read from their journals and the records, without disturbing them."""

from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import chain
from pathlib import Path
from typing import Literal, TypeAlias

from oodbench.errors import MissingPrerequisiteError, printable
from oodbench.journal.reading import (
    CellId,
    DataRead,
    JobEvent,
    Journal,
    SeedEnded,
    SeedPrepared,
    SeedStarted,
    Started,
    WorkersChanged,
    journals,
)
from oodbench.records.record import Record
from oodbench.records.verification import InvalidError, parse

State = Literal["going on", "finished", "failed", "interrupted", "killed"]
"""``killed`` are runs that ended without a word."""

Job: TypeAlias = tuple[CellId, ...]


@dataclass(frozen=True)
class Doing:
    """Something under way.

    Attributes:
        what: The data are read, the classifier of a seed is trained or read, its evidence is collected, or a detector
            is fitted and scores.
        seed: The seed, but of data.
        detector: With its parameters, of a detector.
        exposed: Unknown sets whose exposed samples it is fitted on.
        seconds: Since it began.
        worker: Who is at it, if not the process of the run itself, nor another in place of one that is gone.
    """

    what: Literal["data", "classifier", "evidence", "detector"]
    seed: int | None
    detector: str | None
    exposed: tuple[str, ...]
    seconds: float
    worker: str | None


@dataclass(frozen=True)
class Run:
    """A run, by its journal.

    Attributes:
        journal: The file.
        state: What has become of it.
        error: Why it failed, if it did.
        suite: Name and version.
        shard: Which share of a plan it is, if it is one.
        command: The command line that started it.
        host: Where.
        process: Number of the process.
        workers: How many Dask workers there are or were, if it goes by them.
        started: When.
        seconds: How long it took, or has taken so far; what is known of one that was killed.
        doing: What is under way, or was when it was killed.
    """

    journal: Path
    state: State
    error: str | None
    suite: str
    shard: str | None
    command: Sequence[str]
    host: str
    process: int
    workers: int | None
    started: datetime
    seconds: float
    doing: Sequence[Doing]


@dataclass(frozen=True)
class Seed:
    """The cells of a seed.

    Attributes:
        seed: The seed.
        cells: How many there are; None while that is not known.
        ok: How many have such a record, and need not be run.
        failed: The same.
        skipped: The same.
        to_do: How many are still to be run; None while that is not known.
        error: Why it has no classifier, if that is so.
    """

    seed: int
    cells: int | None
    ok: int
    failed: int
    skipped: int
    to_do: int | None
    error: str | None


@dataclass(frozen=True)
class FailedCell:
    """A cell whose record says that it failed."""

    cell_id: str
    detector: str
    protocol: str
    seed: int
    phase: str
    error: str


@dataclass(frozen=True)
class Status:
    """How far it has come.

    Attributes:
        runs: Those that go on and, of all others, the last one for each thing that was asked for: whoever goes on from
            where an earlier one ended stands for it.
        seeds: Of these runs, or of all records where there is no journal.
        jobs: How many there are in all, as far as is known.
        jobs_done: Those of them that need not be run.
        left_s: Seconds that the runs that go on may still take, at their pace so far; None where that is not known.
        failures: Cells that failed, and are not to be run again.
        other_records: How many records there are that none of these runs asks for.
    """

    runs: Sequence[Run]
    seeds: Sequence[Seed]
    jobs: int
    jobs_done: int
    left_s: float | None
    failures: Sequence[FailedCell]
    other_records: int


def status(out: Path, now: datetime) -> Status:
    """How far the runs on a results folder have come.

    Args:
        out: The results folder.
        now: The time, with its zone.

    Raises:
        MissingPrerequisiteError: It is no results folder.
    """
    if not (out / "records").is_dir():
        raise MissingPrerequisiteError(
            f"{out} is no results folder, or its run has only just begun; expected the --out of an `oodbench run`."
        )
    every = journals(out)
    files = {file.stem: file for file in (out / "records").glob("*.json")}
    shown = _shown(every)
    if not shown:
        return _of_records(_records(files.values()))
    plans = [_planned(one, every) for one in shown]
    cells = set(chain.from_iterable(plan.cells() for plan in plans))
    records = _records(files[cell] for cell in cells if cell in files)
    done = {cell for one in shown if one.goes_on for cell in one.done}
    to_do = {cell for plan in plans for cell in plan.cells() if _is_to_do(cell, plan.journal, records, done)}
    jobs, left = _jobs(plans, to_do)
    going_on = [plan for plan in plans if plan.journal.goes_on]
    return Status(
        runs=[_run(one, now) for one in shown],
        seeds=list(_seeds(plans, records, to_do)),
        jobs=jobs,
        jobs_done=jobs - left,
        left_s=_left([plan.journal for plan in going_on], _jobs(going_on, to_do)[1], now),
        failures=_failures(record for cell, record in records.items() if cell not in to_do),
        other_records=len(files) - len(records),
    )


def _shown(every: Sequence[Journal]) -> list[Journal]:
    """Those of runs that go on, and the last one of each thing that was asked for."""
    last = {one.start.asked_for: one for one in every}
    return [one for one in every if one.goes_on or one is last[one.start.asked_for]]


@dataclass(frozen=True)
class _Plan:
    """What a run is to do: by seed, the cells of each job, or how many jobs there are where cells are not known."""

    journal: Journal
    jobs: Mapping[int, Sequence[Job]]
    unknown: Mapping[int, int]

    def cells(self) -> Iterator[CellId]:
        """All that are known."""
        return chain.from_iterable(job for jobs in self.jobs.values() for job in jobs)


def _planned(journal: Journal, every: Sequence[Journal]) -> _Plan:
    """What a run is to do; as long as it has not prepared a seed, what an earlier one had to do that asked for it."""
    jobs: dict[int, Sequence[Job]] = {}
    for one in every:
        if one.start.asked_for == journal.start.asked_for:
            jobs |= {seed: one.jobs[seed] for seed in journal.start.seeds if seed in one.jobs}
    jobs |= journal.jobs
    return _Plan(
        journal, jobs, {seed: journal.job_counts.get(seed, 0) for seed in journal.start.seeds if seed not in jobs}
    )


def _jobs(plans: Sequence[_Plan], to_do: set[CellId]) -> tuple[int, int]:
    """How many jobs some plans have, each counted once, and how many of them are to be run."""
    known = {job for plan in plans for jobs in plan.jobs.values() for job in jobs}
    unknown = sum(n for plan in plans for n in plan.unknown.values())
    return len(known) + unknown, sum(not to_do.isdisjoint(job) for job in known) + unknown


def _is_to_do(cell: CellId, journal: Journal, records: Mapping[str, Record], done: set[CellId]) -> bool:
    """Whether a cell has no record, or one because of which it is run again."""
    record = records.get(cell)
    if record is None:
        return True
    rerun = journal.start.rerun
    wanted_again = rerun == "all" or (rerun == "failed" and record.status == "failed")
    return journal.goes_on and wanted_again and cell not in done and _is_before(record, journal.start.time)


def _is_before(record: Record, time: datetime) -> bool:
    with suppress(ValueError, TypeError):  # a record may say anything
        return datetime.fromisoformat(record.provenance.created) < time
    return True


def _run(journal: Journal, now: datetime) -> Run:
    start, end = journal.start, journal.end
    until = now if journal.goes_on else journal.events[-1].time
    state: State = "going on" if journal.goes_on else end.how if end else "killed"
    workers = [one.workers for one in journal.events if isinstance(one, WorkersChanged)]
    return Run(
        journal=journal.file,
        state=state,
        error=printable(end.error) if end and end.error else None,
        suite=printable(start.suite),
        shard=start.shard and printable(start.shard),
        command=[printable(word) for word in start.command],
        host=printable(start.host),
        process=start.process,
        workers=len(workers[-1]) if workers else None,
        started=start.time,
        seconds=_seconds(start.time, until),
        doing=_doing(journal, until) if state in ("going on", "killed") else (),
    )


def _doing(journal: Journal, now: datetime) -> list[Doing]:
    under_way: dict[object, Doing] = {}
    for one in journal.events:
        match one:
            case WorkersChanged():
                there = set(map(printable, one.workers))
                under_way = {key: _without_lost(doing, there) for key, doing in under_way.items()}
            case Started():
                under_way["data"] = Doing("data", None, None, (), _seconds(one.time, now), None)
            case DataRead():
                under_way.pop("data", None)
            case SeedStarted():
                under_way.pop("data", None)
                what: Literal["classifier", "evidence"] = "classifier" if one.event == "seed started" else "evidence"
                worker = one.worker and printable(one.worker)
                under_way[one.seed] = Doing(what, one.seed, None, (), _seconds(one.time, now), worker)
            case SeedPrepared() | SeedEnded():
                under_way.pop(one.seed, None)
            case JobEvent():
                key = one.seed, one.detector, one.exposed
                if one.event == "job started":
                    under_way[key] = _running(one, now)
                else:
                    under_way.pop(key, None)
    return list(under_way.values())


def _without_lost(doing: Doing, workers: Container[str]) -> Doing:
    return doing if doing.worker in workers else replace(doing, worker=None)


def _running(job: JobEvent, now: datetime) -> Doing:
    return Doing(
        "detector",
        job.seed,
        printable(job.detector),
        tuple(map(printable, job.exposed)),
        _seconds(job.time, now),
        job.worker and printable(job.worker),
    )


def _seeds(plans: Sequence[_Plan], records: Mapping[str, Record], to_do: set[CellId]) -> Iterator[Seed]:
    for seed in dict.fromkeys(seed for plan in plans for seed in plan.journal.start.seeds):
        cells = {cell for plan in plans for job in plan.jobs.get(seed, ()) for cell in job}
        is_known = not any(seed in plan.unknown for plan in plans)
        found = Counter(records[cell].status for cell in cells - to_do)
        errors = [errors[seed] for plan in plans if seed in (errors := plan.journal.seed_errors)]
        yield Seed(
            seed,
            len(cells) if is_known else None,
            found["ok"],
            found["failed"],
            found["skipped"],
            len(cells & to_do) if is_known else None,
            printable(errors[-1]) if errors else None,
        )


def _records(files: Iterable[Path]) -> dict[str, Record]:
    found = {}
    for file in files:
        with suppress(InvalidError, OSError):  # not there any more, or none that a run would take
            found[file.stem] = parse(file)
    return found


def _of_records(records: Mapping[str, Record]) -> Status:
    by_seed: dict[int, Counter[str]] = {}
    for record in records.values():
        by_seed.setdefault(record.seed, Counter())[record.status] += 1
    seeds = [
        Seed(seed, found.total(), found["ok"], found["failed"], found["skipped"], 0, None)
        for seed, found in sorted(by_seed.items())
    ]
    return Status([], seeds, 0, 0, None, _failures(records.values()), 0)


def _failures(records: Iterable[Record]) -> list[FailedCell]:
    return [
        FailedCell(
            record.cell_id,
            printable(record.detector.name),
            printable(record.protocol),
            record.seed,
            record.phase or "",
            printable(record.error or ""),
        )
        for record in records
        if record.status == "failed"
    ]


def _left(going_on: Sequence[Journal], jobs: int, now: datetime) -> float | None:
    """Seconds, if the jobs that are left take as long as those before."""
    told = [one for journal in going_on for one in journal.events if isinstance(one, JobEvent)]
    ended = sum(one.event == "job ended" for one in told)
    return jobs * _seconds(min(one.time for one in told), now) / ended if ended else None


def _seconds(start: datetime, end: datetime) -> float:
    """Never less than none, whatever has been done to the clock."""
    return max(0.0, (end - start).total_seconds())
