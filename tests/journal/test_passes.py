"""Passes over images: events while they go on, and what `oodbench status` makes of them."""

import json
import subprocess
import sys
from datetime import UTC, datetime

import pytest
from small import small_suite

import oodbench
from oodbench.cli import run_command_line
from oodbench.journal import passes
from oodbench.machine.progress import silent
from oodbench.runs.status import Images, status


@pytest.fixture(autouse=True)
def own_folders(tmp_path, monkeypatch):
    monkeypatch.setenv("OODBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(passes, "EVERY_S", 0.0)


def test_the_items_come_through_and_the_bar_gets_their_images():
    seen = []

    def track(items, total, description, *, images=None):
        seen.append((total, description, list(images)))
        yield from items

    assert list(passes.told(iter("abc"), [4, 4, 1], track, "a pass")) == ["a", "b", "c"]
    assert seen == [(3, "a pass", [4, 4, 1])]
    assert list(passes.told(iter("ab"), [4, 4, 1], silent, "one that ends early")) == ["a", "b"]


def test_a_run_tells_its_passes_and_status_shows_the_one_under_way(tmp_path, capsys):
    out = tmp_path / "out"
    oodbench.run(small_suite(tmp_path), ["entropy", "odin"], ["known"], limit=40, out=out)
    (journal,) = (out / "log").glob("*.jsonl")
    lines = journal.read_text().splitlines()
    told = [json.loads(line) for line in lines]
    done = [event for event in told if event["event"] == "images done"]
    whats = {event["what"] for event in done}
    assert {"training, seed 0", "evidence of digits (test)", "scores of odin on digits (test)"} <= whats
    of_test = [event for event in done if event["what"] == "evidence of digits (test)"]
    assert (of_test[-1]["done"], of_test[-1]["total"]) == (40, 40)

    # As if it had been killed in the middle of the training.
    position = next(i for i, event in enumerate(told) if event.get("what") == "training, seed 0")
    total = told[position]["total"]
    half = {**told[position], "done": total // 4, "seconds": 10.0}
    journal.write_text("".join(f"{line}\n" for line in [*lines[:position], json.dumps(half)]))
    (run,) = status(out, datetime.now(UTC)).runs
    assert run.state == "killed"
    (doing,) = run.doing
    pace = (total // 4) / 10
    assert doing.images == Images(
        "training, seed 0", total // 4, total, pace, pytest.approx((total - total // 4) / pace)
    )
    with pytest.raises(SystemExit):
        run_command_line(["status", str(out)])
    shown = " ".join(capsys.readouterr().out.split())
    assert f"(training, seed 0: {total // 4:,} of {total:,} images, {pace:,.0f} a second, about 30 s left)" in shown


def test_passes_of_a_dask_worker_are_told_with_seed_and_worker(tmp_path):
    pytest.importorskip("distributed")
    suite, chatty = small_suite(tmp_path), tmp_path / "chatty.py"
    # In the worker's process, too.
    chatty.write_text(
        "import oodbench\nfrom oodbench.journal import passes\n\npasses.EVERY_S = 0.0\n\n\n"
        "@oodbench.detector('chatty', needs=('logits',))\ndef chatty(logits):\n    return logits.sum(1)\n"
    )
    out = tmp_path / "out"
    options = ["-s", str(suite), "-d", "chatty", "-p", "known", "--plugin", str(chatty)]
    options += ["--batch", "16", "--out", str(out), "--executor", "dask", "--workers", "1"]
    command = [sys.executable, "-m", "oodbench", "run", *options]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    (journal,) = (out / "log").glob("*.jsonl")
    events = [json.loads(line) for line in journal.read_text().splitlines()]
    told = [event for event in events if event["event"] == "images done"]
    assert told
    assert {event["seed"] for event in told} == {0}
    started = next(event for event in events if event["event"] == "evidence started")
    assert {event["worker"] for event in told} == {started["worker"]}
    half = next(
        i for i, event in enumerate(events) if event["event"] == "images done" and event["done"] < event["total"]
    )
    journal.write_text("".join(f"{json.dumps(event)}\n" for event in events[: half + 1]))
    (run,) = status(out, datetime.now(UTC)).runs
    assert [doing.images.done for doing in run.doing if doing.images] == [events[half]["done"]]
