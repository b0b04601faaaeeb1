"""Gradient metrics of single layers: a heat map for each unknown set."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from oodbench.errors import UsageError
from oodbench.leaderboard.board import Board
from oodbench.plots.heat import heat
from oodbench.plots.style import panels


def layers(board: Board, detectors: Sequence[str], datasets: Sequence[str]) -> Figure:
    """AUROC of each gradient metric of each layer, mean over the seeds; ``detectors`` is not used.

    Raises:
        UsageError: There is no record of a single layer.
    """
    if board.layers is None:
        raise UsageError(
            "no record is of a gradient metric of a single layer; run some, such as `oodbench run -d "
            "'grad-*:layer=conv1' -p unknown-unknowns`."
        )
    aurocs = {(cell.metric, cell.layer, cell.dataset): cell.value for cell in board.layers.cells}
    figure = panels(len(datasets), width=0.6 * len(board.layers.layers) + 1.2)
    for axes, dataset in zip(figure.axes, datasets, strict=True):
        values = [
            [aurocs.get((metric, layer, dataset)) for layer in board.layers.layers] for metric in board.layers.metrics
        ]
        heat(axes, dataset, board.layers.metrics, board.layers.layers, values)
    return figure
