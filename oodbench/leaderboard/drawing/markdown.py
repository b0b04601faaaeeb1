"""Boards as GitHub-flavoured markdown."""

from collections.abc import Sequence

from tabulate import tabulate

from oodbench.comparison.claims import Claim
from oodbench.leaderboard.board import Board, Layers, Row, Table
from oodbench.leaderboard.drawing import wording


def markdown(boards: Sequence[Board]) -> str:
    """All boards, one below the other; the same boards give the same bytes."""
    return "\n".join(_board(board) for board in boards)


def _board(board: Board) -> str:
    seeds = ", ".join(str(seed) for seed in board.seeds)
    parts = [
        f"# Leaderboard: {_escaped(board.suite)}, version {board.version}",
        f"{board.records} records, seed{'s' if len(board.seeds) > 1 else ''} {seeds}.",
        f"**Made on a subset of the data.** {_escaped(board.subset)}" if board.subset else "",
        board.note,
        wording.reading(board.seeds, bold="Bold", star="\\*"),
        *_claims(board.claims),
        *(part for table in board.tables for part in _table(table)),
        *(_layers(board.layers) if board.layers else []),
        *_origin(board),
        f"Made again by\n\n```sh\n{board.command}\n```" if board.command else "",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _claims(claims: Sequence[Claim]) -> list[str]:
    if not claims:
        return []
    rows = [
        [str(one.number), one.text, f"**{one.outcome}**", f"{one.figure:+.4f} [{one.low:+.4f}, {one.high:+.4f}]"]
        for one in claims
    ]
    return [
        "## The claims of Oberdiek, Rottmann, Gottschalk 2018",
        _grid(["", "claim", "outcome", "figure"], rows),
        "\n".join(
            f"- Claim {one.number}: {_escaped(one.criterion)} {_escaped('; '.join(one.details))}." for one in claims
        ),
    ]


def _table(table: Table) -> list[str]:
    exposes = wording.shows_exposure(table)
    names = [_escaped(wording.column(column)) for column in table.columns]
    header = ["rank", "detector", *(["exposed to"] if exposes else []), *names, "ms / image"]
    complete = [_row(row, table, exposes=exposes) for row in table.rows if row.rank is not None]
    others = [_row(row, table, exposes=exposes) for row in table.rows if row.rank is None]
    line = [["", "*unranked: a figure is missing*", *[""] * (len(header) - 2)]] if others else []
    notes = "\n".join(f"- {_escaped(sentence)}" for sentence in table.notes)
    drawn = _grid(header, [*complete, *line, *others]) if table.rows else ""
    return [f"## {_escaped(table.title)}", f"{_escaped(table.caption)}.", drawn, notes]


def _row(row: Row, table: Table, *, exposes: bool) -> list[str]:
    figures = []
    for one in row.figures:
        number = f"**{wording.value(one)}**" if one.tied else wording.value(one)
        rest = [part for part in (wording.interval(one), wording.spread(one)) if part]
        figures.append(" ".join([number, *rest]) + (" \\*" if one.exposed else ""))
    exposed = [_escaped(wording.exposure(row, table))] if exposes else []
    return [wording.rank(row), _escaped(row.detector), *exposed, *figures, wording.cost(row)]


def _layers(layers: Layers) -> list[str]:
    found = {(one.metric, one.layer, one.dataset): one for one in layers.cells}
    parts = [
        "## Which layer knows",
        "AUROC, unknown against known, of each gradient metric of each layer, with the 95 % interval of the sampling "
        f"error; mean over seeds {', '.join(map(str, layers.seeds))}. `all` stands for all weights.",
    ]
    for dataset in layers.datasets:
        rows = []
        for metric in layers.metrics:
            cells = [found.get((metric, layer, dataset)) for layer in layers.layers]
            figures = [
                f"{one.value:.4f} [{one.low:.4f}, {one.high:.4f}]"
                if one is not None and one.value is not None
                else wording.MISSING
                for one in cells
            ]
            rows.append([_escaped(metric), *figures])
        parts.append(_grid([_escaped(dataset), *(_escaped(layer) for layer in layers.layers)], rows))
    return parts


def _origin(board: Board) -> list[str]:
    data = [
        [one.name, one.adapter, one.split, str(one.n), str(one.available), str(one.official or wording.MISSING)]
        for one in board.datasets
    ]
    sources = [[_code(one.sha256), one.source] for one in board.datasets]
    classifiers = [
        [str(one.seed), _escaped(one.name), f"{one.accuracy:.4f}", _code(one.weights_sha256)]
        for one in board.classifiers
    ]
    detectors = ", ".join(f"{one.name} ({one.distribution} {one.version})" for one in board.detectors)
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
        f"Run with {_escaped(', '.join(board.made_with))}. Board made by oodbench {board.generator} from records with "
        f"the SHA-256 {_code(board.digest)}.",
    ]


def _grid(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return tabulate(rows, header, tablefmt="github", disable_numparse=True)


def _code(digest: str) -> str:
    return f"`{''.join(filter(str.isalnum, digest[:16]))}`"


def _escaped(text: str) -> str:
    """Text that cannot end a cell, start a link or be taken for markup."""
    for character in "\\|[]<>*`":
        text = text.replace(character, f"\\{character}")
    return text.replace("\n", " ")
