"""What a detector costs and what it does for that: AUROC against price."""

from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from oodbench.errors import UsageError
from oodbench.leaderboard.board import Board
from oodbench.plots.style import COLOURS, panels

SIZE = 4.6


def price(board: Board, detectors: Sequence[str], datasets: Sequence[str]) -> Figure:
    """Mean AUROC over the unknown sets, with its 95 % interval, against forward passes for an image.

    The line joins the detectors that nothing cheaper beats. ``datasets`` is not used: the mean is over all of them.

    Raises:
        UsageError: No price is known.
    """
    table = next((table for table in board.tables if table.protocol == "unknown-unknowns"), None)
    column = None if table is None else next((i for i, one in enumerate(table.columns) if one.ranks), None)
    priced = [] if table is None or column is None else [row for row in table.rows if row.price is not None]
    if not priced or column is None:
        raise UsageError(
            "no price is known: these records are older than the measuring of forward passes; run them again by "
            "`oodbench run --rerun all`."
        )
    figure = panels(1, width=SIZE * 1.4, height=SIZE)
    (axes,) = figure.axes
    front: list[tuple[float, float]] = []
    for row in priced:
        found, cost = row.figures[column], row.price
        if cost is None or found.value is None or found.low is None or found.high is None:
            continue
        if row.on_front:
            front.append((cost, found.value))
        ends = [[found.value - found.low], [found.high - found.value]]
        colour = COLOURS[0] if row.on_front else "0.6"
        axes.errorbar(cost, found.value, yerr=ends, fmt="o", markersize=3.5, linewidth=0.8, color=colour)
        if row.on_front or row.detector in detectors:
            axes.annotate(row.detector, (cost, found.value), xytext=(4, 3), textcoords="offset points", fontsize=6)
    costs, values = zip(*sorted(front), strict=True)
    axes.step(costs, values, where="post", color=COLOURS[0], linewidth=0.8, zorder=0)
    axes.set_xscale("log")
    for axis_ticks in (axes.xaxis.set_major_formatter, axes.xaxis.set_minor_formatter):
        axis_ticks(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set(xlabel="forward passes for an image", ylabel="mean AUROC", title=board.suite)
    return figure
