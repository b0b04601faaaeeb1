"""Looks up a classifier by name: a plugin, a function of the user's own, or a model of torchvision or timm."""

import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from oodbench import registry
from oodbench.classifiers import hub
from oodbench.classifiers.spec import Build, ClassifierSpec
from oodbench.errors import FROM_OUTSIDE, MissingPrerequisiteError, UsageError, described

ARGUMENTS = ("channels", "size", "classes")
_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def find_classifier(name: str, folders: Sequence[Path], channels: int) -> ClassifierSpec:
    """Look up a classifier by name; nothing is built yet.

    Args:
        name: Name of a plugin, ``module:factory``, ``file.py:factory``, ``torchvision:NAME`` or ``timm:NAME``.
        folders: Folders that are searched for the user's own modules and files, before installed modules.
        channels: Number of channels of the images.

    Raises:
        UsageError: The name is unknown, or its target cannot build a network.
        MissingPrerequisiteError: A file or a package is missing.
    """
    library, colon, model = name.partition(":")
    if not colon:
        entry = registry.get("classifiers", name)
        origin = entry.target, entry.distribution, entry.version
        return ClassifierSpec(name, registry.load("classifiers", name), origin, plugin=entry)
    if library in ("torchvision", "timm"):
        return (hub.torchvision if library == "torchvision" else hub.timm)(model, channels)
    return _load_own(name, folders)


def _load_own(name: str, folders: Sequence[Path]) -> ClassifierSpec:
    target, _, attribute = name.rpartition(":")
    is_file = target.endswith(".py")
    files = [folder / Path(target if is_file else f"{target}.py").expanduser() for folder in folders]
    file = next((file for file in files if file.is_file()), None)
    if file is None and is_file:
        places = " and ".join(dict.fromkeys(map(str, files)))
        raise MissingPrerequisiteError(f"the classifier {name} is not there: looked for the file {places}.")
    with _importable([file.parent] if file else folders), _telling_import_errors(name):
        module = _import_file(file) if file else importlib.import_module(target)
    build = _make_builder(name, _attribute_of(name, module, attribute))
    source = file or Path(getattr(module, "__file__", None) or "")
    code = hashlib.sha256(source.read_bytes()).hexdigest() if source.is_file() else ""
    return ClassifierSpec(name, build, (attribute, "", code), code)


def _import_file(file: Path) -> ModuleType:
    """Import a file in its present state, even if a module of the same name was imported before."""
    digest = hashlib.sha256(file.read_bytes()).hexdigest()[:12]
    spec = importlib.util.spec_from_file_location(f"oodbench_classifier_{file.stem}_{digest}", file)
    assert spec is not None and spec.loader is not None, "it ends in .py"  # noqa: PT018
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@contextmanager
def _importable(folders: Sequence[Path]) -> Iterator[None]:
    """Put the folders first on the import path, inside the context."""
    before = list(sys.path)
    sys.path[:0] = [str(folder) for folder in folders]
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path[:] = before


@contextmanager
def _telling_import_errors(name: str) -> Iterator[None]:
    """Turn errors that importing a user's module raises, inside the context, into a sentence."""
    target = name.rpartition(":")[0]
    try:
        yield
    except ModuleNotFoundError as cause:
        if cause.name is not None and f"{target}.".startswith(f"{cause.name}."):
            raise UsageError(
                f"the classifier {name} names no module that there is ({cause.name}); expected module:factory, "
                "file.py:factory, torchvision:NAME, timm:NAME, or one of `oodbench list classifiers`."
            ) from cause
        raise MissingPrerequisiteError(f"the classifier {name} needs the module {cause.name}; install it.") from cause
    except FROM_OUTSIDE:
        raise
    except BaseException as cause:
        raise UsageError(f"the classifier {name} could not be imported: {described(cause)}") from cause


def _attribute_of(name: str, module: ModuleType, attribute: str) -> Any:  # noqa: ANN401
    if not hasattr(module, attribute):
        own = [
            member for member, value in vars(module).items() if getattr(value, "__module__", None) == module.__name__
        ]  # fmt: skip
        offered = ", ".join(own) or "nothing"
        raise UsageError(f"the classifier {name} names {attribute!r}, which is not there; expected one of: {offered}.")
    return getattr(module, attribute)


def _make_builder(name: str, factory: Any) -> Build:  # noqa: ANN401
    """Wrap a factory so that it is called with those of ``ARGUMENTS`` that it takes.

    Raises:
        UsageError: The factory cannot be called, or requires other arguments.
    """
    if isinstance(factory, nn.Module) or not callable(factory):
        raise UsageError(
            f"the classifier {name} is a {type(factory).__name__}; expected a function or class that builds a network."
        )
    offered = inspect.signature(factory).parameters.values()
    takes_all = any(parameter.kind is parameter.VAR_KEYWORD for parameter in offered)
    needed = [
        parameter.name
        for parameter in offered
        if parameter.default is parameter.empty and parameter.kind not in _VARIADIC
    ]
    strange = [argument for argument in needed if argument not in ARGUMENTS]
    if strange:
        raise UsageError(
            f"the classifier {name} needs an argument {strange[0]!r}; expected a function of some of "
            f"{', '.join(ARGUMENTS)}, all else with a default."
        )
    passed = [argument for argument in ARGUMENTS if takes_all or argument in (parameter.name for parameter in offered)]

    def build(*values: int) -> nn.Module:
        by_name = dict(zip(ARGUMENTS, values, strict=True))
        network: nn.Module = factory(**{argument: by_name[argument] for argument in passed})
        return network

    return build
