"""Looks up a classifier by name: a plugin, a function of the user's own, or a model of torchvision, timm or OpenOOD."""

import hashlib
import importlib
import importlib.util
import inspect
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from oodbench import registry
from oodbench.classifiers import hub
from oodbench.classifiers.openood import openood
from oodbench.classifiers.spec import Build, ClassifierSpec
from oodbench.errors import FROM_OUTSIDE, MissingPrerequisiteError, UsageError, described
from oodbench.registry.code import code_of, defining_file, forget_stale, importable, imported_files, is_installed

ARGUMENTS = ("channels", "size", "classes")
_OTHER_NAMES = ", torchvision:NAME, timm:NAME, openood:NAME, or one of `oodbench list classifiers`."
_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def find_classifier(name: str, folders: Sequence[Path], *, as_pretrained: bool = False) -> ClassifierSpec:
    """Look up a classifier by name; nothing is built yet.

    Args:
        name: Name of a plugin, ``module:factory``, ``file.py:factory``, ``torchvision:NAME``, ``timm:NAME`` or
            ``openood:NAME``.
        folders: Folders that are searched for the user's own modules and files, before installed modules.
        as_pretrained: Whether hidden parts of a library's network are built as for its pretrained weights.

    Raises:
        UsageError: The name is unknown, or its target cannot build a network.
        MissingPrerequisiteError: A file or a package is missing.
    """
    library, colon, model = name.partition(":")
    if not colon:
        entry = registry.get("classifiers", name)
        build = registry.load("classifiers", name)
        return ClassifierSpec(
            name, build, (entry.target, entry.distribution, entry.version), _code_of_plugin(build), plugin=entry
        )
    if library == "torchvision":
        return hub.torchvision(model, as_pretrained=as_pretrained)
    if library == "timm":
        return hub.timm(model)
    if library == "openood":
        return openood(model)
    factory, code = load_own("classifier", name, folders)
    build = make_builder(name, factory)

    beside = [folder / Path(name).parent for folder in folders]

    def build_beside(*values: int) -> nn.Module:
        with importable([*beside, *folders]):  # it may import more when it is called
            return build(*values)

    return ClassifierSpec(name, build_beside, (name.rpartition(":")[2], "", code), code)


def load_own(kind: str, name: str, folders: Sequence[Path]) -> tuple[Any, str]:
    """Import a function or class of the user's, and hash its name with its code and all that the code imports.

    Args:
        kind: What it is, for messages.
        name: ``module:attribute`` or ``file.py:attribute``.
        folders: Folders that are searched first.

    Raises:
        UsageError: It cannot be imported, or is not there.
        MissingPrerequisiteError: Its file, or a module that it needs, is missing.
    """
    target, _, attribute = name.rpartition(":")
    is_file = target.endswith(".py")
    files = [folder / Path(target if is_file else f"{target}.py").expanduser() for folder in folders]
    file = next((file for file in files if file.is_file()), None)
    if file is None and is_file:
        places = " and ".join(dict.fromkeys(map(str, files)))
        raise MissingPrerequisiteError(f"the {kind} {name} is not there: looked for the file {places}.")
    with importable([file.parent, *folders] if file else folders), _telling_import_errors(kind, name):
        source = file or _file_of(target)
        if source is not None:
            forget_stale({**imported_files(source), **({} if file else {target: source})})
        module = _import_file(file) if file else importlib.import_module(target)
        loaded = _attribute_of(kind, name, module, attribute)
        code = "" if source is None else code_of(source)
    return loaded, hashlib.sha256(json.dumps([attribute, code]).encode()).hexdigest()


def _file_of(module: str) -> Path | None:
    """The file of a module that can be imported; None if it has none."""
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return None
    return Path(spec.origin) if spec is not None and spec.has_location and spec.origin else None


def _code_of_plugin(build: Any) -> str:  # noqa: ANN401
    """Hash of the code of a plugin that is not of an installed package, whose version would stand for it."""
    try:
        file = defining_file(build)
    except TypeError:  # an object that can be called
        file = None
    return "" if file is None or is_installed(file) else code_of(file)


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
def _telling_import_errors(kind: str, name: str) -> Iterator[None]:
    """Turn errors that importing a user's module raises, inside the context, into a sentence."""
    target = name.rpartition(":")[0]
    try:
        yield
    except ModuleNotFoundError as cause:
        if cause.name is not None and f"{target}.".startswith(f"{cause.name}."):
            raise UsageError(
                f"the {kind} {name} names no module that there is ({cause.name}); expected module:function or "
                "file.py:function" + (_OTHER_NAMES if kind == "classifier" else ".")
            ) from cause
        raise MissingPrerequisiteError(f"the {kind} {name} needs the module {cause.name}; install it.") from cause
    except FROM_OUTSIDE:
        raise
    except BaseException as cause:
        raise UsageError(f"the {kind} {name} could not be imported: {described(cause)}") from cause


def _attribute_of(kind: str, name: str, module: ModuleType, attribute: str) -> Any:  # noqa: ANN401
    if not hasattr(module, attribute):
        own = [
            member for member, value in vars(module).items() if getattr(value, "__module__", None) == module.__name__
        ]  # fmt: skip
        offered = ", ".join(own) or "nothing"
        raise UsageError(f"the {kind} {name} names {attribute!r}, which is not there; expected one of: {offered}.")
    return getattr(module, attribute)


def make_builder(name: str, factory: Any) -> Build:  # noqa: ANN401
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
