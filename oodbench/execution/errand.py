"""What an executor asks of a process elsewhere, and what that answers: plain data, as JSON on the way."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

from oodbench.execution.asked import Asked
from oodbench.records.record import ScoresPart

# Exit status of a process that cannot answer, since its files were closed.
CLOSED = 74


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Site(_Part):
    """What all errands of a run share.

    Attributes:
        asked: What is run.
        data: Folder of the data sets, if it was named.
        download: Whether pretrained weights may be downloaded.
        folder: Where relative paths begin.
        surroundings: What has to be the same there; see ``surroundings``.
    """

    asked: Asked
    data: str | None
    download: bool
    folder: str
    surroundings: dict[str, str]


class Errand(_Part):
    """One thing to do.

    Attributes:
        what: Train the classifier of a seed and say which cells there are; collect its evidence; or run a job.
        seed: The seed.
        job: The position of the job among those of the seed.
        cells: The cells that it is expected to have.
        wanted: Those of them that have no record yet.
        failure: Why the job has failed: its records are made without running it.
    """

    what: Literal["prepare", "gather", "run"]
    seed: int
    job: int = 0
    cells: list[str] = []
    wanted: list[str] = []
    failure: str | None = None


class Message(_Part):
    """What a process is told.

    Attributes:
        seal: Stands before its answer.
        site: For which run, if that is another one than before.
        errand: What to do.
    """

    seal: str
    site: Site | None
    errand: Errand


class Answer(_Part):
    """What came of it.

    Attributes:
        cells: The cells of each job of the seed, once it is prepared.
        records: Records, as JSON.
        scores: What the records say of their file of scores.
        content: That file, in base 64.
        messages: What is to be told to the user.
        error: Why there is nothing, in one sentence.
    """

    cells: list[list[str]] = []
    records: list[str] = []
    scores: ScoresPart | None = None
    content: str = ""
    messages: list[str] = []
    error: str | None = None
