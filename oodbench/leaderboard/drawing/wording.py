"""The words that all drawings of a board share."""

from collections.abc import Sequence

from oodbench.leaderboard.board import Across, AcrossTable, Board, Column, DetectorStamp, Figure, Row, Table

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
ACROSS = (
    "The same test samples with each classifier, and detectors that saw known samples only. A figure is the mean over "
    "the seeds ({seeds}), with the 95 % interval of the sampling error in brackets; {bold} figures cannot be separated "
    "from the best of their classifier, over test samples and seeds. Kendall's τ-b is 1 where two classifiers rank all "
    "detectors alike, 0 where they have nothing in common and −1 where one ranks them the other way round; its 95 % "
    "interval is over test samples, of these classifiers."
)


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


def origin(stamp: DetectorStamp) -> str:
    """The distribution and version of a detector, or that its scores were imported."""
    return f"{stamp.distribution} {stamp.version}" if stamp.distribution else "imported"


def cost(row: Row) -> str:
    """Milliseconds for each image, two digits."""
    return MISSING if row.cost_ms is None else f"{row.cost_ms:.2g}"


PRICE = "× forward"
"""Heading of the price: how many forward passes of the classifier the cost of an image is."""


PRICES = "× forward: cost of an image in forward passes of the classifier; ◆ marks what nothing cheaper beats in rank."


def shows_price(table: Table) -> bool:
    """Whether any price of a table is known."""
    return any(row.price is not None for row in table.rows)


def notes(table: Table) -> list[str]:
    """The notes of a table, with what its prices are."""
    return [*table.notes, *([PRICES] if shows_price(table) else [])]


def price(row: Row) -> str:
    """The price of an image in forward passes, two digits; ◆ where nothing cheaper does better."""
    if row.price is None:
        return MISSING
    shown = f"{row.price:.2g}" if row.price < 100 else f"{row.price:.0f}"
    return f"{shown} ◆" if row.on_front else shown


def title(board: Board) -> str:
    """The suite and version of a board, and the classifier where there are several."""
    return f"{board.suite}, version {board.version}{f', {board.classifier}' if board.classifier else ''}"


def reading_across(across: Across, *, bold: str) -> str:
    """How to read the tables over classifiers; ``bold`` is the word for the mark of ties."""
    seeds = [f"{name}: {', '.join(map(str, own))}" for name, own in zip(across.classifiers, across.seeds, strict=True)]
    return ACROSS.format(seeds="; ".join(seeds), bold=bold)


def findings(table: AcrossTable) -> list[str]:
    """What a table over classifiers that ranks says of the rankings, and who takes no part, as sentences."""
    sentences = [
        f"{one.first} and {one.second} rank the {len(table.rows)} detectors with Kendall's τ-b {_signed(one.value)} "
        f"[{_signed(one.low)}, {_signed(one.high)}]."
        for one in table.agreements
    ]
    if table.best:
        sentences.append(f"In the best group of every classifier: {', '.join(table.best)}.")
    elif table.ranks and table.rows:
        sentences.append("No detector is in the best group of every classifier.")
    if table.missing and table.ranks:
        sentences.append(f"Not here, since some classifier has no figure of it: {', '.join(table.missing)}.")
    return sentences


def _signed(number: float) -> str:
    return f"{number:.2f}".replace("-", "−")
