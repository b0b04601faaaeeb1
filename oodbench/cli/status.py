"""``oodbench status``."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from oodbench.status import Doing, Run, Seed, Status

# Failures that are shown; --json has all.
SHOWN = 10


@click.command(name="status", short_help="Say how far a run has come.")
@click.argument("run", type=click.Path(path_type=Path), default=Path("oodbench-results"), metavar="[RUN]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(run: Path, as_json: bool) -> None:
    """Say how far a run has come: while it goes on, from anywhere that sees its folder, and afterwards.

    RUN is the run's --out; no process is disturbed.
    """
    from datetime import UTC, datetime

    from pydantic import TypeAdapter

    from oodbench.cli.terminal import print_table, stdout
    from oodbench.status import Status, status

    found = status(run, datetime.now(UTC))
    if as_json:
        click.echo(json.dumps(TypeAdapter(Status).dump_python(found, mode="json"), indent=1))
        return
    for one in found.runs:
        click.echo(_sentence(one))
        for doing in _now(one, found):
            click.echo(f"  now: {doing}")
    rows = [_row(seed) for seed in found.seeds]
    print_table(stdout(), ["seed", "cells", "ok", "failed", "skipped", "to do"], rows, f"cells in {run}")
    if found.jobs:
        click.echo(_progress(found))
    for failure in found.failures[:SHOWN]:
        where = f"{failure.detector}, {failure.protocol}, seed {failure.seed}"
        click.echo(f"failed ({failure.phase}): {where}: {failure.error}")
    if len(found.failures) > SHOWN:
        click.echo(f"and {len(found.failures) - SHOWN} more that failed; --json has all.")


def _sentence(run: "Run") -> str:
    became = {
        "going on": f"has been going on for {_time(run.seconds)}",
        "finished": f"finished in {_time(run.seconds)}",
        "failed": f"failed after {_time(run.seconds)}: {run.error}",
        "interrupted": f"was interrupted after {_time(run.seconds)}; the same command goes on from there",
        "killed": f"was killed after {_time(run.seconds)} or more; the same command goes on from there",
    }[run.state]
    started = run.started.astimezone().isoformat(sep=" ", timespec="seconds")
    return f"{run.suite}: the run of {started} on {run.host} (process {run.process}) {became}"


def _now(run: "Run", found: "Status") -> Sequence[str]:
    if run.state != "going on" or run.doing:
        return [_doing(job) for job in run.doing]
    return ["a classifier is trained, or its evidence collected" if found.jobs else "data are read"]


def _doing(job: "Doing") -> str:
    exposed = f" exposed to {', '.join(job.exposed)}" if job.exposed else ""
    where = f" on {job.worker}" if job.worker else ""
    return f"{job.detector}{exposed}, seed {job.seed}, for {_time(job.seconds)}{where}"


def _row(seed: "Seed") -> Sequence[str]:
    counts = [str(count) for count in (seed.ok, seed.failed, seed.skipped)]
    if seed.cells is None:
        return [str(seed.seed), "not known yet", *counts, "all"]
    return [str(seed.seed), str(seed.cells), *counts, str(seed.cells - seed.ok - seed.failed - seed.skipped)]


def _progress(found: "Status") -> str:
    left = f"; about {_time(found.left_s)} left" if found.left_s is not None and found.jobs > found.jobs_done else ""
    return f"{found.jobs_done} of {found.jobs} jobs (a detector, fitted once) are done{left}."


def _time(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
