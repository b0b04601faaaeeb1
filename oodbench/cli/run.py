"""``oodbench run``."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from oodbench.cli.options import asked_for, asked_options, data_option, download_option, store_options
from oodbench.cli.output import results_only

if TYPE_CHECKING:
    from oodbench.records.store import Rerun


@click.command(name="run", short_help="Run detectors on a suite.")
@asked_options
@data_option
@download_option
@store_options
@click.option("--importance", is_flag=True, help="Also say which inputs each `meta` detector relies on.")
@click.option("--json", "as_json", is_flag=True, help="Print records and claims as JSON.")  # fmt: skip
def command(
    data: Path | None,
    download: bool,
    out: Path,
    rerun: "Rerun",
    importance: bool,
    as_json: bool,
    **asked: Any,  # noqa: ANN401
) -> int:
    """Run detectors on a suite and print a table for each protocol.

    Results go to stdout, progress and messages to stderr. Every cell is kept as a record in --out.
    """
    from oodbench.benchmark import run
    from oodbench.cli.terminal import print_importance, print_results, progress
    from oodbench.comparison.claims import claims
    from oodbench.records.verification import with_scores

    with results_only(), progress() as track:
        records = run(**asked_for(asked), data=data, download=download, out=out, rerun=rerun, track=track)
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
    return 1 if failed else 0
