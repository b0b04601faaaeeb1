"""``oodbench compare``."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from oodbench.cli.records import SCORES

if TYPE_CHECKING:
    from oodbench.comparison.pairs import Pair


@click.command(name="compare", short_help="Compare two detectors on the same samples.")
@click.argument("first", metavar="DETECTOR")
@click.argument("second", metavar="DETECTOR")
@click.argument("folders", nargs=-1, type=click.Path(path_type=Path), metavar="[DIR]...")
@click.option("-p", "--protocol", "protocols", multiple=True, metavar="NAME", help="Only these. Default: all.")
@click.option("--classifier", default=None, metavar="NAME", help="Which classifier, where records are of several.")
@click.option("--metric", default="auroc", show_default=True, metavar="NAME", help="What is compared.")
@SCORES
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def command(
    first: str,
    second: str,
    folders: tuple[Path, ...],
    protocols: tuple[str, ...],
    classifier: str | None,
    metric: str,
    scores: Path | None,
    as_json: bool,
) -> int:
    """Compare two detectors wherever one of them was run (default DIR: oodbench-results).

    Differences are paired by sample and by seed; their intervals and p values hold over test samples and seeds
    together, and the p values are adjusted for all rows of the table (Holm). Exit status 1 if a record is left out.
    """
    from oodbench.cli.records import usable_records
    from oodbench.cli.terminal import print_table, stdout
    from oodbench.comparison.families import of_one_family
    from oodbench.comparison.merging import refuse_conflicts
    from oodbench.comparison.pairs import compare
    from oodbench.comparison.usable import suites_of
    from oodbench.errors import UsageError
    from oodbench.records.remarks import ASSUMED

    usable = usable_records(folders, "no record is left to compare", scores=scores)
    records = of_one_family(suites_of(usable.records).values(), classifier)
    for of_suite in suites_of(records).values():
        refuse_conflicts(of_suite)
    chosen = [cell for cell in records if not protocols or cell.record.protocol in protocols]
    if not chosen:
        there = sorted({cell.record.protocol for cell in records})
        raise UsageError(f"no record is under {', '.join(protocols)}; there are: {', '.join(there)}.")
    pairs = compare(chosen, first, second, metric)
    imported = any(cell.record.imported for cell in chosen)
    if as_json:
        tested = sum(pair.p is not None for pair in pairs)
        about = {"detectors": [first, second], "adjusted_for": tested}
        about |= {"assumed": ASSUMED} if imported else {}
        click.echo(json.dumps([{**about, **asdict(pair)} for pair in pairs], indent=1))
    else:
        header = [
            "suite",
            "protocol",
            "exposed to",
            "data set",
            "metric",
            "seeds",
            first,
            second,
            "difference",
            "p (Holm)",
            "outcome",
        ]
        print_table(
            stdout(), header, [_row(pair) for pair in pairs], f"{first} against {second}",
            _reading(first, pairs) + (f" Assumed: {ASSUMED}." if imported else ""),
        )  # fmt: skip
    return 1 if usable.rejected else 0


def _reading(first: str, pairs: "Sequence[Pair]") -> str:
    tested = [pair for pair in pairs if pair.p is not None]
    about = "test samples and seeds" if all(len(pair.seeds) > 1 for pair in tested) else "test samples; of one training"
    return (
        f"The outcome is that of {first}. The interval is that of the row alone, over {about}; p and outcome are "
        f"adjusted for the {len(tested)} comparisons of the table."
    )


def _row(pair: "Pair") -> list[str]:
    difference = pair.difference
    # Enough for a difference to be seen.
    digits = 6 if difference is not None and 0 < abs(difference.value) < 0.001 else 4
    return [
        pair.suite,
        pair.protocol,
        " + ".join(pair.exposed) or "—",
        pair.dataset,
        pair.metric,
        ", ".join(map(str, pair.seeds)) or "—",
        _figure(pair.one, digits),
        _figure(pair.other, digits),
        f"{difference.value:+.{digits}f} [{difference.low:+.{digits}f}, {difference.high:+.{digits}f}]"
        if difference
        else "—",
        "—" if pair.p is None else f"{pair.p:.2g}",
        pair.outcome + (f": {pair.reason}" if pair.reason else ""),
    ]


def _figure(value: float | None, digits: int) -> str:
    return "—" if value is None else f"{value:.{digits}f}"
