"""What people see: rich tables on stdout, progress with the time left on stderr."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from oodbench.comparison.claims import Claim, claims
from oodbench.comparison.importance import importances
from oodbench.errors import printable
from oodbench.leaderboard.board import Figure, Row
from oodbench.leaderboard.board import Table as BoardTable
from oodbench.leaderboard.drawing import wording
from oodbench.leaderboard.tables import suites_of, tables
from oodbench.progress import Track
from oodbench.records.record import Record
from oodbench.records.verification import Measured

T = TypeVar("T")


@contextmanager
def progress() -> Iterator[Track]:
    """Bars on stderr while there is something to wait for; nothing where stderr is no terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
               TextColumn("left"), TimeRemainingColumn())  # fmt: skip
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:

        def track(items: Iterable[T], total: int, description: str) -> Iterator[T]:
            task = bars.add_task(description, total=total)
            try:
                for item in items:
                    yield item
                    bars.advance(task)
            finally:
                bars.remove_task(task)

        yield track


def print_results(cells: Sequence[Measured]) -> None:
    """One table for each protocol, and what the records say of the paper's claims."""
    console = stdout()
    for (name, version), of_suite in suites_of(cells).items():
        for table in tables(of_suite):
            if table.rows:
                title = f"{name} {version}: {table.protocol}"
                rows = [_row(row, table) for row in table.rows]
                labels = 3 if wording.shows_exposure(table) else 2
                print_table(console, _header(table), rows, title, f"{table.caption}.", labels)
            for note in table.notes:
                console.print(Text(f"  {note}"), soft_wrap=True)
        console.print(Text(_accuracy(of_suite)), soft_wrap=True)
        found = claims(of_suite)
        if found:
            rows = [[str(one.number), one.text, one.outcome, _signed(one), one.criterion] for one in found]
            header = ["", "claim", "outcome", "figure", "holds if"]
            print_table(console, header, rows, f"{name} {version}: the claims of Oberdiek, Rottmann, Gottschalk 2018")
        seeds = sorted({one.record.seed for one in of_suite})
        console.print(Text(wording.reading(seeds, bold="In boards, bold", star="*"), style="dim"))


def _accuracy(cells: Sequence[Measured]) -> str:
    """What the classifiers are worth, without which no figure means anything."""
    trained = {(one.record.classifier.name, one.record.seed): one.record.classifier.accuracy for one in cells}
    found = ", ".join(f"{accuracy:.4f} ({name}, seed {seed})" for (name, seed), accuracy in sorted(trained.items()))
    return f"Accuracy of the classifier on known test samples: {found}."


def _header(table: BoardTable) -> list[str]:
    exposed = ["exposed to"] if wording.shows_exposure(table) else []
    return ["rank", "detector", *exposed, *map(wording.column, table.columns), "ms / image"]


def _row(row: Row, table: BoardTable) -> list[str]:
    exposed = [wording.exposure(row, table)] if wording.shows_exposure(table) else []
    return [wording.rank(row), row.detector, *exposed, *(_figure(one) for one in row.figures), wording.cost(row)]


def _figure(one: Figure) -> str:
    """The figure with its spread over seeds, and below it its interval."""
    first = " ".join(part for part in (wording.value(one), wording.spread(one)) if part)
    return f"{first}{' *' if one.exposed else ''}\n{wording.interval(one)}".rstrip()


def _signed(one: Claim) -> str:
    return f"{one.figure:+.4f}\n[{one.low:+.4f}, {one.high:+.4f}]"


def print_table(
    console: Console,
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    title: str = "",
    caption: str = "",
    labels: int = 0,
) -> None:
    """One table; texts are printed as they are, never read as markup.

    Args:
        console: Where to.
        header: Names of the columns.
        rows: Texts, which may have several lines.
        title: Printed above.
        caption: Printed below.
        labels: If the table is too wide, it is printed in parts, each of which has so many first columns. Without,
            texts are folded.
    """
    parts = _parts(header, rows, labels, console.width) if labels else [list(range(len(header)))]
    for number, columns in enumerate(parts, start=1):
        drawn = Table(title_justify="left", caption_justify="left")
        drawn.title = Text(title) if title and number == 1 else None
        drawn.caption = Text(caption) if caption and number == len(parts) else None
        for column in columns:
            drawn.add_column(
                Text(printable(header[column], keep="\n")), overflow="fold", no_wrap=bool(labels) and len(parts) > 1
            )
        for row in rows:
            drawn.add_row(*(Text(printable(row[column], keep="\n")) for column in columns))
        console.print(drawn)


def _parts(header: Sequence[str], rows: Sequence[Sequence[str]], labels: int, width: int) -> list[list[int]]:
    """The columns of each part."""
    lines = [[text for row in (header, *rows) for text in row[column].split("\n")] for column in range(len(header))]
    # A border and a space on either side of a text.
    widths = [max(len(line) for line in of_column) + 3 for of_column in lines]
    first = list(range(labels))
    room = width - 1 - sum(widths[column] for column in first)
    parts: list[list[int]] = [[]]
    for column in range(labels, len(header)):
        if parts[-1] and sum(widths[one] for one in parts[-1]) + widths[column] > room:
            parts.append([])
        parts[-1].append(column)
    return [first + part for part in parts]


def stdout() -> Console:
    """The console that results are printed to: where nobody looks, in a file or a pipe, as wide as it takes."""
    return Console() if sys.stdout.isatty() else Console(width=220)


def print_importance(records: Sequence[Record]) -> None:
    """One table for each meta classifier and exposure."""
    console = stdout()
    for found in importances(records):
        exposed = f", exposed to {', '.join(found.exposed)}" if found.exposed else ""
        rows = [
            [name, f"{fall:+.4f}", "" if spread is None else f"{spread:.4f}"]
            for name, (fall, spread) in found.inputs.items()
        ]
        caption = "How far the AUROC falls on samples that were not fitted on, when the input is shuffled."
        print_table(console, ["input", "importance", "± over seeds"], rows, f"{found.detector}{exposed}", caption)
