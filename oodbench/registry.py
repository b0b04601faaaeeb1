"""Every plugin by kind and name: entry points of installed packages, local files, and decorators of this process.

Nothing is imported until a plugin is loaded; the built-in plugins are entry points like everybody else's.
"""

import difflib
import fnmatch
import hashlib
import importlib.metadata
import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal, NoReturn, get_args

from oodbench.errors import AmbiguousNameError, MissingPrerequisiteError, UsageError, one_line

Kind = Literal["detectors", "datasets", "classifiers", "protocols", "suites"]
KINDS: tuple[Kind, ...] = get_args(Kind)


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


def get(kind: Kind, name: str) -> Entry:
    """The plugin of that kind and name, or ``distribution/name``.

    Case and hyphens do not matter where only one plugin is meant: ``ReAct`` is ``react``.

    Raises:
        UsageError: There is none; the sentence names the closest ones.
    """
    known = entries(kind)
    if name in known:
        return known[name]
    alike = [entry for entry in known.values() if _plain(name) in (_plain(entry.name), _plain(entry.qualified))]
    if len(alike) == 1:
        return alike[0]
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(close)}?" if close else f"see `oodbench list {kind}`."
    raise UsageError(f"no {kind[:-1]} is named {name!r}; {hint}")


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
    except AmbiguousNameError:
        raise
    except (Exception, SystemExit) as cause:
        raise MissingPrerequisiteError(
            f"the {kind[:-1]} {name!r} of {entry.distribution} {entry.version} could not be loaded from "
            f"{entry.target}: {type(cause).__name__}: {one_line(cause)}"
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
        UsageError: An installed package already provides that name from another module.
    """
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
    except (Exception, SystemExit) as cause:
        _declared_here.clear()
        _declared_here.update(before)
        if isinstance(cause, UsageError):
            raise
        raise UsageError(f"the plugin file {path} could not be run: {type(cause).__name__}: {cause}") from cause
    if not any(entry.target.startswith(f"{spec.name}:") for entry in _declared_here.values()):
        raise UsageError(f"the plugin file {path} declares nothing; decorate a function with @oodbench.detector(…).")


@cache
def _installed(kind: Kind) -> dict[str, Entry]:
    """Entry points of installed distributions; a built-in name cannot be shadowed."""
    by_name: dict[str, list[Entry]] = {}
    for point in importlib.metadata.entry_points(group=f"oodbench.{kind}"):
        entry = _entry(kind, point)
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


def _entry(kind: Kind, point: importlib.metadata.EntryPoint) -> Entry:
    """An entry point; one of ours named ``package/name`` adapts a plugin of that package, and counts as its."""
    name, distribution = point.name, point.dist
    owner, slash, rest = point.name.rpartition("/")
    if slash and distribution is not None and distribution.name == "oodbench":
        name, distribution = rest, importlib.metadata.distribution(owner)
    return Entry(
        kind,
        name,
        point.value,
        distribution.name if distribution else "unknown",
        distribution.version if distribution else "0",
        (distribution.metadata["Summary"] or "") if distribution else "",
        point.load,
    )


def _ambiguous(kind: Kind, name: str, same: list[Entry]) -> Entry:
    """What a name stands for that several distributions provide."""

    def refuse() -> NoReturn:
        providers = " and ".join(f"{entry.distribution} {entry.version}" for entry in same)
        picks = " or ".join(entry.qualified for entry in same)
        raise AmbiguousNameError(f"the {kind[:-1]} name {name!r} is provided by {providers}; write {picks}.")

    distributions = tuple(entry.distribution for entry in same)
    return Entry(kind, name, "", " and ".join(distributions), "", "", refuse, distributions)
