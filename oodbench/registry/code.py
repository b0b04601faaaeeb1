"""The code that a plugin or a user's own function depends on: files outside of installed packages, and their hash."""

import ast
import hashlib
import importlib.machinery
import importlib.util
import inspect
import json
import re
import sys
import sysconfig
import time
import types
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from itertools import accumulate
from pathlib import Path
from typing import Any

# Code whose modules are named at run time only may take in all files of its folder, up to so many.
MOST_FILES = 2000
_INSTALLED = ("site-packages", "dist-packages")
_IMPORTERS = ("import_module", "__import__")
# Functions that run a file, which may be any.
_LOADERS = ("spec_from_file_location", "run_path", "run_module", "SourceFileLoader", "exec")
# What changed after this may have been imported before it changed.
_STARTED = time.time()

_imported: dict[Path, str] = {}
"""Hash of each file at the time that ``forget_stale`` saw it first."""


def code_of(file: Path) -> str:
    """SHA-256 of a Python file and of all modules that it imports from outside installed packages.

    Imports inside functions count, and those of imported modules. Where the name of an imported module is computed,
    all modules that it may stand for count. A file that imports none has the hash of its content.

    Args:
        file: The file, which counts even if it is part of an installed package.
    """
    files = imported_files(file)
    own = _sha256(file)
    if not files:
        return own
    others = sorted((name, _sha256(path)) for name, path in files.items())
    return hashlib.sha256(json.dumps([own, others]).encode()).hexdigest()


def imported_files(file: Path) -> Mapping[str, Path]:
    """The modules that a file imports, directly or not, from outside installed packages: their files by name."""
    found: dict[str, Path] = {}
    start = file.resolve()
    waiting = [(_package_of(start)[1], start)]
    while waiting:
        package, path = waiting.pop()
        for name, module in _imports(path, package, [_package_of(path)[0], path.parent]):
            if name not in found and module != start:
                found[name] = module
                waiting.append((name if module.name == "__init__.py" else name.rpartition(".")[0], module))
    return found


def forget_stale(files: Mapping[str, Path]) -> None:
    """Forget modules that were imported from other files of the same name, or from files that were changed since.

    Args:
        files: The files that modules should come of, by the names of the modules.
    """
    digests = {path: _sha256(path) for path in files.values()}
    loaded = {name: _file_of(module) for name, module in list(sys.modules.items())}
    ours = {name: file for name, file in loaded.items() if name in files or file in digests}
    if any(file is None or file not in digests or _is_changed(file, digests[file]) for file in ours.values()):
        # What imports a stale module holds on to it, so that all of them go.
        for name in ours:
            if name != "__main__":
                del sys.modules[name]
    _imported.update(digests)


def own_module(name: str) -> Path | None:
    """The file of a module that can be imported and is of no installed package; None if it is none."""
    if not re.fullmatch(r"\w+(\.\w+)*", name):
        return None
    files = dict(_with_parents(name, [Path(place) for place in sys.path]))
    return files.get(name)


@contextmanager
def importable(folders: Sequence[Path]) -> Iterator[None]:
    """Put the folders first on the import path, inside the context."""
    before = list(sys.path)
    sys.path[:0] = [str(folder) for folder in folders]
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path[:] = before


def source_of(thing: object) -> str:
    """SHA-256 of what a function or an object's class does: its compiled code, defaults, and what it encloses or names.

    Objects that print their address are told apart by their class alone.
    """
    target: Any = thing if inspect.isroutine(thing) or inspect.isclass(thing) else type(thing)
    return hashlib.sha256(json.dumps(_parts_of(target, set())).encode()).hexdigest()


def is_ours(target: object) -> bool:
    """Whether a function or class is defined in oodbench."""
    return str(target.__module__).partition(".")[0] == "oodbench"


def own_code(target: object, *, is_of_process: bool) -> str:
    """Hash of a plugin's code, if it is a third party's; empty for ours, and for what no file defines.

    Args:
        target: The function or class of the plugin.
        is_of_process: Whether it was declared in this process, so that no file stands for its code.
    """
    if is_ours(target):
        return ""
    if is_of_process:
        return source_of(target)
    try:
        file = defining_file(target)
    except TypeError:  # of a compiled module
        file = None
    return "" if file is None else code_of(file)


def _parts_of(thing: object, seen: set[int]) -> list[Any]:
    """What a function or class consists of, as JSON values."""
    if id(thing) in seen:
        return []
    seen.add(id(thing))
    if inspect.isclass(thing):
        if is_installed_object(thing):
            return [thing.__module__, thing.__qualname__]
        own = [base for base in reversed(thing.__mro__) if not is_installed_object(base)]
        members = {name: value for base in own for name, value in vars(base).items()}
        return [[name, _value_of(value, seen)] for name, value in sorted(members.items())]
    function = inspect.unwrap(getattr(thing, "__func__", thing))  # type: ignore[arg-type]
    code = getattr(function, "__code__", None)
    if code is None or is_installed_object(function):
        return [str(getattr(function, "__module__", "")), str(getattr(function, "__qualname__", ""))]
    inside = inspect.getclosurevars(function)
    named = {**inside.nonlocals, **inside.globals}
    return [
        code.co_code.hex(),
        [_value_of(value, seen) for value in code.co_consts],
        list(code.co_names),
        _value_of(function.__defaults__, seen),
        _value_of(function.__kwdefaults__, seen),
        [[name, _value_of(value, seen)] for name, value in sorted(named.items())],
    ]


def _value_of(value: object, seen: set[int]) -> Any:  # noqa: ANN401
    """What stands for a value; its type alone if the value is an object that cannot be printed."""
    try:
        return _printed(value, seen)
    except Exception:  # of a user's own class, which may raise whatever it likes
        return type(value).__name__


def _printed(value: object, seen: set[int]) -> Any:  # noqa: ANN401
    if isinstance(value, types.CodeType):
        return [value.co_code.hex(), [_value_of(inner, seen) for inner in value.co_consts], list(value.co_names)]
    if isinstance(value, staticmethod | classmethod | property):
        value = value.fget if isinstance(value, property) else value.__func__
    if inspect.isfunction(value) or inspect.ismethod(value) or inspect.isclass(value):
        return _parts_of(value, seen)
    if inspect.ismodule(value):
        return value.__name__
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))


def is_installed_object(thing: object) -> bool:
    """Whether a function or class is built in, or defined in an installed package."""
    try:
        file = defining_file(thing)
    except TypeError:
        return True
    return file is not None and is_installed(file)


def defining_file(thing: object) -> Path | None:
    """The file that a function or class is defined in; None if there is none, as for what was typed at a prompt.

    Raises:
        TypeError: It is built in, or neither a function nor a class.
    """
    file = inspect.getsourcefile(thing)  # type: ignore[arg-type]
    return Path(file) if file is not None and Path(file).is_file() else None


def is_installed(file: Path) -> bool:
    """Whether a file belongs to an installed package (and no editable one), to Python or to oodbench itself."""
    resolved = file.resolve()
    if any(part in _INSTALLED for part in resolved.parts):
        return True
    return any(resolved.is_relative_to(folder) for folder in _own_folders())


@cache
def _own_folders() -> tuple[Path, ...]:
    """Folders of Python's own library and of oodbench, whose versions stand for their code."""
    paths = (sysconfig.get_path(name) for name in ("stdlib", "platstdlib"))
    return (*(Path(path).resolve() for path in paths if path), Path(__file__).resolve().parents[1])


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _file_of(module: object) -> Path | None:
    file = getattr(module, "__file__", None)
    return Path(file).resolve() if isinstance(file, str) else None


def _is_changed(file: Path, digest: str) -> bool:
    """Whether a file may have been changed since it was imported."""
    if file in _imported:
        return _imported[file] != digest
    return file.stat().st_mtime > _STARTED


def _package_of(file: Path) -> tuple[Path, str]:
    """The folder that the outermost package of a file is in, and the dotted name of the package; empty for none."""
    folder, names = file.parent, list[str]()
    while (folder / "__init__.py").is_file() and folder != folder.parent:
        names.insert(0, folder.name)
        folder = folder.parent
    return folder, ".".join(names)


def _imports(file: Path, package: str, roots: Sequence[Path]) -> Iterator[tuple[str, Path]]:
    """The modules that a file imports from outside installed packages, with their names."""
    if file.suffix != ".py":
        return
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):  # importing it will say so
        return
    nodes = list(ast.walk(tree))
    aliases = (alias for node in nodes if isinstance(node, ast.ImportFrom) for alias in node.names)
    importers = {*_IMPORTERS, *(alias.asname for alias in aliases if alias.name in _IMPORTERS and alias.asname)}
    for node in nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _with_parents(alias.name, roots)
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(node.module or "", node.level, package)
            yield from _with_parents(base, roots)
            for alias in node.names:
                yield from _with_parents(f"{base}.{alias.name}" if base else alias.name, roots)
        elif isinstance(node, ast.Call) and _called(node.func) in importers:
            names = [*node.args, *(keyword.value for keyword in node.keywords if keyword.arg == "name")]
            yield from _dynamic(names[0] if names else node, file, roots)
        elif isinstance(node, ast.Call) and _called(node.func) in _LOADERS:
            yield from _all_beside(file.parent, file)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.endswith(".py"):
            other = file.parent / node.value
            if "\0" not in node.value and other.is_file() and not is_installed(other):
                yield f"file {node.value}", other.resolve()


def _called(function: ast.expr) -> str:
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def _absolute(module: str, level: int, package: str) -> str:
    """The full name of a module that is imported relative to a package."""
    if not level:
        return module
    parents = package.split(".")
    base = parents[: len(parents) - level + 1]
    return ".".join([*base, module] if module else base)


def _dynamic(name: ast.expr, file: Path, roots: Sequence[Path]) -> Iterator[tuple[str, Path]]:
    """The modules that a computed name may stand for."""
    if isinstance(name, ast.Constant) and isinstance(name.value, str):
        yield from _with_parents(name.value.lstrip("."), roots)
        return
    first = name.values[0] if isinstance(name, ast.JoinedStr) and name.values else getattr(name, "left", None)
    prefix = str(first.value) if isinstance(first, ast.Constant) else ""
    package = prefix.rpartition(".")[0].lstrip(".")
    within = [path.parent for _, path in _with_parents(package, roots)] if package else []
    folder = within[-1] if within else file.parent
    yield from _all_beside(folder, file)


def _all_beside(folder: Path, file: Path) -> Iterator[tuple[str, Path]]:
    """All Python files of a folder, any of which a file may use."""
    for path in sorted(folder.rglob("*.py"))[:MOST_FILES]:
        if not is_installed(path) and path.resolve() != file:
            yield f"file {path.relative_to(folder).as_posix()}", path.resolve()


def _with_parents(name: str, roots: Sequence[Path]) -> Iterator[tuple[str, Path]]:
    """The files of a module and of the packages that it is in, if they are not installed."""
    if not re.fullmatch(r"\w+(\.\w+)*", name):
        return
    places: Sequence[str] | None = None
    for full in accumulate(name.split("."), "{}.{}".format):
        spec = _found(full, roots if places is None else [Path(place) for place in places], is_top=places is None)
        if spec is None:
            return
        if spec.origin and spec.has_location:
            if is_installed(Path(spec.origin)):
                return
            yield full, Path(spec.origin).resolve()
        if spec.submodule_search_locations is None:
            return
        places = list(spec.submodule_search_locations)


def _found(name: str, places: Sequence[Path], *, is_top: bool) -> importlib.machinery.ModuleSpec | None:
    """The specification of a module, without importing anything."""
    # By its last part, since the package that it is in may not be imported.
    last = name.rpartition(".")[2]
    spec = importlib.machinery.PathFinder.find_spec(last, [str(place) for place in dict.fromkeys(places)])
    if spec is not None or not is_top or name in sys.stdlib_module_names:
        return spec
    try:
        return importlib.util.find_spec(name)
    except (ImportError, ValueError, AttributeError):
        return None
