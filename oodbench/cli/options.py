"""Options that several verbs have."""

from pathlib import Path

import click

data_option = click.option(
    "--data",
    type=click.Path(path_type=Path),
    envvar="OODBENCH_DATA",
    metavar="DIR",
    help="Folder of the data sets. Default: $OODBENCH_DATA, else a folder of the user.",
)
plugin_option = click.option(
    "--plugin",
    "plugins",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Python file that declares plugins.",
)
