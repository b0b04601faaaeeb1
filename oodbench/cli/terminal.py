"""What people see: rich tables on stdout, progress with the time left on stderr."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from oodbench.leaderboard.tables import suites_of, tables
from oodbench.progress import Track
from oodbench.records.record import Record

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


def print_tables(records: Sequence[Record]) -> None:
    """One table for each protocol."""
    console = _stdout()
    for (name, version), of_suite in suites_of(records).items():
        for table in tables(of_suite):
            print_table(console, table.header, table.rows, f"{name} {version}: {table.title}", table.caption)
            for note in table.notes:
                console.print(Text(f"  {note}"), soft_wrap=True)


def print_table(
    console: Console, header: Sequence[str], rows: Sequence[Sequence[str]], title: str = "", caption: str = ""
) -> None:
    """One table; texts are printed as they are, never read as markup."""
    drawn = Table(title=title or None, caption=caption or None, title_justify="left", caption_justify="left")
    for name in header:
        drawn.add_column(Text(name), overflow="fold")
    for row in rows:
        drawn.add_row(*(Text(text) for text in row))
    console.print(drawn)


def _stdout() -> Console:
    """As wide as it takes where nobody looks at it: a file or a pipe gets whole lines."""
    return Console() if sys.stdout.isatty() else Console(width=220)


def stdout() -> Console:
    """The console that results are printed to."""
    return _stdout()
