"""Boards as GitHub-flavoured markdown."""

from collections.abc import Sequence

from tabulate import tabulate

from oodbench.comparison.claims import Claim
from oodbench.leaderboard.board import Across, Board, Figure, Layers, Row, Table
from oodbench.leaderboard.drawing import wording


def markdown(boards: Sequence[Board]) -> str:
    """All boards, one below the other; the same boards give the same bytes."""
    return "\n".join(_board(board) for board in boards)


def _board(board: Board) -> str:
    seeds = ", ".join(str(seed) for seed in board.seeds)
    blocks = [
        *(_across(board.across, board) if board.across else []),
        f"# Leaderboard: {_escaped(wording.title(board))}",
        f"{board.records} records, seed{'s' if len(board.seeds) > 1 else ''} {seeds}.",
        f"**Made on a subset of the data.** {_escaped(board.subset)}" if board.subset else "",
        _escaped(" ".join(board.remarks)),
        board.note,
        wording.reading(board.seeds, bold="Bold", star="\\*"),
        *_claims(board.claims),
        *(block for table in board.tables for block in _table(table)),
        *(_layers(board.layers) if board.layers else []),
        *_origin(board),
        f"Made again by\n\n```sh\n{board.command}\n```" if board.command else "",
    ]
    return "\n\n".join(block for block in blocks if block) + "\n"


def _across(across: Across, board: Board) -> list[str]:
    blocks = [
        f"# Across classifiers: {_escaped(board.suite)}, version {board.version}",
        _escaped(wording.reading_across(across, bold="bold")),
        _escaped(" ".join(across.notes)),
    ]
    for table in across.tables:
        header = ["detector", *map(_escaped, across.classifiers)]
        rows = [[_escaped(row.detector), *map(_figure, row.figures)] for row in table.rows]
        findings = "\n".join(f"- {_escaped(sentence)}" for sentence in wording.findings(table))
        blocks += [f"## {_escaped(table.title)}", _grid(header, rows) if rows else "", findings]
    return blocks


def _claims(claims: Sequence[Claim]) -> list[str]:
    if not claims:
        return []
    rows = [
        [
            str(claim.number),
            claim.text,
            f"**{claim.outcome}**",
            f"{claim.figure:+.4f} [{claim.low:+.4f}, {claim.high:+.4f}]",
        ]
        for claim in claims
    ]
    return [
        "## The claims of Oberdiek, Rottmann, Gottschalk 2018",
        _grid(["", "claim", "outcome", "figure"], rows),
        "\n".join(
            f"- Claim {claim.number}: {_escaped(claim.criterion)} {_escaped('; '.join(claim.details))}."
            for claim in claims
        ),
    ]


def _table(table: Table) -> list[str]:
    exposes = wording.shows_exposure(table)
    names = [_escaped(wording.column(column)) for column in table.columns]
    header = [
        "rank",
        "detector",
        *(["exposed to"] if exposes else []),
        *names,
        "ms / image",
        *([wording.PRICE] if wording.shows_price(table) else []),
    ]
    complete = [_row(row, table, exposes=exposes) for row in table.rows if row.rank is not None]
    others = [_row(row, table, exposes=exposes) for row in table.rows if row.rank is None]
    line = [["", "*unranked: a figure is missing*", *[""] * (len(header) - 2)]] if others else []
    notes = "\n".join(f"- {_escaped(sentence)}" for sentence in wording.notes(table))
    drawn = _grid(header, [*complete, *line, *others]) if table.rows else ""
    return [f"## {_escaped(table.title)}", f"{_escaped(table.caption)}.", drawn, notes]


def _row(row: Row, table: Table, *, exposes: bool) -> list[str]:
    exposed = [_escaped(wording.exposure(row, table))] if exposes else []
    costs = [wording.cost(row), *([wording.price(row)] if wording.shows_price(table) else [])]
    return [wording.rank(row), _escaped(row.detector), *exposed, *map(_figure, row.figures), *costs]


def _figure(figure: Figure) -> str:
    number = f"**{wording.value(figure)}**" if figure.tied else wording.value(figure)
    errors = [text for text in (wording.interval(figure), wording.spread(figure)) if text]
    return " ".join([number, *errors]) + (" \\*" if figure.exposed else "")


def _layers(layers: Layers) -> list[str]:
    by_place = {(cell.metric, cell.layer, cell.dataset): cell for cell in layers.cells}
    blocks = [
        "## Which layer knows",
        "AUROC, unknown against known, of each gradient metric of each layer, with the 95 % interval of the sampling "
        f"error; mean over seeds {', '.join(map(str, layers.seeds))}. `all` stands for all weights.",
    ]
    for dataset in layers.datasets:
        rows = []
        for metric in layers.metrics:
            cells = [by_place.get((metric, layer, dataset)) for layer in layers.layers]
            figures = [
                f"{cell.value:.4f} [{cell.low:.4f}, {cell.high:.4f}]"
                if cell is not None and cell.value is not None
                else wording.MISSING
                for cell in cells
            ]
            rows.append([_escaped(metric), *figures])
        blocks.append(_grid([_escaped(dataset), *(_escaped(layer) for layer in layers.layers)], rows))
    return blocks


def _origin(board: Board) -> list[str]:
    data = [
        [
            stamp.name,
            stamp.adapter,
            stamp.split,
            str(stamp.n),
            str(stamp.available),
            str(stamp.official or wording.MISSING),
        ]
        for stamp in board.datasets
    ]
    sources = [[_code(stamp.sha256), stamp.source] for stamp in board.datasets]
    classifiers = [
        [str(stamp.seed), _escaped(stamp.name or wording.MISSING), f"{stamp.accuracy:.4f}", _code(stamp.weights_sha256)]
        for stamp in board.classifiers
    ]
    detectors = ", ".join(f"{stamp.name} ({wording.origin(stamp)})" for stamp in board.detectors)
    run_with = f"Run with {_escaped(', '.join(board.made_with))}. " if board.made_with else ""
    return [
        "## Data",
        _grid(
            ["data set", "adapter", "split", "used", "found", "official", "SHA-256 of content", "source"],
            [
                [*(_escaped(text) for text in row), digest, _escaped(source)]
                for row, (digest, source) in zip(data, sources, strict=True)
            ],
        ),
        "## Classifiers",
        _grid(["seed", "classifier", "accuracy on the known test split", "SHA-256 of weights"], classifiers),
        "## Versions",
        f"Detectors: {_escaped(detectors)}.",
        f"{run_with}Board made by oodbench {board.generator} from records with the SHA-256 {_code(board.digest)}.",
    ]


def _grid(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return tabulate(rows, header, tablefmt="github", disable_numparse=True)


def _code(digest: str) -> str:
    return f"`{''.join(filter(str.isalnum, digest[:16]))}`" if digest else wording.MISSING


def _escaped(text: str) -> str:
    """Text without markup: it cannot end a cell or start a link."""
    for character in "\\|[]<>*`":
        text = text.replace(character, f"\\{character}")
    return text.replace("\n", " ")
