"""How far runs have come, as `status` says it while they go on and after."""

import json
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner

import oodbench
from oodbench.cli.status import command
from oodbench.errors import MissingPrerequisiteError
from oodbench.files.locks import exclusively
from oodbench.runs.status import status

# Waits until it is told to go on, so that there is something to be seen meanwhile.
PATIENT = (Path(__file__).parent / "plugins" / "patient.py").read_text()


@pytest.fixture
def plugin(tmp_path):
    file = tmp_path / "patient.py"
    file.write_text(PATIENT)
    return file


def started(tmp_path, plugin, *more):
    words = ["run", "--plugin", plugin, "-d", "entropy", "-d", "faulty", "-d", "patient", "-p", "known"]
    words += ["--seed", "0", "--seed", "1", "--limit", "40", "--out", tmp_path / "out", *more]
    command = [sys.executable, "-m", "oodbench", *map(str, words)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(condition, process):
    end = time.monotonic() + 120
    while not (found := condition()) and process.poll() is None and time.monotonic() < end:
        time.sleep(0.05)
    assert found, process.communicate()
    return found


def shown(*words):
    done = CliRunner().invoke(command, list(map(str, words)))
    assert done.exit_code == 0, done.exception
    return done.stdout


def waiting(out):
    if not (out / "records").is_dir():
        return None
    found = status(out, datetime.now(UTC))
    return found if any(doing.detector == "patient" for run in found.runs for doing in run.doing) else None


@pytest.mark.parametrize("executor", [(), ("--executor", "dask", "--workers", "1")], ids=["serial", "dask"])
def test_status_says_how_far_a_run_has_come_while_it_goes_on_and_after(tmp_path, plugin, executor):
    if executor:
        pytest.importorskip("distributed")
    run = started(tmp_path, plugin, *executor)
    out = tmp_path / "out"
    found = wait_for(lambda: waiting(out), run)
    (going_on,) = found.runs
    assert (going_on.state, going_on.process, going_on.suite) == ("going on", run.pid, "digits 1")
    (doing,) = going_on.doing
    assert (doing.seed, doing.exposed, bool(doing.worker)) == (0, (), bool(executor))
    assert going_on.workers == (1 if executor else None)
    assert [(seed.seed, seed.cells, seed.ok, seed.failed) for seed in found.seeds] == [(0, 3, 1, 1), (1, None, 0, 0)]
    assert (found.jobs, found.jobs_done) == (6, 2)
    assert found.left_s > 0
    (failure,) = found.failures
    assert (failure.detector, failure.phase, "no luck" in failure.error) == ("faulty", "score", True)
    text = shown(out)
    assert "has been going on for" in text
    assert "now: patient, seed 0" in text
    assert "2 of 6 jobs" in text
    assert "failed (score): faulty, known, seed 0" in text

    plugin.with_name("go").touch()
    assert run.wait(timeout=120) == 1  # a cell failed
    run.communicate()
    found = status(out, datetime.now(UTC))
    assert [(one.state, one.doing) for one in found.runs] == [("finished", ())]
    assert [(seed.seed, seed.cells, seed.ok, seed.failed) for seed in found.seeds] == [(0, 3, 2, 1), (1, 3, 2, 1)]
    assert (found.jobs, found.jobs_done) == (6, 6)
    assert json.loads(shown(out, "--json"))["runs"][0]["state"] == "finished"
    assert not list(out.rglob("*.lock"))


@pytest.mark.parametrize(
    ("number", "state"), [(signal.SIGKILL, "killed"), (signal.SIGINT, "interrupted")], ids=["kill", "interrupt"]
)
def test_status_tells_a_run_that_was_ended_from_one_that_goes_on(tmp_path, plugin, number, state):
    run = started(tmp_path, plugin)
    out = tmp_path / "out"
    wait_for(lambda: waiting(out), run)
    run.send_signal(number)
    run.communicate()
    (ended,) = status(out, datetime.now(UTC)).runs
    was_at = ["patient"] if state == "killed" else []
    assert (ended.state, [doing.detector for doing in ended.doing]) == (state, was_at)
    text = shown(out)
    assert f"was {state} after" in text
    for words in ("it was at: patient, seed 0", "--executor dask makes it cost its own cells only"):
        assert (words in text) == (state == "killed")
    plugin.with_name("go").touch()
    again = started(tmp_path, plugin)
    again.communicate()
    assert [one.state for one in status(out, datetime.now(UTC)).runs] == ["finished"], "it stands for the one before"
    assert not list(out.rglob("*.lock"))


def test_a_folder_without_a_journal_is_told_by_its_records(tmp_path):
    oodbench.run(detectors="entropy", protocols="known", seeds=[0, 1], limit=40, out=tmp_path)
    for file in (tmp_path / "log").iterdir():
        file.unlink()
    found = status(tmp_path, datetime.now(UTC))
    assert [(seed.seed, seed.cells, seed.ok) for seed in found.seeds] == [(0, 1, 1), (1, 1, 1)]
    assert "cells in" in shown(tmp_path)
    with pytest.raises(MissingPrerequisiteError, match="is no results folder, or its run has only just begun"):
        status(tmp_path / "nowhere", datetime.now(UTC))


def test_all_who_ended_without_finishing_are_told_beside_the_others_with_the_cells_of_all(tmp_path, plugin):
    words = ["--plugin", plugin, "-d", "entropy", "-d", "patient", "-p", "known", "--seed", "0", "--limit", "40"]
    base = [sys.executable, "-m", "oodbench"]
    made = subprocess.run([*base, "plan", *map(str, words)], stdout=subprocess.PIPE, check=True)
    (tmp_path / "plan.json").write_bytes(made.stdout)
    out = tmp_path / "out"
    share = [*base, "worker", "--plan", str(tmp_path / "plan.json"), "--out", str(out), "--shard"]
    subprocess.run([*share, "1/2"], check=True)
    second = subprocess.Popen([*share, "2/2"], stderr=subprocess.PIPE, text=True)
    wait_for(lambda: waiting(out), second)
    second.kill()
    second.communicate()
    oodbench.run(detectors="knn", protocols="known", seeds=[0], limit=40, out=out)
    found = status(out, datetime.now(UTC))
    states = [(one.shard, one.state) for one in found.runs]
    assert states == [("1/2", "finished"), ("2/2", "killed"), (None, "finished")]
    assert [(seed.cells, seed.ok, seed.to_do) for seed in found.seeds] == [(3, 2, 1)]
    assert (found.jobs, found.jobs_done, found.left_s, found.other_records) == (3, 2, None, 0)
    text = shown(out)
    assert "share 2/2 of" in text
    assert "and 1 more that finished, for other cells" in text

    plugin.with_name("go").touch()
    subprocess.run([*share, "2/2"], check=True)
    found = status(out, datetime.now(UTC))
    assert {one.state for one in found.runs} == {"finished"}
    assert (found.jobs, found.jobs_done) == (3, 3)


def test_until_a_run_has_prepared_a_seed_the_cells_that_are_finished_count_and_those_run_again_do_not(tmp_path, plugin):
    out = tmp_path / "out"
    plugin.with_name("go").touch()
    started(tmp_path, plugin).communicate()
    plugin.with_name("go").unlink()
    (journal,) = (out / "log").glob("*.jsonl")
    first = json.loads(journal.read_text().splitlines()[0])

    def again(**facts):
        """The same run again, which has said no more than that it is there."""
        lines = [first | {"time": datetime.now(UTC).isoformat(), **facts}]
        file = out / "log" / "99999999T000000-again-1.jsonl"
        file.write_text("".join(json.dumps(line) + "\n" for line in lines))
        with exclusively(file.with_suffix(".lock")):
            found = status(out, datetime.now(UTC))
        assert [one.state for one in found.runs] == ["going on"]
        assert [doing.what for doing in found.runs[0].doing] == ["data"]
        return [(seed.cells, seed.ok, seed.failed, seed.to_do) for seed in found.seeds], found.jobs_done, found.failures

    assert again() == ([(3, 2, 0, 1)] * 2, 4, [])
    rows, done, failures = again(rerun="missing")
    assert (rows, done, len(failures)) == ([(3, 2, 1, 0)] * 2, 6, 2)
    assert again(rerun="all") == ([(3, 0, 0, 3)] * 2, 0, [])


def test_records_that_nobody_asks_for_any_more_are_counted_apart(tmp_path):
    how = {"protocols": "known", "seeds": [0], "limit": 40, "out": tmp_path}
    oodbench.run(detectors="entropy", **how)
    (journal,) = (tmp_path / "log").glob("*.jsonl")
    journal.unlink()
    oodbench.run(detectors="knn", **how)
    found = status(tmp_path, datetime.now(UTC))
    assert ([seed.cells for seed in found.seeds], found.other_records) == ([1], 1)
    assert "1 more records are those of what was asked for before" in shown(tmp_path)


HOSTILE = [
    b"",
    b"\x00\xff\n",
    b"[" * 100_000,
    b'{"time": 1, "event": "run started"}\n',
    b'{"time": "2026-01-01T00:00:00+00:00", "event": "run started", "suite": "s", "seeds": ["a"], "command": [], '
    b'"host": "h", "process": 1}\n',
]


@pytest.mark.parametrize("content", HOSTILE, ids=["empty", "binary", "deep", "number", "seeds"])
def test_a_journal_that_is_none_is_passed_over(tmp_path, content):
    oodbench.run(detectors="entropy", protocols="known", seeds=[0], limit=40, out=tmp_path)
    (tmp_path / "log" / "99999999T000000-x-1.jsonl").write_bytes(content)
    (tmp_path / "log" / "99999999T000001-x-1.jsonl").symlink_to("/dev/zero")
    found = status(tmp_path, datetime.now(UTC))
    assert [one.state for one in found.runs] == ["finished"]


def test_a_journal_leads_nowhere_and_moves_no_cursor(tmp_path):
    (tmp_path / "records").mkdir()
    (tmp_path / "log").mkdir()
    now = datetime.now(UTC)
    start = {
        "event": "run started",
        "suite": "\x1b[2J",
        "seeds": [0],
        "command": ["\x1b"],
        "host": "\x1b",
        "process": 1,
    }
    jobs = {"event": "seed prepared", "seed": 0, "jobs": [["../../etc/passwd"]]}
    lines = [json.dumps({"time": now.isoformat(), **one}) for one in (start, jobs)]
    (tmp_path / "log" / "20260101T000000-x-1.jsonl").write_text("\n".join(lines) + '\n{"time": "2026-')
    # A clock that was set back makes no negative times.
    found = status(tmp_path, now - timedelta(days=1))
    assert found.runs[0].seconds == 0
    assert [seed.cells for seed in found.seeds] == [None]
    assert "\x1b" not in shown(tmp_path)


def test_times_that_no_zone_can_say_are_passed_over_and_an_end_is_believed(tmp_path):
    oodbench.run(detectors="entropy", protocols="known", seeds=[0], limit=40, out=tmp_path)
    (own,) = (tmp_path / "log").glob("*.jsonl")
    start = json.loads(own.read_text().splitlines()[0]) | {"time": "9999-12-31T23:59:59-23:59"}
    (tmp_path / "log" / "99999999T000000-x-1.jsonl").write_text(json.dumps(start))
    assert status(tmp_path, datetime.now(UTC)).runs[0].journal == own
    assert "finished in" in shown(tmp_path)


def test_counts_that_nobody_has_are_passed_over(tmp_path):
    oodbench.run(detectors="entropy", protocols="known", seeds=[0], limit=40, out=tmp_path)
    (own,) = (tmp_path / "log").glob("*.jsonl")
    lines = [json.loads(line) for line in own.read_text().splitlines()]
    # As if the run still went on and had prepared nothing, so that the count is all there is.
    odd = [line for line in lines if line["event"] not in ("seed prepared", "run ended")]
    odd = [line | ({"jobs": {"0": 10**400}} if line["event"] == "data read" else {}) for line in odd]
    own.write_text("".join(json.dumps(line) + "\n" for line in odd))
    with exclusively(own.with_suffix(".lock")):
        found = status(tmp_path, datetime.now(UTC))
    assert (found.jobs, found.jobs_done, found.left_s) == (0, 0, 0)
