"""Output for people: tables on stdout, progress with the time left on stderr."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from oodbench.comparison.claims import Claim, claims
from oodbench.comparison.importance import importances
from oodbench.comparison.usable import suites_of
from oodbench.errors import printable
from oodbench.leaderboard.board import Figure, Row
from oodbench.leaderboard.board import Table as BoardTable
from oodbench.leaderboard.drawing import wording
from oodbench.leaderboard.tables import tables
from oodbench.machine.progress import Track
from oodbench.records.record import Record
from oodbench.records.remarks import remarks_on, tested_on
from oodbench.records.scored import ScoredRecord

T = TypeVar("T")


@contextmanager
def progress() -> Iterator[Track]:
    """Progress bars on stderr; nothing is shown where stderr is no terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _ImagesASecond(),
               TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())  # fmt: skip
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:

        def track(
            items: Iterable[T], total: int, description: str, *, images: Sequence[int] | None = None
        ) -> Iterator[T]:
            task = bars.add_task(description, total=total if images is None else sum(images), images=images is not None)
            try:
                for number, item in enumerate(items):
                    yield item
                    bars.advance(task, 1 if images is None else images[number])
            finally:
                bars.remove_task(task)

        yield track


class _ImagesASecond(ProgressColumn):
    """The pace of a pass over images; empty for other loops."""

    def render(self, task: Task) -> Text:
        """The images a second of late."""
        return Text(f"{task.speed:,.0f} images/s" if task.fields["images"] and task.speed else "")


def print_results(cells: Sequence[ScoredRecord]) -> None:
    """Print one table for each protocol, and the outcomes of the paper's claims."""
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
        of_records = [scored.record for scored in of_suite]
        for sentence in (tested_on(of_records), *remarks_on(of_records)):
            console.print(Text(sentence), soft_wrap=True)
        decided = claims(of_suite)
        if decided:
            rows = [
                [str(claim.number), claim.text, claim.outcome, _signed(claim), claim.criterion] for claim in decided
            ]
            header = ["", "claim", "outcome", "figure", "holds if"]
            print_table(console, header, rows, f"{name} {version}: the claims of Oberdiek, Rottmann, Gottschalk 2018")
        seeds = sorted({scored.record.seed for scored in of_suite})
        console.print(Text(wording.reading(seeds, bold="In boards, bold", star="*"), style="dim"))


def _accuracy(cells: Sequence[ScoredRecord]) -> str:
    """A sentence on the accuracy of the classifiers, which all figures depend on."""
    trained = {
        (scored.record.classifier.name, scored.record.seed): scored.record.classifier.accuracy for scored in cells
    }
    listed = ", ".join(
        f"{accuracy:.4f} ({f'{name}, ' if name else ''}seed {seed})"
        for (name, seed), accuracy in sorted(trained.items())
    )
    return f"Accuracy of the classifier on known test samples: {listed}."


def _header(table: BoardTable) -> list[str]:
    exposed = ["exposed to"] if wording.shows_exposure(table) else []
    return ["rank", "detector", *exposed, *map(wording.column, table.columns), "ms / image"]


def _row(row: Row, table: BoardTable) -> list[str]:
    exposed = [wording.exposure(row, table)] if wording.shows_exposure(table) else []
    return [wording.rank(row), row.detector, *exposed, *(_figure(figure) for figure in row.figures), wording.cost(row)]


def _figure(figure: Figure) -> str:
    """A figure with its spread over seeds, and its interval on the line below."""
    first = " ".join(text for text in (wording.value(figure), wording.spread(figure)) if text)
    return f"{first}{' *' if figure.exposed else ''}\n{wording.interval(figure)}".rstrip()


def _signed(claim: Claim) -> str:
    return f"{claim.figure:+.4f}\n[{claim.low:+.4f}, {claim.high:+.4f}]"


def print_table(
    console: Console,
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    title: str = "",
    caption: str = "",
    labels: int = 0,
) -> None:
    """Print one table; texts are never read as markup.

    Args:
        console: Where to.
        header: Names of the columns.
        rows: Texts, which may have several lines.
        title: Printed above.
        caption: Printed below.
        labels: Number of label columns. A table that is too wide is printed in blocks of columns, each of which begins
            with these. With 0, the table stays whole and its texts are folded.
    """
    blocks = _column_blocks(header, rows, labels, console.width) if labels else [list(range(len(header)))]
    for number, columns in enumerate(blocks, start=1):
        drawn = Table(title_justify="left", caption_justify="left")
        drawn.title = Text(title) if title and number == 1 else None
        drawn.caption = Text(caption) if caption and number == len(blocks) else None
        for column in columns:
            drawn.add_column(
                Text(printable(header[column], keep="\n")), overflow="fold", no_wrap=bool(labels) and len(blocks) > 1
            )
        for row in rows:
            drawn.add_row(*(Text(printable(row[column], keep="\n")) for column in columns))
        console.print(drawn)


def _column_blocks(header: Sequence[str], rows: Sequence[Sequence[str]], labels: int, width: int) -> list[list[int]]:
    """The columns of each block of a table."""
    lines = [[text for row in (header, *rows) for text in row[column].split("\n")] for column in range(len(header))]
    # A border and a space on either side of a text.
    widths = [max(len(line) for line in of_column) + 3 for of_column in lines]
    first = list(range(labels))
    room = width - 1 - sum(widths[column] for column in first)
    blocks: list[list[int]] = [[]]
    for column in range(labels, len(header)):
        if blocks[-1] and sum(widths[placed] for placed in blocks[-1]) + widths[column] > room:
            blocks.append([])
        blocks[-1].append(column)
    return [first + block for block in blocks]


def stdout() -> Console:
    """The console that results are printed to; a fixed width if stdout is a file or a pipe."""
    return Console() if sys.stdout.isatty() else Console(width=220)


def print_importance(records: Sequence[Record]) -> None:
    """Print one table of importances for each meta classifier and exposure."""
    console = stdout()
    for importance in importances(records):
        exposed = f", exposed to {', '.join(importance.exposed)}" if importance.exposed else ""
        rows = [
            [name, f"{fall:+.4f}", "" if spread is None else f"{spread:.4f}"]
            for name, (fall, spread) in importance.inputs.items()
        ]
        caption = "How far the AUROC falls on samples that were not fitted on, when the input is shuffled."
        print_table(console, ["input", "importance", "± over seeds"], rows, f"{importance.detector}{exposed}", caption)
