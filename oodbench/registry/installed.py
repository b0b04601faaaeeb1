"""Plugins of installed packages, from their entry points; built-in plugins are entry points as well."""

import importlib.metadata
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import NoReturn

from oodbench.errors import UnusableNameError, described
from oodbench.registry.entry import NAME_RULE, Kind, PluginEntry, is_name, singular


def refresh() -> None:
    """Forget cached entry points, so that newly installed packages are noticed."""
    _distributions.cache_clear()
    installed.cache_clear()


def unreadable() -> dict[str, str]:
    """Installed distributions whose entry points cannot be read, with the reason."""
    return {
        distribution.name: distribution.problem for distribution in _distributions().values() if distribution.problem
    }


@dataclass(frozen=True)
class _Distribution:
    """An installed distribution that provides plugins, or a ``problem`` if its metadata cannot be read."""

    name: str
    version: str = "0"
    summary: str = ""
    points: tuple[importlib.metadata.EntryPoint, ...] = ()
    problem: str = ""


@cache
def _distributions() -> dict[str, _Distribution]:
    """Distributions with plugins by normalised name; the first on the path wins. Broken ones affect no other."""
    distributions: dict[str, importlib.metadata.Distribution] = {}
    for distribution in importlib.metadata.distributions():
        distributions.setdefault(
            _normalised(_folder_of(distribution).name.partition("-")[0].partition(".egg")[0]), distribution
        )
    providers = {name: read for name, distribution in distributions.items() if (read := _read(name, distribution))}
    owners = {
        point.name.partition("/")[0]
        for provider in providers.values()
        for point in provider.points
        if "/" in point.name
    }
    adapted = {name: _read(name, distributions[name], adapted=True) for name in owners & distributions.keys()}
    return providers | {name: provider for name, provider in adapted.items() if provider}


def _read(name: str, distribution: importlib.metadata.Distribution, *, adapted: bool = False) -> _Distribution | None:
    """Read the metadata of a distribution; None if it provides no plugins and ``adapted`` is False.

    Args:
        name: Normalised name, for broken metadata.
        distribution: The distribution.
        adapted: Whether another distribution provides plugins on its behalf.
    """
    try:
        points = tuple(point for point in distribution.entry_points if point.group.startswith("oodbench."))
        if not points and not adapted:
            return None
        # A missing field is None or a KeyError, depending on the library.
        fields = {key.casefold(): value for key, value in distribution.metadata.json.items() if isinstance(value, str)}
        return _Distribution(
            fields.get("name") or name, fields.get("version") or "0", fields.get("summary") or "", points
        )
    except Exception as cause:
        problem = f"its metadata in {_folder_of(distribution)} cannot be read: {described(cause)}."
        return _Distribution(name, problem=problem)


def _folder_of(distribution: importlib.metadata.Distribution) -> Path:
    """The folder of a distribution's metadata, which is set even if the metadata are broken."""
    return Path(str(getattr(distribution, "_path", "unknown")))


def _normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).casefold()


@cache
def installed(kind: Kind) -> dict[str, PluginEntry]:
    """The plugins of a kind in installed distributions, by the name that users type. Built-in names take precedence."""
    by_name: dict[str, list[PluginEntry]] = {}
    for entry in _entries(kind):
        by_name.setdefault(entry.name, []).append(entry)
    plugins: dict[str, PluginEntry] = {}
    for name, entries in by_name.items():
        candidates = sorted(entries, key=lambda entry: entry.distribution)
        ours = [entry for entry in candidates if entry.distribution == "oodbench"]
        if ours or len(candidates) == 1:
            plugins[name] = replace(
                (ours or candidates)[0],
                rivals=tuple(entry.distribution for entry in candidates if entry not in ours[:1]),
            )
        else:
            plugins[name] = _ambiguous(kind, name, candidates)
        for entry in candidates:
            if len(candidates) > 1 and entry not in ours[:1]:
                rivals = tuple(rival.distribution for rival in candidates if rival is not entry)
                plugins[entry.qualified] = replace(entry, name=entry.qualified, rivals=rivals)
    return plugins


def _entries(kind: Kind) -> Iterator[PluginEntry]:
    """An entry for each name that a distribution provides."""
    distributions = _distributions()
    for distribution in distributions.values():
        of_kind = [point for point in distribution.points if point.group == f"oodbench.{kind}"]
        for name, points in groupby(sorted(of_kind, key=attrgetter("name")), key=attrgetter("name")):
            targets = {point.value: point for point in points}
            # A plugin of oodbench named ``package/name`` adapts code of that package, and is listed as the package's.
            owner, _, rest = name.rpartition("/")
            if distribution.name == "oodbench" and owner in distributions:
                yield _entry(kind, rest, distributions[owner], targets)
            else:
                yield _entry(kind, name, distribution, targets)


def _entry(
    kind: Kind, name: str, distribution: _Distribution, targets: Mapping[str, importlib.metadata.EntryPoint]
) -> PluginEntry:
    target, *more = targets
    if not is_name(name):
        shown = "".join(character if character.isalnum() else "_" for character in name) or "_"
        return _refused(
            kind, shown, distribution, f"the name {name!r} of {distribution.name} is no name; expected {NAME_RULE}."
        )
    if more:
        stands_for = " and ".join(targets)
        return _refused(
            kind,
            name,
            distribution,
            f"{distribution.name} gives the name {name!r} to {stands_for}; one needs another name.",
        )
    return PluginEntry(
        kind, name, target, distribution.name, distribution.version, distribution.summary, targets[target].load
    )


def _refused(kind: Kind, name: str, distribution: _Distribution, sentence: str) -> PluginEntry:
    """An entry that cannot be loaded; loading it raises the sentence."""

    def refuse() -> NoReturn:
        raise UnusableNameError(sentence)

    return PluginEntry(kind, name, "", distribution.name, distribution.version, distribution.summary, refuse)


def _ambiguous(kind: Kind, name: str, candidates: list[PluginEntry]) -> PluginEntry:
    """The entry for a name that several distributions provide; loading it says how to pick a plugin."""

    def refuse() -> NoReturn:
        providers = " and ".join(f"{entry.distribution} {entry.version}" for entry in candidates)
        picks = " or ".join(entry.qualified for entry in candidates)
        raise UnusableNameError(f"the {singular(kind)} name {name!r} is provided by {providers}; write {picks}.")

    distributions = tuple(entry.distribution for entry in candidates)
    return PluginEntry(kind, name, "", " and ".join(distributions), "", "", refuse, distributions, "ambiguous")
