"""Files that were decoded before are not opened again while they are unchanged, and every change is noticed."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

import oodbench
from oodbench import registry
from oodbench.datasets import decoding
from oodbench.datasets.adapter import Decoding, LazyImages, Pool, Request, UnreadableImageError
from oodbench.datasets.decoding import read_pictures
from oodbench.datasets.inspection import inspect_pool, source_digest
from oodbench.datasets.kept_digests import DigestStore
from oodbench.datasets.preparation import Preprocessing
from oodbench.errors import OodbenchError
from oodbench.suites.schema import Input

N, PLAIN = 12, Decoding()


def draw(file, seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    Pillow.fromarray(pixels).save(file, compress_level=0)  # so that all files have one size
    return pixels


@pytest.fixture
def opened(monkeypatch):
    """Names of the files that Pillow is asked to open."""
    names, original = [], decoding.read_picture

    def read_picture(file, rule):
        names.append(file.name)
        return original(file, rule)

    monkeypatch.setattr(decoding, "read_picture", read_picture)
    return names


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "images"
    made.mkdir()
    for i in range(N):
        draw(made / f"{i:02}.png", i)
        os.utime(made / f"{i:02}.png", (1e9, 1e9))
    return made


def settle(monkeypatch):
    """Take all files as changed long ago."""
    monkeypatch.setattr("oodbench.datasets.kept_digests.SETTLED_S", -1e9)


def look(folder, tmp_path, rule=PLAIN, *, invert=False, n=N):
    names = sorted(file.name for file in folder.glob("*.png"))[:n]
    pool = Pool(read_pictures(folder, names, rule, invert=invert), np.zeros(len(names), dtype=np.int64), names=names)
    return inspect_pool(pool, Preprocessing(Input(size=8)), "source", "mine", DigestStore(tmp_path / "digests"))


def expected(folder):
    return [source_digest(np.asarray(Pillow.open(file))) for file in sorted(folder.glob("*.png"))]


def test_unchanged_files_are_opened_once(folder, tmp_path, opened, monkeypatch):
    settle(monkeypatch)
    first = look(folder, tmp_path)
    assert sorted(opened) == [f"{i:02}.png" for i in range(N)]
    again = look(folder, tmp_path)
    assert len(opened) == N
    assert list(first.digests) == list(again.digests) == expected(folder)


def touched(file):
    os.utime(file)


def replaced(file):
    other = file.with_name("other")
    Pillow.fromarray(np.random.default_rng(99).integers(0, 256, (9, 7, 3), dtype=np.uint8)).save(
        other, "PNG", compress_level=0
    )
    os.utime(other, (1e9, 1e9))
    os.replace(other, file)  # of the same size and time


def rewritten(file):
    content = bytearray(file.read_bytes())
    draw(file, 98)
    assert len(file.read_bytes()) == len(content)
    os.utime(file, (1e9, 1e9))


@pytest.mark.parametrize("change", [touched, replaced, rewritten])
def test_every_change_is_noticed(folder, tmp_path, opened, monkeypatch, change):
    settle(monkeypatch)
    look(folder, tmp_path)
    opened.clear()
    change(folder / "03.png")
    assert list(look(folder, tmp_path).digests) == expected(folder)
    assert opened == ["03.png"]


def test_a_truncated_file_is_unreadable(folder, tmp_path, monkeypatch):
    settle(monkeypatch)
    look(folder, tmp_path)
    content = (folder / "03.png").read_bytes()
    (folder / "03.png").write_bytes(content[:60])
    found = look(folder, tmp_path)
    assert set(found.unreadable) == {3}
    (folder / "03.png").write_bytes(content)
    assert not look(folder, tmp_path).unreadable


def test_files_that_were_changed_just_now_are_not_relied_on(folder, tmp_path, opened):
    look(folder, tmp_path)
    look(folder, tmp_path)
    assert len(opened) == 2 * N, "their next change might not show in their times"


def test_what_decides_the_pixels_beside_the_file_is_part_of_it(folder, tmp_path, opened, monkeypatch):
    settle(monkeypatch)
    plain = look(folder, tmp_path)
    assert list(look(folder, tmp_path, invert=True).digests) != list(plain.digests)
    look(folder, tmp_path, Decoding(ground="black"))
    assert len(opened) == 3 * N


def test_new_files_join_and_damaged_stores_are_made_anew(folder, tmp_path, opened, monkeypatch, caplog):
    settle(monkeypatch)
    look(folder, tmp_path, n=5)
    look(folder, tmp_path)
    assert len(opened) == N
    (file,) = (tmp_path / "digests").glob("*.safetensors")
    content = bytearray(file.read_bytes())
    content[-20] ^= 4
    file.write_bytes(content)
    assert list(look(folder, tmp_path).digests) == expected(folder)
    assert len(opened) == 2 * N
    assert "is damaged" in caplog.text


def test_remarks_are_kept_and_names_may_be_no_text(folder, tmp_path, opened, monkeypatch):
    settle(monkeypatch)
    shutil.copy(folder / "00.png", os.fsdecode(bytes(folder) + b"/\xff\xfe.png"))
    Pillow.new("RGBA", (5, 5), (9, 9, 9, 100)).save(folder / "see-through.png")
    first, again = look(folder, tmp_path, n=99), look(folder, tmp_path, n=99)
    assert len(opened) == N + 2
    assert first.remarks == again.remarks == {"have transparent pixels, which are composited on white": 1}


def test_a_second_run_opens_no_image(folder, tmp_path, opened, monkeypatch):
    settle(monkeypatch)
    for kind, first in (("train", 100), ("test", 300)):
        for label in ("a", "b"):
            (tmp_path / "known" / kind / label).mkdir(parents=True)
            for i in range(20):
                draw(tmp_path / "known" / kind / label / f"{kind}{i}.png", first + i + 50 * (label == "b"))
    suite = tmp_path / "mine.toml"
    suite.write_text(
        f'name = "mine"\nversion = 1\nknown = "imagefolder:{tmp_path}/known"\nseeds = [0]\n'
        f'[unknown]\nothers = {{ adapter = "imagefolder", path = "{folder}" }}\n'
        "[input]\nsize = 8\nchannels = 3\n[training]\nepochs = 1\n"
    )
    monkeypatch.setenv("OODBENCH_CACHE", str(tmp_path / "cache"))
    run = {"suite": suite, "detectors": ["entropy", "knn:k=2", "grad-l2"], "out": tmp_path / "results"}
    first = oodbench.run(**run)
    assert {record.status for record in first} == {"ok"}
    opened.clear()
    again = oodbench.run(**run)
    assert [record.cell_id for record in again] == [record.cell_id for record in first]
    assert opened == []
    # A detector that needs what was collected already opens none either, but for what its evidence costs.
    oodbench.run(**{**run, "detectors": ["energy", "feature-norm"]})
    assert len(opened) <= 64


def test_an_unreadable_image_is_never_taken_for_a_kept_one(folder, tmp_path, monkeypatch):
    settle(monkeypatch)
    (folder / "03.png").write_bytes(b"no picture")
    assert set(look(folder, tmp_path).unreadable) == set(look(folder, tmp_path).unreadable) == {3}
    with pytest.raises(UnreadableImageError):
        decoding.read_picture(folder / "03.png", Decoding())


def generated(made, made_of, factor=1):
    def make(index):
        made.append(index)
        return np.full((3, 3), factor * index, np.uint8)

    return Pool(LazyImages(N, make, made_of=made_of), np.zeros(N, dtype=np.int64))


def test_what_is_made_in_the_same_way_is_made_once(tmp_path):
    made = []

    def see(made_of, drawing="source", size=8, factor=1):
        pool, preprocessing = generated(made, made_of, factor), Preprocessing(Input(size=size))
        return list(inspect_pool(pool, preprocessing, drawing, "mine", DigestStore(tmp_path / "digests")).digests)

    first = see("squares 1")
    assert first == see("squares 1") == [source_digest(np.full((3, 3), i, np.uint8)) for i in range(N)]
    assert len(made) == N
    assert see("squares 2", factor=2) != first
    assert see("squares 1", "prepared") != first
    assert see("squares 1", "prepared", size=16) != see("squares 1", "prepared")
    assert len(made) == 4 * N
    see("")
    see("")
    assert len(made) == 6 * N, "nobody says what they follow from"


@pytest.mark.parametrize("adapter", ["noise", "rendered-letters", "patches"])
def test_sets_that_are_made_here_say_what_they_follow_from(adapter):
    plugin = registry.load("datasets", adapter)
    few, more = (plugin.read(Request(Path(), "test", False), {"n": n}).images for n in (3, 5))
    assert few.made_of == more.made_of, "an image depends on its index, not on how many there are"
    if adapter == "noise":
        others = [{"kind": "gaussian"}, {"seed": 1}]
        assert all(plugin.read(Request(Path(), "test", False), other).images.made_of != few.made_of for other in others)
        larger = Request(Path(), "test", False, 3, 16)
        assert plugin.read(larger, {}).images.made_of != few.made_of


KILLED = """
import os, sys
from pathlib import Path
from oodbench.datasets import decoding, inspection, kept_digests
import test_kept_digests as tests

inspection.AT_ONCE, inspection.EVERY_S, inspection.SHARE = 4, 0, 0
inspection.processors, kept_digests.SETTLED_S = (lambda: 1), -1e9
original = decoding.read_picture

def read_picture(file, rule):
    if file.name == "09.png":
        os._exit(9)  # as by kill -9
    return original(file, rule)

decoding.read_picture = read_picture
tests.look(Path(sys.argv[1]), Path(sys.argv[2]))
"""


def test_what_was_seen_before_a_kill_is_not_looked_at_again(folder, tmp_path, opened, monkeypatch):
    command = [sys.executable, "-c", KILLED, folder, tmp_path]
    script = subprocess.run(command, check=False, cwd=Path(__file__).parent, capture_output=True, text=True)
    assert script.returncode == 9, script.stderr
    settle(monkeypatch)
    assert list(look(folder, tmp_path).digests) == expected(folder)
    assert sorted(opened) == [f"{i:02}.png" for i in range(8, N)]


NET = """
import shutil
from pathlib import Path
import torch
from torch import nn


def build(channels, size, classes):
    if Path("other.png").exists():  # after the data were read, and before they are used
        shutil.copy("other.png", "FILE")
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(channels * size * size, classes))
"""


@pytest.mark.parametrize("file", ["strange/x/03.png", "known/train/a/03.png"])
def test_an_image_that_changes_while_a_run_goes_on_is_never_measured(tmp_path, monkeypatch, file):
    monkeypatch.setenv("OODBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    for number, place in enumerate(("known/train/a", "known/train/b", "known/test/a", "known/test/b", "strange/x")):
        (tmp_path / place).mkdir(parents=True)
        for i in range(8):
            draw(tmp_path / place / f"{i:02}.png", 100 * number + i)
    (tmp_path / "net.py").write_text(NET.replace("FILE", file))
    (tmp_path / "mine.toml").write_text(
        'name = "mine"\nversion = 1\nclassifier = "net.py:build"\nknown = "imagefolder:known"\nseeds = [0]\n'
        '[unknown]\nx = { adapter = "imagefolder:strange" }\n[input]\nsize = 8\nchannels = 3\n[sizes]\nexposed = 0\n'
        "[training]\nepochs = 1\n"
    )

    def run(out):
        (record,) = oodbench.run("mine.toml", "entropy", "unknown-unknowns", out=out, trust_model=True)
        return [result.metrics for result in record.results]

    draw(tmp_path / "other.png", 999)
    shutil.copy(file, "original.png")
    with pytest.raises(OodbenchError, match=r"03.png of .* is not what it was when the data were read"):
        run("out")
    (tmp_path / "other.png").unlink()
    shutil.copy("original.png", file)
    again = run("again")
    shutil.rmtree("cache")
    assert again == run("fresh")
