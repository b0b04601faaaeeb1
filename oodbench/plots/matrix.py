"""The exposed × tested matrix, one panel for each detector that exposure changes."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from oodbench.errors import UsageError
from oodbench.leaderboard.board import Board
from oodbench.leaderboard.drawing import wording
from oodbench.plots.heat import heat
from oodbench.plots.style import panels

PROTOCOL = "known-unknowns"


def matrix(board: Board, detectors: Sequence[str], datasets: Sequence[str]) -> Figure:
    """AUROC on each tested set (columns) after exposure to each set, or all (rows), mean over the seeds.

    Raises:
        UsageError: None of the detectors was exposed.
    """
    table = next((candidate for candidate in board.tables if candidate.protocol == PROTOCOL), None)
    rows = [row for row in table.rows if row.detector in detectors] if table else []
    names = list(dict.fromkeys(row.detector for row in rows))
    if table is None or not names:
        raise UsageError(f"no detector of these has figures under {PROTOCOL} that exposure changes.")
    columns = [(i, column.name) for i, column in enumerate(table.columns) if column.name in datasets]
    figure = panels(len(names), width=0.7 * len(columns) + 1.4)
    for axes, name in zip(figure.axes, names, strict=True):
        everything = [column.name for column in table.columns]
        own = wording.by_exposure([row for row in rows if row.detector == name], everything)
        values = [[row.figures[i].value for i, _ in columns] for row in own]
        heat(axes, name, [wording.exposure(row, table) for row in own], [name for _, name in columns], values)
        axes.set(xlabel="tested on", ylabel="exposed to")
    return figure
