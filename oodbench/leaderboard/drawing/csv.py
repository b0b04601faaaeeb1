"""Boards as CSV: one line for each figure of each table."""

import csv as writer
import io
from collections.abc import Sequence

from oodbench.leaderboard.board import Board

HEADER = (
    "suite", "version", "seeds", "protocol", "detector", "exposed", "rank", "rank_low", "rank_high", "tied_with_first",
    "cost_ms", "price", "on_front", "column", "metric", "datasets", "value", "ci_low", "ci_high", "spread_over_seeds",
    "tied_with_best", "digest", "generator",
)  # fmt: skip


def csv(boards: Sequence[Board]) -> str:
    """All tables of all boards as figures, with six digits; lists are joined by ``+``.

    Boards of several classifiers have a column ``classifier`` at the end.
    """
    several = any(board.classifier for board in boards)
    text = io.StringIO()
    table = writer.writer(text, lineterminator="\n")
    table.writerow([*HEADER, *(["classifier"] if several else [])])
    for board in boards:
        last = [board.classifier] if several else []
        table.writerows([[_plain(cell) for cell in (*line, *last)] for line in _lines(board)])
    return text.getvalue()


def _plain(cell: object) -> object:
    """The cell, with text quoted that a spreadsheet would take for a formula."""
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(("=", "+", "-", "@", "\t", "\r")) else cell


def _lines(board: Board) -> list[list[object]]:
    return [
        [
            board.suite, board.version, "+".join(map(str, board.seeds)), of_protocol.protocol, row.detector,
            "+".join(row.exposed), row.rank, row.rank_low, row.rank_high, row.tied, row.cost_ms,
            row.price, row.on_front, column.name, column.metric, "+".join(column.datasets),
            figure.value, figure.low, figure.high, figure.spread, figure.tied,
            board.digest, board.generator,
        ]
        for of_protocol in board.tables
        for row in of_protocol.rows
        for column, figure in zip(of_protocol.columns, row.figures, strict=True)
    ]  # fmt: skip
