"""Pickles are read, never executed: what is no array and no plain container is refused by name, in little memory."""

import collections
import os
import pickle
import pickletools
import struct
import tracemalloc
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pickled import scores

from oodbench.errors import UsageError
from oodbench.files.bounded_io import UnreadableError
from oodbench.imports.openood import read_openood
from oodbench.imports.pickles import MOST_INSTRUCTIONS, PickledArray, Unread, read_pickle


def same(found, expected):
    if isinstance(expected, np.ndarray):
        return (
            isinstance(found, PickledArray)
            and found.values.dtype == expected.dtype
            and found.shape == expected.shape
            and found.values.tobytes() == np.ascontiguousarray(expected).tobytes()
        )
    if isinstance(expected, dict):
        return type(found) is dict and all(same(found[key], value) for key, value in expected.items())
    if isinstance(expected, list | tuple):
        return type(found) is type(expected) and len(found) == len(expected) and all(map(same, found, expected))
    return type(found) is type(expected) and found == expected


@pytest.mark.parametrize("protocol", [3, 4, 5])
@pytest.mark.parametrize("optimized", [False, True])
def test_arrays_and_plain_containers_come_back(protocol, optimized):
    content = {
        "floats": [np.arange(7, dtype=kind) / 3 for kind in (np.float16, np.float32, np.float64)],
        "integers": tuple(np.arange(5).astype(kind) for kind in ("i1", "u2", "i4", "i8", "?")),
        "big endian": np.arange(6, dtype=">f4"),
        "every second": np.arange(10.0)[::2],
        "none": np.empty(0, np.float32),
        "table": np.arange(6.0).reshape(2, 3),
        "plain": [None, True, False, 0, -1, 255, 65_536, -(2**40), 2**70, 0.5, "text", "x" * 300, b"bytes"],
        "ordered": collections.OrderedDict(a=1, b=()),
    }
    expected = {**content, "ordered": dict(content["ordered"]), "big endian": np.arange(6, dtype="<f4")}
    pickled = pickle.dumps(content, protocol)
    assert same(read_pickle(pickletools.optimize(pickled) if optimized else pickled), expected)
    scalar = pickle.dumps(np.float32(0.25), protocol)
    assert read_pickle(scalar) == 0.25


def test_names_of_numpy_1_and_2_are_the_same():
    now = pickle.dumps([np.arange(3.0)], 3)
    core = "_core" if b"numpy._core" in now else "core"
    for name in (b"core", b"_core"):
        changed = now.replace(f"numpy.{core}".encode(), b"numpy." + name)
        (found,) = read_pickle(changed)
        assert found.values.tolist() == [0, 1, 2]


def test_a_torch_tensor_is_never_loaded(monkeypatch):
    content = scores()
    content["ood"]["near"]["cifar100"][1] = torch.zeros(60)
    tensors, within = pickle.dumps({"id_preds": torch.arange(3)}), pickle.dumps(content)
    for name in ("load", "_utils._rebuild_tensor_v2", "storage._load_from_bytes"):
        monkeypatch.setattr(f"torch.{name}", lambda *arguments: pytest.fail("it was loaded"))
    assert read_pickle(tensors) == {"id_preds": Unread("a torch tensor")}
    with pytest.raises(UsageError, match="ood/near/cifar100: conf is a torch tensor, which is not read"):
        read_openood(within, Path("a.pkl"), "known")


class Calls:
    """Is pickled as the call of a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def attacks(proof):
    touch = f"touch {proof}"
    code = f"open({str(proof)!r}, 'w')"
    yield "posix.system", Calls(os.system, touch)
    yield "builtins.eval", Calls(eval, code)
    yield "builtins.exec", Calls(exec, code)
    yield "builtins.getattr", Calls(getattr, "x", "upper")
    yield "numpy.load", Calls(np.load, str(proof))
    yield "numpy.fromfile", Calls(np.fromfile, str(proof))
    yield "runstring", Calls(np.testing._private.utils.runstring, code, {})
    yield "torch.serialization.load", Calls(torch.load, str(proof))
    yield "PosixPath", Path("x")
    yield "collections.Counter", collections.Counter("aa")
    yield "builtins.set", Calls(set, [1])
    yield "recarray", np.rec.array([(1,)])
    yield "MaskedArray|_mareconstruct", np.ma.masked_array([1.0], [True])


def test_whatever_is_called_is_refused_by_its_name_and_not_called(tmp_path):
    proof = tmp_path / "proof"
    for protocol in (3, 4, 5):
        for name, content in attacks(proof):
            with pytest.raises(UnreadableError, match=rf"names \S*({name})"):
                read_pickle(pickle.dumps({"id": content}, protocol))
    assert not proof.exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (pickle.dumps(np.array([1, "a"], dtype=object)), "type 'O8'"),
        (pickle.dumps(np.array([1, "a"], dtype=object), 3), "type 'O8'"),
        (pickle.dumps(np.array(["a"])), "type 'U1'"),
        (pickle.dumps(np.array([(1, 2.0)], dtype="i4,f4")), "type 'V8'"),
        (pickle.dumps(np.array(["2020-01-01"], dtype="M8[D]")), "type 'M8'"),
        (pickle.dumps({1, 2}), "the instruction EMPTY_SET"),
        (pickle.dumps(1 + 2j), "names builtins.complex"),
        (b"\x80\x02Pid\n.", "the instruction PERSID"),
        (b"\x80\x02K\x01Q.", "the instruction BINPERSID"),
        (b"\x80\x02(S'ls'\nios\nsystem\n.", "the instruction STRING"),
        (b"\x80\x02(X\x02\x00\x00\x00lsios\nsystem\n.", "the instruction INST"),
        (b"\x80\x02(cos\nsystem\nX\x02\x00\x00\x00lso.", "names os.system"),
        (b"\x80\x02cnumpy\ndtype\n)\x81.", "the instruction NEWOBJ"),
        (b"\x80\x02\x82\x01.", "the instruction EXT1"),
        (b"\x80\x05\x97.", "the instruction NEXT_BUFFER"),
        (b"\x80\x02cnumpy\ndtype\n}b.", "no whole pickle"),
        (b"\x80\x02cnumpy\nndarray\n)R.", "no whole pickle"),
        (b"\x80\x02ccollections\nOrderedDict\n]\x85R.", "no whole pickle"),
        (b"\x80\x02}]K\x01s.", "no whole pickle|key of type list"),
        (b"", "no whole pickle"),
        (b"\x80\x02.", "no whole pickle"),
        (b"PK\x03\x04 not a pickle", "no whole pickle"),
    ],
)  # fmt: skip
def test_what_is_no_array_is_refused(content, words):
    with pytest.raises(UnreadableError, match=words):
        read_pickle(content)


def text(value):
    return b"\x8c" + bytes([len(value)]) + value


FLOATS = b"\x8c\x05numpy\x8c\x05dtype\x93\x8c\x02f8\x89\x88\x87R"
BUFFER = b"\x8c\x12numpy.core.numeric\x8c\x0b_frombuffer\x93"
BOMBS = [
    b"\x80\x05\x96" + struct.pack("<Q", 1 << 40) + b"x.",  # a byte array of a TiB
    b"\x80\x05\x8e" + struct.pack("<Q", 1 << 40) + b"x.",  # bytes
    b"\x80\x05\x95" + struct.pack("<Q", 1 << 40) + b"N.",  # a frame
    b"\x80\x02Nr\xff\xff\xff\x7f.",  # the place 2**31 − 1 of the memo
    b"\x80\x05)" + b"2\x86" * 60 + b"}" + b"2." ,  # an instruction that arrays do not need
    b"\x80\x05](" + b"}" * (MOST_INSTRUCTIONS + 5) + b"e.",  # many dicts
    b"\x80\x05" + BUFFER + b"(C\x08abcdefgh" + FLOATS + b"\x8a\x08\0\0\0\0\0\0\0\x10\x85" + text(b"C") + b"tR.",
    b"\x80\x05" + b"(" * 5000 + b"N" + b"t" * 5000 + b"0.",  # deep, then one more than there is
]  # fmt: skip


@pytest.mark.parametrize("content", BOMBS)
def test_a_small_file_takes_little_memory(content):
    read_pickle(pickle.dumps(1))
    tracemalloc.start()
    try:
        with suppress(UnreadableError):
            read_pickle(content)
        assert tracemalloc.get_traced_memory()[1] < 40e6
    finally:
        tracemalloc.stop()


def test_a_nested_tuple_is_no_key():
    """Its hash takes 2**60 steps; `pickle.loads` of this does not end."""
    doubled = b"".join(b"h" + bytes([i]) + b"h" + bytes([i]) + b"\x86\x94" for i in range(60))
    with pytest.raises(UnreadableError, match="key of type tuple"):
        read_pickle(b"\x80\x05N\x85\x94" + doubled + b"}h\x3cNs.")


def test_a_list_of_lists_of_itself_is_no_trouble():
    found = read_pickle(b"\x80\x05]\x94h\x00a.")
    assert found[0] is found
    bomb = b"\x80\x05}" + text(b"id") + b"}" + text(b"test") + b"]\x94h\x00ass" + text(b"ood") + b"}s."
    with pytest.raises(UsageError, match="id/test has something else than"):
        read_openood(bomb, Path("a.pkl"), "known")


def test_a_file_of_very_many_instructions_is_refused():
    read_pickle(b"\x80\x05](" + b"N" * (MOST_INSTRUCTIONS - 10) + b"e.")
    with pytest.raises(UnreadableError, match="more than 100,000 instructions"):
        read_pickle(b"\x80\x05](" + b"N" * MOST_INSTRUCTIONS + b"e.")


def test_the_shape_of_an_array_goes_with_its_bytes():
    def array(n, order=b""):
        return (
            b"\x80\x05"
            + BUFFER
            + b"(C\x08\0\0\0\0\0\0\xf0?"
            + FLOATS
            + order
            + b"K"
            + n
            + b"\x85"
            + text(b"C")
            + b"tR."
        )

    assert read_pickle(array(b"\x01")).values.tolist() == [1.0]
    with pytest.raises(UnreadableError, match=r"has an array of shape \(2,\) and float64, with 8 bytes"):
        read_pickle(array(b"\x02"))
    assert read_pickle(array(b"\x01", b"(K\x03" + text(b"<") + b"NNNtb")).values.tolist() == [1.0]
    with pytest.raises(UnreadableError, match="has an array of records"):
        read_pickle(array(b"\x01", b"(K\x03" + text(b"<") + b"N" + text(b"a") + b"\x85}tb"))


def test_every_beginning_of_a_file_is_refused():
    whole = pickle.dumps(scores(n=5))
    read_pickle(whole)
    for end in range(len(whole)):
        with pytest.raises(UnreadableError):
            read_pickle(whole[:end])


PIECES = [
    *(bytes([code]) for code in range(256)),
    *(b"c" + name + b"\n" for name in (
        b"os\nsystem", b"builtins\neval", b"numpy\ndtype", b"numpy\nndarray", b"collections\nOrderedDict",
        b"numpy.core.multiarray\n_reconstruct", b"numpy.core.multiarray\nscalar", b"numpy.core.numeric\n_frombuffer",
        b"torch._utils\n_rebuild_tensor_v2",
    )),
    *map(text, (b"numpy", b"dtype", b"f4", b"<", b"id", b"ood", b"test")),
    *(bytes([code]) for code in b"\x93Rb)\x85\x86\x87(t}]suae\x94N"),
    *(b"C\x04abcd", b"K\x01", b"h\x00", b"h\x01", FLOATS, BUFFER, b"j\xff\xff\xff\xff", b"\x8b\xff\xff\xff\x7f", b"."),
]  # fmt: skip
tried = {"random pickles": 0}


@settings(max_examples=3000, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=40), st.sampled_from([b"\x80\x05", b"\x80\x02", b""]))
def follow_some_instructions(pieces, start):
    tried["random pickles"] += 1
    with suppress(UnreadableError):
        read_pickle(start + b"".join(pieces) + b".")
    with suppress(UsageError):
        read_openood(start + b"".join(pieces) + b".", Path("a.pkl"), "known")


def test_any_instructions_are_followed_or_refused(record_property, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "system", lambda command: pytest.fail("it was called"))
    monkeypatch.setattr(pickle, "loads", lambda content: pytest.fail("it was unpickled"))
    follow_some_instructions()
    assert not list(tmp_path.iterdir()) or [file.name for file in tmp_path.iterdir()] == [".hypothesis"]
    assert tried["random pickles"] >= 3000
    record_property("fuzzed", tried)
