"""Reads checkpoints as people have them, without running code that may be in them, and finds the state dicts inside.

A checkpoint may hold other objects beside tensors: options, schedulers, metrics. Their classes are never imported:
inert objects stand in for them, and the reading itself is torch's own, which calls nothing else (``weights_only``).
"""

import _compat_pickle
import pickletools
import re
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors.torch import load_file
from torch import Tensor

from oodbench.errors import UsageError, one_line

DEPTH = 3
_PLAIN = "save the tensors alone, by torch.save(network.state_dict(), FILE)"


@dataclass(frozen=True)
class StateDict:
    """Tensors by name, somewhere in a checkpoint.

    Attributes:
        key: The keys that lead to it, joined by dots; empty for the checkpoint itself.
        tensors: The tensors by name.
        versions: Versions of modules by their name (``_metadata``), where the checkpoint has them.
    """

    key: str
    tensors: Mapping[str, Tensor]
    versions: Mapping[str, Any]


def read_checkpoint(file: Path) -> Mapping[Any, Any]:
    """The content of a safetensors file or of a file that ``torch.save`` wrote; its format is told by its content.

    Objects of unknown classes are replaced by inert ones.

    Raises:
        UsageError: The file is neither, or holds something other than a mapping, such as a whole network.
    """
    if _is_safetensors(file):
        try:
            return load_file(file)
        except Exception as cause:  # safetensors raises several kinds
            raise UsageError(
                f"the weights {file} cannot be read; expected a safetensors file ({one_line(cause)})."
            ) from cause
    with file.open("rb") as stream:
        named = _named_classes(file, stream)
        content = _load(file, stream, named)
    if isinstance(content, _Inert):
        raise UsageError(
            f"the weights {file} are a pickled {content.pickled}, which only its own code can read; {_PLAIN}."
        )
    if not isinstance(content, Mapping):
        raise UsageError(f"the weights {file} are a {type(content).__name__}; expected a state dict, tensors by name.")
    return content


def state_dicts(content: Mapping[Any, Any], depth: int = DEPTH) -> list[StateDict]:
    """All mappings with tensors in a checkpoint: itself and those nested in it, the outer ones first."""
    return list(_state_dicts(content, "", depth))


def whole_network(content: Mapping[Any, Any]) -> str | None:
    """What the checkpoint has instead of tensors, if it is a pickled object: its key and its class."""
    for key, value in content.items():
        if isinstance(value, _Inert):
            return f"under {key!r} a pickled {value.pickled}"
    return None


def _state_dicts(content: Mapping[Any, Any], key: str, depth: int) -> Iterator[StateDict]:
    tensors = {name: value for name, value in content.items() if isinstance(name, str) and isinstance(value, Tensor)}
    if tensors:
        versions = getattr(content, "_metadata", None)
        yield StateDict(key, tensors, versions if isinstance(versions, Mapping) else {})
    if depth > 1:
        for name, value in content.items():
            if isinstance(value, Mapping):
                yield from _state_dicts(value, f"{key}.{name}" if key else str(name), depth - 1)


class _Inert:
    """Stands in for an object of a class that a pickle names; does nothing with what it is given."""

    pickled = "object"

    def __init__(self, *args: object) -> None:
        pass

    def __new__(cls, *args: object) -> "_Inert":
        return super().__new__(cls)

    def __setstate__(self, state: object) -> None:
        pass


class _InertMapping(_Inert):
    """Stands in for a subclass of dict, whose items torch sets in a mapping of its own."""

    def __new__(cls, *args: object) -> Any:  # noqa: ANN401
        return OrderedDict()


class _InertList(_Inert):
    """Stands in for a subclass of list, or a deque."""

    def __new__(cls, *args: object) -> Any:  # noqa: ANN401
        return []


class _InertAttribute(_Inert):
    """Stands in for ``getattr``, by which a pickle names a class inside another."""

    def __new__(cls, *args: object) -> Any:  # noqa: ANN401
        return _Inert


def _is_safetensors(file: Path) -> bool:
    """Whether the file begins with the length of a JSON header, and the header."""
    with file.open("rb") as stream:
        start = stream.read(9)
    return len(start) == 9 and start[8:] == b"{" and int.from_bytes(start[:8], "little") < file.stat().st_size


def _named_classes(file: Path, stream: BinaryIO) -> list[str]:
    """The classes and functions that a file of ``torch.save`` names, read off its pickle without executing it.

    Raises:
        UsageError: It is no such file.
    """
    try:
        if zipfile.is_zipfile(stream):
            with zipfile.ZipFile(stream) as archive:
                names = archive.namelist()
                if any(name.endswith("/constants.pkl") for name in names):
                    raise UsageError(f"the weights {file} are a TorchScript archive, which has its own code; {_PLAIN}.")
                pickles = [archive.open(next(name for name in names if name.endswith("/data.pkl")))]
        else:
            stream.seek(0)
            # In a legacy file three short pickles come first: a magic number, a version, the machine.
            pickles = [stream] * 4
        found = {name for pickle in pickles for name in _globals(pickle)}
    except UsageError:
        raise
    except Exception as cause:  # whatever a broken file makes of its readers
        raise _unreadable(file) from cause
    finally:
        stream.seek(0)
    return sorted(found)


def _globals(pickle: Any) -> Iterator[str]:  # noqa: ANN401
    """The dotted names that a pickle imports, as it spells them, and as Python 3 does if they are Python 2's."""
    for opcode, argument, _ in pickletools.genops(pickle):
        if opcode.name == "GLOBAL":
            module, name = str(argument).split(" ", 1)
            yield f"{module}.{name}"
            yield ".".join(
                _compat_pickle.NAME_MAPPING.get(
                    (module, name), (_compat_pickle.IMPORT_MAPPING.get(module, module), name)
                )
            )


def _load(file: Path, stream: BinaryIO, named: list[str]) -> Any:  # noqa: ANN401
    """Read a file of ``torch.save``, with inert classes in place of all that torch does not know.

    Raises:
        UsageError: Torch refuses the file all the same.
    """
    kinds: dict[int, type[_Inert]] = {}
    while True:
        stands = [
            (type(f"Inert{i}", (kinds.get(i) or _kind(name),), {"pickled": name}), name) for i, name in enumerate(named)
        ]
        stream.seek(0)
        try:
            with warnings.catch_warnings(action="ignore"), torch.serialization.safe_globals([_Inert, *stands]):
                return torch.load(stream, "cpu", weights_only=True)
        except Exception as cause:  # torch raises half a dozen kinds, with advice to trust the file
            said = str(cause)
            # Torch fills mappings and lists of its own only, and names the class of another one.
            refused = re.search(r"Inert(\d+)", said)
            if refused is None or int(refused[1]) in kinds:
                raise _unreadable(file, named, said) from cause
            kinds[int(refused[1])] = _InertList if re.search("append|extend", said) else _InertMapping


def _kind(name: str) -> type[_Inert]:
    return _InertAttribute if name == "builtins.getattr" else _Inert


def _unreadable(file: Path, named: Sequence[str] = (), said: str = "") -> UsageError:
    """The error for a file that torch refuses, naming the first class in it that is none of torch's own."""
    if "Unsupported operand" in said:
        return UsageError(
            f"the weights {file} are pickled by another protocol than 2, which torch reads without running code in it; "
            f"{_PLAIN}."
        )
    layers = [name for name in named if name.startswith("torch.nn.modules.")]
    strange = layers or [name for name in named if not name.startswith(("torch.", "collections.", "_codecs."))]
    if strange:
        return UsageError(
            f"the weights {file} hold a pickled {strange[0]}, which only its own code can read; {_PLAIN}."
        )
    return UsageError(
        f"the weights {file} cannot be read; expected a safetensors file, or tensors by name as "
        "torch.save(network.state_dict(), FILE) writes them."
    )
