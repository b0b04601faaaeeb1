"""``oodbench new``."""

import shlex
from pathlib import Path

import click

from oodbench.scaffold.package import KINDS, Kind, make_package


@click.command(name="new", short_help="Make a plugin package to start from.")
@click.argument("kind", type=click.Choice(KINDS))
@click.argument("name")
@click.option(
    "--into",
    type=click.Path(path_type=Path),
    default=Path(),
    metavar="DIR",
    help="Folder that the package's folder is made in. Default: the current one.",
)
def command(kind: Kind, name: str, into: Path) -> None:
    """Make the folder oodbench-NAME: an installable package with a plugin that works, its test and its README.

    NAME is what users will type: lower-case letters, digits and hyphens.
    """
    files = make_package(kind, name, into)
    folder = into / f"oodbench-{name}"
    for file in files:
        click.echo(f"made {file}")
    run = f"oodbench run -d {name} -d entropy"
    if kind == "dataset":
        run = f"oodbench run -s {shlex.quote(str(folder / 'suite.toml'))} -d entropy"
    place = shlex.quote(str(folder))
    # pip takes what has no slash for the name of a package.
    local = shlex.quote(f"{folder}[test]" if folder.is_absolute() else f"./{folder}[test]")
    click.echo(f"\nNext:\n  pip install -e {local}\n  python -m pytest {place}\n  {run}")
