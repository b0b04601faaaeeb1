"""The formats of a board, by the suffix of its file."""

from collections.abc import Callable, Sequence
from pathlib import Path

from oodbench.errors import UsageError
from oodbench.leaderboard.board import Board
from oodbench.leaderboard.drawing.csv import csv
from oodbench.leaderboard.drawing.html import html
from oodbench.leaderboard.drawing.json import json
from oodbench.leaderboard.drawing.latex import latex
from oodbench.leaderboard.drawing.markdown import markdown

FORMATS: dict[str, Callable[[Sequence[Board]], str]] = {
    ".md": markdown,
    ".html": html,
    ".csv": csv,
    ".tex": latex,
    ".json": json,
}


def format_of(file: Path) -> Callable[[Sequence[Board]], str]:
    """The function that draws boards in the format of a file.

    Raises:
        UsageError: No format has the suffix of the file.
    """
    if file.suffix not in FORMATS:
        raise UsageError(f"the board {file} has the suffix {file.suffix!r}; expected one of: {', '.join(FORMATS)}.")
    return FORMATS[file.suffix]
