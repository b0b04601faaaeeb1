"""Boards as one self-contained HTML file: no network, and tables that can be read without scripts."""

import base64
import hashlib
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from statistics import quantiles

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from oodbench.comparison.claims import Claim
from oodbench.leaderboard.board import Board, Figure, LayerCell, Row, Table
from oodbench.leaderboard.drawing import wording

UNEXPOSED = "unknown-unknowns"
MATRIX = "known-unknowns"
WIDTH = 80
"""Width of the drawing of an interval, in pixels."""
MARGIN = 5
FENCE = 1.5
"""Tukey's fence: figures further outside the quartiles, in interquartile ranges, do not set a column's scale."""
SHOWN_FIRST = 4
ALWAYS_SHOWN = ("entropy", "random")
SYMBOLS = {"held": "✓", "did not hold": "✗", "not separable": "≈"}
CHANCE = 0.5
RAMP = ((247, 244, 236), (121, 172, 211), (9, 56, 105))
"""RGB colours of heat maps, from chance to 1: light to dark, so that they also read without colours."""


def html(boards: Sequence[Board]) -> str:
    """All boards on one page; the same boards give the same bytes."""
    script = _text("board.js")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    page = environment.from_string(_text("board.html.jinja"))
    return page.render(
        boards=boards,
        style=Markup(_text("board.css")),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        data=_embedded([_charts(board) for board in boards]),
        wording=wording,
        symbols=SYMBOLS,
        width=WIDTH,
        scales=_scales,
        claim_drawn=_claim_drawn,
        matrix=_matrix,
        layer_grid=_layer_grid,
        ramp=[_shade(CHANCE + (1 - CHANCE) * step / 10) for step in range(11)],
    )


def _text(name: str) -> str:
    return files("oodbench.leaderboard.drawing").joinpath("page", name).read_text(encoding="utf-8")


def _embedded(content: object) -> Markup:
    """JSON that is safe inside a script element, whatever its strings contain."""
    text = json.dumps(content, separators=(",", ":"), allow_nan=False)  # ASCII, so U+2028 and U+2029 are escaped
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


# Intervals


@dataclass(frozen=True)
class Drawn:
    """An interval in pixels: whisker, point and ticks of the spread.

    ``beyond`` is the end of the scale (``low`` or ``high``) that the point lies beyond, else empty.
    """

    start: float
    stop: float
    point: float
    ticks: tuple[float, ...]
    beyond: str


@dataclass(frozen=True)
class Scale:
    """The scale of a column: its ends, and the decimals that they are shown with."""

    low: float
    high: float
    digits: int

    def ends(self) -> tuple[str, str]:
        """Its ends as texts."""
        return f"{self.low:.{self.digits}f}", f"{self.high:.{self.digits}f}"

    def at(self, value: float) -> float:
        """The position of a value in pixels; one beyond an end is put at that end."""
        share = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return round(MARGIN + share * (WIDTH - 2 * MARGIN), 1)

    def drawn(self, value: float, low: float, high: float, spread: float | None = None) -> Drawn:
        """The drawing of a value with its interval and its spread."""
        ends = () if spread is None else (value - spread, value + spread)
        return Drawn(
            start=self.at(low),
            stop=self.at(high),
            point=self.at(value),
            ticks=tuple(self.at(end) for end in ends if self.low <= end <= self.high),
            beyond="low" if value < self.low else "high" if value > self.high else "",
        )

    def of(self, figure: Figure) -> Drawn | None:
        """The drawing of a figure; None if its value is missing."""
        if figure.value is None:
            return None
        low, high = (figure.value if end is None else end for end in (figure.low, figure.high))
        return self.drawn(figure.value, low, high, figure.spread)


def _scales(table: Table) -> list[Scale]:
    return [_scale([row.figures[i] for row in table.rows]) for i in range(len(table.columns))]


def _scale(figures: Iterable[Figure]) -> Scale:
    """From the lowest to the highest end of the intervals and spreads of all figures that are no outliers."""
    present = [(figure.value, figure) for figure in figures if figure.value is not None]
    values = [value for value, _ in present]
    least, most = -math.inf, math.inf
    if len(values) > 3:
        lower, _, upper = quantiles(values, n=4, method="inclusive")
        least, most = lower - FENCE * (upper - lower), upper + FENCE * (upper - lower)
    ends = [
        end
        for value, figure in present
        if least <= value <= most
        for end in (figure.low, figure.high, value - (figure.spread or 0), value + (figure.spread or 0))
        if end is not None
    ]
    low, high = min(ends, default=0.0), max(ends, default=1.0)
    if all(0 <= value <= 1 for value in values):
        low, high = max(low, 0.0), min(high, 1.0)
    return _round_scale(low, high)


def _round_scale(low: float, high: float) -> Scale:
    """A scale with ends of few digits around a range."""
    width = high - low or 0.02
    digits = max(0, 1 - math.floor(math.log10(width)))
    step = 10.0**-digits
    # The nudge keeps an end that is on a step already where it is.
    start, stop = math.floor(low / step + 1e-6) * step, math.ceil(high / step - 1e-6) * step
    return Scale(start, stop if stop > start else start + step, digits)


def _claim_drawn(claim: Claim) -> tuple[Drawn, float]:
    """The interval of a claim, and the position of 0 in pixels."""
    scale = _round_scale(min(claim.low, claim.figure, 0.0), max(claim.high, claim.figure, 0.0))
    return scale.drawn(claim.figure, claim.low, claim.high), scale.at(0.0)


# Heat maps


@dataclass(frozen=True)
class Shade:
    """A background colour, and a text colour with a contrast of at least 4.5 to 1."""

    fill: str
    text: str


@dataclass(frozen=True)
class Cell:
    """A cell of a heat map; ``figure`` and ``shade`` are None where a figure is missing."""

    figure: Figure | None
    shade: Shade | None


@dataclass(frozen=True)
class HeatRow:
    """A row of a heat map."""

    name: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Heat:
    """A heat map."""

    name: str
    columns: tuple[str, ...]
    rows: tuple[HeatRow, ...]


def _shade(value: float) -> Shade:
    """The shade of a value from chance to 1; values below chance have that of chance."""
    place = min(max((value - CHANCE) / (1 - CHANCE), 0.0), 1.0) * (len(RAMP) - 1)
    segment = min(int(place), len(RAMP) - 2)
    mixed = [round(a + (b - a) * (place - segment)) for a, b in zip(RAMP[segment], RAMP[segment + 1], strict=True)]
    # Against one of black and white every colour has a contrast of 4.58 or more.
    dark = _luminance(mixed) + 0.05 < math.sqrt(1.05 * 0.05)
    return Shade("#{:02x}{:02x}{:02x}".format(*mixed), "#fff" if dark else "#000")


def _luminance(colour: Sequence[int]) -> float:
    """Relative luminance, as defined in WCAG 2."""
    channels = [channel / 255 for channel in colour]
    red, green, blue = (
        channel / 12.92 if channel <= 0.04045 else ((channel + 0.055) / 1.055) ** 2.4 for channel in channels
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _cell(figure: Figure | None) -> Cell:
    return Cell(figure, None if figure is None or figure.value is None else _shade(figure.value))


def _table_of(board: Board, protocol: str) -> Table | None:
    return next((table for table in board.tables if table.protocol == protocol), None)


def _matrix(board: Board) -> list[Heat]:
    """Exposed × tested, one heat map for each detector that exposure changes; the first row is without exposure."""
    table = _table_of(board, MATRIX)
    if table is None:
        return []
    columns = _single(table)
    unexposed = _unexposed(board, list(columns))
    made = []
    for name in dict.fromkeys(row.detector for row in table.rows if row.exposed):
        own = wording.by_exposure([row for row in table.rows if row.detector == name], list(columns))
        rows = [_heat_row(wording.exposure(row, table), [row.figures[i] for i in columns.values()]) for row in own]
        if name in unexposed:
            rows.insert(0, _heat_row("nothing", unexposed[name]))
        made.append(Heat(name, tuple(table.columns[i].name for i in columns.values()), tuple(rows)))
    return made


def _single(table: Table) -> dict[str, int]:
    """The position of each data set's own column; a mean over a single data set follows it and does not count."""
    places: dict[str, int] = {}
    for place, column in enumerate(table.columns):
        if len(column.datasets) == 1:
            places.setdefault(column.datasets[0], place)
    return places


def _unexposed(board: Board, datasets: Sequence[str]) -> dict[str, list[Figure | None]]:
    """Figures of the detectors that saw known samples only, by detector."""
    table = _table_of(board, UNEXPOSED)
    if table is None:
        return {}
    places = _single(table)
    return {row.detector: [row.figures[places[d]] if d in places else None for d in datasets] for row in table.rows}


def _heat_row(name: str, figures: Sequence[Figure | None]) -> HeatRow:
    return HeatRow(name, tuple(_cell(figure) for figure in figures))


def _layer_grid(board: Board) -> list[Heat]:
    """Layer × gradient metric, one heat map for each unknown set."""
    if board.layers is None:
        return []
    cells = {(cell.dataset, cell.metric, cell.layer): cell for cell in board.layers.cells}
    grid = board.layers
    return [
        Heat(
            dataset,
            grid.layers,
            tuple(
                _heat_row(metric, [_layer_figure(cells.get((dataset, metric, layer))) for layer in grid.layers])
                for metric in grid.metrics
            ),
        )
        for dataset in grid.datasets
    ]


def _layer_figure(cell: LayerCell | None) -> Figure | None:
    return None if cell is None else Figure(value=cell.value, low=cell.low, high=cell.high)


# Charts


def _charts(board: Board) -> dict[str, object]:
    """The data that the script draws; x values that several curves share are stored once."""
    curve_order = _by_rank(_table_of(board, UNEXPOSED), [curve.detector for curve in board.curves])
    risk_order = _by_rank(_table_of(board, "known"), [risk.detector for risk in board.risks])
    sets = list(dict.fromkeys(curve.dataset for curve in board.curves))
    grids: dict[tuple[float, ...], int] = {}
    curves = [
        [
            curve_order.index(curve.detector),
            sets.index(curve.dataset),
            grids.setdefault(curve.fpr, len(grids)),
            *([*values] for values in (curve.tpr, curve.edges, curve.right, curve.wrong, curve.unknown)),
        ]
        for curve in board.curves
    ]
    risks = [
        [
            risk_order.index(curve.detector),
            grids.setdefault(curve.coverage, len(grids)),
            [round(risk, 5) for risk in curve.risk],
        ]
        for curve in board.risks
    ]
    return {
        "sets": sets,
        "grids": [[*grid] for grid in grids],
        "curves": {"order": curve_order, "on": _shown(curve_order), "of": curves},
        "risks": {"order": risk_order, "on": _shown(risk_order), "of": risks},
    }


def _by_rank(table: Table | None, detectors: Iterable[str]) -> list[str]:
    """Detectors without repetition, in the order of a table; those not in the table follow by name."""
    places: dict[str, int] = {}
    rows: Sequence[Row] = table.rows if table else ()
    for place, row in enumerate(rows):
        places.setdefault(row.detector, place)
    return sorted(dict.fromkeys(detectors), key=lambda name: (places.get(name, len(places)), name))


def _shown(order: Sequence[str]) -> list[int]:
    """Positions of the detectors that a chart shows at first: the best of the ranking and the baselines."""
    first = [name for name in order if name not in ALWAYS_SHOWN][:SHOWN_FIRST]
    return [i for i, name in enumerate(order) if name in first or name in ALWAYS_SHOWN]
