"""``oodbench list``."""

import json
from collections.abc import Iterator
from pathlib import Path

import click

from oodbench import registry
from oodbench.cli.options import plugin_option
from oodbench.cli.output import results_only
from oodbench.errors import OodbenchError, one_line

# A plugin whose import takes longer is called broken.
IMPORT_S = 60.0


@click.command(name="list", short_help="List the plugins of a kind.")
@click.argument("kind", type=click.Choice([*registry.KINDS, "plugins"]))
@plugin_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(kind: str, plugins: tuple[Path, ...], as_json: bool) -> None:
    """List the plugins of a kind without importing any; or the packages that provide plugins, and which are broken."""
    with results_only():
        for file in plugins:
            registry.load_file(file)
        rows = _packages() if kind == "plugins" else _of_kind(next(known for known in registry.KINDS if known == kind))
    if as_json:
        click.echo(json.dumps(rows, indent=1))
        return
    widths = {key: max(len(str(row[key])) for row in rows) for key in rows[0]} if rows else {}
    for row in rows:
        click.echo("  ".join(str(row[key]).ljust(width) for key, width in widths.items()).rstrip())


def _of_kind(kind: registry.Kind) -> list[dict[str, str]]:
    return [
        {"name": entry.name, "from": f"{entry.distribution} {entry.version}", "target": entry.target}
        for entry in registry.entries(kind).values()
    ]


def _packages() -> list[dict[str, str]]:
    return [_of_distribution(name) for name in _distributions()] + [
        {"name": name, "provides": "", "problems": problem, "summary": ""}
        for name, problem in registry.unreadable().items()
    ]


def _unambiguous_entries() -> list[registry.PluginEntry]:
    return [
        entry for kind in registry.KINDS for entry in registry.entries(kind).values() if entry.origin != "ambiguous"
    ]


def _distributions() -> list[str]:
    return sorted({entry.distribution for entry in _unambiguous_entries()})


def _of_distribution(name: str) -> dict[str, str]:
    mine = [entry for entry in _unambiguous_entries() if entry.distribution == name]
    numbers = {kind: sum(entry.kind == kind for entry in mine) for kind in registry.KINDS}
    counts = [f"{n} {kind if n > 1 else registry.singular(kind)}" for kind, n in numbers.items() if n]
    return {
        "name": f"{name} {mine[0].version}",
        "provides": ", ".join(counts),
        "problems": " ".join(problem for entry in mine for problem in _problems(entry)),
        "summary": mine[0].summary,
    }


def _problems(entry: registry.PluginEntry) -> Iterator[str]:
    """What is wrong with a plugin, in sentences; it is imported to find out."""
    from oodbench.conformance.loading import load_plugin
    from oodbench.registry.isolation import TimeLimit, isolated, time_limit

    # Those of other packages that oodbench adapts stand beside its own on purpose.
    if "/" in entry.name and not entry.target.startswith("oodbench."):
        plain = entry.name.rpartition("/")[2]
        yield f"the name {plain!r} in {entry.kind} is also that of {' and '.join(entry.rivals)}: use {entry.name!r}."
    try:
        with isolated(0), time_limit(TimeLimit(IMPORT_S)):
            load_plugin(entry.kind, entry.name)
    except OodbenchError as error:
        yield f"{one_line(error).rstrip('.')}."
