"""Requests to worker processes and their answers: plain data, sent as JSON."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

from oodbench.records.record import RecordedScores
from oodbench.runs.spec import RunSpec

# Exit status of a process that cannot answer, since its files were closed.
CLOSED = 74
# Environment variable that tells a process which of this machine's it is, by which it takes a GPU.
SLOT = "OODBENCH_SLOT"
# What stands between the seal and how far a pass is; an answer begins with a brace.
PASS = "pass "


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class WorkerSetup(_Model):
    """The setup of a worker, shared by all requests of a run.

    Attributes:
        spec: What is run.
        data: Folder of the data sets, if it was named.
        download: Whether pretrained weights may be downloaded.
        folder: Working folder, which relative paths start from.
        environment: Versions and hashes that have to be the same on the worker; see ``environment_fingerprint``.
    """

    spec: RunSpec
    data: str | None
    download: bool
    folder: str
    environment: dict[str, str]


class WorkRequest(_Model):
    """A request to a worker.

    Attributes:
        what: ``prepare`` a seed: train its classifier and name its cells; ``collect`` its evidence; or ``run`` a job.
        seed: The seed.
        job: Position of the job among those of the seed.
        cells: The cells that the job is expected to have.
        wanted: The cells whose records are wanted.
        failure: Why the job has failed, if it has; its records then say so, and it is not run.
    """

    what: Literal["prepare", "collect", "run"]
    seed: int
    job: int = 0
    cells: list[str] = []
    wanted: list[str] = []
    failure: str | None = None


class SealedRequest(_Model):
    """A request on its way to a process.

    Attributes:
        seal: A random text that stands before the answer, so that no output of a plugin is taken for an answer.
        setup: The setup of the run; None if it is that of the request before.
        request: The request.
    """

    seal: str
    setup: WorkerSetup | None
    request: WorkRequest


class PreparedSeed(_Model):
    """A seed whose classifier is there.

    Attributes:
        cells: The cells of each of its jobs.
        probe: Numbers that stand for the classifier's outputs.
        trusts_model: Whether the user trusts a classifier whose outputs are strange.
    """

    cells: list[list[str]]
    probe: dict[str, list[float]] = {}
    trusts_model: bool = False


class Passed(_Model):
    """How far a pass over images is that a worker does, sent while it goes on.

    Attributes:
        seed: The seed of the request that it is of.
        what: What is done.
        done: For how many images it is done.
        total: Number of images.
        seconds: What that took.
    """

    seed: int
    what: str
    done: int
    total: int
    seconds: float


class WorkAnswer(_Model):
    """The answer to a request.

    Attributes:
        prepared: After ``prepare``, what the seed has.
        records: After ``run``, the records as JSON.
        scores: The reference of these records to their file of scores.
        content: That file, in base 64.
        warnings: Warnings for the user.
        error: Why the request could not be done, in one sentence.
    """

    prepared: PreparedSeed | None = None
    records: list[str] = []
    scores: RecordedScores | None = None
    content: str = ""
    warnings: list[str] = []
    error: str | None = None
