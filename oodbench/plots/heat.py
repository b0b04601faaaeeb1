"""A heat map with its figures written into it."""

from collections.abc import Sequence

from matplotlib import colormaps
from matplotlib.axes import Axes

MAP = "cividis"
DARK = 0.5


def heat(
    axes: Axes, title: str, rows: Sequence[str], columns: Sequence[str], values: Sequence[Sequence[float | None]]
) -> None:
    """Draw figures from 0.5 (dark) to 1; below 0.5 they are as dark as 0.5, and a missing one is left white."""
    shown = [[float("nan") if value is None else value for value in row] for row in values]
    axes.imshow(shown, vmin=0.5, vmax=1.0, cmap=MAP, aspect="auto")
    for y, row in enumerate(values):
        for x, value in enumerate(row):
            red, green, blue, _ = colormaps[MAP](2 * (value if value is not None else 1) - 1)
            dark = 0.299 * red + 0.587 * green + 0.114 * blue < DARK
            text = "—" if value is None else f"{value:.3f}"
            axes.text(x, y, text, ha="center", va="center", fontsize=6, color="white" if dark else "black")
    axes.set_xticks(range(len(columns)), columns, rotation=35, ha="right")
    axes.set_yticks(range(len(rows)), rows)
    axes.set_title(title)
    axes.spines[:].set_visible(False)
