"""Files that anybody may have made: whatever is in them, a reader takes it or says in one sentence why not."""

import io
import json
import os
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from oodbench.datasets.adapter import Request
from oodbench.datasets.own import npz
from oodbench.errors import OodbenchError
from oodbench.imports.importing import FORMATS
from oodbench.records.files import InvalidRecordError, parse_record
from oodbench.suites import DIGITS, EMNIST

READING = Path(__file__).parent / "reading.py"
INPUTS = 500


@pytest.fixture
def whole(tmp_path):
    """Files that are right, to begin with."""
    for number, suite in enumerate((DIGITS, EMNIST)):
        (tmp_path / f"whole{number}.toml").write_bytes(suite.read_bytes())
    board = Path(__file__).parents[2] / "leaderboards" / "digits" / "records"
    for number, record in enumerate(sorted(board.glob("*.json"))[:3]):
        (tmp_path / f"whole{number}.json").write_bytes(record.read_bytes())
    asked = {
        "suite": "digits", "detectors": ["entropy"], "protocols": ["*"], "seeds": [0], "classifier": None,
        "weights": None, "penultimate": None, "replace": {}, "plugins": [], "limit": 40, "skip_missing": False,
        "timeout": None,
    }  # fmt: skip
    job = {"seed": 0, "detector": "entropy", "exposed": [], "cells": ["0123456789abcdef"]}
    (tmp_path / "whole.plan").write_text(json.dumps({"oodbench": "0.1.0", "asked": asked, "jobs": [job]}))
    images = np.arange(4 * 8 * 8, dtype=np.uint8).reshape(4, 8, 8)
    np.savez(tmp_path / "whole0.npz", images=images, labels=np.arange(4))
    np.savez_compressed(tmp_path / "whole1.npz", images=images / 255, labels=np.arange(4))
    import torch

    from oodbench.cache.tensor_files import write_tensors

    write_tensors(tmp_path / "whole.safetensors", {"logits": torch.ones(3, 2)}, {"gradients": "[]"})
    write_scores(tmp_path)
    return tmp_path


def write_scores(folder):
    """Scores in all formats that can be imported."""
    import torch

    known, unknown = [np.arange(4) % 3, np.ones(4, np.float32), np.arange(4)], [np.arange(3), np.ones(3), -np.ones(3)]
    content = {"id": {"test": known}, "ood": {"near": {"a": unknown}, "far": {}}, "id_preds": torch.arange(4)}
    (folder / "whole0.openood-scores").write_bytes(pickle.dumps(content))
    (folder / "whole1.openood-scores").write_bytes(pickle.dumps(content, 3))
    rows = [("known", 0, 0, 0.5), ("known", 1, 0, 0.25), ("a", -1, 0, 0.75)]
    text = "".join(",".join(map(str, row)) + "\n" for row in [("dataset", "label", "prediction", "score"), *rows])
    (folder / "whole.csv-scores").write_text(text)
    pq.write_table(pa.csv.read_csv(folder / "whole.csv-scores"), folder / "whole.parquet-scores")
    arrays = dict(zip(("known/prediction", "known/score", "known/label"), known, strict=True))
    with (folder / "whole.npz-scores").open("wb") as opened:
        np.savez(opened, **arrays, **{"near/a/score": unknown[1]})


def test_whatever_is_in_a_file_a_reader_takes_it_or_says_why_not(whole, record_property, tmp_path_factory):
    before = sorted(whole.rglob("*"))
    done = subprocess.run(
        [sys.executable, READING, str(whole), str(INPUTS)],
        capture_output=True, text=True, cwd=whole, timeout=300, check=False,
        env=os.environ | {"HYPOTHESIS_STORAGE_DIRECTORY": str(tmp_path_factory.mktemp("hypothesis"))},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["written"] == [], "a reader wrote, removed or unpickled something"
    new = {file.name for file in whole.rglob("*")} - {file.name for file in before}
    endings = [".toml", ".json", ".plan", ".npz", ".safetensors", *(f".{form}-scores" for form in FORMATS)]
    assert new == {f"tried{ending}" for ending in endings}
    for name, (tried, refused) in found["tried"].items():
        assert tried >= INPUTS * 0.9, name
        assert refused < tried, f"some of the {name} were whole still"
        assert name == "tensors" or refused > tried / 4, f"most of the {name} were not"
    record_property("fuzzed", {name: tried for name, (tried, _) in found["tried"].items()})


def archive(members):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, data in members.items():
            packed.writestr(name, data)
    return content.getvalue()


def header(description):
    text = repr(description).encode()
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


def test_an_archive_that_would_fill_the_memory_is_refused_before_it_is_unpacked(tmp_path):
    file = tmp_path / "bomb.npz"
    shape = {"descr": "|u1", "fortran_order": False, "shape": (300, 1000, 1000)}
    file.write_bytes(archive({"images.npy": header(shape) + bytes(300_000_000)}))
    with pytest.raises(OodbenchError, match="unpacks to 300,0"):
        npz.read(Request(tmp_path, "test"), {"path": file})


def test_no_pickle_is_read(tmp_path):
    file, proof = tmp_path / "pickle.npz", tmp_path / "proof"

    class Payload:
        def __reduce__(self):
            return Path.touch, (proof,)

    objects = np.empty(2, dtype=object)
    objects[:] = [Payload(), Payload()]
    np.savez(file, images=objects)
    with pytest.raises(OodbenchError, match="without pickled objects"):
        npz.read(Request(tmp_path, "test"), {"path": file})
    assert not proof.exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda text: text.replace('"seed"', '"seed": 1, "seed"', 1), "'seed' twice"),
        (lambda text: "[" * 100_000 + text, "it is no valid record"),
        (lambda text: text.replace('"value": 0', '"value": NaN', 1), "."),
        (lambda text: text + " " * (64 << 20), "is larger than 64 MiB"),
    ],
    ids=["twice", "deep", "nan", "large"],
)
def test_a_record_that_is_none_is_refused(whole, change, words):
    file = whole / "whole0.json"
    text = file.read_text()
    changed = change(text)
    assert changed != text
    file.write_text(changed)
    with pytest.raises(InvalidRecordError, match=words):
        parse_record(file)


@pytest.mark.parametrize("path", ["../../etc/passwd", "/etc/passwd", "scores/../../x", "scores/\0"])
def test_scores_lie_beside_their_records_or_nowhere(whole, path):
    from oodbench.records.files import scores_path

    with pytest.raises(InvalidRecordError):
        scores_path(path, whole / "records" / "a.json")
