"""How far runs on a results folder have come: read from their journals and the records, without disturbing them."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError

from oodbench.errors import MissingPrerequisiteError, printable
from oodbench.journal.writing import FOLDER, is_going_on
from oodbench.records.record import Record
from oodbench.records.verification import InvalidError, parse
from oodbench.untrusted import MIB, UnreadableError, read_limited

LARGEST_JOURNAL = 1024 * MIB

State = Literal["going on", "finished", "failed", "interrupted", "killed"]
"""``killed`` are runs that ended without a word."""


@dataclass(frozen=True)
class Doing:
    """A job under way.

    Attributes:
        seed: Its seed.
        detector: With its parameters.
        exposed: Unknown sets whose exposed samples it is fitted on.
        seconds: Since it began.
        worker: Who is at it, if not the process of the run itself.
    """

    seed: int
    detector: str
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
        command: The command line that started it.
        host: Where.
        process: Number of the process.
        started: When.
        seconds: How long it took, or has taken so far; what is known of one that was killed.
        doing: Jobs under way.
    """

    journal: Path
    state: State
    error: str | None
    suite: str
    command: Sequence[str]
    host: str
    process: int
    started: datetime
    seconds: float
    doing: Sequence[Doing]


@dataclass(frozen=True)
class Seed:
    """The cells of a seed: how many there are, and how many have which record; None while that is not known."""

    seed: int
    cells: int | None
    ok: int
    failed: int
    skipped: int


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
        runs: Those that go on, or else the last one; none where no journal is.
        seeds: Of these runs, or of all records where there is no journal.
        jobs: How many there are in all, as far as is known.
        jobs_done: Those of them whose cells all have a record.
        left_s: Seconds that the rest may take, at the pace so far; None where that is not known.
        failures: Cells that failed.
    """

    runs: Sequence[Run]
    seeds: Sequence[Seed]
    jobs: int
    jobs_done: int
    left_s: float | None
    failures: Sequence[FailedCell]


def status(out: Path, now: datetime) -> Status:
    """How far the runs on a results folder have come.

    Args:
        out: The results folder.
        now: The time, with its zone.

    Raises:
        MissingPrerequisiteError: It is no results folder.
    """
    if not (out / "records").is_dir():
        raise MissingPrerequisiteError(f"{out} is no results folder; expected the --out of an `oodbench run`.")
    logs = _journals(out)
    if not logs:
        return _of_records(_records(sorted((out / "records").glob("*.json"))))
    planned = _planned(logs)
    cells = {seed: [cell for job in jobs for cell in job] for seed, jobs in planned.items() if jobs is not None}
    records = _records(out / "records" / f"{cell}.json" for of_seed in cells.values() for cell in of_seed)
    expected = {seed: n for log in logs for seed, n in log.jobs_of_seeds.items()}
    jobs = sum(expected.get(seed, 0) if of_seed is None else len(of_seed) for seed, of_seed in planned.items())
    done = sum(all(cell in records for cell in job) for of_seed in planned.values() for job in of_seed or ())
    return Status(
        runs=[log.run(now) for log in logs],
        seeds=[_seed(seed, cells.get(seed), records) for seed in planned],
        jobs=jobs,
        jobs_done=done,
        left_s=_left(logs, jobs - done, now),
        failures=_failures(records.values()),
    )


class _Event(BaseModel):
    """What a line of a journal says, as far as it is of interest here."""

    model_config = ConfigDict(frozen=True)

    # Any zone can say it.
    time: Annotated[AwareDatetime, Field(ge=datetime(1970, 1, 3, tzinfo=UTC), le=datetime(9990, 1, 1, tzinfo=UTC))]


class _Started(_Event):
    event: Literal["run started"]
    suite: str
    seeds: list[int]
    command: list[str]
    host: str
    process: int


class _DataRead(_Event):
    event: Literal["data read"]
    jobs: dict[int, int]


class _Prepared(_Event):
    event: Literal["seed prepared"]
    seed: int
    jobs: list[tuple[Annotated[str, StringConstraints(pattern="^[0-9a-f]{16}$")], ...]]


class _Job(_Event):
    event: Literal["job started", "job ended"]
    seed: int
    detector: str
    exposed: tuple[str, ...]
    worker: str | None = None


class _Ended(_Event):
    event: Literal["run ended"]
    how: Literal["finished", "failed", "interrupted"]
    error: str | None = None


class _Other(_Event):
    event: str


_LINE: TypeAdapter[_Event] = TypeAdapter(_Started | _DataRead | _Prepared | _Job | _Ended | _Other)


@dataclass(frozen=True)
class _Log:
    """The events of one run."""

    file: Path
    goes_on: bool
    start: _Started
    events: Sequence[_Event]

    @property
    def jobs_of_seeds(self) -> dict[int, int]:
        return {seed: n for one in self.events if isinstance(one, _DataRead) for seed, n in one.jobs.items()}

    @property
    def prepared(self) -> list[_Prepared]:
        return [one for one in self.events if isinstance(one, _Prepared)]

    @property
    def jobs(self) -> list[_Job]:
        return [one for one in self.events if isinstance(one, _Job)]

    def run(self, now: datetime) -> Run:
        end = _end(self.events)
        until = now if self.goes_on else self.events[-1].time
        return Run(
            journal=self.file,
            state="going on" if self.goes_on else end.how if end else "killed",
            error=printable(end.error) if end and end.error else None,
            suite=printable(self.start.suite),
            command=[printable(word) for word in self.start.command],
            host=printable(self.start.host),
            process=self.start.process,
            started=self.start.time,
            seconds=_seconds(self.start.time, until),
            doing=self._doing(now) if self.goes_on else (),
        )

    def _doing(self, now: datetime) -> list[Doing]:
        under_way: dict[tuple[int, str, tuple[str, ...]], _Job] = {}
        for one in self.jobs:
            key = one.seed, one.detector, one.exposed
            if one.event == "job started":
                under_way[key] = one
            else:
                under_way.pop(key, None)
        return [
            Doing(
                one.seed,
                printable(one.detector),
                tuple(map(printable, one.exposed)),
                _seconds(one.time, now),
                one.worker and printable(one.worker),
            )
            for one in under_way.values()
        ]


def _end(events: Sequence[_Event]) -> _Ended | None:
    return next((one for one in reversed(events) if isinstance(one, _Ended)), None)


def _journals(out: Path) -> list[_Log]:
    """Those of runs that go on, or else the last one."""
    last: list[_Log] = []
    going_on: list[_Log] = []
    for file in sorted((out / FOLDER).glob("*.jsonl"), reverse=True):
        goes_on = is_going_on(file)
        if not goes_on and last:
            continue
        events = list(_events(file))
        goes_on = goes_on and _end(events) is None
        if events and isinstance(events[0], _Started):
            (going_on if goes_on else last).append(_Log(file, goes_on, events[0], events))
    return going_on[::-1] or last


def _events(file: Path) -> Iterator[_Event]:
    """The events of a journal; a line that was cut off, or is none, is passed over."""
    try:
        lines = read_limited(file, LARGEST_JOURNAL).splitlines()
    except (OSError, UnreadableError):
        return
    for line in lines:
        with suppress(ValidationError):
            yield _LINE.validate_json(line)


def _planned(logs: Sequence[_Log]) -> dict[int, list[tuple[str, ...]] | None]:
    """The cells of each job of each seed; None of a seed that is not prepared yet."""
    found: dict[int, list[tuple[str, ...]] | None] = {seed: None for log in logs for seed in log.start.seeds}
    for log in logs:
        for one in log.prepared:
            found[one.seed] = list(dict.fromkeys([*(found.get(one.seed) or []), *one.jobs]))
    return found


def _records(files: Iterable[Path]) -> dict[str, Record]:
    found = {}
    for file in files:
        try:
            record = parse(file)
        except (InvalidError, OSError):
            continue  # not there yet, or none that a run would take
        found[record.cell_id] = record
    return found


def _of_records(records: Mapping[str, Record]) -> Status:
    by_seed: dict[int, list[str]] = {}
    for cell, record in records.items():
        by_seed.setdefault(record.seed, []).append(cell)
    seeds = [_seed(seed, cells, records) for seed, cells in sorted(by_seed.items())]
    return Status([], seeds, 0, 0, None, _failures(records.values()))


def _seed(seed: int, cells: Sequence[str] | None, records: Mapping[str, Record]) -> Seed:
    found = Counter(records[cell].status for cell in cells or () if cell in records)
    return Seed(seed, None if cells is None else len(cells), found["ok"], found["failed"], found["skipped"])


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


def _left(logs: Sequence[_Log], jobs: int, now: datetime) -> float | None:
    """Seconds, if the jobs that are left take as long as those before."""
    told = [job for log in logs if log.goes_on for job in log.jobs]
    ended = sum(job.event == "job ended" for job in told)
    return jobs * _seconds(min(job.time for job in told), now) / ended if ended else None


def _seconds(start: datetime, end: datetime) -> float:
    """Never less than none, whatever has been done to the clock."""
    return max(0.0, (end - start).total_seconds())
