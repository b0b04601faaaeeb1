"""The records that commands make figures of; those that are left out are named on stderr."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from oodbench.files.folders import RESULTS

SCORES = click.option(
    "--scores",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    metavar="DIR",
    help="Folder of the files of scores that the results folders lack, such as `scores` of the run.",
)

if TYPE_CHECKING:
    from oodbench.comparison.usable import UsableRecords


def usable_records(
    folders: Sequence[Path], what: str, *, resample: bool = False, scores: Path | None = None
) -> "UsableRecords":
    """Read results folders and name on stderr what is left out.

    Args:
        folders: Results folders; by default that of ``oodbench run``.
        what: The beginning of the sentence for the case that no record is left, such as: no record is left to compare.
        resample: Whether intervals from resampling are computed again, too.
        scores: Folder of files of scores that are not in the results folders.

    Raises:
        UsageError: All records are left out.
    """
    usable = read(folders, resample=resample, scores=scores)
    say_left_out(usable)
    refuse_without_scores(usable)
    usable.require_some(what)
    return usable


def refuse_without_scores(usable: "UsableRecords") -> None:
    """Refuse to go on with cells that were skipped alone, as the scores of all others are not there.

    Raises:
        UsageError: No record with results is left, and some lack their scores.
    """
    from oodbench.errors import UsageError

    lacking = sum(rejected.unscored is not None for rejected in usable.rejected)
    if lacking and not any(scored.samples for scored in usable.records):
        raise UsageError(
            f"the scores of all {lacking} records with results are not there; name their folder by --scores."
        )


def read(folders: Sequence[Path], *, resample: bool, scores: Path | None) -> "UsableRecords":
    """Read results folders, and show how far that is."""
    from oodbench.cli.terminal import progress
    from oodbench.comparison.usable import read_usable

    with progress() as track:
        return read_usable(folders or (RESULTS,), track, resample=resample, further=scores)


def say_left_out(usable: "UsableRecords") -> None:
    """Name on stderr what is left out."""
    absent = [rejected for rejected in usable.rejected if rejected.unscored is not None]
    for rejected in usable.rejected:
        if rejected.unscored is None or len(absent) == 1:
            click.echo(f"left out: {rejected}", err=True)
    if len(absent) > 1:
        click.echo(f"left out: {len(absent)} records whose scores are not there; the first: {absent[0]}", err=True)
    if usable.limited:
        many = "records of runs with --limit are" if usable.limited > 1 else "record of a run with --limit is"
        click.echo(f"{usable.limited} {many} left out.", err=True)
