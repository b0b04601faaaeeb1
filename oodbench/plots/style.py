"""The style of all plots: sizes, colours that colour-blind readers can tell apart, and files without a date."""

from collections.abc import Callable
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure

STYLE: Any = {
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "svg.hashsalt": "oodbench",
    "svg.fonttype": "none",
    "pdf.fonttype": 42,
}
# Okabe, Ito 2008.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES = ("-", "--", "-.", ":")
PANEL_INCHES = 2.6
NO_DATE = {"pdf": {"CreationDate": None}, "svg": {"Date": None}, "png": {}}
"""Metadata by format, so that the same board gives the same bytes."""


def panels(count: int, columns: int = 4, *, height: float = PANEL_INCHES, width: float = PANEL_INCHES) -> Figure:
    """A figure with ``count`` axes, at most ``columns`` in a row; ``height`` and ``width`` of each are in inches."""
    columns = min(columns, count)
    rows = -(-count // columns)
    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    for place in range(count):
        figure.add_subplot(rows, columns, place + 1)
    return figure


def save(draw: Callable[[], Figure], path: str, kind: str) -> None:
    """Draw a figure in this style and write it to a file of the kind ``pdf``, ``png`` or ``svg``."""
    with rc_context(STYLE):
        draw().savefig(path, format=kind, metadata=NO_DATE[kind], dpi=200)
