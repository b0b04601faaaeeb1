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
    from oodbench.folders import data_folder
    from oodbench.suites.suite import read_suite

    root = data_folder(data)
    found = take_inventory(read_suite(suite), root, download=download)
    if as_json:
        click.echo(json.dumps([vars(holding) for holding in found], indent=1))
    else:
        rows = [
            [one.dataset, one.split, "—" if one.n is None else f"{one.n:,}",
             "—" if one.official is None else f"{one.official:,}", one.problem or "there"]
            for one in found
        ]  # fmt: skip
        print_table(stdout(), ["data set", "split", "found", "official", "status"], rows, f"data of {suite} in {root}")
    return 3 if any(one.problem for one in found) else 0
