"""``oodbench check``."""

import json
from collections import Counter
from pathlib import Path

import click

from oodbench.cli.options import data_option, plugin_option


@click.command(name="check", short_help="Check that a plugin keeps its promises.")
@click.argument("name")
@plugin_option
@data_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(name: str, plugins: tuple[Path, ...], data: Path | None, as_json: bool) -> int:
    """Run the conformance kit on a detector or a data set.

    NAME may have parameters: 'knn:k=5', 'imagefolder:PATH'. Exit status 1 if a check failed.
    """
    from oodbench import registry
    from oodbench.cli.output import results_only
    from oodbench.cli.terminal import print_table, stdout
    from oodbench.conformance.kit import checked_plugin, report
    from oodbench.machine.threads import single_threaded

    with results_only():
        for file in plugins:
            registry.load_file(file)
        with single_threaded():
            results = report(checked_plugin(name, plugins, data))
    counts = Counter(result.status for result in results)
    if as_json:
        click.echo(json.dumps([vars(result) for result in results], indent=1))
    else:
        rows = [[result.status, result.check, result.reason] for result in results]
        print_table(stdout(), ["", "check", "reason"], rows)
    click.echo(
        f"{name}: {len(results)} checks, {counts['passed']} passed, {counts['failed']} failed, "
        f"{counts['skipped']} skipped.",
        err=as_json,
    )
    return 1 if counts["failed"] else 0
