"""ROC curves, one panel for each unknown set."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from oodbench.leaderboard.board import Board
from oodbench.plots.style import COLOURS, DASHES, panels


def roc(board: Board, detectors: Sequence[str], datasets: Sequence[str]) -> Figure:
    """True against false positive rate, mean over the seeds, of detectors that saw known samples only."""
    curves = {(curve.detector, curve.dataset): curve for curve in board.curves}
    figure = panels(len(datasets))
    for axes, dataset in zip(figure.axes, datasets, strict=True):
        for place, detector in enumerate(detectors):
            curve = curves.get((detector, dataset))
            if curve is not None:
                colour, dash = COLOURS[place % len(COLOURS)], DASHES[place // len(COLOURS) % len(DASHES)]
                axes.plot(curve.fpr, curve.tpr, label=detector, linewidth=1.2, color=colour, linestyle=dash)
        axes.plot([0, 1], [0, 1], color="0.7", linewidth=0.8, zorder=0)
        axes.set(title=dataset, xlabel="false positive rate", ylabel="true positive rate", xlim=(0, 1), ylim=(0, 1.01))
    figure.axes[0].legend(fontsize=6, loc="lower right")
    return figure
