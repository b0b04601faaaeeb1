"""Disks that are full or must not be written to, and clocks that go backwards: a clear error, and no wrong number."""

import json
import os
import subprocess
import sys
import time
from contextlib import ExitStack
from datetime import UTC, datetime

import pytest

import oodbench
from oodbench.cache.entries import KINDS
from oodbench.errors import OodbenchError, UsageError
from oodbench.records.files import parse_record
from oodbench.runs.status import status

RUN = {"detectors": ["entropy", "energy", "max-logit", "knn"], "protocols": ["known"], "seeds": [0]}


@pytest.fixture
def mounted(tmp_path):
    """Mounts a small disk of its own, and mounts it anew with other options."""
    folder = tmp_path / "disk"
    folder.mkdir()
    with ExitStack() as stack:

        def mount(options, *, again=False):
            more = ["-o", f"remount,{options}"] if again else ["-t", "tmpfs", "-o", options, "tmpfs"]
            done = subprocess.run(["mount", *more, folder], capture_output=True, text=True, check=False)
            if done.returncode and not again:
                pytest.skip(f"a disk of its own cannot be mounted here: {done.stderr.strip()}")
            assert not done.returncode, done.stderr
            if not again:
                stack.callback(subprocess.run, ["umount", "--lazy", folder], check=True)
            return folder

        yield mount


def numbers(folder):
    found = {}
    for file in (folder / "records").glob("*.json"):
        record = parse_record(file)
        found[record.cell_id] = (record.status, record.scores, record.results)
    return found


def test_a_full_disk_ends_a_run_in_one_sentence_and_nothing_is_lost(mounted, tmp_path, caplog):
    expected = oodbench.run(**RUN, out=tmp_path / "elsewhere")
    one = sum(file.stat().st_size for file in (tmp_path / "elsewhere" / "scores").iterdir()) // 4
    disk = mounted(f"size={2 * one + 16384}")
    with pytest.raises(OodbenchError, match="cannot be written: No space left on device; what was finished before is"):
        oodbench.run(**RUN, out=disk)
    kept = numbers(disk)
    assert 0 < len(kept) < len(expected)
    everything = numbers(tmp_path / "elsewhere")
    assert {cell: everything[cell] for cell in kept} == kept
    assert not [file for file in disk.rglob("*") if file.suffix in (".tmp", ".lock")]

    mounted("size=64m", again=True)
    oodbench.run(**RUN, out=disk)
    assert numbers(disk) == everything


def test_a_log_on_a_full_disk_costs_no_result(mounted, tmp_path, caplog):
    disk = mounted("size=16k")
    (disk / "filled").write_bytes(b"0" * 16384)
    records = oodbench.run(**RUN, out=tmp_path / "out", log_file=disk / "log.jsonl")
    assert [record.status for record in records] == ["ok"] * 4
    (said,) = [text for text in caplog.messages if "the run goes on without it" in text]
    assert said.startswith(f"the log {disk / 'log.jsonl'} cannot be written: No space left on device")


def test_a_full_cache_is_one_sentence_and_made_anew(mounted, tmp_path, monkeypatch, tiny_suite):
    disk = mounted("size=100k")
    monkeypatch.setenv("OODBENCH_CACHE", str(disk))
    with pytest.raises(OodbenchError, match=r"cannot be written: No space left on device"):
        oodbench.run(tiny_suite, **RUN, out=tmp_path / "out")
    assert not [file for file in disk.rglob("*") if file.suffix in (".tmp", ".lock")]
    mounted("size=64m", again=True)
    records = oodbench.run(tiny_suite, **RUN, out=tmp_path / "out")
    assert [record.status for record in records] == ["ok"] * 4
    assert all(
        list((disk / kind).glob("*.safetensors")) for kind in KINDS if kind != "digests"
    )  # it has no files of images


def test_folders_that_must_not_be_written_to_are_named_before_anything_is_computed(mounted, tmp_path, monkeypatch):
    disk = mounted("size=64m")
    finished = oodbench.run(**RUN, out=disk / "out")
    mounted("ro", again=True)
    with pytest.raises(UsageError, match=r"the results folder .*/out cannot be written to: Read-only file system"):
        oodbench.run(**RUN, out=disk / "out")
    with pytest.raises(
        UsageError, match=r"the log file .* cannot be written to: Read-only file system; choose another"
    ):
        oodbench.run(**RUN, out=tmp_path / "mine", log_file=disk / "log.jsonl")
    # To read is no harm: neither how far it has come, nor to make boards of it.
    assert sum(seed.ok for seed in status(disk / "out", finished_at(finished)).seeds) == 4
    done = subprocess.run(
        [sys.executable, "-m", "oodbench", "leaderboard", "build", disk / "out", "--out", tmp_path / "board.md"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    monkeypatch.setenv("OODBENCH_CACHE", str(disk / "cache"))
    with pytest.raises(UsageError, match=r"the cache folder .* cannot be written to: Read-only file system"):
        oodbench.run(**RUN, out=tmp_path / "mine")


def finished_at(records):
    return max(datetime.fromisoformat(record.provenance.created) for record in records)


def test_a_clock_that_was_set_back_repeats_and_changes_nothing(tmp_path, monkeypatch, tiny_suite):
    monkeypatch.setenv("OODBENCH_CACHE", str(tmp_path / "cache"))
    oodbench.run(tiny_suite, **RUN, out=tmp_path / "out")
    future = time.time() + 365 * 86400
    for file in [*tmp_path.rglob("*")]:
        os.utime(file, (future, future))
    before = {file: file.read_bytes() for file in (tmp_path / "out" / "records").iterdir()}
    everything = numbers(tmp_path / "out")
    oodbench.run(tiny_suite, **RUN, out=tmp_path / "out")
    assert {file: file.read_bytes() for file in (tmp_path / "out" / "records").iterdir()} == before
    # A failed cell is run again, and its new record stands, though it is "older".
    file = next(iter(before))
    failed = json.loads(file.read_text()) | {"status": "failed", "phase": "fit", "error": "e", "scores": None}
    file.write_text(json.dumps(failed | {"results": []}))
    os.utime(file, (future, future))
    oodbench.run(tiny_suite, **RUN, out=tmp_path / "out")
    assert numbers(tmp_path / "out") == everything


def test_status_of_a_killed_run_on_a_disk_that_must_not_be_written_to(mounted):
    disk = mounted("size=64m")
    oodbench.run(**RUN, out=disk, limit=40)
    (journal,) = (disk / "log").glob("*.jsonl")
    lines = journal.read_text().splitlines(keepends=True)
    journal.write_text("".join(lines[:-1]))
    journal.with_suffix(".lock").touch()
    mounted("ro", again=True)
    (run,) = status(disk, datetime.now(UTC)).runs
    assert run.state == "killed"
