"""Distributions of scores, one panel for each detector and unknown set."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from oodbench.leaderboard.board import Board
from oodbench.plots.style import COLOURS, DASHES, panels

KINDS = ("right", "wrong", "unknown")


def scores(board: Board, detectors: Sequence[str], datasets: Sequence[str]) -> Figure:
    """Histograms of the scores of right, wrong and unknown samples, of the first seed.

    Scores beyond the outer bins are counted in these.
    """
    curves = {(curve.detector, curve.dataset): curve for curve in board.curves}
    figure = panels(len(detectors) * len(datasets), len(datasets), height=1.8)
    places = iter(figure.axes)
    for detector in detectors:
        for dataset in datasets:
            axes = next(places)
            curve = curves.get((detector, dataset))
            if curve is None:
                axes.set_axis_off()
                continue
            for kind, colour, dash in zip(KINDS, COLOURS, DASHES, strict=False):
                axes.stairs(getattr(curve, kind), curve.edges, label=kind, color=colour, linestyle=dash, linewidth=1.2)
            axes.set(title=f"{detector}, {dataset}", xlabel="score", ylabel="share")
    figure.axes[0].legend(fontsize=6)
    return figure
