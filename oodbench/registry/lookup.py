"""Looks up plugins by kind and name; nothing is imported until a plugin is loaded."""

import difflib
import fnmatch
from typing import Any

from oodbench.errors import FROM_OUTSIDE, MissingPrerequisiteError, UnusableNameError, UsageError, described
from oodbench.registry.declared import declared, find_declared
from oodbench.registry.entry import Kind, PluginEntry, singular
from oodbench.registry.installed import installed


def entries(kind: Kind) -> dict[str, PluginEntry]:
    """All plugins of a kind by name, without importing any of them.

    A name that several packages provide has an entry that cannot be loaded; the error says how to pick a plugin.
    """
    return dict(sorted((declared(kind) | installed(kind)).items()))


def find(kind: Kind, name: str) -> PluginEntry | None:
    """The plugin of exactly that name; None if there is no such plugin."""
    return installed(kind).get(name) or find_declared(kind, name)


def get(kind: Kind, name: str) -> PluginEntry:
    """The plugin of a kind with that ``name`` or ``distribution/name``.

    Case and hyphens do not matter unless the name becomes ambiguous: ``ReAct`` is ``react``.

    Raises:
        UsageError: There is no such plugin; the message lists the closest names.
    """
    exact = find(kind, name)
    if exact is not None:
        return exact
    plugins = entries(kind)
    alike = [entry for entry in plugins.values() if _plain(name) in (_plain(entry.name), _plain(entry.qualified))]
    if len(alike) == 1:
        return alike[0]
    close = difflib.get_close_matches(name, plugins, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(close)}?" if close else f"see `oodbench list {kind}`."
    raise UsageError(f"no {singular(kind)} is named {name!r}; {hint}")


def _plain(name: str) -> str:
    distribution, slash, rest = name.rpartition("/")
    return distribution + slash + rest.replace("-", "").casefold()


def load(kind: Kind, name: str) -> Any:  # noqa: ANN401
    """Import the plugin of that kind and name.

    Raises:
        UsageError: The name is unknown, or stands for several plugins.
        MissingPrerequisiteError: Its package cannot be imported.
    """
    entry = get(kind, name)
    try:
        return entry.load()
    except (UnusableNameError, *FROM_OUTSIDE):
        raise
    except BaseException as cause:
        raise MissingPrerequisiteError(
            f"the {singular(kind)} {name!r} of {entry.distribution} {entry.version} could not be loaded from "
            f"{entry.target}: {described(cause)}"
        ) from cause


def matching(kind: Kind, pattern: str) -> list[str]:
    """Names that match a glob such as ``grad-*`` or ``pytorch-ood/*``; a plain name matches itself.

    As in a shell, ``*`` does not match a slash.

    Raises:
        UsageError: No name matches.
    """
    if not any(character in pattern for character in "*?["):
        return [get(kind, pattern).name]
    depth = pattern.count("/")
    names = [
        entry.name
        for entry in entries(kind).values()
        if any(name.count("/") == depth and fnmatch.fnmatch(name, pattern) for name in (entry.name, entry.qualified))
    ]
    if not names:
        raise UsageError(f"no {singular(kind)} matches {pattern!r}; see `oodbench list {kind}`.")
    return names
