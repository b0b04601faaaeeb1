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
    ImagesDone,
    JobEvent,
    Journal,
    SeedEnded,
    SeedPrepared,
    SeedStarted,
    Started,
    WorkersChanged,
    journals,
)
from oodbench.records.files import InvalidRecordError, parse_record
from oodbench.records.record import Record

State = Literal["going on", "finished", "failed", "interrupted", "killed"]
"""``killed``: the run ended without writing an end to its journal."""

Job: TypeAlias = tuple[CellId, ...]


@dataclass(frozen=True)
class Images:
    """How far a pass over images is.

    Attributes:
        what: What is done.
        done: How many images are done.
        total: How many there are.
        per_second: How many a second, since the pass began.
        left_s: Seconds that the others take at this pace; None if there is none yet.
    """

    what: str
    done: int
    total: int
    per_second: float
    left_s: float | None


@dataclass(frozen=True)
class Doing:
    """Something that a run is doing.

    Attributes:
        what: ``data`` are read, the ``classifier`` of a seed is trained or read, its ``evidence`` is collected, or a
            ``detector`` is fitted and scores.
        seed: The seed; None for data.
        detector: The detector with its parameters; None for anything else.
        exposed: Unknown sets whose exposed samples it is fitted on.
        seconds: Seconds since it began.
        worker: The worker that does it; None if that is the process of the run itself, or if the worker is gone.
        images: The pass over images that it is at; None if it is at none.
    """

    what: Literal["data", "classifier", "evidence", "detector"]
    seed: int | None
    detector: str | None
    exposed: tuple[str, ...]
    seconds: float
    worker: str | None
    images: Images | None = None


@dataclass(frozen=True)
class Run:
    """A run, as its journal tells it.

    Attributes:
        journal: The file.
        state: Whether it goes on, or how it ended.
        error: Why it failed, if it did.
        suite: Name and version.
        shard: Which share of a plan it does, such as ``3/16``; None if it is no share.
        command: The command line that started it.
        host: Name of its machine.
        process: Number of its process.
        workers: How many Dask workers it has or had last; None without Dask.
        started: When it started.
        seconds: How long it took, or has taken so far; at least so long, if it was killed.
        doing: What it is doing, or was doing when it was killed.
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
        ok: How many have a record with this status, and are not to be run again.
        failed: How many have a record with this status, and are not to be run again.
        skipped: How many have a record with this status, and are not to be run again.
        to_do: How many are still to be run; None while that is not known.
        error: Why nothing more can be done for it; None otherwise.
        lacks: What the seed has none of then.
    """

    seed: int
    cells: int | None
    ok: int
    failed: int
    skipped: int
    to_do: int | None
    error: str | None
    lacks: Literal["classifier", "evidence", "records"] = "classifier"


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
    """How far the runs on a results folder have come.

    Attributes:
        runs: The runs that go on and, of the others, the last one of each specification.
        seeds: The seeds of these runs; those of all records if there is no journal.
        jobs: How many jobs they have in all, as far as is known.
        jobs_done: How many of these need not be run.
        left_s: Seconds that the runs that go on may still take, at their pace so far; None if that is not known.
        failures: Cells that failed, and are not to be run again.
        other_records: How many records are of no cell of these runs.
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
    all_journals = journals(out)
    files = {file.stem: file for file in (out / "records").glob("*.json")}
    shown = _shown(all_journals)
    if not shown:
        return _of_records(_records(files.values()))
    workloads = [_workload(journal, all_journals) for journal in shown]
    cells = set(chain.from_iterable(workload.cells() for workload in workloads))
    records = _records(files[cell] for cell in cells if cell in files)
    done = {cell for journal in shown if journal.goes_on for cell in journal.done}
    to_do = {
        cell for workload in workloads for cell in workload.cells() if _is_to_do(cell, workload.journal, records, done)
    }
    jobs, left = _jobs(workloads, to_do)
    going_on = [workload for workload in workloads if workload.journal.goes_on]
    return Status(
        runs=[_run(journal, now) for journal in shown],
        seeds=list(_seeds(workloads, records, to_do)),
        jobs=jobs,
        jobs_done=jobs - left,
        left_s=_left([workload.journal for workload in going_on], _jobs(going_on, to_do)[1], now),
        failures=_failures(record for cell, record in records.items() if cell not in to_do),
        other_records=len(files) - len(records),
    )


def _shown(all_journals: Sequence[Journal]) -> list[Journal]:
    """The journals of runs that go on and, of the others, the last one of each specification."""
    last = {journal.start.asked_for: journal for journal in all_journals}
    return [journal for journal in all_journals if journal.goes_on or journal is last[journal.start.asked_for]]


@dataclass(frozen=True)
class _Workload:
    """What a run has to do: by seed, the cells of each job, or the number of jobs where cells are not known."""

    journal: Journal
    jobs: Mapping[int, Sequence[Job]]
    unknown: Mapping[int, int]

    def cells(self) -> Iterator[CellId]:
        """All cells that are known."""
        return chain.from_iterable(job for jobs in self.jobs.values() for job in jobs)


def _workload(journal: Journal, all_journals: Sequence[Journal]) -> _Workload:
    """What a run has to do; for a seed that it has not prepared yet, taken from earlier runs of its specification."""
    jobs: dict[int, Sequence[Job]] = {}
    for earlier in all_journals:
        if earlier.start.asked_for == journal.start.asked_for:
            jobs |= {seed: earlier.jobs[seed] for seed in journal.start.seeds if seed in earlier.jobs}
    jobs |= journal.jobs
    return _Workload(
        journal, jobs, {seed: journal.job_counts.get(seed, 0) for seed in journal.start.seeds if seed not in jobs}
    )


def _jobs(workloads: Sequence[_Workload], to_do: set[CellId]) -> tuple[int, int]:
    """How many jobs some runs have, each counted once, and how many of them are to be run."""
    known = {job for workload in workloads for jobs in workload.jobs.values() for job in jobs}
    unknown = sum(n for workload in workloads for n in workload.unknown.values())
    return len(known) + unknown, sum(not to_do.isdisjoint(job) for job in known) + unknown


def _is_to_do(cell: CellId, journal: Journal, records: Mapping[str, Record], done: set[CellId]) -> bool:
    """Whether a cell is to be run: it has no record, or the run was asked to replace the one that it has."""
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
    workers = [event.workers for event in journal.events if isinstance(event, WorkersChanged)]
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
    for event in journal.events:
        match event:
            case WorkersChanged():
                there = set(map(printable, event.workers))
                under_way = {key: _without_lost(doing, there) for key, doing in under_way.items()}
            case Started():
                under_way["data"] = Doing("data", None, None, (), _seconds(event.time, now), None)
            case DataRead():
                under_way.pop("data", None)
            case SeedStarted():
                under_way.pop("data", None)
                what: Literal["classifier", "evidence"] = "classifier" if event.event == "seed started" else "evidence"
                worker = event.worker and printable(event.worker)
                under_way[event.seed] = Doing(what, event.seed, None, (), _seconds(event.time, now), worker)
            case ImagesDone():
                last = next((key for key in reversed(under_way) if _is_of(event, under_way[key])), None)
                if last is not None:
                    under_way[last] = replace(under_way[last], images=_images(event))
            case SeedPrepared() | SeedEnded():
                under_way.pop(event.seed, None)
            case JobEvent():
                key = event.seed, event.detector, event.exposed
                if event.event == "job started":
                    under_way[key] = _running(event, now)
                else:
                    under_way.pop(key, None)
    return list(under_way.values())


def _is_of(event: ImagesDone, doing: Doing) -> bool:
    """Whether a pass may be one of what is being done, which is told of passes that workers do alone."""
    return event.worker is None or (printable(event.worker), event.seed) == (doing.worker, doing.seed)


def _images(event: ImagesDone) -> Images | None:
    """How far a pass is; None if it is at its end."""
    if event.done >= event.total:
        return None
    pace = event.done / event.seconds if event.seconds else 0.0
    left = (event.total - event.done) / pace if pace else None
    return Images(printable(event.what), event.done, event.total, pace, left)


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


def _seeds(workloads: Sequence[_Workload], records: Mapping[str, Record], to_do: set[CellId]) -> Iterator[Seed]:
    for seed in dict.fromkeys(seed for workload in workloads for seed in workload.journal.start.seeds):
        cells = {cell for workload in workloads for job in workload.jobs.get(seed, ()) for cell in job}
        is_known = not any(seed in workload.unknown for workload in workloads)
        counts = Counter(records[cell].status for cell in cells - to_do)
        failed = [seeds[seed] for workload in workloads if seed in (seeds := workload.journal.failed_seeds)]
        yield Seed(
            seed,
            len(cells) if is_known else None,
            counts["ok"],
            counts["failed"],
            counts["skipped"],
            len(cells & to_do) if is_known else None,
            printable(failed[-1].error or "") if failed else None,
            failed[-1].lacks if failed else "classifier",
        )


def _records(files: Iterable[Path]) -> dict[str, Record]:
    records = {}
    for file in files:
        with suppress(InvalidRecordError, OSError):  # not there any more, or none that a run would take
            records[file.stem] = parse_record(file)
    return records


def _of_records(records: Mapping[str, Record]) -> Status:
    by_seed: dict[int, Counter[str]] = {}
    for record in records.values():
        by_seed.setdefault(record.seed, Counter())[record.status] += 1
    seeds = [
        Seed(seed, counts.total(), counts["ok"], counts["failed"], counts["skipped"], 0, None)
        for seed, counts in sorted(by_seed.items())
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
    """Seconds that the jobs that are left take if they take as long as those before."""
    events = [event for journal in going_on for event in journal.events if isinstance(event, JobEvent)]
    ended = sum(event.event == "job ended" for event in events)
    return jobs * _seconds(min(event.time for event in events), now) / ended if ended else None


def _seconds(start: datetime, end: datetime) -> float:
    """Seconds between two times, never negative, even if the clock was changed."""
    return max(0.0, (end - start).total_seconds())
