"""``oodbench leaderboard``."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

import click

from oodbench.cli.records import SCORES
from oodbench.files.folders import RESULTS

if TYPE_CHECKING:
    from oodbench.comparison.usable import UsableRecords
    from oodbench.leaderboard.board import Board

PUBLISHED = Path("leaderboards")
NOTE = "note.txt"
NONE_LEFT = "no record can stand on a board"
OTHER_RECORDS = "is of other records than these"
# What boards show at least of the digest of their records.
DIGITS = 16


@click.group(name="leaderboard", short_help="Make boards from records, and check them.")
def command() -> None:
    """Make boards from records, and check them."""


def _shared(function: Callable[..., Any]) -> Callable[..., Any]:
    options = (
        click.argument("folders", nargs=-1, type=click.Path(path_type=Path), metavar="[DIR]..."),
        click.option(
            "-o",
            "--out",
            "files",
            multiple=True,
            type=click.Path(path_type=Path, dir_okay=False),
            metavar="FILE",
            help="File of a board, as .md, .html, .csv, .tex or .json; may be given several times.",
        ),
        SCORES,
        click.option(
            "--note", default=None, help=f"A remark for the head of the board. Default: what {NOTE} in DIR says."
        ),
    )  # fmt: skip
    for option in reversed(options):
        function = option(function)
    return function


@command.command()
@_shared
@click.option(
    "--format",
    "shown",
    type=click.Choice(["md", "html", "csv", "tex", "json"]),
    default="md",
    show_default=True,
    help="What is printed without --out.",
)
def build(folders: tuple[Path, ...], files: tuple[Path, ...], scores: Path | None, note: str | None, shown: str) -> int:
    """Make boards from the records in results folders (default: oodbench-results).

    Every metric and interval is computed again from the scores; a record that does not follow from them is named and
    left out, with exit status 1.
    """
    from oodbench.cli.records import usable_records
    from oodbench.files.atomic import write_output
    from oodbench.leaderboard.drawing.formats import FORMATS, format_of

    draws = [format_of(file) for file in files]
    chosen = folders or (RESULTS,)
    usable = usable_records(chosen, NONE_LEFT, resample=True, scores=scores)
    boards, complaints = _boards(usable, chosen, note), len(usable.rejected)
    if not files:
        option = f"--format {shown}" if shown != "md" else ""
        click.echo(FORMATS[f".{shown}"](_with_command(boards, chosen, note, option)), nl=False)
    for file, draw in zip(files, draws, strict=True):
        content = _encoded(draw(_with_command(boards, chosen, note, f"-o {_argument(file)}")))
        write_output(file, "--out", lambda path, content=content: Path(path).write_bytes(content))  # type: ignore[misc]
        click.echo(f"{file}: {sum(board.records for board in boards)} records.", err=True)
    return 1 if complaints else 0


@command.command()
@_shared
@click.option("--quick", is_flag=True, help="Take the intervals that come from resampling as the records state them.")
def check(
    folders: tuple[Path, ...], files: tuple[Path, ...], scores: Path | None, note: str | None, quick: bool
) -> int:
    """Say whether published boards follow from their records, and these from their scores.

    Without DIR, every folder of records in leaderboards/ is checked; without --out, the boards beside it that have its
    name. Where scores are not there, a board has to be of these very records, and its figures are not computed again.
    Exit status 1 if anything differs.
    """
    from oodbench.errors import MissingPrerequisiteError

    groups = [folders] if folders and files else [(folder,) for folder in folders or _published()]
    if not groups:
        raise MissingPrerequisiteError(f"there is no folder with records in {PUBLISHED}; name one.")
    return max([_check(group, files or _beside(group[0]), scores, note, quick=quick) for group in groups])


@command.command()
@click.argument("folders", nargs=-1, type=click.Path(path_type=Path), metavar="[DIR]...")
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    metavar="DIR",
    help="Folder that is published.",
)
@SCORES
def pack(folders: tuple[Path, ...], out: Path, scores: Path | None) -> int:
    """Write the records of results folders (default: oodbench-results) to one compact file, to be published.

    Boards, comparisons, plots and Python read it as they read the folders. The scores stay where they are, and are
    named by `--scores`. A record that does not follow from its scores is named and left out, with exit status 1. What
    was packed before is never lost: add to it by naming its folder, too.
    """
    from oodbench.cli.records import usable_records
    from oodbench.files.atomic import check_folder, write_output
    from oodbench.records.files import PACKED, packed

    usable = usable_records(folders, "no record is left to pack", scores=scores)
    content = packed(scored.record for scored in usable.records)
    check_folder(out, "the folder", "--out")
    _refuse_loss(out / PACKED, {scored.record.cell_id for scored in usable.records})
    write_output(out / PACKED, "--out", lambda path: Path(path).write_text(content, "utf-8"))
    click.echo(f"{out / PACKED}: {len(usable.records)} records, {len(content) / 1e6:.1f} MB.", err=True)
    return 1 if usable.rejected else 0


def _refuse_loss(file: Path, cells: set[str]) -> None:
    """Refuse to replace packed records by ones that lack some of them.

    Raises:
        UsageError: Records would be lost.
    """
    from oodbench.errors import UsageError
    from oodbench.records.files import packed_records

    there = {one.path.name for one in packed_records(file)} if file.exists() else set()
    if lost := there - cells:
        raise UsageError(
            f"{file} has {len(there)} records, and {len(lost)} of them are not among those that are packed; name its "
            "folder, too, with --scores where theirs lie elsewhere, or choose another --out."
        )


def _check(
    folders: tuple[Path, ...], files: Sequence[Path], scores: Path | None, note: str | None, *, quick: bool
) -> int:
    from oodbench.cli.records import read, say_left_out
    from oodbench.errors import MissingPrerequisiteError
    from oodbench.leaderboard.drawing.formats import format_of

    named = ", ".join(str(folder) for folder in folders)
    if not files:
        raise MissingPrerequisiteError(f"there is no board of {named}; expected one beside it, or name it by --out.")
    draws = [format_of(file) for file in files]
    published_boards = [_published_board(file) for file in files]
    usable = read(folders, resample=not quick, scores=scores)
    there = {scored.record.cell_id for scored in usable.records}
    unscored = {one.unscored.cell_id for one in usable.rejected if one.unscored is not None} - there
    say_left_out(replace(usable, rejected=[one for one in usable.rejected if one.unscored is None]))
    complaints, different = sum(one.unscored is None for one in usable.rejected), 0
    if unscored:
        digests = _digests(usable)
        for file, published in zip(files, published_boards, strict=True):
            is_of_these = all(digest[:DIGITS].encode() in published for digest in digests)
            different += not is_of_these
            click.echo(f"{file}: {_said_without_scores(usable, len(unscored)) if is_of_these else OTHER_RECORDS}.")
        return 1 if different or complaints else 0
    usable.require_some(NONE_LEFT)
    boards = _boards(usable, folders, note)
    for file, draw, published in zip(files, draws, published_boards, strict=True):
        expected = _encoded(draw(_with_command(boards, folders, note, f"-o {_argument(file)}")))
        difference = _first_difference(published, expected)
        different += difference is not None
        click.echo(f"{file}: {difference or 'follows from its records'}.")
    return 1 if different or complaints else 0


def _published_board(file: Path) -> bytes:
    from oodbench.errors import MissingPrerequisiteError

    try:
        return file.read_bytes()
    except OSError as cause:
        raise MissingPrerequisiteError(f"the board {file} cannot be read: {cause.strerror}.") from cause


def _boards(usable: "UsableRecords", folders: Sequence[Path], note: str | None) -> "list[Board]":
    from oodbench.leaderboard.assembly import boards

    return boards(usable.records, _note(folders, note))


def _digests(usable: "UsableRecords") -> list[str]:
    """The digests of the boards that would be made of all records, with their scores or without."""
    from oodbench.leaderboard.assembly import digests
    from oodbench.records.scored import ScoredRecord

    cells = {scored.record.cell_id: scored for scored in usable.records}
    for one in usable.rejected:
        if one.unscored is not None and one.unscored.suite.limit is None:
            cells.setdefault(one.unscored.cell_id, ScoredRecord(one.unscored, one.file, {}))
    return digests(list(cells.values()))


def _said_without_scores(usable: "UsableRecords", lacking: int) -> str:
    total = len(usable.records) + lacking
    return (
        f"is of these {total} records, but the scores of {lacking} are not here, so its figures were not computed "
        "again; name their folder by --scores"
    )


def _with_command(boards: "list[Board]", folders: Sequence[Path], note: str | None, last: str) -> "list[Board]":
    """The boards with the command that makes this file alone."""
    from oodbench.records.files import PACKED

    words = ["oodbench leaderboard build", *(_argument(folder) for folder in folders)]
    if any((folder / PACKED).is_file() for folder in folders):
        words.append("--scores DIR")
    if note is not None:
        words.append(f"--note {quote(note)}")
    command = " ".join(word for word in (*words, last) if word)
    return [board.model_copy(update={"command": command}) for board in boards]


def _argument(path: Path) -> str:
    """A path as a command-line argument, quoted so that it is not taken for an option."""
    return quote(f"./{path}" if str(path).startswith("-") else str(path))


def _encoded(text: str) -> bytes:
    from oodbench.errors import UsageError

    try:
        return text.encode()
    except UnicodeEncodeError as cause:
        strange = text[cause.start : cause.end]
        raise UsageError(f"the board would hold {strange!r}, which is no text; see the note and the paths.") from cause


def _note(folders: Sequence[Path], note: str | None) -> str:
    from oodbench.errors import UsageError

    if note is not None:
        return note
    notes = []
    for file in (folder / NOTE for folder in folders):
        try:
            notes += [file.read_text(encoding="utf-8").strip()] if file.is_file() else []
        except (OSError, UnicodeDecodeError) as cause:
            raise UsageError(f"the note {file} cannot be read as UTF-8 text; mend it, or give --note.") from cause
    return "\n\n".join(notes)


def _published() -> list[Path]:
    from oodbench.records.files import PACKED

    return sorted({found.parent for name in ("records", PACKED) for found in PUBLISHED.glob(f"*/{name}")})


def _beside(folder: Path) -> list[Path]:
    from oodbench.leaderboard.drawing.formats import FORMATS

    # Not with_suffix: a folder may have a dot in its name.
    files = [folder.parent / f"{folder.name}{suffix}" for suffix in FORMATS]
    return [file for file in files if file.is_file()]


def _first_difference(published: bytes, expected: bytes) -> str | None:
    """The first difference between a published board and the expected one, as a sentence; None if there is none."""
    if published == expected:
        return None
    lines, expected_lines = published.decode(errors="replace").split("\n"), expected.decode().split("\n")
    for number, (line, expected_line) in enumerate(zip(lines, expected_lines, strict=False), start=1):
        if line != expected_line:
            pairs = zip(line, expected_line, strict=False)
            at = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(line), len(expected_line)))
            around = slice(max(0, at - 20), at + 40)
            return (
                f"differs from its records: line {number} has {line[around]!r}, and they give {expected_line[around]!r}"
            )
    return f"differs from its records: it has {len(lines)} lines, and they give {len(expected_lines)}"
