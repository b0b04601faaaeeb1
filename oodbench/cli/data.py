"""``oodbench data``."""

import json
from pathlib import Path

import click

from oodbench.cli.options import data_option


@click.group(name="data", short_help="Say which data sets are there, and get them.")
def command() -> None:
    """Say which data sets of a suite are there, and get them."""


@command.command()
@click.argument("suite")
@data_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def status(suite: str, data: Path | None, as_json: bool) -> int:
    """Say which data sets of SUITE are there, without network."""
    return _look(suite, data, download=False, as_json=as_json)


@command.command()
@click.argument("suite")
@data_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def fetch(suite: str, data: Path | None, as_json: bool) -> int:
    """Download the data sets of SUITE that are not there."""
    return _look(suite, data, download=True, as_json=as_json)


def _look(suite: str, data: Path | None, *, download: bool, as_json: bool) -> int:
    from oodbench.cli.terminal import print_table, stdout
    from oodbench.datasets.inventory import take_inventory
    from oodbench.files.folders import data_folder
    from oodbench.suites.reading import read_suite

    root = data_folder(data)
    holdings = take_inventory(read_suite(suite), root, download=download)
    if as_json:
        click.echo(json.dumps([vars(holding) for holding in holdings], indent=1))
    else:
        rows = [
            [holding.dataset, holding.split, "—" if holding.n is None else f"{holding.n:,}",
             "—" if holding.official is None else f"{holding.official:,}", holding.problem or "there"]
            for holding in holdings
        ]  # fmt: skip
        print_table(stdout(), ["data set", "split", "found", "official", "status"], rows, f"data of {suite} in {root}")
    return 3 if any(holding.problem for holding in holdings) else 0
