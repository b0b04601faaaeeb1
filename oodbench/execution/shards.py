"""A plan as a file, and the share of one worker: many processes on many machines meet in the results folder alone."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from oodbench.cells import drafts
from oodbench.errors import MissingPrerequisiteError, UsageError
from oodbench.execution.asked import Asked
from oodbench.plan import Benchmark, Job
from oodbench.untrusted import UnreadableError, read_limited, refuse_ambiguous_json

LARGEST = 1 << 30


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PlannedJob(_Part):
    """What one process does at a time: a detector, fitted once, and the cells that it serves."""

    seed: int
    detector: str
    exposed: list[str]
    cells: list[str]


class PlanFile(_Part):
    """What ``oodbench plan`` prints."""

    schema_version: Literal[1] = 1
    oodbench: str
    asked: Asked
    jobs: list[PlannedJob]


def planned(benchmark: Benchmark, seeds: Sequence[int] | None = None) -> list[tuple[Job, PlannedJob]]:
    """All jobs, or those of some seeds, with the identities of their cells; classifiers are trained for that."""
    found = []
    for seed in benchmark.seeds if seeds is None else seeds:
        trial = benchmark.trial(seed)
        for job in benchmark.jobs(seed):
            cells = [draft.cell_id for draft in drafts(trial, job.cell)]
            label = job.cell.chosen.label
            found.append((job, PlannedJob(seed=seed, detector=label, exposed=list(job.cell.exposed), cells=cells)))
    return found


def read_plan(file: Path) -> PlanFile:
    """Read a plan.

    Raises:
        MissingPrerequisiteError: It is not there.
        UsageError: It is none.
    """
    try:
        content = read_limited(file, LARGEST)
    except OSError as cause:
        raise MissingPrerequisiteError(f"the plan {file} cannot be read: {cause.strerror}.") from cause
    except UnreadableError as cause:
        raise UsageError(f"{file} {cause}; expected a file made by `oodbench plan`.") from cause
    try:
        plan = PlanFile.model_validate_json(content)
        refuse_ambiguous_json(content)
    except ValidationError as cause:
        first = cause.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise UsageError(
            f"{file} is no plan: {where}: {first['msg'].lower()}; expected a file made by `oodbench plan`."
        ) from cause
    except UnreadableError as cause:
        raise UsageError(f"{file} is no plan: it {cause}; expected a file made by `oodbench plan`.") from cause
    return plan


def share(jobs: Sequence[PlannedJob], shard: str) -> list[PlannedJob]:
    """The jobs of shard ``K/N``, K from 1 to N: neighbours in the plan, so that a shard needs few classifiers.

    Raises:
        UsageError: It is no shard.
    """
    parts = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", shard)
    k, n = (int(part) for part in parts.groups()) if parts else (0, 0)
    if not 1 <= k <= n:
        raise UsageError(f"the shard is {shard!r}; expected K/N with K from 1 to N, such as 3/16.")
    return list(jobs[(k - 1) * len(jobs) // n : k * len(jobs) // n])


def jobs_of_share(benchmark: Benchmark, mine: Sequence[PlannedJob]) -> list[Job]:
    """The jobs that a plan means.

    Raises:
        UsageError: Here, the cells would be others than when the plan was made.
    """
    seeds = list(dict.fromkeys(job.seed for job in mine))
    here = {key(again): (job, again) for job, again in planned(benchmark, seeds)}
    for job in mine:
        found = here.get(key(job))
        if found is None or found[1].cells != job.cells:
            raise UsageError(
                f"the plan's cells of {job.detector}, seed {job.seed}, are others here, so data, weights, plugins or "
                "versions of packages are not those of the plan; make it anew with `oodbench plan`, or use those."
            )
    return [here[key(job)][0] for job in mine]


def key(job: PlannedJob) -> tuple[Any, ...]:
    """What tells jobs of a plan apart."""
    return job.seed, job.detector, tuple(job.exposed)
