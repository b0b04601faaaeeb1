"""``oodbench leaderboard``."""

from pathlib import Path

import click


@click.group(name="leaderboard", short_help="Render boards from records.")
def command() -> None:
    """Render boards from records."""


@command.command()
@click.argument("folders", nargs=-1, type=click.Path(path_type=Path), metavar="[DIR]...")
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE.md",
    help="File of the board. Default: stdout.",
)
@click.option("--note", default="", help="A remark for the head of the board.")  # fmt: skip
def build(folders: tuple[Path, ...], out: Path | None, note: str) -> None:
    """Render a markdown board from the records in results folders (default: oodbench-results)."""
    from oodbench.atomic import write_output
    from oodbench.errors import UsageError
    from oodbench.leaderboard.markdown import board
    from oodbench.records.store import read_records

    records = read_records(folders or (Path("oodbench-results"),))
    whole = [record for record in records if record.suite.limit is None]
    if len(whole) < len(records):
        click.echo(f"{len(records) - len(whole)} records of runs with --limit are left out.", err=True)
    if not whole:
        raise UsageError("all records are of runs with --limit, which no board may hold; run without it.")
    text = board(whole, note)
    if out is None:
        click.echo(text, nl=False)
    else:
        write_output(out, "--out", lambda path: Path(path).write_text(text, encoding="utf-8"))
        click.echo(f"{out}: {len(whole)} records.", err=True)
