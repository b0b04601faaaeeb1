"""Every plugin by kind and name: entry points of installed packages, local files, and decorators of this process.

Nothing is imported until a plugin is loaded; the built-in plugins are entry points like everybody else's.
"""

import difflib
import fnmatch
import hashlib
import importlib.metadata
import importlib.util
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Any, Literal, NoReturn, get_args

from oodbench.errors import FROM_OUTSIDE, MissingPrerequisiteError, UnusableNameError, UsageError, described

Kind = Literal["detectors", "datasets", "classifiers", "protocols", "suites"]
KINDS: tuple[Kind, ...] = get_args(Kind)
NAMES = "letters, digits, '.', '_' and '-', beginning with a letter or a digit"


@dataclass(frozen=True)
class Entry:
    """A plugin that is known by name and not loaded yet.

    Attributes:
        kind: One of ``KINDS``.
        name: The name that users type; ``distribution/name`` where the name alone means another plugin, or several.
        target: ``module:attribute`` it is loaded from.
        distribution: The installed distribution, or the local file, that provides it.
        version: Version of that distribution; of a local file, the first 12 digits of its SHA-256.
        summary: One line about the distribution.
        load: Imports and returns the plugin.
        rivals: Distributions that provide other plugins of that name.
    """

    kind: Kind
    name: str
    target: str
    distribution: str
    version: str
    summary: str
    load: Callable[[], Any]
    rivals: tuple[str, ...] = ()

    @property
    def qualified(self) -> str:
        """``distribution/name``."""
        return self.name if "/" in self.name else f"{self.distribution}/{self.name}"


_declared_here: dict[tuple[Kind, str], Entry] = {}


def entries(kind: Kind) -> dict[str, Entry]:
    """All plugins of one kind by name, without importing any of them.

    A name that several packages provide stands for none of theirs: loading it says how to pick one.
    """
    declared = {name: entry for (of_kind, name), entry in _declared_here.items() if of_kind == kind}
    return dict(sorted((declared | _installed(kind)).items()))


def find(kind: Kind, name: str) -> Entry | None:
    """The plugin of exactly that name, if there is one."""
    return _installed(kind).get(name) or _declared_here.get((kind, name))


def get(kind: Kind, name: str) -> Entry:
    """The plugin of that kind and name, or ``distribution/name``.

    Case and hyphens do not matter where only one plugin is meant: ``ReAct`` is ``react``.

    Raises:
        UsageError: There is none; the sentence names the closest ones.
    """
    found = find(kind, name)
    if found is not None:
        return found
    known = entries(kind)
    alike = [entry for entry in known.values() if _plain(name) in (_plain(entry.name), _plain(entry.qualified))]
    if len(alike) == 1:
        return alike[0]
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(close)}?" if close else f"see `oodbench list {kind}`."
    raise UsageError(f"no {kind[:-1]} is named {name!r}; {hint}")


def _is_name(name: object) -> bool:
    return isinstance(name, str) and re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name) is not None


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
            f"the {kind[:-1]} {name!r} of {entry.distribution} {entry.version} could not be loaded from "
            f"{entry.target}: {described(cause)}"
        ) from cause


def matching(kind: Kind, pattern: str) -> list[str]:
    """Names that match a glob such as ``grad-*`` or ``pytorch-ood/*``; a plain name matches itself.

    As in a shell, ``*`` stops at a slash.

    Raises:
        UsageError: Nothing matches.
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
        raise UsageError(f"no {kind[:-1]} matches {pattern!r}; see `oodbench list {kind}`.")
    return names


def declare(kind: Kind, name: str, plugin: Any, module: str, attribute: str) -> None:  # noqa: ANN401
    """Make a plugin known by name in this process, unless an entry point does; what the decorators do.

    Raises:
        UsageError: It is no name, or an installed package already provides it from another module.
    """
    if not _is_name(name):
        raise UsageError(f"the {kind[:-1]} name {name!r} of {module} is no name; expected {NAMES}.")
    installed = _installed(kind)
    if any(entry.target.partition(":")[0] == module for entry in installed.values()):
        return  # known by its entry point
    file = getattr(sys.modules.get(module), "__oodbench_file__", None)
    if name in installed:
        raise UsageError(
            f"the {kind[:-1]} name {name!r} of {file[0] if file else module} is taken by "
            f"{installed[name].distribution} {installed[name].version}; choose another name."
        )
    other = _declared_here.get((kind, name))
    if other and file and other.distribution != file[0]:
        raise UsageError(
            f"the {kind[:-1]} name {name!r} of {file[0]} is taken by {other.distribution}; choose another name."
        )
    origin = file or (module, "0")
    _declared_here[kind, name] = Entry(
        kind, name, f"{module}:{attribute}", origin[0], origin[1], f"declared in {origin[0]}", lambda: plugin
    )


def load_file(path: Path) -> None:
    """Run a local Python file whose decorators declare plugins.

    Raises:
        MissingPrerequisiteError: There is no such file.
        UsageError: It cannot be run, or declares nothing.
    """
    try:
        content = path.read_bytes()
    except OSError as cause:
        raise MissingPrerequisiteError(f"the plugin file {path} cannot be read: {cause.strerror}.") from cause
    digest = hashlib.sha256(content).hexdigest()[:12]
    spec = importlib.util.spec_from_file_location(f"oodbench_plugin_{path.stem}_{digest}", path)
    if spec is None or spec.loader is None:
        raise UsageError(f"the plugin file {path} is not Python; expected a file that ends in .py.")
    module = importlib.util.module_from_spec(spec)
    module.__oodbench_file__ = (path.name, digest)  # type: ignore[attr-defined]
    sys.modules[spec.name] = module
    before = dict(_declared_here)
    try:
        spec.loader.exec_module(module)
    except BaseException as cause:
        _declared_here.clear()
        _declared_here.update(before)
        if type(cause) in FROM_OUTSIDE or issubclass(type(cause), UsageError):
            raise
        raise UsageError(f"the plugin file {path} could not be run: {described(cause)}") from cause
    if not any(entry.target.startswith(f"{spec.name}:") for entry in _declared_here.values()):
        raise UsageError(f"the plugin file {path} declares nothing; decorate a function with @oodbench.detector(…).")


def refresh() -> None:
    """Look again at what is installed."""
    _distributions.cache_clear()
    _installed.cache_clear()


def unreadable() -> dict[str, str]:
    """Installed distributions whose entry points cannot be read, and why."""
    return {found.name: found.problem for found in _distributions().values() if found.problem}


@dataclass(frozen=True)
class _Distribution:
    """An installed distribution that provides plugins, or whose ``problem`` keeps it from that."""

    name: str
    version: str = "0"
    summary: str = ""
    points: tuple[importlib.metadata.EntryPoint, ...] = ()
    problem: str = ""


@cache
def _distributions() -> dict[str, _Distribution]:
    """By normalised name, as the first on the path; a broken one costs nobody else anything."""
    found: dict[str, importlib.metadata.Distribution] = {}
    for one in importlib.metadata.distributions():
        found.setdefault(_normalised(_folder_of(one).name.partition("-")[0].partition(".egg")[0]), one)
    providers = {name: read for name, one in found.items() if (read := _read(name, one))}
    owners = {point.name.partition("/")[0] for of in providers.values() for point in of.points if "/" in point.name}
    adapted = {name: _read(name, found[name], adapted=True) for name in owners & found.keys()}
    return providers | {name: of for name, of in adapted.items() if of}


def _read(name: str, distribution: importlib.metadata.Distribution, *, adapted: bool = False) -> _Distribution | None:
    """What it says of itself; None of one that provides nothing, unless its plugins are adapted."""
    try:
        points = tuple(point for point in distribution.entry_points if point.group.startswith("oodbench."))
        if not points and not adapted:
            return None
        # What is not there is None or a KeyError, by the library that reads it.
        known = {key.casefold(): value for key, value in distribution.metadata.json.items() if isinstance(value, str)}
        return _Distribution(known.get("name") or name, known.get("version") or "0", known.get("summary") or "", points)
    except Exception as cause:
        problem = f"its metadata in {_folder_of(distribution)} cannot be read: {described(cause)}."
        return _Distribution(name, problem=problem)


def _folder_of(distribution: importlib.metadata.Distribution) -> Path:
    """Where its metadata are, which the standard library knows even of one without any."""
    return Path(str(getattr(distribution, "_path", "unknown")))


def _normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).casefold()


@cache
def _installed(kind: Kind) -> dict[str, Entry]:
    """Entry points of installed distributions; a built-in name cannot be shadowed."""
    by_name: dict[str, list[Entry]] = {}
    for entry in _entries(kind):
        by_name.setdefault(entry.name, []).append(entry)
    found: dict[str, Entry] = {}
    for name, unsorted in by_name.items():
        same = sorted(unsorted, key=lambda entry: entry.distribution)
        ours = [entry for entry in same if entry.distribution == "oodbench"]
        if ours or len(same) == 1:
            found[name] = replace((ours or same)[0], rivals=tuple(e.distribution for e in same if e not in ours[:1]))
        else:
            found[name] = _ambiguous(kind, name, same)
        for entry in same:
            if len(same) > 1 and entry not in ours[:1]:
                others = tuple(other.distribution for other in same if other is not entry)
                found[entry.qualified] = replace(entry, name=entry.qualified, rivals=others)
    return found


def _entries(kind: Kind) -> Iterator[Entry]:
    """One for each name that a distribution provides."""
    distributions = _distributions()
    for distribution in distributions.values():
        of_kind = [point for point in distribution.points if point.group == f"oodbench.{kind}"]
        for name, points in groupby(sorted(of_kind, key=attrgetter("name")), key=attrgetter("name")):
            targets = {point.value: point for point in points}
            # One of ours named ``package/name`` adapts a plugin of that package, and counts as its.
            owner, _, rest = name.rpartition("/")
            if distribution.name == "oodbench" and owner in distributions:
                yield _entry(kind, rest, distributions[owner], targets)
            else:
                yield _entry(kind, name, distribution, targets)


def _entry(kind: Kind, name: str, of: _Distribution, targets: Mapping[str, importlib.metadata.EntryPoint]) -> Entry:
    target, *others = targets
    if not _is_name(name):
        shown = "".join(character if character.isalnum() else "_" for character in name) or "_"
        return _refused(kind, shown, of, f"the name {name!r} of {of.name} is no name; expected {NAMES}.")
    if others:
        stands_for = " and ".join(targets)
        return _refused(kind, name, of, f"{of.name} gives the name {name!r} to {stands_for}; one needs another name.")
    return Entry(kind, name, target, of.name, of.version, of.summary, targets[target].load)


def _refused(kind: Kind, name: str, of: _Distribution, sentence: str) -> Entry:
    """What cannot be loaded, whoever asks."""

    def refuse() -> NoReturn:
        raise UnusableNameError(sentence)

    return Entry(kind, name, "", of.name, of.version, of.summary, refuse)


def _ambiguous(kind: Kind, name: str, same: list[Entry]) -> Entry:
    """What a name stands for that several distributions provide."""

    def refuse() -> NoReturn:
        providers = " and ".join(f"{entry.distribution} {entry.version}" for entry in same)
        picks = " or ".join(entry.qualified for entry in same)
        raise UnusableNameError(f"the {kind[:-1]} name {name!r} is provided by {providers}; write {picks}.")

    distributions = tuple(entry.distribution for entry in same)
    return Entry(kind, name, "", " and ".join(distributions), "", "", refuse, distributions)
