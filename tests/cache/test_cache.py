"""``oodbench cache``: what there is, whether it is whole, and what may go."""

import json
import os
import shutil

import pytest
from in_process import command_line

import oodbench


@pytest.fixture(scope="module")
def filled(tmp_path_factory, tiny_suite):
    """A cache that one run has filled."""
    folder = tmp_path_factory.mktemp("filled")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OODBENCH_CACHE", str(folder / "cache"))
        oodbench.run(tiny_suite, ["entropy"], ["known"], [0], out=folder / "out")
    return folder / "cache"


@pytest.fixture
def cache(filled, tmp_path, monkeypatch):
    """A copy of it; its entries, the least recently used first."""
    monkeypatch.setenv("OODBENCH_CACHE", str(tmp_path / "cache"))
    shutil.copytree(filled, tmp_path / "cache")
    files = sorted((tmp_path / "cache").rglob("*.safetensors"))
    for age, file in enumerate(files):
        os.utime(file, (1e9 + age, 1e9 + age))
    return files


def cached(*arguments):
    return command_line("cache", *arguments)


def test_status_counts_what_is_there(cache):
    told = json.loads(cached("status", "--json").stdout)
    kinds = {row["kind"]: row for row in told["kinds"]}
    assert kinds["weights"]["entries"] == 1
    assert sum(row["entries"] for row in kinds.values()) == len(cache)
    assert sum(row["bytes"] for row in kinds.values()) == sum(file.stat().st_size for file in cache)
    drawn = cached("status")
    assert drawn.returncode == 0
    assert "weights" in drawn.stdout
    assert "2001-09-09" in drawn.stdout


def test_an_empty_cache_has_a_status(tmp_path, monkeypatch):
    monkeypatch.setenv("OODBENCH_CACHE", str(tmp_path / "nowhere"))
    told = json.loads(cached("status", "--json").stdout)
    assert [(row["entries"], row["bytes"], row["last_used"]) for row in told["kinds"]] == [(0, 0, None)] * 5


def test_verify_names_and_removes_what_is_damaged(cache):
    whole = cached("verify")
    assert (whole.returncode, whole.stdout) == (0, f"{len(cache)} entries, 0 damaged.\n")
    content = bytearray(cache[0].read_bytes())
    content[-1] ^= 1
    cache[0].write_bytes(content)
    found = cached("verify")
    assert found.returncode == 1
    assert f"removed {cache[0]}: its content is not what was written" in found.stdout
    assert not cache[0].exists()
    assert all(file.exists() for file in cache[1:])


def test_gc_removes_the_least_recently_used(cache):
    keep = sum(file.stat().st_size for file in cache[1:])
    told = cached("gc", "--max-size", str(keep))
    assert told.returncode == 0, told.stderr
    assert told.stdout.startswith("removed 1 entries")
    assert [file.exists() for file in cache] == [False] + [True] * (len(cache) - 1)
    assert cached("gc", "--max-size", "0").returncode == 0
    assert not any(file.exists() for file in cache)


def test_a_run_says_that_it_has_used_an_entry(cache, tmp_path, tiny_suite):
    oodbench.run(tiny_suite, ["max-logit"], ["known"], [0], out=tmp_path / "out")
    assert all(file.stat().st_mtime > 1e9 + len(cache) for file in cache)


@pytest.mark.parametrize("size", ["much", "-1", "10 apples", ""])
def test_what_is_no_size_is_refused(size):
    told = cached("gc", "--max-size", size)
    assert told.returncode == 2
    assert "is no size; expected a number of bytes, such as 500MB or 10GiB" in told.stderr
