"""What builds a classifier: a plugin, a function of the user's own, or torchvision or timm by a model's name."""

import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from oodbench import registry
from oodbench.errors import FROM_OUTSIDE, MissingPrerequisiteError, UsageError, described

Build = Callable[[int, int, int], nn.Module]
"""From the channels of the images, their height and width, and the number of known classes."""
ARGUMENTS = ("channels", "size", "classes")
_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


@dataclass(frozen=True)
class Blueprint:
    """What a classifier is built by, before it has weights.

    Attributes:
        name: What the user asked for.
        build: Makes the untrained network.
        origin: What tells its code from others': a name in it, who provides it, and the version of that.
        code: Hash of the user's own file that it is in; empty if it is an installed package's.
        pretrained: Makes the network with weights that its package has for it, maybe by a download.
    """

    name: str
    build: Build
    origin: tuple[str, str, str]
    code: str = ""
    pretrained: Build | None = None


def find_blueprint(name: str, folders: Sequence[Path], channels: int) -> Blueprint:
    """What builds the classifier that a user names.

    Args:
        name: Of a plugin, ``module:factory``, ``file.py:factory``, ``torchvision:NAME`` or ``timm:NAME``.
        folders: Where the user's own modules and files are looked for, before any installed module.
        channels: Of the images.

    Raises:
        UsageError: There is nothing of that name, or it cannot build a network.
        MissingPrerequisiteError: A file or package that it needs is not there.
    """
    library, colon, model = name.partition(":")
    if not colon:
        entry = registry.get("classifiers", name)
        return Blueprint(name, registry.load("classifiers", name), (entry.target, entry.distribution, entry.version))
    if library in ("torchvision", "timm"):
        from oodbench.classifiers import hub

        return (hub.torchvision if library == "torchvision" else hub.timm)(model, channels)
    return _own(name, folders)


def _own(name: str, folders: Sequence[Path]) -> Blueprint:
    target, _, attribute = name.rpartition(":")
    is_file = target.endswith(".py")
    files = [folder / Path(target if is_file else f"{target}.py").expanduser() for folder in folders]
    file = next((file for file in files if file.is_file()), None)
    if file is None and is_file:
        places = " and ".join(dict.fromkeys(map(str, files)))
        raise MissingPrerequisiteError(f"the classifier {name} is not there: looked for the file {places}.")
    with _importable([file.parent] if file else folders), _told(name):
        module = _run(file) if file else importlib.import_module(target)
    build = _builder(name, _attribute(name, module, attribute))
    source = file or Path(getattr(module, "__file__", None) or "")
    code = hashlib.sha256(source.read_bytes()).hexdigest() if source.is_file() else ""
    return Blueprint(name, build, (attribute, "", code), code)


def _run(file: Path) -> ModuleType:
    """The module in a file as it is now, whatever was imported from a file of that name before."""
    digest = hashlib.sha256(file.read_bytes()).hexdigest()[:12]
    spec = importlib.util.spec_from_file_location(f"oodbench_classifier_{file.stem}_{digest}", file)
    assert spec is not None and spec.loader is not None, "it ends in .py"  # noqa: PT018
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@contextmanager
def _importable(folders: Sequence[Path]) -> Iterator[None]:
    """Modules in the folders can be imported, as those beside a script can."""
    before = list(sys.path)
    sys.path[:0] = [str(folder) for folder in folders]
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path[:] = before


@contextmanager
def _told(name: str) -> Iterator[None]:
    """What goes wrong when a user's module is imported, as one sentence."""
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


def _attribute(name: str, module: ModuleType, attribute: str) -> Any:  # noqa: ANN401
    if not hasattr(module, attribute):
        own = [
            each for each, value in vars(module).items() if getattr(value, "__module__", None) == module.__name__
        ]  # fmt: skip
        found = ", ".join(own) or "nothing"
        raise UsageError(f"the classifier {name} names {attribute!r}, which is not there; expected one of: {found}.")
    return getattr(module, attribute)


def _builder(name: str, factory: Any) -> Build:  # noqa: ANN401
    """Call the factory with those arguments that it has."""
    if isinstance(factory, nn.Module) or not callable(factory):
        raise UsageError(
            f"the classifier {name} is a {type(factory).__name__}; expected a function or class that builds a network."
        )
    offered = inspect.signature(factory).parameters.values()
    takes_all = any(one.kind is one.VAR_KEYWORD for one in offered)
    needed = [one.name for one in offered if one.default is one.empty and one.kind not in _VARIADIC]
    strange = [each for each in needed if each not in ARGUMENTS]
    if strange:
        raise UsageError(
            f"the classifier {name} needs an argument {strange[0]!r}; expected a function of some of "
            f"{', '.join(ARGUMENTS)}, all else with a default."
        )
    wanted = [each for each in ARGUMENTS if takes_all or each in (one.name for one in offered)]

    def build(*values: int) -> nn.Module:
        given = dict(zip(ARGUMENTS, values, strict=True))
        network: nn.Module = factory(**{each: given[each] for each in wanted})
        return network

    return build
