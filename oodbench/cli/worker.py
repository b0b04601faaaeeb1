"""``oodbench worker``."""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import click

from oodbench.cli.options import data_option, store_options
from oodbench.cli.output import results_only

if TYPE_CHECKING:
    from oodbench.records.store import Rerun


@click.command(name="worker", short_help="Do a share of a plan.")
@click.option(
    "--plan",
    "file",
    type=click.Path(path_type=Path),
    required=True,
    metavar="FILE",
    help="What `oodbench plan` printed.",
)
@click.option("--shard", default="1/1", show_default=True, metavar="K/N", help="The K-th of N shares.")
@data_option
@store_options
def command(file: Path, shard: str, data: Path | None, out: Path, rerun: "Rerun", log_file: Path | None) -> int:
    """Do a share of what `oodbench plan` printed, for arrays of jobs and matrices of continuous integration.

    Workers need no connection: they meet in the folders --out and $OODBENCH_CACHE, or each has its own, and `oodbench
    leaderboard build` takes all of them. Paths in the plan are those that it was made with. Exit status 1 if a cell
    failed.
    """
    from oodbench.cli.terminal import progress
    from oodbench.execution.outcome import outcome
    from oodbench.execution.serial import run_serially
    from oodbench.execution.shards import jobs_of_share, read_plan, share
    from oodbench.journal.events import tell
    from oodbench.journal.writing import journal
    from oodbench.plan import look_up, read_data
    from oodbench.records.store import Store

    plan = read_plan(file)
    mine = share(plan.jobs, shard)
    with results_only(), progress() as track:
        wanted = look_up(**plan.asked.model_dump())
        store = Store.open(out, rerun)
        with journal(
            out, log_file, **wanted.facts() | {"seeds": sorted({job.seed for job in mine})}, shard=shard, rerun=rerun
        ):
            benchmark = read_data(wanted, data=data, download=False, track=track)
            jobs = jobs_of_share(benchmark, mine)
            tell("data read", jobs=Counter(job.seed for job in jobs))
            done = outcome(run_serially(benchmark, store, jobs), store)
    found = Counter(record.status for record in done.records)
    click.echo(
        f"{len(done.records)} records of {len(mine)} jobs in {out} "
        f"({found['failed']} failed, {found['skipped']} skipped).",
        err=True,
    )
    if done.problem is not None:
        raise done.problem
    return 1 if found["failed"] else 0
