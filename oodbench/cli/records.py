"""The records that commands make figures of; those that are left out are named on stderr."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from oodbench.files.folders import RESULTS

if TYPE_CHECKING:
    from oodbench.comparison.usable import UsableRecords


def usable_records(folders: Sequence[Path], what: str, *, resample: bool = False) -> "UsableRecords":
    """Read results folders and name on stderr what is left out.

    Args:
        folders: Results folders; by default that of ``oodbench run``.
        what: The beginning of the sentence for the case that no record is left, such as: no record is left to compare.
        resample: Whether intervals from resampling are computed again, too.

    Raises:
        UsageError: All records are left out.
    """
    from oodbench.cli.terminal import progress
    from oodbench.comparison.usable import read_usable

    with progress() as track:
        usable = read_usable(folders or (RESULTS,), track, resample=resample)
    for rejected in usable.rejected:
        click.echo(f"left out: {rejected}", err=True)
    if usable.limited:
        many = "records of runs with --limit are" if usable.limited > 1 else "record of a run with --limit is"
        click.echo(f"{usable.limited} {many} left out.", err=True)
    usable.require_some(what)
    return usable
