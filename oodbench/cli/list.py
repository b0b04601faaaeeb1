"""``oodbench list``."""

import json

import click

from oodbench import registry


@click.command(name="list", short_help="List the plugins of a kind.")
@click.argument("kind", type=click.Choice([*registry.KINDS, "plugins"]))
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(kind: str, as_json: bool) -> None:
    """List the plugins of a kind, or the packages that provide plugins; imports none of them."""
    if kind == "plugins":
        rows = [_of_distribution(name) for name in sorted({entry.distribution for entry in _every()})]
    else:
        rows = [
            {"name": entry.name, "from": f"{entry.distribution} {entry.version}", "target": entry.target}
            for entry in registry.entries(next(one for one in registry.KINDS if one == kind)).values()
        ]
    if as_json:
        click.echo(json.dumps(rows, indent=1))
        return
    widths = {key: max(len(str(row[key])) for row in rows) for key in rows[0]} if rows else {}
    for row in rows:
        click.echo("  ".join(str(row[key]).ljust(width) for key, width in widths.items()).rstrip())


def _every() -> list[registry.Entry]:
    return [entry for kind in registry.KINDS for entry in registry.entries(kind).values()]


def _of_distribution(name: str) -> dict[str, str]:
    mine = [entry for entry in _every() if entry.distribution == name]
    counts = [f"{sum(entry.kind == kind for entry in mine)} {kind}" for kind in registry.KINDS]
    return {
        "name": f"{name} {mine[0].version}",
        "provides": ", ".join(count for count in counts if not count.startswith("0 ")),
        "summary": mine[0].summary,
    }
