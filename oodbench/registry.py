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
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args

from oodbench.errors import MissingPrerequisiteError, UsageError

Kind = Literal["detectors", "datasets", "classifiers", "protocols", "suites"]
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True)
class Entry:
    """A plugin that is known by name and not loaded yet.

    Attributes:
        kind: One of ``KINDS``.
        name: The name that users type.
        target: ``module:attribute`` it is loaded from.
        distribution: The installed distribution, or the local file, that provides it.
        version: Version of that distribution; of a local file, the first 12 digits of its SHA-256.
        summary: One line about the distribution.
        load: Imports and returns the plugin.
    """

    kind: Kind
    name: str
    target: str
    distribution: str
    version: str
    summary: str
    load: Callable[[], Any]


_declared_here: dict[tuple[Kind, str], Entry] = {}


def entries(kind: Kind) -> dict[str, Entry]:
    """All plugins of one kind by name, without importing any of them."""
    declared = {name: entry for (of_kind, name), entry in _declared_here.items() if of_kind == kind}
    return dict(sorted((declared | _installed(kind)).items()))


def get(kind: Kind, name: str) -> Entry:
    """The plugin of that kind and name.

    Raises:
        UsageError: There is none; the sentence names the closest ones.
    """
    known = entries(kind)
    if name not in known:
        close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(close)}?" if close else f"see `oodbench list {kind}`."
        raise UsageError(f"no {kind[:-1]} is named {name!r}; {hint}")
    return known[name]


def load(kind: Kind, name: str) -> Any:  # noqa: ANN401
    """Import the plugin of that kind and name.

    Raises:
        UsageError: The name is unknown.
        MissingPrerequisiteError: Its package cannot be imported.
    """
    entry = get(kind, name)
    try:
        return entry.load()
    except Exception as cause:
        raise MissingPrerequisiteError(
            f"the {kind[:-1]} {name!r} of {entry.distribution} {entry.version} could not be loaded from "
            f"{entry.target}: {type(cause).__name__}: {cause}"
        ) from cause


def matching(kind: Kind, pattern: str) -> list[str]:
    """Names that match a glob such as ``grad-*``; a plain name matches itself.

    Raises:
        UsageError: Nothing matches.
    """
    if not any(character in pattern for character in "*?["):
        return [get(kind, pattern).name]
    names = fnmatch.filter(entries(kind), pattern)
    if not names:
        raise UsageError(f"no {kind[:-1]} matches {pattern!r}; see `oodbench list {kind}`.")
    return names


def declare(kind: Kind, name: str, plugin: Any, module: str, attribute: str) -> None:  # noqa: ANN401
    """Make a plugin known by name in this process; what the decorators do.

    Raises:
        UsageError: An installed package already provides that name from another module.
    """
    installed = _installed(kind).get(name)
    if installed and installed.target.partition(":")[0] != module:
        raise UsageError(
            f"the {kind[:-1]} name {name!r} of {module} is taken by {installed.distribution}; choose another name."
        )
    other = _declared_here.get((kind, name))
    file = getattr(sys.modules.get(module), "__oodbench_file__", None)
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
    found: dict[str, Entry] = {}
    for point in importlib.metadata.entry_points(group=f"oodbench.{kind}"):
        distribution = point.dist.name if point.dist else "unknown"
        version = point.dist.version if point.dist else "0"
        summary = (point.dist.metadata["Summary"] or "") if point.dist else ""
        entry = Entry(kind, point.name, point.value, distribution, version, summary, point.load)
        if point.name not in found or distribution == "oodbench":
            found[point.name] = entry
    return found
