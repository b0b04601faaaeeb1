"""``oodbench worker``."""

from collections import Counter
from pathlib import Path
from typing import Any

import click

from oodbench.cli.options import data_option, settings_of, store_options
from oodbench.cli.output import results_only


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
def command(file: Path, shard: str, **options: Any) -> int:  # noqa: ANN401
    """Do a share of what `oodbench plan` printed, for arrays of jobs and matrices of continuous integration.

    Workers need no connection: they meet in the folders --out and $OODBENCH_CACHE, or each has its own, and `oodbench
    leaderboard build` takes all of them. Paths in the plan are those that it was made with. Exit status 1 if a cell
    failed.
    """
    from oodbench.cli.terminal import progress
    from oodbench.execution.serial import Serial
    from oodbench.execution.shards import run_share, share
    from oodbench.runs.plan import read_plan

    plan = read_plan(file)
    mine = share(plan.jobs, shard)
    with results_only(), progress() as track:
        summary = run_share(plan, mine, shard, settings_of(options, Serial(), track))
    counts = Counter(record.status for record in summary.records)
    click.echo(
        f"{len(summary.records)} records of {len(mine)} jobs in {options['out']} "
        f"({counts['failed']} failed, {counts['skipped']} skipped).",
        err=True,
    )
    if summary.problem is not None:
        raise summary.problem
    return 1 if counts["failed"] else 0
