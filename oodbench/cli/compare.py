"""``oodbench compare``."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from oodbench.comparison.pairs import Pair


@click.command(name="compare", short_help="Compare two detectors on the same samples.")
@click.argument("one", metavar="DETECTOR")
@click.argument("other", metavar="DETECTOR")
@click.argument("folders", nargs=-1, type=click.Path(path_type=Path), metavar="[DIR]...")
@click.option("-p", "--protocol", "protocols", multiple=True, metavar="NAME", help="Only these. Default: all.")
@click.option("--metric", default="auroc", show_default=True, metavar="NAME", help="What is compared.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def command(
    one: str, other: str, folders: tuple[Path, ...], protocols: tuple[str, ...], metric: str, as_json: bool
) -> int:
    """Compare two detectors wherever one of them was run (default DIR: oodbench-results).

    Differences are paired by sample and by seed; their intervals and p values hold over test samples and seeds
    together, and the p values are adjusted for all rows of the table (Holm). Exit status 1 if a record is left out.
    """
    from oodbench.cli.terminal import print_table, progress, stdout
    from oodbench.comparison.pairs import compare
    from oodbench.errors import UsageError
    from oodbench.leaderboard.merging import merged, refuse_conflicts
    from oodbench.leaderboard.tables import suites_of
    from oodbench.records.verification import read_measured

    with progress() as track:
        measured, rejected = read_measured(folders or (Path("oodbench-results"),), track, resample=False)
    kept, left_out = merged([cell for cell in measured if cell.record.suite.limit is None])
    for fault in (*rejected, *left_out):
        click.echo(f"left out: {fault}", err=True)
    if any(cell.record.suite.limit is not None for cell in measured):
        click.echo("records of runs with --limit are left out.", err=True)
    if not kept:
        raise UsageError("no record is left to compare: they are of runs with --limit, or left out for a fault.")
    for of_suite in suites_of(kept).values():
        refuse_conflicts(of_suite)
    chosen = [cell for cell in kept if not protocols or cell.record.protocol in protocols]
    if not chosen:
        there = sorted({cell.record.protocol for cell in kept})
        raise UsageError(f"no record is under {', '.join(protocols)}; there are: {', '.join(there)}.")
    pairs = compare(chosen, one, other, metric)
    if as_json:
        tested = sum(pair.p is not None for pair in pairs)
        about = {"detectors": [one, other], "adjusted_for": tested}
        click.echo(json.dumps([{**about, **asdict(pair)} for pair in pairs], indent=1))
    else:
        header = [
            "suite",
            "protocol",
            "exposed to",
            "data set",
            "metric",
            "seeds",
            one,
            other,
            "difference",
            "p (Holm)",
            "outcome",
        ]
        print_table(stdout(), header, [_row(pair) for pair in pairs], f"{one} against {other}", _reading(one, pairs))
    return 1 if rejected or left_out else 0


def _reading(one: str, pairs: "Sequence[Pair]") -> str:
    tested = [pair for pair in pairs if pair.p is not None]
    about = "test samples and seeds" if all(len(pair.seeds) > 1 for pair in tested) else "test samples; of one training"
    return (
        f"The outcome is that of {one}. The interval is that of the row alone, over {about}; p and outcome are "
        f"adjusted for the {len(tested)} comparisons of the table."
    )


def _row(pair: "Pair") -> list[str]:
    found = pair.difference
    # Enough for a difference to be seen.
    digits = 6 if found is not None and 0 < abs(found.value) < 0.001 else 4
    return [
        pair.suite,
        pair.protocol,
        " + ".join(pair.exposed) or "—",
        pair.dataset,
        pair.metric,
        ", ".join(map(str, pair.seeds)) or "—",
        _figure(pair.one, digits),
        _figure(pair.other, digits),
        f"{found.value:+.{digits}f} [{found.low:+.{digits}f}, {found.high:+.{digits}f}]" if found else "—",
        "—" if pair.p is None else f"{pair.p:.2g}",
        pair.outcome + (f": {pair.reason}" if pair.reason else ""),
    ]


def _figure(value: float | None, digits: int) -> str:
    return "—" if value is None else f"{value:.{digits}f}"
