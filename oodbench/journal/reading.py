"""Reads journals; incomplete and invalid lines are skipped."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError

from oodbench.files.bounded_io import MIB, UnreadableError, read_limited
from oodbench.journal.writing import FOLDER, has_process

LARGEST = 1024 * MIB

CellId: TypeAlias = Annotated[str, StringConstraints(pattern="^[0-9a-f]{16}$")]


class _Event(BaseModel):
    """A line of a journal; fields that are not needed are ignored."""

    model_config = ConfigDict(frozen=True)

    # Within the range that every time zone can represent.
    time: Annotated[AwareDatetime, Field(ge=datetime(1970, 1, 3, tzinfo=UTC), le=datetime(9990, 1, 1, tzinfo=UTC))]


class Started(_Event):
    """The first event of a run."""

    event: Literal["run started"]
    suite: str
    classifier: str | None = None
    weights: str | None = None
    datasets: dict[str, str] = {}
    detectors: list[str] = []
    protocols: list[str] = []
    seeds: list[Annotated[int, Field(ge=0, lt=2**63)]]
    limit: int | None = None
    device: str = "cpu"
    precision: str = "fp32"
    shard: str | None = None
    rerun: Literal["missing", "failed", "all"] = "failed"
    command: list[str]
    host: str
    process: Annotated[int, Field(ge=0, lt=2**63)]

    @property
    def asked_for(self) -> str:
        """The request without time, host and command: equal for a run that continues this run."""
        return self.model_dump_json(exclude={"time", "event", "rerun", "command", "host", "process"})


class DataRead(_Event):
    """The data are read; ``jobs`` has the number of jobs of each seed."""

    event: Literal["data read"]
    jobs: dict[int, Annotated[int, Field(ge=0, le=10**9)]]


class WorkersChanged(_Event):
    """Workers have joined or left; ``workers`` are those that are there now."""

    event: Literal["workers changed"]
    workers: list[str]


class SeedStarted(_Event):
    """Work on a seed begins: making its classifier, or collecting its evidence."""

    event: Literal["seed started", "evidence started"]
    seed: int
    worker: str | None = None


class SeedPrepared(_Event):
    """A seed is prepared; ``jobs`` has the cells of each of its jobs."""

    event: Literal["seed prepared"]
    seed: int
    jobs: list[tuple[CellId, ...]]


class SeedEnded(_Event):
    """The evidence of a seed is collected, or the seed failed."""

    event: Literal["evidence collected", "seed failed"]
    seed: int
    error: str | None = None
    lacks: Literal["classifier", "evidence", "records"] = "classifier"


class ImagesDone(_Event):
    """How many images of a pass are done, and in how many seconds; seed and worker if a worker of Dask does it."""

    event: Literal["images done"]
    what: str
    done: Annotated[int, Field(ge=0, lt=2**53)]
    total: Annotated[int, Field(ge=0, lt=2**53)]
    seconds: Annotated[float, Field(ge=0, le=1e12)]
    seed: int | None = None
    worker: str | None = None


class JobEvent(_Event):
    """A job starts, ends, or is lost and has to start again."""

    event: Literal["job started", "job ended", "job lost"]
    seed: int
    detector: str
    exposed: tuple[str, ...]
    worker: str | None = None


class CellDone(_Event):
    """A cell is done: its record is written, or its existing record is confirmed."""

    event: Literal["record kept", "record confirmed"]
    cell_id: CellId


class Ended(_Event):
    """The last event of a run that was not killed."""

    event: Literal["run ended"]
    how: Literal["finished", "failed", "interrupted"]
    error: str | None = None


class Message(_Event):
    """A warning; only its time is used."""

    event: Literal["message"]


Event: TypeAlias = (
    Started
    | DataRead
    | WorkersChanged
    | SeedStarted
    | SeedPrepared
    | SeedEnded
    | ImagesDone
    | JobEvent
    | CellDone
    | Ended
    | Message
)
_LINE: TypeAdapter[Event] = TypeAdapter(Annotated[Event, Field(discriminator="event")])


@dataclass(frozen=True)
class Journal:
    """The events of a run.

    Attributes:
        file: File of the journal.
        is_locked: Whether the process of the run was alive when the journal was read.
        start: The first event.
        events: All events, including the first.
    """

    file: Path
    is_locked: bool
    start: Started
    events: Sequence[Event]

    @cached_property
    def end(self) -> Ended | None:
        """The last event of a run that was not killed."""
        return next((event for event in reversed(self.events) if isinstance(event, Ended)), None)

    @property
    def goes_on(self) -> bool:
        """Whether the run is still in progress."""
        return self.is_locked and self.end is None

    @cached_property
    def job_counts(self) -> dict[int, int]:
        """Number of jobs of each seed; empty until the data are read."""
        return {seed: n for event in self.events if isinstance(event, DataRead) for seed, n in event.jobs.items()}

    @cached_property
    def jobs(self) -> dict[int, list[tuple[CellId, ...]]]:
        """The cells of each job, for each seed that is prepared."""
        return {event.seed: event.jobs for event in self.events if isinstance(event, SeedPrepared)}

    @cached_property
    def failed_seeds(self) -> dict[int, SeedEnded]:
        """The events of seeds that failed, by seed."""
        ended = (event for event in self.events if isinstance(event, SeedEnded))
        return {event.seed: event for event in ended if event.error is not None}

    @cached_property
    def done(self) -> set[CellId]:
        """The cells that are done."""
        return {event.cell_id for event in self.events if isinstance(event, CellDone)}


def journals(out: Path) -> list[Journal]:
    """The journals in a store, oldest first."""
    readable = []
    for file in sorted((out / FOLDER).glob("*.jsonl")):
        is_locked = has_process(file)  # before it is read: it may end meanwhile
        events = list(_events(file))
        if events and isinstance(events[0], Started):
            readable.append(Journal(file, is_locked, events[0], events))
    return readable


def _events(file: Path) -> Iterator[Event]:
    try:
        lines = read_limited(file, LARGEST).splitlines()
    except (OSError, UnreadableError):
        return
    for line in lines:
        with suppress(ValidationError):
            yield _LINE.validate_json(line)
