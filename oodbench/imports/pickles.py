"""Reads pickles of numpy arrays and plain containers, and nothing else, without executing what is in them.

``pickle.Unpickler`` is not used: its ``find_class`` decides which names are called, and still lets a small file fill
the memory (by an index of its memo) or take forever (by the hash of a nested tuple). Here, the instructions come from
``pickletools.genops``, and a table of names says what each of them stands for; no module is imported, no class made.
"""

import math
import pickletools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from numpy.typing import NDArray

from oodbench.errors import printable
from oodbench.files.bounded_io import UnreadableError

# A file of OpenOOD has some five hundred.
MOST_INSTRUCTIONS = 100_000
MOST_DIMENSIONS = 8
DTYPES = ("b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8")
ORDERS = ("<", ">", "=", "|")


@dataclass(frozen=True)
class Unread:
    """Stands for an object that is not read, such as a torch tensor."""

    what: str


@dataclass
class PickledArray:
    """An array, whose values come after it in older files.

    Attributes:
        values: Its values, flat; None if there are none yet.
        shape: Its shape.
    """

    values: NDArray[np.generic] | None = None
    shape: tuple[int, ...] = ()


@dataclass
class _Dtype:
    code: str
    order: str = "="


@dataclass(frozen=True)
class _Name:
    """A name of a module that the file mentions, such as ``numpy.dtype``; what it stands for is in ``_MADE_BY``."""

    text: str


def read_pickle(content: bytes) -> object:
    """The object of a pickle, of dicts, lists, tuples, texts, bytes, numbers, None, ``PickledArray`` and ``Unread``.

    Args:
        content: The pickle, of a protocol from 2 on.

    Raises:
        UnreadableError: It holds something else, or is damaged.
    """
    try:
        return _Reader().read(content)
    except UnreadableError:
        raise
    except (ValueError, TypeError, IndexError, KeyError, OverflowError, AssertionError) as cause:
        raise UnreadableError("is no whole pickle of arrays; expected what OpenOOD's --save-score wrote") from cause


class _Reader:
    """Follows the instructions of a pickle."""

    def __init__(self) -> None:
        self.stack: list[object] = []
        self.marks: list[int] = []
        self.memo: dict[int, object] = {}

    def read(self, content: bytes) -> object:
        for number, (instruction, argument, _) in enumerate(pickletools.genops(BytesIO(content))):
            if number == MOST_INSTRUCTIONS:
                raise UnreadableError(f"has more than {MOST_INSTRUCTIONS:,} instructions, so it holds more than arrays")
            if instruction.name == "STOP":
                break
            self._follow(instruction.name, argument)
        (found,) = self.stack
        return found

    def _follow(self, name: str, argument: object) -> None:
        if name in _PLAIN:
            self.stack.append(argument)
        elif name in _MADE:
            self.stack.append(_MADE[name]())
        elif name in _TUPLES:
            self.stack.append(tuple(self._pop_last(_TUPLES[name])))
        elif name in _STEPS:
            _STEPS[name](self, argument)
        elif name not in ("PROTO", "FRAME"):
            raise UnreadableError(
                f"has the instruction {name}, which arrays and plain containers do not need, so it is not read"
            )

    def _pop_last(self, count: int) -> list[object]:
        if len(self.stack) < count:
            raise IndexError
        return [self.stack.pop() for _ in range(count)][::-1]

    def _pop_marked(self) -> list[object]:
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def mark(self, _: object) -> None:
        self.marks.append(len(self.stack))

    def make_tuple(self, _: object) -> None:
        self.stack.append(tuple(self._pop_marked()))

    def append(self, _: object) -> None:
        self._extend(self._pop_last(1))

    def appends(self, _: object) -> None:
        self._extend(self._pop_marked())

    def _extend(self, items: list[object]) -> None:
        target = self.stack[-1]
        if not isinstance(target, list):
            raise TypeError
        target.extend(items)

    def set_item(self, _: object) -> None:
        self._update(self._pop_last(2))

    def set_items(self, _: object) -> None:
        self._update(self._pop_marked())

    def _update(self, items: list[object]) -> None:
        target = self.stack[-1]
        if not isinstance(target, dict):
            raise TypeError
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key, str | int):
                raise UnreadableError(f"has a dict with a key of type {type(key).__name__}; expected texts")
            target[key] = value

    def memoize(self, _: object) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def put(self, argument: object) -> None:
        assert isinstance(argument, int)
        self.memo[argument] = self.stack[-1]

    def get(self, argument: object) -> None:
        assert isinstance(argument, int)
        self.stack.append(self.memo[argument])

    def name(self, argument: object) -> None:
        self.stack.append(_admitted(str(argument).replace(" ", ".")))

    def name_from_stack(self, _: object) -> None:
        module, name = self._pop_last(2)
        if not isinstance(module, str) or not isinstance(name, str):
            raise TypeError
        self.stack.append(_admitted(f"{module}.{name}"))

    def make(self, _: object) -> None:
        maker, arguments = self._pop_last(2)
        if not isinstance(maker, _Name) or not isinstance(arguments, tuple):
            raise TypeError
        self.stack.append(_MADE_BY[maker.text](*arguments))

    def build(self, _: object) -> None:
        (state,) = self._pop_last(1)
        target = self.stack[-1]
        if not isinstance(state, tuple):
            raise TypeError
        if isinstance(target, _Dtype):
            _, order, subtype, names, fields = state[:5]
            if order not in ORDERS or (subtype, names, fields) != (None, None, None):
                raise UnreadableError("has an array of records; expected arrays of numbers")
            target.order = str(order)
        elif isinstance(target, PickledArray) and target.values is None:
            _, shape, dtype, _, content = state
            made = _array(content, dtype, shape)
            target.values, target.shape = made.values, made.shape
        else:
            raise TypeError


def _admitted(text: str) -> _Name:
    if text not in _MADE_BY:
        raise UnreadableError(
            f"names {printable(text[:200])}, which no array and no plain container needs, so it is not read; expected "
            "what OpenOOD's --save-score wrote"
        )
    return _Name(text)


def _array(content: object, dtype: object, shape: object, order: object = "C") -> PickledArray:
    """An array of a buffer, whose length has to be that of its shape."""
    if not isinstance(content, bytes | bytearray):
        raise UnreadableError("has an array without its bytes, such as one of Python objects; expected numbers")
    if not isinstance(dtype, _Dtype) or not isinstance(shape, tuple):
        raise TypeError
    if len(shape) > MOST_DIMENSIONS or not all(type(n) is int and 0 <= n <= len(content) for n in shape):
        raise UnreadableError(f"has an array whose shape does not go with its {len(content):,} bytes")
    kind = np.dtype(f"{dtype.order}{dtype.code}")
    if math.prod(shape) * kind.itemsize != len(content):
        raise UnreadableError(f"has an array of shape {shape} and {kind}, with {len(content):,} bytes")
    values = np.frombuffer(content, kind) if content else np.empty(0, kind)
    return PickledArray(values.astype(kind.newbyteorder("="), copy=False), shape)


def _empty_array(kind: object, shape: object, code: object) -> PickledArray:
    """An array whose values follow."""
    if kind != _Name("numpy.ndarray"):
        raise TypeError
    return PickledArray()


def _scalar(dtype: object, content: object) -> object:
    values = _array(content, dtype, (1,)).values
    assert values is not None
    return values[0].item()


def _dtype(code: object, align: object = False, copy: object = True) -> _Dtype:
    if code not in DTYPES:
        shown = printable(code[:20]) if isinstance(code, str) else type(code).__name__
        raise UnreadableError(f"has an array of the type {shown!r}; expected numbers, as {', '.join(DTYPES)}")
    return _Dtype(str(code))


def _no_maker(*arguments: object) -> object:
    raise TypeError


def _ordered_dict() -> dict[object, object]:
    return {}


def _tensor(*arguments: object) -> Unread:
    return Unread("a torch tensor")


_PLAIN = frozenset((
    "BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8",
    "SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "BYTEARRAY8",
))  # fmt: skip
_MADE: Mapping[str, Callable[[], object]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
}
_TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_STEPS: Mapping[str, Callable[[_Reader, object], None]] = {
    "MARK": _Reader.mark,
    "TUPLE": _Reader.make_tuple,
    "APPEND": _Reader.append,
    "APPENDS": _Reader.appends,
    "SETITEM": _Reader.set_item,
    "SETITEMS": _Reader.set_items,
    "MEMOIZE": _Reader.memoize,
    "BINPUT": _Reader.put,
    "LONG_BINPUT": _Reader.put,
    "BINGET": _Reader.get,
    "LONG_BINGET": _Reader.get,
    "GLOBAL": _Reader.name,
    "STACK_GLOBAL": _Reader.name_from_stack,
    "REDUCE": _Reader.make,
    "BUILD": _Reader.build,
}
_MADE_BY: Mapping[str, Callable[..., object]] = {
    "numpy.dtype": _dtype,
    "numpy.ndarray": _no_maker,
    **{f"numpy.{core}.numeric._frombuffer": _array for core in ("core", "_core")},
    **{f"numpy.{core}.multiarray._reconstruct": _empty_array for core in ("core", "_core")},
    **{f"numpy.{core}.multiarray.scalar": _scalar for core in ("core", "_core")},
    "collections.OrderedDict": _ordered_dict,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch.storage._load_from_bytes": _tensor,
}
