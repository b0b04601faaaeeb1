"""Journals, read back; a line that was cut off, or is none, is passed over."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError

from oodbench.journal.writing import FOLDER, has_process
from oodbench.untrusted import MIB, UnreadableError, read_limited

LARGEST = 1024 * MIB

CellId: TypeAlias = Annotated[str, StringConstraints(pattern="^[0-9a-f]{16}$")]


class _Event(BaseModel):
    """What a line of a journal says, as far as it is of interest."""

    model_config = ConfigDict(frozen=True)

    # Any zone can say it.
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
    shard: str | None = None
    rerun: Literal["missing", "failed", "all"] = "failed"
    command: list[str]
    host: str
    process: Annotated[int, Field(ge=0, lt=2**63)]

    @property
    def asked_for(self) -> str:
        """What was asked for, rather than when, where and how: the same of a run that goes on from where this ended."""
        return self.model_dump_json(exclude={"time", "event", "rerun", "command", "host", "process"})


class DataRead(_Event):
    """``jobs`` is how many each seed has."""

    event: Literal["data read"]
    jobs: dict[int, Annotated[int, Field(ge=0, le=10**9)]]


class WorkersChanged(_Event):
    """Who is there to work."""

    event: Literal["workers changed"]
    workers: list[str]


class SeedStarted(_Event):
    """Its classifier is trained or read, or after that its evidence collected."""

    event: Literal["seed started", "evidence started"]
    seed: int
    worker: str | None = None


class SeedPrepared(_Event):
    """The cells of each job of a seed are known."""

    event: Literal["seed prepared"]
    seed: int
    jobs: list[tuple[CellId, ...]]


class SeedEnded(_Event):
    """Its evidence is there, or it cannot be run."""

    event: Literal["evidence collected", "seed failed"]
    seed: int
    error: str | None = None


class JobEvent(_Event):
    """A job begins, ends, or has to be begun anew."""

    event: Literal["job started", "job ended", "job lost"]
    seed: int
    detector: str
    exposed: tuple[str, ...]
    worker: str | None = None


class CellDone(_Event):
    """It has a record, or the one that it has was found right."""

    event: Literal["record kept", "record confirmed"]
    cell_id: CellId


class Ended(_Event):
    """The last event of a run that was not killed."""

    event: Literal["run ended"]
    how: Literal["finished", "failed", "interrupted"]
    error: str | None = None


class Message(_Event):
    """A warning, of which the time is of interest."""

    event: Literal["message"]


Event: TypeAlias = (
    Started | DataRead | WorkersChanged | SeedStarted | SeedPrepared | SeedEnded | JobEvent | CellDone | Ended | Message
)
_LINE: TypeAdapter[Event] = TypeAdapter(Annotated[Event, Field(discriminator="event")])


@dataclass(frozen=True)
class Journal:
    """The events of one run.

    Attributes:
        file: Where they are.
        is_locked: Whether its process was there when it was read.
        start: The first one.
        events: All of them, the first included.
    """

    file: Path
    is_locked: bool
    start: Started
    events: Sequence[Event]

    @cached_property
    def end(self) -> Ended | None:
        """The last event of a run that was not killed."""
        return next((one for one in reversed(self.events) if isinstance(one, Ended)), None)

    @property
    def goes_on(self) -> bool:
        """Whether the run has not ended, in whatever way."""
        return self.is_locked and self.end is None

    @cached_property
    def job_counts(self) -> dict[int, int]:
        """How many jobs each seed has, once that is known."""
        return {seed: n for one in self.events if isinstance(one, DataRead) for seed, n in one.jobs.items()}

    @cached_property
    def jobs(self) -> dict[int, list[tuple[CellId, ...]]]:
        """The cells of each job of the seeds that are prepared."""
        return {one.seed: one.jobs for one in self.events if isinstance(one, SeedPrepared)}

    @cached_property
    def seed_errors(self) -> dict[int, str]:
        """Why seeds have no classifier."""
        ended = (one for one in self.events if isinstance(one, SeedEnded))
        return {one.seed: one.error for one in ended if one.error is not None}

    @cached_property
    def done(self) -> set[CellId]:
        """The cells that the run is done with."""
        return {one.cell_id for one in self.events if isinstance(one, CellDone)}


def journals(out: Path) -> list[Journal]:
    """The journals in a results folder, the oldest first."""
    found = []
    for file in sorted((out / FOLDER).glob("*.jsonl")):
        is_locked = has_process(file)  # before it is read: it may end meanwhile
        events = list(_events(file))
        if events and isinstance(events[0], Started):
            found.append(Journal(file, is_locked, events[0], events))
    return found


def _events(file: Path) -> Iterator[Event]:
    try:
        lines = read_limited(file, LARGEST).splitlines()
    except (OSError, UnreadableError):
        return
    for line in lines:
        with suppress(ValidationError):
            yield _LINE.validate_json(line)
