"""``oodbench status``."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from oodbench.files.folders import RESULTS

if TYPE_CHECKING:
    from oodbench.runs.status import Doing, Run, Seed, Status

# Failures, and jobs under way, that are shown; --json has all.
SHOWN = 10


@click.command(name="status", short_help="Say how far a run has come.")
@click.argument("run", type=click.Path(path_type=Path), default=RESULTS, metavar="[RUN]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(run: Path, as_json: bool) -> None:
    """Say how far a run has come: while it goes on, from anywhere that sees its folder, and afterwards.

    RUN is the run's --out; no process is disturbed.
    """
    from datetime import UTC, datetime

    from pydantic import TypeAdapter

    from oodbench.cli.terminal import print_table, stdout
    from oodbench.runs.status import Status, status

    report = status(run, datetime.now(UTC))
    if as_json:
        click.echo(json.dumps(TypeAdapter(Status).dump_python(report, mode="json"), indent=1))
        return
    for line in _runs(report.runs):
        click.echo(line)
    rows = [_row(seed) for seed in report.seeds]
    print_table(stdout(), ["seed", "cells", "ok", "failed", "skipped", "to do"], rows, f"cells in {run}")
    for seed in report.seeds:
        if seed.error is not None:
            click.echo(f"seed {seed.seed} has no {seed.lacks}: {seed.error}")
    if report.jobs:
        click.echo(_progress(report))
    for failure in report.failures[:SHOWN]:
        where = f"{failure.detector}, {failure.protocol}, seed {failure.seed}"
        click.echo(f"failed ({failure.phase}): {where}: {failure.error}")
    if len(report.failures) > SHOWN:
        click.echo(f"and {len(report.failures) - SHOWN} more that failed; --json has all.")
    if report.other_records:
        click.echo(f"{report.other_records} more records are those of what was asked for before.")


def _runs(runs: Sequence["Run"]) -> Iterator[str]:
    """Lines about the runs that go on or ended without finishing; of those that finished, about the last."""
    finished = [run for run in runs if run.state == "finished"]
    for run in runs:
        if run.state != "finished" or run is finished[-1]:
            yield _sentence(run)
            for doing in run.doing[:SHOWN]:
                yield f"  {'now' if run.state == 'going on' else 'it was at'}: {_doing(doing, run)}"
            if len(run.doing) > SHOWN:
                yield f"  and {len(run.doing) - SHOWN} more; --json has all."
            is_run = run.workers is None and run.shard is None
            if run.state == "killed" and is_run and any(doing.what == "detector" for doing in run.doing):
                yield "  If that is what ends the process: --executor dask makes it cost its own cells only."
    if len(finished) > 1:
        yield f"and {len(finished) - 1} more that finished, for other cells; --json has them."


def _sentence(run: "Run") -> str:
    became = {
        "going on": f"has been going on for {_time(run.seconds)}{_by(run.workers)}",
        "finished": f"finished in {_time(run.seconds)}",
        "failed": f"failed after {_time(run.seconds)}: {run.error or 'it does not say why'}",
        "interrupted": f"was interrupted after {_time(run.seconds)}; the same command goes on from there",
        "killed": f"was killed after {_time(run.seconds)} or more; the same command goes on from there",
    }[run.state]
    started = run.started.astimezone().isoformat(sep=" ", timespec="seconds")
    which = f"share {run.shard}" if run.shard else "the run"
    return f"{run.suite}: {which} of {started} on {run.host} (process {run.process}) {became}"


def _by(workers: int | None) -> str:
    if workers is None:
        return ""
    return (
        f" with {workers} worker{'s' if workers != 1 else ''}" if workers else "; no worker is there, it waits for one"
    )


def _doing(doing: "Doing", run: "Run") -> str:
    if doing.what == "detector":
        exposed = f" exposed to {', '.join(doing.exposed)}" if doing.exposed else ""
        what = f"{doing.detector}{exposed}, seed {doing.seed}"
    else:
        what = {
            "data": "data are read",
            "classifier": f"the classifier of seed {doing.seed} is trained or read",
            "evidence": f"the evidence of seed {doing.seed} is collected",
        }[doing.what]
    if doing.images is not None:
        images = doing.images
        left = "" if images.left_s is None else f", about {_time(images.left_s)} left"
        what += f" ({images.what}: {images.done:,} of {images.total:,} images, {images.per_second:,.0f} a second{left})"
    where = f" on {doing.worker}" if doing.worker else ""
    return f"{what}, for {_time(doing.seconds)}{where}" if run.state == "going on" else what


def _row(seed: "Seed") -> Sequence[str]:
    counts = [str(count) for count in (seed.ok, seed.failed, seed.skipped)]
    if seed.cells is None or seed.to_do is None:
        return [str(seed.seed), "not known yet", *counts, "not known yet"]
    return [str(seed.seed), str(seed.cells), *counts, str(seed.to_do)]


def _progress(report: "Status") -> str:
    left = (
        f"; about {_time(report.left_s)} left" if report.left_s is not None and report.jobs > report.jobs_done else ""
    )
    return f"{report.jobs_done} of {report.jobs} jobs (a detector, fitted once) are done{left}."


def _time(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
