"""A plan: the specification of a run with all its jobs and cells, as a file that workers share."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from oodbench.errors import MissingPrerequisiteError, UsageError
from oodbench.files.bounded_io import UnreadableError, read_limited, refuse_ambiguous_json
from oodbench.runs.cells import Job, JobRunner
from oodbench.runs.prepared import PreparedRun
from oodbench.runs.spec import RunSpec

LARGEST = 1 << 30


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PlannedJob(_Model):
    """A job of a plan: seed, label of the detector, exposed sets, and the identities of its cells."""

    seed: int
    detector: str
    exposed: list[str]
    cells: list[str]

    @property
    def key(self) -> tuple[int, str, tuple[str, ...]]:
        """What tells the jobs of a plan apart."""
        return self.seed, self.detector, tuple(self.exposed)


class Plan(_Model):
    """What ``oodbench plan`` prints.

    Attributes:
        schema_version: Version of the file's schema.
        oodbench: Version of the package that made it.
        asked: The specification of the run.
        jobs: Its jobs.
        probes: By seed, numbers that stand for the outputs of the classifier.
    """

    schema_version: Literal[1] = 1
    oodbench: str
    asked: RunSpec
    jobs: list[PlannedJob]
    probes: dict[int, dict[str, list[float]]] = {}


@dataclass(frozen=True)
class PlannedSeed:
    """The jobs of a seed with their cells, and numbers that stand for what its classifier computes."""

    jobs: Sequence[tuple[Job, PlannedJob]]
    probe: Mapping[str, list[float]]


def plan_seed(run: PreparedRun, seed: int) -> PlannedSeed:
    """Plan the jobs of a seed; its classifier is trained if it is not cached."""
    runner = JobRunner(run.trial(seed))
    planned = []
    for job in run.jobs(seed):
        cells = [pending.cell_id for pending in runner.pending(job)]
        label, exposed = job.detector.label, list(job.exposed)
        planned.append((job, PlannedJob(seed=seed, detector=label, exposed=exposed, cells=cells)))
    return PlannedSeed(planned, runner.trial.probe)


def read_plan(file: Path) -> Plan:
    """Read a plan.

    Raises:
        MissingPrerequisiteError: The file cannot be read.
        UsageError: It is no plan.
    """
    try:
        content = read_limited(file, LARGEST)
    except OSError as cause:
        raise MissingPrerequisiteError(f"the plan {file} cannot be read: {cause.strerror}.") from cause
    except UnreadableError as cause:
        raise UsageError(f"{file} {cause}; expected a file made by `oodbench plan`.") from cause
    try:
        plan = Plan.model_validate_json(content)
        refuse_ambiguous_json(content)
    except ValidationError as cause:
        first = cause.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise UsageError(
            f"{file} is no plan: {where}: {first['msg'].lower()}; expected a file made by `oodbench plan`."
        ) from cause
    except UnreadableError as cause:
        raise UsageError(f"{file} is no plan: it {cause}; expected a file made by `oodbench plan`.") from cause
    except UsageError as cause:  # a field of the specification cannot be meant
        raise UsageError(f"{file} is no plan: {cause}") from cause
    return plan
