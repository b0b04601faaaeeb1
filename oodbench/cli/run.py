"""``oodbench run``."""

import gc
import json
from typing import Any

import click

from oodbench.cli.options import (
    data_option,
    download_option,
    executor_options,
    settings_of,
    spec_of,
    spec_options,
    store_options,
)
from oodbench.cli.output import results_only


@click.command(name="run", short_help="Run detectors on a suite.")
@spec_options
@data_option
@download_option
@store_options
@executor_options
@click.option("--importance", is_flag=True, help="Also say which inputs each `meta` detector relies on.")
@click.option("--json", "as_json", is_flag=True, help="Print records and claims as JSON.")
def command(importance: bool, as_json: bool, **options: Any) -> int:  # noqa: ANN401
    """Run detectors on a suite and print a table for each protocol.

    Results go to stdout, progress and messages to stderr. Every cell is kept as a record in --out.
    """
    from oodbench.cli.terminal import print_importance, print_results, progress
    from oodbench.comparison.claims import claims
    from oodbench.execution.run import execute, find_executor
    from oodbench.records.scored import with_scores

    # What was imported stays to the end, and so do records: the collector of garbage need not go through them.
    gc.freeze()
    of_dask = {name: options[name] for name in ("scheduler", "workers", "resources")}
    executor = find_executor(options["executor"], **of_dask)
    out = options["out"]
    with results_only(), progress() as track:
        summary = execute(spec_of(options), settings_of(options, executor, track))
    records = summary.records
    gc.freeze()
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
    if summary.problem is not None:
        raise summary.problem
    return 1 if failed else 0
