"""Runs that are killed, repeated, or started several times at once lose nothing, do nothing twice and give the same."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import oodbench
from oodbench.cache.tensor_files import read_tensors, write_tensors
from oodbench.errors import OodbenchError, UsageError
from oodbench.files.atomic import remove_orphans
from oodbench.files.locks import exclusively
from oodbench.records.record import Record

KILLS = 50
SOON_S = 0.6

COUNTED = (Path(__file__).parent / "plugins" / "counted.py").read_text()
# Of the four protocols, for a detector that learns nothing of exposed samples.
CASES = 11
DETECTORS = ["counted", "entropy", "random", "mahalanobis", "entropy-meta"]

DRIVER = Path(__file__).parent / "driver.py"


class Driver:
    """Runs of one command on one results folder and one cold cache."""

    def __init__(self, folder):
        self.folder, self.out = folder, folder / "out"
        (folder / "counted.py").write_text(COUNTED)
        arguments = [str(self.out), str(folder / "counted.py"), json.dumps(DETECTORS)]
        self.process = subprocess.Popen(
            [sys.executable, DRIVER, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=(folder / "stderr.txt").open("w"),
            text=True,
            env=os.environ | {"OODBENCH_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"},
        )
        assert self.process.stdout.readline() == "ready\n"

    def __call__(self, order):
        self.process.stdin.write(f"{order}\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()

    def end(self):
        self.process.stdin.close()
        self.process.wait(timeout=60)

    @property
    def fits(self):
        """How often the detector was fitted, by seed."""
        log = self.folder / "fits.txt"
        lines = log.read_text().split() if log.exists() else []
        return {seed: lines.count(seed) for seed in ("0", "1")}

    def records(self):
        """All records by cell, but for times."""
        return {file.stem: timeless(file) for file in (self.out / "records").glob("*.json")}

    def cached(self):
        """The entries of the cache that its runs make, by name; the driver has read the data before them."""
        return [name for name in self.files() if name.startswith("cache/") and not name.startswith("cache/digests/")]

    def forget(self):
        """Begin with nothing."""
        for folder in (self.out, self.folder / "cache"):
            shutil.rmtree(folder)
        (self.folder / "fits.txt").unlink()

    def files(self):
        """All files of the results and the cache."""
        return sorted(str(file.relative_to(self.folder)) for file in self.folder.rglob("*") if file.is_file())


def timeless(file):
    record = json.loads(file.read_text())
    record["timing"] = record["phases"] = None
    del record["provenance"]["created"]
    return record


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    driver = Driver(tmp_path_factory.mktemp("undisturbed"))
    start = time.monotonic()
    assert driver("run 1") == "[0]", (driver.folder / "stderr.txt").read_text()
    driver.seconds = time.monotonic() - start
    driver.end()
    assert driver.fits == {"0": 1, "1": 1}
    return driver


@pytest.fixture
def driver(tmp_path):
    driver = Driver(tmp_path)
    yield driver
    driver.end()


def test_fifty_kills_lose_nothing_and_change_nothing(undisturbed, driver):
    chance = random.Random(0)
    kills = kept = 0
    while kills < KILLS:
        more, found = _killed_until_it_is_through(driver, chance, undisturbed.seconds)
        kills, kept = kills + more, kept + found
        assert driver.records() == undisturbed.records()
        assert driver.cached() == undisturbed.cached()
        assert not [name for name in driver.files() if name.endswith((".tmp", ".lock"))]
        driver.forget()
    assert kept, "some kills came after something was finished"


def _killed_until_it_is_through(driver, chance, seconds):
    """The kills until a run came to its end, and the records it found finished; these stay as they were."""
    finished, fits, kills = {}, {}, 0
    while True:
        # Most kills come early, when there is most to be lost; but on a slow machine, too, some have to come late.
        longest = seconds if kills % 10 == 9 else SOON_S
        outcome = driver(f"kill {chance.uniform(0, longest):.3f}")
        for name, content in finished.items():
            assert (driver.out / "records" / name).read_bytes() == content, "never written again"
        for seed, count in fits.items():
            assert driver.fits[seed] == count, "all its cells were finished, and it was fitted again"
        if outcome == "ended 0":
            return kills, len(finished)
        assert outcome == "killed", (driver.folder / "stderr.txt").read_text()
        kills += 1
        finished = {file.name: file.read_bytes() for file in (driver.out / "records").glob("*.json")}
        counted = [str(one["seed"]) for one in driver.records().values() if one["detector"]["name"] == "counted"]
        fits = {seed: driver.fits[seed] for seed in set(counted) if counted.count(seed) == CASES}


def test_four_processes_at_once_do_each_cell_once(undisturbed, driver):
    assert driver("run 4") == "[0, 0, 0, 0]", (driver.folder / "stderr.txt").read_text()
    assert driver.records() == undisturbed.records()
    assert driver.fits == {"0": 1, "1": 1}
    assert driver.cached() == undisturbed.cached()
    assert not [name for name in driver.files() if name.endswith((".tmp", ".lock"))]


# One process


def run(out, detectors=("entropy",), **options):
    return oodbench.run("digits", list(detectors), ["known"], [0], limit=40, out=out, **options)


def broken_until(file):
    @oodbench.detector("moody", needs="logits")
    def moody(logits):
        if not file.exists():
            raise ValueError("not yet")
        return -logits.amax(dim=1)

    return moody


def test_the_same_command_takes_what_is_finished(tmp_path):
    (first,) = run(tmp_path)
    (file,) = (tmp_path / "records").glob("*.json")
    before = file.read_bytes(), file.stat().st_mtime_ns
    (second,) = run(tmp_path)
    assert second == first
    assert (file.read_bytes(), file.stat().st_mtime_ns) == before


@pytest.mark.parametrize(("rerun", "status"), [("missing", "failed"), ("failed", "ok"), ("all", "ok")])
def test_failed_cells_are_run_again_unless_only_missing_ones_are_asked_for(tmp_path, rerun, status):
    moody = broken_until(tmp_path / "now")
    (first,) = run(tmp_path / "out", [moody])
    assert (first.status, first.phase) == ("failed", "score")
    (tmp_path / "now").touch()
    (second,) = run(tmp_path / "out", [moody], rerun=rerun)
    assert second.status == status
    assert second.cell_id == first.cell_id


def test_an_unknown_way_to_run_again_is_refused(tmp_path):
    with pytest.raises(UsageError, match="rerun is 'some'; expected one of: missing, failed, all"):
        run(tmp_path, rerun="some")


def test_all_again_gives_the_same_scores_and_leaves_the_record(tmp_path):
    run(tmp_path, ["entropy", "grad-combo"])
    before = {file.name: file.read_bytes() for file in (tmp_path / "records").iterdir()}
    run(tmp_path, ["entropy", "grad-combo"], rerun="all")
    assert {file.name: file.read_bytes() for file in (tmp_path / "records").iterdir()} == before


def test_cells_that_are_run_again_beside_fewer_others_have_the_same_scores(tmp_path):
    how = {"detectors": ["entropy"], "seeds": [0], "limit": 40, "out": tmp_path}
    first = oodbench.run(protocols="*", **how)
    again = oodbench.run(protocols="known", rerun="all", **how)
    assert len({record.cell_id for record in again} & {record.cell_id for record in first}) == 1
    assert len(list((tmp_path / "scores").iterdir())) == 2, "of the known set alone, and of all sets"


def test_other_scores_of_a_finished_cell_are_reported_and_not_kept(tmp_path):
    splits = iter(range(1, 1000))

    @oodbench.detector("drawn", needs="logits")
    def drawing(logits):
        return -logits.amax(dim=1) * next(splits)

    (first,) = run(tmp_path, [drawing])
    with pytest.raises(
        OodbenchError, match=f"1 of the cells gave other scores than their finished records.*{first.cell_id}"
    ):
        run(tmp_path, [drawing], rerun="all")
    (file,) = (tmp_path / "records").glob("*.json")
    assert Record.model_validate_json(file.read_bytes()) == first


@pytest.mark.parametrize("damage", ["record", "scores", "no scores", "other"])
def test_a_damaged_record_is_named_and_its_cell_run_again(tmp_path, caplog, damage):
    (first,) = run(tmp_path)
    (file,) = (tmp_path / "records").glob("*.json")
    (scores,) = (tmp_path / "scores").glob("*.parquet")
    whole = scores.read_bytes()
    match damage:
        case "record":
            file.write_bytes(file.read_bytes()[:-200])
        case "scores":
            scores.write_bytes(whole[:-1])
        case "no scores":
            scores.unlink()
        case _:
            file.write_text(file.read_text().replace(first.cell_id, "0" * 16))
    (second,) = run(tmp_path)
    assert str(file) in caplog.text
    assert (second.cell_id, second.scores) == (first.cell_id, first.scores)
    assert scores.read_bytes() == whole
    assert Record.model_validate_json(file.read_bytes()) == second


def test_records_that_cannot_be_written_end_the_run_with_a_sentence_and_keep_the_others(tmp_path):
    run(tmp_path)
    before = {file.name for file in (tmp_path / "records").iterdir()}

    @oodbench.detector("full", needs="logits")
    def full(logits):
        shutil.rmtree(tmp_path / "scores", ignore_errors=True)
        (tmp_path / "scores").write_text("no folder")
        return -logits.amax(dim=1)

    with pytest.raises(OodbenchError, match="cannot be written: a file stands where a folder should be"):
        run(tmp_path, [full])
    assert {file.name for file in (tmp_path / "records").iterdir()} == before


# Locks and temporary files


def test_a_lock_ends_with_its_process(tmp_path):
    file = tmp_path / "a.lock"
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys, time\nfrom pathlib import Path\nfrom oodbench.files.locks import exclusively\n"
            "with exclusively(Path(sys.argv[1])):\n    print('held', flush=True)\n    time.sleep(100)\n",
            str(file),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout.readline() == "held\n"
    with exclusively(file, wait=False) as held:
        assert not held
    assert file.exists()
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    start = time.monotonic()
    with exclusively(file) as held:
        assert held
    assert time.monotonic() - start < 5
    assert not file.exists()


def test_a_lock_that_cannot_be_made_is_a_sentence(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OodbenchError, match="cannot be locked"), exclusively(tmp_path / "file" / "a.lock"):
        pass


def test_temporary_files_of_dead_processes_alone_are_removed(tmp_path):
    from oodbench.files.atomic import HOST

    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    dead = tmp_path / f".{HOST}-{done.pid}-abc.tmp"
    mine = tmp_path / f".{HOST}-{os.getpid()}-abc.tmp"
    theirs = tmp_path / ".elsewhere-1-abc.tmp"
    other = tmp_path / "notes.tmp"
    for file in (dead, mine, theirs, other):
        file.touch()
    remove_orphans(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([mine, theirs, other])


# The cache


@pytest.fixture
def entry(tmp_path):
    tensors = {"logits": torch.arange(24.0).reshape(4, 6), "gradients": torch.ones(3, 4)}
    file = tmp_path / "a.safetensors"
    write_tensors(file, tensors, {"gradients": '["l1", "l2", "max"]'})
    return file, tensors


def test_a_cut_entry_is_found_at_every_tenth_byte(entry, caplog):
    file, _ = entry
    whole = file.read_bytes()
    for length in range(0, len(whole), 10):
        file.write_bytes(whole[:length])
        assert read_tensors(file) is None
        assert not file.exists()
        assert str(file) in caplog.text
        caplog.clear()


def test_no_flipped_bit_is_read_as_another_number(entry):
    file, tensors = entry
    whole = bytearray(file.read_bytes())
    chance = random.Random(0)
    for _ in range(2000):
        position, bit = chance.randrange(len(whole)), chance.randrange(8)
        whole[position] ^= 1 << bit
        file.write_bytes(whole)
        whole[position] ^= 1 << bit
        found = read_tensors(file)
        if found is not None:  # a blank of the header
            assert found[1] == {"gradients": '["l1", "l2", "max"]'}
            assert found[0].keys() == tensors.keys()
            assert all(torch.equal(found[0][name], tensor) for name, tensor in tensors.items())


def test_an_entry_under_another_name_is_none(entry):
    file, _ = entry
    other = file.with_name("b.safetensors")
    file.rename(other)
    assert read_tensors(other) is None


def test_damaged_evidence_and_weights_are_made_anew(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("OODBENCH_CACHE", str(tmp_path / "cache"))
    (first,) = run(tmp_path / "one", ["grad-combo"])
    entries = list((tmp_path / "cache").rglob("*.safetensors"))
    assert len(entries) > 2
    kept = {file: read_tensors(file) for file in entries}
    for file in entries:
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    (second,) = run(tmp_path / "two", ["grad-combo"])
    assert second.scores == first.scores
    assert caplog.text.count("is damaged") == len(entries)
    for file, (tensors, metadata) in kept.items():
        found, about = read_tensors(file)
        assert about == metadata
        assert found.keys() == tensors.keys()
        assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())
