"""``oodbench run``."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from oodbench.cli.options import asked_for, asked_options, data_option, download_option, store_options
from oodbench.cli.output import results_only

if TYPE_CHECKING:
    from oodbench.benchmark import Executor
    from oodbench.records.store import Rerun


@click.command(name="run", short_help="Run detectors on a suite.")
@asked_options
@data_option
@download_option
@store_options
@click.option(
    "--executor",
    type=click.Choice(["serial", "dask"]),
    default="serial",
    show_default=True,
    help="Who runs the jobs: this process, or several by Dask. The numbers are the same.",
)
@click.option("--workers", type=click.IntRange(min=1), metavar="N", help="Processes of Dask. Default: one a processor.")
@click.option("--scheduler", metavar="ADDRESS", help="A Dask scheduler that runs already, such as tcp://host:8786.")
@click.option(
    "--resource",
    "resources",
    multiple=True,
    metavar="NAME=AMOUNT",
    help="What a job takes of a Dask worker's resources, such as GPU=1.",
)
@click.option("--importance", is_flag=True, help="Also say which inputs each `meta` detector relies on.")
@click.option("--json", "as_json", is_flag=True, help="Print records and claims as JSON.")  # fmt: skip
def command(
    data: Path | None,
    download: bool,
    out: Path,
    rerun: "Rerun",
    log_file: Path | None,
    executor: "Executor",
    workers: int | None,
    scheduler: str | None,
    resources: Sequence[str],
    importance: bool,
    as_json: bool,
    **asked: Any,  # noqa: ANN401
) -> int:
    """Run detectors on a suite and print a table for each protocol.

    Results go to stdout, progress and messages to stderr. Every cell is kept as a record in --out.
    """
    from oodbench.benchmark import execute
    from oodbench.cli.terminal import print_importance, print_results, progress
    from oodbench.comparison.claims import claims
    from oodbench.records.verification import with_scores

    with results_only(), progress() as track:
        done = execute(
            **asked_for(asked),
            data=data,
            download=download,
            out=out,
            rerun=rerun,
            log_file=log_file,
            executor=executor,
            scheduler=scheduler,
            workers=workers,
            resources=dict(_amount(text) for text in resources),
            track=track,
        )
    records = done.records
    cells = with_scores(out, records)
    if as_json:
        answer = {
            "records": [record.model_dump(mode="json") for record in records],
            "claims": [claim.model_dump(mode="json") for claim in claims(cells)],
        }
        click.echo(json.dumps(answer, indent=1))
    else:
        print_results(cells)
        if importance:
            print_importance(records)
    failed = sum(record.status == "failed" for record in records)
    skipped = sum(record.status == "skipped" for record in records)
    click.echo(
        f"{len(records)} record{'s' if len(records) != 1 else ''} in {out} ({failed} failed, {skipped} skipped).",
        err=True,
    )
    if done.problem is not None:
        raise done.problem
    return 1 if failed else 0


def _amount(text: str) -> tuple[str, float]:
    name, _, amount = text.partition("=")
    try:
        return name, float(amount)
    except ValueError:
        raise click.BadParameter(f"{text!r} is not NAME=AMOUNT, such as GPU=1", param_hint="--resource") from None
