"""What a run tells of itself: events for programs."""

import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import get_args

import pytest
from click.testing import CliRunner

import oodbench
from oodbench.cli.status import command
from oodbench.errors import UsageError
from oodbench.journal.events import Event
from oodbench.runs.status import status

ROGUES = (Path(__file__).parent / "plugins" / "rogue_loggers.py").read_text()


def shown(*words):
    done = CliRunner().invoke(command, list(map(str, words)))
    assert done.exit_code == 0, done.exception
    return done.stdout


def test_events_are_lines_of_json_also_where_the_user_wants_them(tmp_path, caplog):
    log = tmp_path / "elsewhere" / "events.jsonl"
    arguments = {"protocols": "known", "seeds": [0], "limit": 40, "out": tmp_path / "out", "log_file": log}
    records = oodbench.run(detectors=["entropy", "knn"], **arguments)
    events = [json.loads(line) for line in log.read_text().splitlines()]
    (own,) = (tmp_path / "out" / "log").glob("*.jsonl")
    assert own.read_text() == log.read_text()
    assert [one["event"] for one in events] == [
        *("run started", "message", "data read", "seed started", "seed prepared"),
        *("evidence started", "evidence collected"),
        *("job started", "record kept", "job ended") * 2,
        "run ended",
    ]
    times = [datetime.fromisoformat(one["time"]) for one in events]
    assert times == sorted(times)
    assert times[0].tzinfo is not None
    kept = [one for one in events if one["event"] == "record kept"]
    assert [(one["cell_id"], one["status"]) for one in kept] == [(one.cell_id, "ok") for one in records]
    assert events[0]["process"] == os.getpid()
    assert events[-1]["how"] == "finished"

    # What is there stays; what is finished, or never begins, is not told again.
    oodbench.run(detectors=["entropy", "knn"], **arguments)
    with pytest.raises(UsageError):
        oodbench.run(detectors="nothing", **arguments)
    again = [json.loads(line) for line in log.read_text().splitlines()]
    assert again[: len(events)] == events
    told = ["run started", "message", "data read", "seed started", "seed prepared", "run ended"]
    assert [one["event"] for one in again[len(events) :]] == told
    # A run has a journal of its own, however soon it follows.
    assert len(list((tmp_path / "out" / "log").glob("*.jsonl"))) == 2


def test_warnings_and_why_a_run_failed_are_events(tmp_path):
    log = tmp_path / "events.jsonl"
    file = tmp_path / "hot.toml"
    file.write_text(
        'name = "hot"\nversion = 1\nclassifier = "cnn"\nknown = "digits"\nseeds = [0]\n[input]\nsize = 8\n[unknown]\n'
        "noise = { n = 40 }\n[training]\nepochs = 1\nlearning_rate = 1e10\n"
    )
    with pytest.raises(oodbench.errors.OodbenchError, match="diverged"):
        oodbench.run(str(file), "entropy", "known", out=tmp_path / "out", log_file=log)
    found = status(tmp_path / "out", datetime.now(UTC))
    assert "diverged" in found.seeds[0].error
    assert "seed 0 has no classifier: the training of" in shown(tmp_path / "out")
    events = [json.loads(line) for line in log.read_text().splitlines()]
    assert ["diverged" in one["error"] for one in events if one["event"] == "seed failed"] == [True]
    assert (events[-1]["how"], "diverged" in events[-1]["error"]) == ("failed", True)


def test_whatever_a_plugin_does_to_logging_or_forks_costs_no_event_and_no_result(tmp_path):
    (tmp_path / "rogues.py").write_text(ROGUES)
    words = [
        "run",
        "--plugin",
        tmp_path / "rogues.py",
        "-d",
        "silencer",
        "-d",
        "babbler",
        "-d",
        "forks",
        "-d",
        "entropy",
    ]
    words += ["-p", "known", "--seed", "0", "--limit", "40", "--out", tmp_path / "out"]
    command = [sys.executable, "-m", "oodbench", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("4 records in") == 1, "a forked child ends where it was forked"
    (log,) = (tmp_path / "out" / "log").glob("*.jsonl")
    events = [json.loads(line)["event"] for line in log.read_text().splitlines()]
    assert events.count("record kept") == 4
    assert events.count("run ended") == 1
    assert status(tmp_path / "out", datetime.now(UTC)).runs[0].state == "finished"


def test_a_log_file_in_the_results_folder_or_a_pipe_that_nobody_reads_is_refused(tmp_path):
    out = {"detectors": "entropy", "protocols": "known", "seeds": [0], "limit": 40, "out": tmp_path / "out"}
    with pytest.raises(UsageError, match="lies in the results folder, which has a journal of its own"):
        oodbench.run(**out, log_file=tmp_path / "out" / "log" / "all.jsonl")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UsageError, match="cannot be written to: No such device or address; choose another --log-file"):
        oodbench.run(**out, log_file=tmp_path / "pipe")
    assert not list(tmp_path.rglob("*.lock"))


def test_all_events_are_described():
    text = (Path(oodbench.__file__).parent / "journal" / "README.md").read_text()
    assert [event for event in get_args(Event) if f"`{event}`" not in text] == []
