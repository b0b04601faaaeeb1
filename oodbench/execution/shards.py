"""Does one share of a plan; the workers of a plan meet in the results folder alone."""

import re
from collections.abc import Mapping, Sequence

from oodbench.errors import UsageError
from oodbench.execution.serial import run_serially
from oodbench.journal.events import tell
from oodbench.journal.writing import journal
from oodbench.records.networks import same_outputs
from oodbench.records.store import Store
from oodbench.runs.cells import Job
from oodbench.runs.plan import Plan, PlannedJob, plan_seed
from oodbench.runs.prepared import PreparedRun, prepare_run
from oodbench.runs.resolved import resolve_run
from oodbench.runs.settings import RunSettings
from oodbench.runs.summary import RunSummary, summarize


def share(jobs: Sequence[PlannedJob], shard: str) -> list[PlannedJob]:
    """The jobs of the share ``K/N``, K from 1 to N: neighbours in the plan, so that a share needs few classifiers.

    Raises:
        UsageError: The text is no ``K/N``.
    """
    matched = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", shard)
    k, n = (int(number) for number in matched.groups()) if matched else (0, 0)
    if not 1 <= k <= n:
        raise UsageError(f"the shard is {shard!r}; expected K/N with K from 1 to N, such as 3/16.")
    return list(jobs[(k - 1) * len(jobs) // n : k * len(jobs) // n])


def jobs_of_share(
    run: PreparedRun, mine: Sequence[PlannedJob], probes: Mapping[int, Mapping[str, list[float]]]
) -> dict[int, list[Job]]:
    """The jobs of a share, by seed.

    Args:
        run: The run.
        mine: The share.
        probes: What the classifiers of the plan compute, by seed.

    Raises:
        UsageError: Their cells differ from those in the plan, so data, weights or versions have changed.
    """
    seeds = list(dict.fromkeys(planned.seed for planned in mine))
    seen = {seed: plan_seed(run, seed) for seed in seeds}
    here = {planned.key: (job, planned) for of_seed in seen.values() for job, planned in of_seed.jobs}
    jobs: dict[int, list[Job]] = {seed: [] for seed in seeds}
    for planned in mine:
        job, again = here.get(planned.key, (None, None))
        is_same = same_outputs(probes.get(planned.seed, {}), seen[planned.seed].probe)
        if job is None or again is None or again.cells != planned.cells or not is_same:
            raise UsageError(
                f"the plan's cells of {planned.detector}, seed {planned.seed}, are others here, so data, weights, "
                "plugins or versions of packages are not those of the plan; make it anew with `oodbench plan`, or use "
                "those."
            )
        jobs[planned.seed].append(job)
    return jobs


def run_share(plan: Plan, mine: Sequence[PlannedJob], shard: str, settings: RunSettings) -> RunSummary:
    """Do a share of a plan, in this process.

    Args:
        plan: The plan.
        mine: The jobs of the share.
        shard: The share, as ``K/N``.
        settings: Where and how it is run.

    Raises:
        OodbenchError: Nothing could be run.
    """
    resolved = resolve_run(plan.asked)
    store = Store.open(settings.out, settings.rerun)
    facts = resolved.facts() | {"seeds": sorted({planned.seed for planned in mine})}
    with journal(store.out, settings.log_file, **facts, shard=shard, rerun=settings.rerun):
        run = prepare_run(resolved, data=settings.data, download=False, track=settings.track)
        run.say_remarks()
        jobs = jobs_of_share(run, mine, plan.probes)
        tell("data read", jobs={seed: len(of_seed) for seed, of_seed in jobs.items()})
        return summarize(run_serially(run, store, jobs), store)
