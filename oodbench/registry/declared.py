"""Plugins that are declared in this process: by decorators, in a module or in a local plugin file."""

import hashlib
import importlib.util
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from oodbench.errors import FROM_OUTSIDE, MissingPrerequisiteError, UsageError, described
from oodbench.registry.code import forget_stale, importable, imported_files
from oodbench.registry.entry import NAME_RULE, Kind, PluginEntry, is_name, singular
from oodbench.registry.installed import installed

_declared: dict[tuple[Kind, str], PluginEntry] = {}


def find_declared(kind: Kind, name: str) -> PluginEntry | None:
    """The plugin of exactly this name that this process has declared, if there is one."""
    return _declared.get((kind, name))


def declared(kind: Kind) -> dict[str, PluginEntry]:
    """The plugins of a kind that are declared in this process, by name."""
    return {name: entry for (of_kind, name), entry in _declared.items() if of_kind == kind}


@contextmanager
def scoped() -> Iterator[None]:
    """Forget declarations made inside the context when it ends; for tests and notebooks."""
    before = dict(_declared)
    try:
        yield
    finally:
        _put_back(before)


def _put_back(before: Mapping[tuple[Kind, str], PluginEntry]) -> None:
    _declared.clear()
    _declared.update(before)


def declare(kind: Kind, name: str, plugin: Any, module: str, attribute: str) -> None:  # noqa: ANN401
    """Register a plugin in this process, unless its module is already registered by entry points.

    The decorators call this.

    Args:
        kind: Kind of the plugin.
        name: Name that users type.
        plugin: The plugin.
        module: Name of the module that declares it.
        attribute: Name of the decorated function or class in that module.

    Raises:
        UsageError: The name is malformed, or an installed package or another file already provides it.
    """
    if not is_name(name):
        raise UsageError(f"the {singular(kind)} name {name!r} of {module} is no name; expected {NAME_RULE}.")
    by_entry_point = installed(kind)
    if any(entry.target.partition(":")[0] == module for entry in by_entry_point.values()):
        return  # registered by its entry point
    file = getattr(sys.modules.get(module), "__oodbench_file__", None)
    if name in by_entry_point:
        raise UsageError(
            f"the {singular(kind)} name {name!r} of {file[0] if file else module} is taken by "
            f"{by_entry_point[name].distribution} {by_entry_point[name].version}; choose another name."
        )
    previous = _declared.get((kind, name))
    if previous and file and previous.distribution != file[0]:
        raise UsageError(
            f"the {singular(kind)} name {name!r} of {file[0]} is taken by {previous.distribution}; choose another name."
        )
    origin = file or (module, "0")
    _declared[kind, name] = PluginEntry(
        kind,
        name,
        f"{module}:{attribute}",
        origin[0],
        origin[1],
        f"declared in {origin[0]}",
        lambda: plugin,
        origin="file" if file else "process",
    )


def load_file(path: Path) -> None:
    """Run a local Python file whose decorators declare plugins.

    Raises:
        MissingPrerequisiteError: The file cannot be read.
        UsageError: The file cannot be run, or declares no plugin.
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
    before = dict(_declared)
    try:
        with importable([path.absolute().parent]):
            forget_stale(imported_files(path))
            spec.loader.exec_module(module)
    except BaseException as cause:
        _put_back(before)
        if type(cause) in FROM_OUTSIDE or issubclass(type(cause), UsageError):
            raise
        raise UsageError(f"the plugin file {path} could not be run: {described(cause)}") from cause
    if not any(entry.target.startswith(f"{spec.name}:") for entry in _declared.values()):
        raise UsageError(f"the plugin file {path} declares nothing; decorate a function with @oodbench.detector(…).")
