"""A plan and its workers: the same records as one run, whoever does which share."""

import dataclasses
import inspect
import json
import subprocess
import sys

import pytest

import oodbench
from oodbench.errors import MissingPrerequisiteError, UsageError
from oodbench.execution.shards import jobs_of_share, share
from oodbench.machine.progress import silent
from oodbench.runs.plan import PlannedJob, read_plan
from oodbench.runs.prepared import prepare_run
from oodbench.runs.resolved import resolve_run
from oodbench.runs.settings import RunSettings
from oodbench.runs.spec import RunSpec

RUN = ["-d", "entropy", "-d", "grad-l2:layer=conv1", "-d", "entropy-meta", "--seed", "0", "--limit", "40"]


def command(folder, *arguments):
    return subprocess.run(
        [sys.executable, "-m", "oodbench", *arguments], capture_output=True, text=True, cwd=folder, check=False
    )


def jobs_here(file):
    """What a worker does before it runs anything."""
    plan = read_plan(file)
    run = prepare_run(resolve_run(plan.asked), data=None, download=False, track=silent)
    return jobs_of_share(run, share(plan.jobs, "1/1"), plan.probes)


def timeless(folder):
    records = {}
    for file in (folder / "records").glob("*.json"):
        record = json.loads(file.read_text())
        record["timing"] = record["phases"] = None
        del record["provenance"]["created"]
        records[file.stem] = record
    return records


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    """The folder of a plan."""
    folder = tmp_path_factory.mktemp("plan")
    made = command(folder, "plan", *RUN)
    assert made.returncode == 0, made.stderr
    assert "jobs of 33 cells, seeds 0." in made.stderr
    (folder / "plan.json").write_text(made.stdout)
    return folder


def test_the_shares_of_two_workers_are_the_records_of_one_run(plan, tmp_path):
    done = [
        command(plan, "worker", "--plan", "plan.json", "--shard", f"{k}/2", "--out", str(tmp_path / f"o{k}"))
        for k in (1, 2)
    ]
    assert [one.returncode for one in done] == [0, 0], done
    shares = [timeless(tmp_path / f"o{k}") for k in (1, 2)]
    assert not shares[0].keys() & shares[1].keys()
    run = command(tmp_path, "run", *RUN, "--out", "whole")
    assert run.returncode == 0
    assert {**shares[0], **shares[1]} == timeless(tmp_path / "whole")
    planned = {cell for job in json.loads((plan / "plan.json").read_text())["jobs"] for cell in job["cells"]}
    assert planned == timeless(tmp_path / "whole").keys()
    assert {seed: len(jobs) for seed, jobs in jobs_here(plan / "plan.json").items()} == {0: 12}


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        (("asked", "limit"), 30, "are others here, so data, weights, plugins or versions of packages are not those"),
        (("asked", "detectors"), ["entropy"], "are others here"),
        (("asked", "detectors"), ["nothing-like-it"], "no detector is named 'nothing-like-it'"),
        (("asked", "seeds"), "0", "is no plan: the seeds are '0'; expected one or more whole numbers"),
        (("schema_version",), 2, "is no plan: schema_version"),
        (("more",), 2, "is no plan: more: extra inputs are not permitted"),
    ],
)
def test_a_plan_that_means_something_else_here_is_refused(plan, tmp_path, key, value, sentence):
    content = json.loads((plan / "plan.json").read_text())
    place = content
    for part in key[:-1]:
        place = place[part]
    place[key[-1]] = value
    (tmp_path / "plan.json").write_text(json.dumps(content))
    with pytest.raises(UsageError) as error:
        jobs_here(tmp_path / "plan.json")
    assert sentence in str(error.value)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b"null", b"[" * 100_000])
def test_what_is_no_plan_is_refused(tmp_path, content):
    (tmp_path / "plan.json").write_bytes(content)
    with pytest.raises(UsageError, match=r"is no plan: .*; expected a file made by `oodbench plan`"):
        read_plan(tmp_path / "plan.json")


def test_a_plan_that_is_not_there_is_said_to_be_missing(tmp_path):
    with pytest.raises(MissingPrerequisiteError, match=r"plan\.json cannot be read: No such file"):
        read_plan(tmp_path / "plan.json")


@pytest.mark.parametrize("n", [1, 2, 3, 7, 16, 100])
def test_shares_are_neighbours_and_cover_all_once(n):
    jobs = [PlannedJob(seed=0, detector=str(i), exposed=[], cells=[str(i)]) for i in range(16)]
    shares = [share(jobs, f"{k}/{n}") for k in range(1, n + 1)]
    assert [job for one in shares for job in one] == jobs
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize("shard", ["", "0/3", "4/3", "-1/3", "1", "a/b", "1/0", "1/3/5", "٣/٤", "1/9999999999"])
def test_what_is_no_share_is_refused(shard):
    with pytest.raises(UsageError, match="expected K/N with K from 1 to N"):
        share([], shard)


def test_a_plan_asks_for_all_that_a_run_can_be_asked_for():
    """But for where things are and how the work is done."""
    where_and_how = {
        "data",
        "download",
        "out",
        "rerun",
        "track",
        "executor",
        "scheduler",
        "workers",
        "resources",
        "log_file",
    }
    assert set(RunSpec.model_fields) == set(inspect.signature(oodbench.run).parameters) - where_and_how
    assert not set(RunSpec.model_fields) & {field.name for field in dataclasses.fields(RunSettings)}
    assert not set(RunSpec.model_fields) & set(inspect.signature(prepare_run).parameters)
