"""Reads each file of a folder by one reader, and notes every file that is opened for writing meanwhile."""

import json
import sys
from pathlib import Path

from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from oodbench.cache.tensor_files import verified
from oodbench.datasets.adapter import Request
from oodbench.datasets.own import npz
from oodbench.errors import OodbenchError
from oodbench.imports.importing import FORMATS
from oodbench.records.files import InvalidRecordError, parse_record
from oodbench.runs.plan import read_plan
from oodbench.suites.reading import read_suite

folder, number = Path(sys.argv[1]), int(sys.argv[2])
readers = {
    "suites": (".toml", lambda file: read_suite(str(file)), OodbenchError),
    "records": (".json", parse_record, InvalidRecordError),
    "plans": (".plan", read_plan, OodbenchError),
    "archives": (".npz", lambda file: npz.read(Request(folder, "test"), {"path": file}), OodbenchError),
    "tensors": (".safetensors", verified, ()),
} | {
    f"{form} scores": (f".{form}-scores", lambda file, read=read: read(file.read_bytes(), file, "known"), OodbenchError)
    for form, read in FORMATS.items()
}
# Pieces that break readers: of TOML, JSON, zip, numpy, safetensors and pickle.
PIECES = [
    b"",
    b"\0",
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"[" * 5000,
    b"{" * 5000,
    b'{"a":' * 2000,
    b"a." * 3000,
    b"9" * 5000,
    b"NaN",
    b"-Infinity",
    b"1e999",
    b"\\ud800",
    b"null",
    b"true",
    b"../../etc/passwd",
    b"PK\x03\x04",
    b"PK\x05\x06",
    b"\x93NUMPY",
    b"(9999999999,)",
    b"'|O'",
    b"\xff" * 8,
    b"\x00" * 8,
    b"[[x]]",
    b"=",
    b'"',
    b"'''",
    b"\n",
    b"cos\nsystem\n(X\x01\0\0\0:tR",
    b"cbuiltins\neval\n",
    b"\x96\xff\xff\xff\xff\0\0\0\0",
    b"r\xff\xff\xff\x7f",
]
written, watching = [], [False]


def watch(event, arguments):
    if watching[0] and event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+"):
        written.append(str(arguments[0]))
    elif watching[0] and event in ("os.remove", "os.rename", "os.mkdir", "os.rmdir", "pickle.find_class", "os.system"):
        written.append(f"{event} {arguments}")


sys.addaudithook(watch)
tried = {}


def fuzz(name, ending, read, refused):
    whole = [file.read_bytes() for file in sorted(folder.glob(f"whole*{ending}"))]
    file = folder / f"tried{ending}"
    tried[name] = [0, 0]

    @seed(0)
    @settings(max_examples=number, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(st.data())
    def try_one(data):
        content = bytearray(data.draw(st.sampled_from([*whole, *whole, b""])))
        for _ in range(data.draw(st.integers(1, 4))):
            at, end = (data.draw(st.integers(0, len(content))) for _ in range(2))
            piece = data.draw(st.one_of(st.sampled_from(PIECES), st.binary(max_size=40)))
            match data.draw(st.integers(0, 3)):
                case 0:
                    content[at:at] = piece
                case 1:
                    content[at : at + len(piece)] = piece
                case 2:
                    del content[min(at, end) : max(at, end)]
                case 3 if at < len(content):
                    content[at] ^= 1 << data.draw(st.integers(0, 7))
        file.write_bytes(bytes(content))
        tried[name][0] += 1
        watching[0] = True
        try:
            read(file)
        except refused as error:
            tried[name][1] += 1
            text = str(error)
            assert text
            assert len(text) < 20_000, text
        finally:
            watching[0] = False

    try_one()


for name, (ending, read, refused) in readers.items():
    fuzz(name, ending, read, refused)
print(json.dumps({"tried": tried, "written": sorted(set(written))}))
