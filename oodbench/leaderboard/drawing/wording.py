"""The words that all drawings of a board share."""

from collections.abc import Sequence

from oodbench.leaderboard.board import Column, Figure, Row, Table

MISSING = "—"
READING = (
    "Larger scores mean more likely wrong or unknown; unknown (or wrong) is the positive class. {figures} Ranks follow "
    "the mean AUROC over the unknown sets, and the failure AUROC where there are none; in parentheses is the 95 % "
    "interval of the rank, over {both}. {bold} figures cannot be separated from the best of their column (tested for "
    "AUROC and meta accuracy), and detectors with ≈ may stand first. {star} marks sets of which the detector saw other "
    "samples, ↓ columns where smaller is better. A detector that lacks a figure stands unranked below the others."
)
SEVERAL_SEEDS = (
    "A figure is the mean over the seeds, with the 95 % interval of the sampling error in brackets and, after ±, the "
    "standard deviation over the seeds of the classifier's training: two kinds of error, shown apart. A few trainings "
    "separate little, so that detectors may be tied whose sampling intervals are apart."
)
ONE_SEED = "A figure has the 95 % interval of its sampling error in brackets; one seed says nothing of other trainings."


def reading(seeds: Sequence[int], *, bold: str, star: str) -> str:
    """How to read a board.

    Args:
        seeds: Its seeds.
        bold: The word for the mark of figures that are tied with the best.
        star: The mark of exposure.
    """
    several = len(seeds) > 1
    return READING.format(
        figures=SEVERAL_SEEDS if several else ONE_SEED,
        both="both kinds of error" if several else "the sampling error",
        bold=bold,
        star=star,
    )


def column(table_column: Column) -> str:
    """Name of a column, with the group of its data set and an arrow down where smaller is better."""
    group = f" ({table_column.group})" if table_column.group != "-" and len(table_column.datasets) == 1 else ""
    return f"{table_column.name}{group}{' ↓' if table_column.ascending else ''}"


def shows_exposure(table: Table) -> bool:
    """Whether the table has rows for several exposures."""
    return any(row.exposed for row in table.rows)


def by_exposure(rows: Sequence[Row], datasets: Sequence[str]) -> list[Row]:
    """Rows of one detector, single exposures first, in the order of the data sets."""
    places = {dataset: place for place, dataset in enumerate(datasets)}
    return sorted(rows, key=lambda row: (len(row.exposed), [places.get(name, 0) for name in row.exposed]))


def exposure(row: Row, table: Table) -> str:
    """The sets that a row was exposed to; ``all`` if these are all sets of the table."""
    single = {column.datasets[0] for column in table.columns if len(column.datasets) == 1}
    if len(row.exposed) > 1 and set(row.exposed) == single:
        return "all"
    return " + ".join(row.exposed) or "(no effect)"


def rank(row: Row) -> str:
    """The rank and its interval, such as ``3 (2–5)``; ≈ marks detectors that may be the best."""
    if row.rank is None:
        return MISSING
    interval = f" ({row.rank_low}–{row.rank_high})" if row.rank_low != row.rank_high else ""
    return f"{row.rank}{interval}{' ≈' if row.tied else ''}"


def value(figure: Figure) -> str:
    """The value of a figure alone."""
    return MISSING if figure.value is None else f"{figure.value:.{figure.digits}f}"


def interval(figure: Figure) -> str:
    """The interval of a figure alone; empty where there is none."""
    if figure.low is None or figure.high is None:
        return ""
    return f"[{figure.low:.{figure.digits}f}, {figure.high:.{figure.digits}f}]"


def spread(figure: Figure) -> str:
    """The spread of a figure over seeds alone; empty with one seed."""
    return "" if figure.spread is None else f"± {figure.spread:.{figure.digits}f}"


def cost(row: Row) -> str:
    """Milliseconds for each image, two digits."""
    return MISSING if row.cost_ms is None else f"{row.cost_ms:.2g}"
