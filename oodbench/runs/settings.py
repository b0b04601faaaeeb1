"""The settings of a run that change none of its numbers: where data and results are, and who runs the jobs."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from oodbench.files.folders import RESULTS
from oodbench.machine.progress import Track, silent
from oodbench.records.record import Record
from oodbench.records.store import Rerun, Store
from oodbench.runs.prepared import PreparedRun
from oodbench.runs.resolved import ResolvedRun
from oodbench.runs.summary import SeedFailed


class Executor(Protocol):
    """Runs the jobs."""

    @property
    def name(self) -> str:
        """Its name in the journal of a run."""

    def check(self, run: ResolvedRun) -> None:
        """Refuse a run that it cannot do, before any data are read.

        Raises:
            OodbenchError: Says why.
        """

    def records(self, run: PreparedRun, store: Store, settings: "RunSettings") -> Iterator[Record | SeedFailed]:
        """The records of all jobs, seed by seed; finished cells are not run again."""
        ...


@dataclass(frozen=True)
class RunSettings:
    """Where and how a run is done; the fields are arguments of ``oodbench.run``, and are described there."""

    executor: Executor
    data: Path | None = None
    download: bool = False
    out: Path = RESULTS
    rerun: Rerun = "failed"
    log_file: Path | None = None
    track: Track = silent
