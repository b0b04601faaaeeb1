"""Boards as LaTeX tables for papers; they need the package ``booktabs``."""

import re
from collections.abc import Sequence

from oodbench.leaderboard.board import Board, Figure, Row, Table
from oodbench.leaderboard.drawing import wording

SPECIAL = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "—": "---", "–": "--", "≈": r"$\approx$", "±": r"$\pm$",
    "×": r"$\times$", "−": "$-$", "<": r"\textless{}", ">": r"\textgreater{}", "↓": r"$\downarrow$",
}  # fmt: skip


def latex(boards: Sequence[Board]) -> str:
    """One ``table*`` for each table with rows, and the command that makes them again as a comment."""
    return "\n".join(_board(board) for board in boards)


def _board(board: Board) -> str:
    stamp = (
        f"{wording.title(board)}; {board.records} records, seeds {', '.join(map(str, board.seeds))}; "
        f"oodbench {board.generator}; SHA-256 of the records {board.digest}"
    )
    drawn = [_table(table, board) for table in board.tables if table.rows]
    again = [f"% {line}" for line in board.command.splitlines()]
    reading = wording.reading(board.seeds, bold="Bold", star="*")
    lines = [
        r"% Needs \usepackage{booktabs,graphicx}.",
        f"% {_one_line(stamp)}",
        f"% {_one_line(reading)}",
        *drawn,
        *(["% Made again by", *again] if again else []),
    ]
    return "\n".join(lines) + "\n"


def _table(table: Table, board: Board) -> str:
    exposes = wording.shows_exposure(table)
    names = ["rank", "detector", *(["exposed to"] if exposes else []), *map(wording.column, table.columns)]
    complete = [_row(row, table, exposes=exposes) for row in table.rows if row.rank is not None]
    others = [_row(row, table, exposes=exposes) for row in table.rows if row.rank is None]
    spread = ", ± standard deviation over seeds" if len(board.seeds) > 1 else ""
    of_classifier = f"{board.classifier}, " if board.classifier else ""
    caption = (
        f"{board.suite} {board.version}, {of_classifier}{table.title}. {table.caption}; 95 % interval of the sampling "
        f"error{spread}. Bold: not separable from the best of the column; ≈: may stand first."
    )
    parts = board.suite, board.classifier, table.protocol
    return "\n".join([
        r"\begin{table*}",
        r"\centering\footnotesize",
        rf"\caption{{{_escaped(caption)}}}",
        rf"\label{{tab:{'-'.join(_name(part) for part in parts if part)}}}",
        r"\resizebox{\textwidth}{!}{%",
        rf"\begin{{tabular}}{{rl{'l' if exposes else ''}{'c' * len(table.columns)}}}",
        r"\toprule",
        f"{' & '.join(_escaped(name) for name in names)} \\\\",
        r"\midrule",
        *complete,
        *([r"\midrule", *others] if others else []),
        r"\bottomrule",
        r"\end{tabular}}",
        r"\end{table*}",
    ])  # fmt: skip


def _row(row: Row, table: Table, *, exposes: bool) -> str:
    label = [wording.rank(row), row.detector, *([wording.exposure(row, table)] if exposes else [])]
    return f"{' & '.join([*(_escaped(text) for text in label), *(_figure(figure) for figure in row.figures)])} \\\\"


def _figure(figure: Figure) -> str:
    value = rf"\textbf{{{wording.value(figure)}}}" if figure.tied else _escaped(wording.value(figure))
    errors = [_escaped(text) for text in (wording.interval(figure), wording.spread(figure)) if text]
    first = " ".join([value, *errors[1:]]) + (r"\,*" if figure.exposed else "")
    # Braces, since a bracket after the end of a line would be read as its option.
    return rf"\shortstack{{{first}\\{{}}{errors[0]}}}" if errors else f"{{{first}}}"


def _name(text: str) -> str:
    """Text for a label, without characters that LaTeX gives a meaning to."""
    return re.sub(r"[^\w.:-]", "-", text, flags=re.ASCII)


def _escaped(text: str) -> str:
    return "".join(SPECIAL.get(character, character) for character in _one_line(text))


def _one_line(text: str) -> str:
    return " ".join(text.split())
