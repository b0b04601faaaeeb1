"""``oodbench plot``."""

from functools import partial
from importlib import import_module
from pathlib import Path

import click

from oodbench.cli.records import SCORES

KINDS = ("roc", "scores", "layers", "matrix", "price")
SUFFIXES = (".pdf", ".png", ".svg")
SHOWN = 6


@click.command(name="plot", short_help="Draw ROC curves, scores, layers or the exposed × tested matrix.")
@click.argument("kind", type=click.Choice(KINDS))
@click.argument("folders", nargs=-1, type=click.Path(path_type=Path), metavar="[DIR]...")
@click.option(
    "-o",
    "--out",
    "file",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    metavar="FILE",
    help="File of the plot, as .pdf, .png or .svg.",
)
@click.option(
    "-d",
    "--detector",
    "detectors",
    multiple=True,
    metavar="NAME",
    help=f"Detectors, as tables name them. Default: the first {SHOWN}.",
)
@click.option("--classifier", default=None, metavar="NAME", help="Which classifier, where records are of several.")
@SCORES
@click.option("--dataset", "datasets", multiple=True, metavar="NAME", help="Unknown sets. Default: all.")
def command(
    kind: str,
    folders: tuple[Path, ...],
    file: Path,
    detectors: tuple[str, ...],
    classifier: str | None,
    scores: Path | None,
    datasets: tuple[str, ...],
) -> int:
    """Draw a plot for a paper from the records in results folders (default: oodbench-results).

    Records of runs with --limit are left out. Exit status 1 if a record is left out for a fault.
    """
    from oodbench.cli.records import usable_records
    from oodbench.comparison.families import of_one_family
    from oodbench.comparison.usable import suites_of
    from oodbench.errors import MissingPrerequisiteError, UsageError
    from oodbench.files.atomic import write_output
    from oodbench.leaderboard.assembly import boards

    if file.suffix not in SUFFIXES:
        raise UsageError(f"the plot {file} has the suffix {file.suffix!r}; expected one of: {', '.join(SUFFIXES)}.")
    try:
        drawing = import_module(f"oodbench.plots.{kind}")
        style = import_module("oodbench.plots.style")
    except ModuleNotFoundError as cause:
        raise MissingPrerequisiteError(
            f"plots need {cause.name}; install it with `pip install 'oodbench[plots]'`."
        ) from cause
    usable = usable_records(folders, "no record is left to draw", scores=scores)
    made = boards(of_one_family(suites_of(usable.records).values(), classifier))
    if len(made) != 1:
        raise UsageError(f"the records are of {len(made)} suites or versions; a plot is of one.")
    (board,) = made
    there = list(dict.fromkeys(curve.dataset for curve in board.curves))
    ranked = [row.detector for table in board.tables if table.protocol == _ranking(kind) for row in table.rows]
    names = list(dict.fromkeys(ranked))
    _refuse_strange("--detector", detectors, names)
    _refuse_strange("--dataset", datasets, there)
    if not there:
        raise UsageError("no record is under unknown-unknowns, which the plots are of.")
    draw = partial(getattr(drawing, kind), board, detectors or names[:SHOWN], datasets or there)
    write_output(file, "--out", lambda path: style.save(draw, path, file.suffix[1:]))
    return 1 if usable.rejected else 0


def _ranking(kind: str) -> str:
    return "known-unknowns" if kind == "matrix" else "unknown-unknowns"


def _refuse_strange(option: str, chosen: tuple[str, ...], there: list[str]) -> None:
    from oodbench.errors import UsageError

    strange = [name for name in chosen if name not in there]
    if strange:
        raise UsageError(f"{option} {strange[0]}: there is none; expected some of: {', '.join(there) or 'nothing'}.")
