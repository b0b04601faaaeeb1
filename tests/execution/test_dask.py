"""Jobs on a Dask cluster: the numbers of one process, whoever computes them and whatever becomes of him."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import psutil
import pytest
from click.testing import CliRunner

import oodbench
from oodbench import registry
from oodbench.cli.status import command as command_status
from oodbench.errors import MissingPrerequisiteError, UsageError
from oodbench.runs.status import status

distributed = pytest.importorskip("distributed")

ROGUES = (Path(__file__).parent / "plugins" / "rogues.py").read_text()
LEFT_OUT = "oodbench: left out of patches: 46 duplicates."
HOW = {"protocols": "*", "seeds": [0, 1], "limit": 40}


@pytest.fixture(scope="module")
def plugin(tmp_path_factory):
    file = tmp_path_factory.mktemp("rogues") / "rogues.py"
    file.write_text(ROGUES)
    return file


@pytest.fixture
def cluster(tmp_path):
    """A scheduler and three workers, each a process of its own; the latter, and what starts one more."""
    with ExitStack() as stack:

        def start(*arguments):
            command = [sys.executable, "-m", f"distributed.cli.{arguments[0]}", *arguments[1:]]
            process = subprocess.Popen(command, cwd=tmp_path)
            stack.callback(process.wait)
            stack.callback(process.kill)
            return process

        file = tmp_path / "scheduler.json"
        start("dask_scheduler", "--port", "0", "--no-dashboard", "--host", "127.0.0.1", "--scheduler-file", str(file))

        def start_worker(number):
            return start(
                "dask_worker", "--scheduler-file", str(file), "--no-nanny", "--nthreads", "1", "--no-dashboard",
                "--local-directory", str(tmp_path), "--name", str(number), "--resources", f"GPU={min(number, 1)}",
            )  # fmt: skip

        workers = [start_worker(number) for number in range(3)]
        end = time.monotonic() + 60
        while not file.exists() and time.monotonic() < end:
            time.sleep(0.1)
        address = json.loads(file.read_text())["address"]
        with distributed.Client(address, set_as_default=False) as client:
            client.wait_for_workers(3, timeout=60)
        yield address, workers, start_worker


def timeless(records):
    """By cell, but for what differs from time to time."""
    found = {}
    for record in records:
        told = record.model_dump(mode="json")
        del told["timing"], told["phases"], told["provenance"]["created"]
        found[record.cell_id] = told
    return found


def started(plugin, out, *options, **how):
    """A run of the command line, as soon as the detector ``patient`` waits in it; and where that says so."""
    log = plugin.with_name("patient.txt")
    for file in (log, plugin.with_name("go")):
        file.unlink(missing_ok=True)
    command = [sys.executable, "-m", "oodbench", "run", "--plugin", plugin, "-d", "patient", "--limit", 40]
    command += ["--out", out, "--executor", "dask", *options]
    run = subprocess.Popen(
        list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=out.parent, **how
    )
    end = time.monotonic() + 120
    while not log.exists() and run.poll() is None and time.monotonic() < end:
        time.sleep(0.05)
    assert log.exists(), run.communicate()
    return run, log


def test_a_killed_workers_job_is_done_by_another_and_all_records_are_those_of_one_process(plugin, cluster, tmp_path):
    address, workers, _ = cluster
    options = ["-d", "entropy", "-d", "entropy-meta", "--seed", 0, "--seed", 1, "--scheduler", address, "--json"]
    run, log = started(plugin, tmp_path / "dask", *options)
    plugin.with_name("go").touch()
    killed = int(log.read_text().split()[0])
    assert killed in [worker.pid for worker in workers], "it runs below a worker"
    os.kill(killed, signal.SIGKILL)
    results, messages = run.communicate(timeout=240)
    assert run.returncode == 0, messages
    # Once more than the two seeds need: by the one that was killed.
    assert len(log.read_text().split()) >= 3
    done = {record["cell_id"]: record for record in json.loads(results)["records"]}
    detectors = ["patient", "entropy", "entropy-meta"]
    serial = timeless(oodbench.run(detectors=detectors, plugins=[plugin], out=tmp_path / "serial", **HOW))
    for record in done.values():
        del record["timing"], record["phases"], record["provenance"]["created"]
    assert done == serial
    assert not [file for file in (tmp_path / "dask").rglob("*") if file.suffix in (".lock", ".tmp")]


def test_resources_choose_the_workers(plugin, cluster, tmp_path):
    plugin.with_name("go").touch()
    plugin.with_name("patient.txt").unlink(missing_ok=True)
    address, workers, _ = cluster
    on = {"executor": "dask", "scheduler": address, "resources": {"GPU": 1}}
    records = oodbench.run(detectors="patient", plugins=[plugin], out=tmp_path, **on, **HOW)
    assert {record.status for record in records} == {"ok"}
    at = set(map(int, plugin.with_name("patient.txt").read_text().split()))
    assert at <= {worker.pid for worker in workers[1:]}, "the first one has none"


def test_a_run_whose_workers_are_all_lost_says_so_and_goes_on_with_the_next(plugin, cluster, tmp_path):
    address, workers, start_worker = cluster
    out = tmp_path / "out"
    run, _ = started(plugin, out, "-p", "known", "--seed", 0, "--scheduler", address)

    def wait_for(condition):
        end = time.monotonic() + 120
        while not condition() and run.poll() is None and time.monotonic() < end:
            time.sleep(0.1)
        assert run.poll() is None, run.communicate()
        (found,) = status(out, datetime.now(UTC)).runs
        return found.workers, [doing.worker is None for doing in found.doing]

    assert wait_for(lambda: True) == (3, [False])
    for worker in workers:
        worker.kill()
    assert wait_for(lambda: status(out, datetime.now(UTC)).runs[0].workers == 0) == (0, [])
    told = CliRunner().invoke(command_status, [str(out)]).stdout
    assert "no worker is there, it waits for one" in told
    plugin.with_name("go").touch()
    start_worker(3)
    _, messages = run.communicate(timeout=120)
    assert run.returncode == 0, messages
    assert "is gone; what it was at is tried again by another" in messages
    (journal,) = (out / "log").glob("*.jsonl")
    events = [json.loads(line) for line in journal.read_text().splitlines()]
    jobs = [(one["event"], one.get("worker")) for one in events if one["event"].startswith("job")]
    assert [event for event, _ in jobs] == ["job started", "job lost", "job started", "job ended"]
    assert jobs[0][1] != jobs[2][1], "by the worker that came"


def test_a_scheduler_that_is_lost_ends_the_run_in_one_sentence(plugin, cluster, tmp_path):
    address, _, _ = cluster
    run, _ = started(plugin, tmp_path / "out", "-p", "known", "--seed", 0, "--scheduler", address)
    scheduler = json.loads((tmp_path / "scheduler.json").read_text())
    port = int(scheduler["address"].rpartition(":")[2])
    (number,) = {
        one.pid for one in psutil.net_connections("tcp") if one.laddr.port == port and one.status == psutil.CONN_LISTEN
    }
    os.kill(number, signal.SIGKILL)
    _, messages = run.communicate(timeout=120)
    assert run.returncode == 1
    left_out, said = messages.strip().splitlines()
    assert left_out == LEFT_OUT
    assert said.startswith("oodbench: the connection to the Dask scheduler was lost: it does not answer any more; what")


def test_an_interrupt_of_a_terminal_is_one_sentence(plugin, tmp_path):
    # A terminal sends it to the run and to whatever that has started.
    options = ["-p", "known", "--seed", 0, "--workers", 2]
    run, _ = started(plugin, tmp_path / "out", *options, start_new_session=True)
    os.killpg(run.pid, signal.SIGINT)
    _, messages = run.communicate(timeout=60)
    assert run.returncode == 130
    assert [line for line in messages.splitlines() if line] == [
        LEFT_OUT,
        "oodbench: interrupted; the records of finished cells are kept.",
    ]


def test_whoever_brings_down_its_process_costs_its_own_cells_only(plugin, tmp_path, capfd):
    detectors = ["segfault", "entropy", "leaves", "deaf", "interrupts", "closes", "intrudes", "chatty"]
    detectors += ["stops", "rare-signal", "leaves-a-child"]
    how = {"detectors": detectors, "plugins": [plugin], "seeds": [0], "limit": 40, "timeout": 2}
    records = oodbench.run(**how, out=tmp_path / "dask", executor="dask", workers=2)
    assert "to " not in capfd.readouterr().out
    errors = {record.detector.name: record.error for record in records}
    assert errors["entropy"] is errors["chatty"] is None
    assert errors["segfault"] == "it ended its process by SIGSEGV"
    assert "exit status 3" in errors["leaves"]
    assert "time limit" in errors["deaf"]
    assert "exit status 130" in errors["interrupts"]
    assert "closed the files" in errors["closes"]
    assert "stopped its process" in errors["stops"]
    assert errors["rare-signal"] == f"it ended its process by signal {signal.SIGRTMIN + 6}"
    assert "exit status 4" in errors["leaves-a-child"]
    child = int(plugin.with_name("child.txt").read_text())
    # Nobody may have taken note of its end.
    assert not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE
    assert "wrote to one that is not its own" in errors["intrudes"]
    for name in ("interrupts", "closes", "intrudes"):
        assert len(set(plugin.with_name(f"{name}.txt").read_text().split())) == 1, "it is nobody else's doing"
    assert {record.phase for record in records if record.error} == {"score"}
    # What is finished is taken as it is by another executor, and failed ones would be run again.
    again = oodbench.run(**how | {"detectors": ["entropy", "chatty"]}, out=tmp_path / "dask")
    assert again == [record for record in records if record.error is None]
    fresh = oodbench.run(**how | {"detectors": ["entropy", "chatty"]}, out=tmp_path / "serial")
    assert timeless(fresh) == timeless(again)


def test_a_seed_without_classifier_costs_its_own_cells_only(tmp_path):
    (tmp_path / "frail.py").write_text(
        "import torch\nfrom oodbench.classifiers.cnn import cnn\n"
        "def build(channels, size, classes):\n"
        "    if torch.initial_seed() == 1:\n        raise RuntimeError('no luck')\n"
        "    return cnn(channels, size, classes)\n"
    )
    how = {"detectors": "entropy", "protocols": "known", "limit": 40, "classifier": f"{tmp_path / 'frail.py'}:build"}
    for executor in ("serial", "dask"):
        with pytest.raises(oodbench.errors.OodbenchError, match=r"seed 1 has no classifier: .*no luck"):
            oodbench.run(**how, seeds=[0, 1, 2], out=tmp_path / executor, executor=executor)
        kept = sorted((tmp_path / executor / "records").glob("*.json"))
        assert [json.loads(file.read_text())["status"] for file in kept] == ["ok", "ok"]
    with pytest.raises(oodbench.errors.OodbenchError, match=r"^the classifier .* no luck"):
        oodbench.run(**how, seeds=[1], out=tmp_path / "serial")


SHORT = (Path(__file__).parent / "plugins" / "short.py").read_text()


def test_short_jobs_are_asked_for_together_and_blamed_each_for_itself(tmp_path, caplog):
    (tmp_path / "short.py").write_text(SHORT)
    how = {"detectors": "short-*", "plugins": [tmp_path / "short.py"], "protocols": "known", "seeds": [0], "limit": 40}
    records = oodbench.run(**how, out=tmp_path / "out", executor="dask", workers=1)
    assert len(records) == 62
    (failed,) = [record for record in records if record.status != "ok"]
    assert (failed.detector.name, failed.error) == ("short-39-bomb", "it ended its process by SIGSEGV")
    (again,) = [text for text in caplog.messages if "is tried again" in text]
    assert again.startswith("short-49-mortal of seed 0 is tried again: it ended its process by SIGKILL")
    (log,) = (tmp_path / "out" / "log").glob("*.jsonl")
    events = [json.loads(line)["event"] for line in log.read_text().splitlines()]
    assert "job started job started job started job started" in " ".join(events), "several at a time"


def test_what_another_process_cannot_be_given_is_refused(tmp_path):
    @oodbench.detector("mine", needs="logits")
    def mine(logits):
        return logits[:, 0]

    with pytest.raises(UsageError, match="mine is known to this process alone; write it to a file"):
        oodbench.run(detectors=mine, out=tmp_path, executor="dask")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"executor": "threads"}, "the executor is 'threads'; expected one of: serial, dask"),
        ({"workers": 2}, "those of the executor dask"),
        ({"executor": "dask", "workers": 0}, "expected a whole number from 1"),
        ({"executor": "dask", "workers": 2, "scheduler": "tcp://127.0.0.1:1"}, "leave workers out"),
        ({"executor": "dask", "resources": {"GPU": 0}}, "expected a number above 0"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(tmp_path, options, words):
    with pytest.raises(UsageError, match=words):
        oodbench.run(detectors="entropy", out=tmp_path, **options)


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:1", "nowhere"])
def test_a_scheduler_that_is_not_there_is_named(tmp_path, address, monkeypatch):
    monkeypatch.setattr("oodbench.execution.dask.CONNECT_S", 1)
    with pytest.raises(MissingPrerequisiteError, match=f"no Dask scheduler answers at {address}"):
        oodbench.run(detectors="entropy", limit=40, out=tmp_path, executor="dask", scheduler=address)


def test_what_dask_brings_to_read_packages_finds_those_that_lack_a_summary_too(tmp_path, monkeypatch):
    # With distributed comes another reader, for which a missing key is an error.
    info = tmp_path / "scanty-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: scanty\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[oodbench.detectors]\nscanty = nowhere:it\n")
    monkeypatch.syspath_prepend(tmp_path)
    registry.refresh()
    try:
        assert "scanty" in registry.entries("detectors")
        assert "scanty" not in registry.unreadable()
    finally:
        registry.refresh()


def test_resources_are_those_of_the_cluster_on_this_machine_too(tmp_path):
    on = {"executor": "dask", "workers": 1, "resources": {"GPU": 1}}
    (record,) = oodbench.run(detectors="entropy", protocols="known", seeds=[0], limit=40, out=tmp_path, **on)
    assert record.status == "ok"
