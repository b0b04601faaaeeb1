"""``oodbench cache``."""

import json
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from oodbench.cache.upkeep import CacheEntry


class _Size(click.ParamType[int]):
    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:  # noqa: ANN401
        from pydantic import ByteSize, TypeAdapter, ValidationError

        try:
            return int(TypeAdapter(ByteSize).validate_python(value))
        except ValidationError:
            self.fail(f"{value!r} is no size; expected a number of bytes, such as 500MB or 10GiB.", param, ctx)


@click.group(name="cache", short_help="Look after trained weights and evidence.")
def command() -> None:
    """Look after the cache of trained weights and evidence ($OODBENCH_CACHE, else a folder of the user).

    Whatever is not there is computed again, so that any of it may be deleted at any time.
    """


@command.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def status(as_json: bool) -> None:
    """Say how much there is of each kind, and when it was last used."""
    from oodbench.cache.entries import KINDS
    from oodbench.cache.upkeep import cache_entries
    from oodbench.cli.terminal import print_table, stdout
    from oodbench.files.folders import cache_folder

    entries = cache_entries(cache_folder())
    rows = [_summary(kind, [entry for entry in entries if entry.kind == kind]) for kind in KINDS]
    if as_json:
        click.echo(json.dumps({"folder": str(cache_folder()), "kinds": rows}, indent=1))
        return
    drawn = [[row["kind"], f"{row['entries']:,}", size(row["bytes"]), row["last_used"] or "—"] for row in rows]
    print_table(stdout(), ["kind", "entries", "size", "last used"], drawn, f"cache in {cache_folder()}")


@command.command()
def verify() -> int:
    """Read every entry; name and remove those that are damaged. Exit status 1 if there were any."""
    from oodbench.cache.upkeep import cache_entries, discard_damaged
    from oodbench.cli.terminal import progress
    from oodbench.files.folders import cache_folder

    entries = cache_entries(cache_folder())
    with progress() as track:
        damaged = discard_damaged(entries, track)
    for entry, reason in damaged:
        click.echo(f"removed {entry.file}: {reason}")
    click.echo(f"{len(entries)} entries, {len(damaged)} damaged.")
    return 1 if damaged else 0


@command.command()
@click.option("--max-size", type=_Size(), required=True, metavar="SIZE", help="What may stay: 500MB, 10GiB, 0.")
def gc(max_size: int) -> None:
    """Remove the least recently used entries until the others take at most --max-size."""
    from oodbench.cache.upkeep import cache_entries, shrink
    from oodbench.files.folders import cache_folder

    removed = shrink(cache_folder(), max_size)
    left = cache_entries(cache_folder())
    click.echo(
        f"removed {len(removed)} entries ({size(sum(entry.size for entry in removed))}); "
        f"{len(left)} are left ({size(sum(entry.size for entry in left))})."
    )


def size(count: int) -> str:
    """A number of bytes as text, with a unit."""
    from pydantic import ByteSize

    return ByteSize(count).human_readable(separator=" ")


def _summary(kind: str, entries: "Sequence[CacheEntry]") -> dict[str, Any]:
    last = max((entry.used for entry in entries), default=None)
    return {
        "kind": kind,
        "entries": len(entries),
        "bytes": sum(entry.size for entry in entries),
        "last_used": None if last is None else datetime.fromtimestamp(last).astimezone().isoformat(timespec="seconds"),
    }
