"""The words that every drawing of a board shares."""

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
        bold: How figures are marked.
        star: The mark of exposure.
    """
    several = len(seeds) > 1
    return READING.format(
        figures=SEVERAL_SEEDS if several else ONE_SEED,
        both="both kinds of error" if several else "the sampling error",
        bold=bold,
        star=star,
    )


def column(one: Column) -> str:
    """Name of a column, with the group of its data set and an arrow down where smaller is better."""
    group = f" ({one.group})" if one.group != "-" and len(one.datasets) == 1 else ""
    return f"{one.name}{group}{' ↓' if one.ascending else ''}"


def shows_exposure(table: Table) -> bool:
    """Whether the table has rows for several exposures."""
    return any(row.exposed for row in table.rows)


def by_exposure(rows: Sequence[Row], datasets: Sequence[str]) -> list[Row]:
    """Rows of one detector, single exposures first, in the order of the data sets."""
    places = {dataset: place for place, dataset in enumerate(datasets)}
    return sorted(rows, key=lambda row: (len(row.exposed), [places.get(one, 0) for one in row.exposed]))


def exposure(row: Row, table: Table) -> str:
    """What a row was exposed to, in a word where it is everything."""
    single = {column.datasets[0] for column in table.columns if len(column.datasets) == 1}
    if len(row.exposed) > 1 and set(row.exposed) == single:
        return "all"
    return " + ".join(row.exposed) or "(no effect)"


def rank(row: Row) -> str:
    """``3 (2–5)``, with ≈ where the first is not better for sure."""
    if row.rank is None:
        return MISSING
    interval = f" ({row.rank_low}–{row.rank_high})" if row.rank_low != row.rank_high else ""
    return f"{row.rank}{interval}{' ≈' if row.tied else ''}"


def value(one: Figure) -> str:
    """The figure alone."""
    return MISSING if one.value is None else f"{one.value:.{one.digits}f}"


def interval(one: Figure) -> str:
    """Its interval alone; empty where there is none."""
    if one.low is None or one.high is None:
        return ""
    return f"[{one.low:.{one.digits}f}, {one.high:.{one.digits}f}]"


def spread(one: Figure) -> str:
    """Its spread over seeds alone; empty with one seed."""
    return "" if one.spread is None else f"± {one.spread:.{one.digits}f}"


def cost(row: Row) -> str:
    """Milliseconds for each image, two digits."""
    return MISSING if row.cost_ms is None else f"{row.cost_ms:.2g}"
