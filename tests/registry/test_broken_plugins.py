"""Broken plugins hurt nobody but themselves: ten are installed at once, and everything else works."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import oodbench
from oodbench import registry
from oodbench.errors import UsageError
from oodbench.records.record import Record

PACKAGE = (Path(__file__).parent / "plugins" / "broken_one.py").read_text()
SIGNATURE = (Path(__file__).parent / "plugins" / "broken_signature.py").read_text()
TWIN = (Path(__file__).parent / "plugins" / "broken_two.py").read_text()
NAMES = ["stdout", "classifier", "evidence", "nan", "shape", "hang", "raise", "twin"]
ENTRY_POINTS = {
    "broken-one": "\n".join(
        [
            *(f"broken-{name} = broken_one:{name.replace('raise', 'raises')}" for name in NAMES),
            "untidy = broken_one:untidy",
            "broken-import = broken_import:nothing",
            "broken-signature = broken_signature:signature",
        ]
    ),
    "broken-two": "broken-twin = broken_two:twin\nentropy = broken_two:entropy",
}
SENTENCES = {
    "broken-classifier": "it changed conv1.weight of the classifier",
    "broken-evidence": "it changed logits of the evidence in place",
    "broken-nan": "of its 40 scores are NaN or infinite",
    "broken-shape": "its scores have shape (39,); expected (40,)",
    "broken-hang": "it took longer than 2 seconds, which is its time limit",
    "broken-raise": "it raised ValueError: no luck on two lines (broken_one.py, line",
    "broken-twin": "is provided by broken-one 1.0 and broken-two 1.0; write broken-one/broken-twin or broken-two/",
    "broken-import": "of broken-one 1.0 could not be loaded from broken_import:nothing: ZeroDivisionError",
    "broken-signature": "cannot be called with its needs (logits, features): too many positional arguments",
}
TRACEBACKS = {"broken-raise": "raise ValueError", "broken-import": "1 / 0", "broken-signature": "UsageError"}


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder with two installed distributions."""
    folder = tmp_path_factory.mktemp("site")
    modules = {
        "broken_one": PACKAGE,
        "broken_two": TWIN,
        "broken_import": "print('hello at import')\n1 / 0\n",
        "broken_signature": SIGNATURE,
    }
    for name, code in modules.items():
        (folder / f"{name}.py").write_text(code)
    for name, points in ENTRY_POINTS.items():
        info = folder / f"{name.replace('-', '_')}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\nSummary: Broken.\n")
        (info / "entry_points.txt").write_text(f"[oodbench.detectors]\n{points}\n")
    return folder


@pytest.fixture
def installed(site, monkeypatch):
    """The same in this process."""
    monkeypatch.syspath_prepend(site)
    registry.refresh()
    yield
    registry.refresh()
    for name in ("broken_one", "broken_two", "broken_import", "broken_signature"):
        sys.modules.pop(name, None)


def oodbench_in(site, *arguments, **options):
    """Run the command line in a process of its own."""
    environment = os.environ | {"PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-m", "oodbench", *arguments],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
        **options,
    )


@pytest.fixture(scope="module")
def ended(site, tmp_path_factory):
    """``oodbench run -d entropy -d 'broken-*'``."""
    folder = tmp_path_factory.mktemp("run")
    wanted = ["-d", "entropy", "-d", "broken-*", "-d", "broken-two/broken-twin"]
    few = ["-p", "known", "--seed", "0", "--limit", "40", "--timeout", "2", "--json"]
    return oodbench_in(site, "run", *wanted, *few, cwd=folder), folder


@pytest.fixture(scope="module")
def records(ended):
    return {one.detector.name: one for one in map(Record.model_validate, json.loads(ended[0].stdout)["records"])}


def test_all_finish_with_one_record_each(ended, records):
    process, folder = ended
    assert process.returncode == 1, process.stderr
    assert "Traceback" not in process.stderr
    assert set(records) == {"entropy", "broken-stdout", "broken-two/broken-twin", *SENTENCES}
    assert len(json.loads(process.stdout)["records"]) == len(records) == 12
    assert len(list((folder / "oodbench-results" / "records").iterdir())) == 12


@pytest.mark.parametrize("name", SENTENCES)
def test_a_broken_plugin_fails_with_a_sentence(records, name):
    record = records[name]
    assert record.status == "failed"
    assert SENTENCES[name] in record.error
    assert "\n" not in record.error
    assert record.results == []
    assert TRACEBACKS.get(name, "Error") in record.traceback


@pytest.mark.parametrize("name", ["entropy", "broken-stdout", "broken-two/broken-twin"])
def test_those_that_work_are_evaluated(records, name):
    assert records[name].status == "ok"
    assert records[name].error is records[name].traceback is None
    assert records[name].results[0].metrics


def test_a_built_in_name_is_not_shadowed_and_the_provider_is_recorded(records):
    assert records["entropy"].detector.distribution == "oodbench"
    theirs = records["broken-two/broken-twin"].detector
    assert (theirs.distribution, theirs.distribution_version) == ("broken-two", "1.0")
    assert theirs.version.startswith("1.0+")
    assert records["broken-twin"].detector.distribution == "broken-one and broken-two"
    used = records["broken-stdout"].provenance.plugins
    assert used["detectors/broken-stdout"] == "broken-one 1.0"
    ours = f"oodbench {registry.get('detectors', 'entropy').version}"
    assert used["protocols/known"] == used["classifiers/cnn"] == used["suites/digits"] == used["datasets/noise"] == ours


def test_what_plugins_print_is_no_result(ended):
    process, _ = ended
    for printed in ("{ this is no JSON", "nor is this", "hello at import"):
        assert printed in process.stderr
        assert printed not in process.stdout


def test_others_are_given_what_they_would_be_given_without_them(ended, records, tmp_path):
    """The same scores of entropy, to the bit."""
    (alone,) = oodbench.run("digits", ["entropy"], ["known"], [0], limit=40, out=tmp_path)
    assert alone.scores == records["entropy"].scores
    assert alone.results == records["entropy"].results


def test_help_and_lists_work_whatever_is_installed(site):
    helped = oodbench_in(site, "--help")
    listed = oodbench_in(site, "list", "detectors")
    assert (helped.returncode, listed.returncode) == (0, 0)
    assert "Traceback" not in helped.stderr + listed.stderr
    names = [line.split()[0] for line in listed.stdout.splitlines()]
    assert {"broken-import", "broken-hang", "broken-one/broken-twin", "broken-two/entropy", "entropy"} <= set(names)
    assert "hello" not in listed.stdout + listed.stderr, "none is imported"


def test_list_plugins_says_which_are_broken_and_why(site):
    listed = oodbench_in(site, "list", "plugins", "--json")
    assert listed.returncode == 0, listed.stderr
    rows = {row["name"]: row for row in json.loads(listed.stdout)}
    one, two = rows["broken-one 1.0"], rows["broken-two 1.0"]
    assert "ZeroDivisionError" in one["problems"]
    assert "broken-signature" in one["problems"]
    assert "the name 'broken-twin' in detectors is also that of broken-two" in one["problems"]
    assert (
        "the name 'entropy' in detectors is also that of oodbench and pytorch-ood: use 'broken-two/entropy'"
        in two["problems"]
    )
    assert rows["oodbench " + registry.get("detectors", "entropy").version]["problems"] == ""
    assert rows["pytorch-ood " + registry.get("detectors", "knn").version]["problems"] == ""


def test_info_of_a_broken_plugin_is_one_sentence(site):
    told = oodbench_in(site, "info", "broken-import")
    assert told.returncode == 3
    assert told.stderr.startswith("oodbench: ")
    assert "ZeroDivisionError" in told.stderr
    assert "Traceback" not in told.stderr
    twin = oodbench_in(site, "info", "broken-twin")
    assert twin.returncode == 2
    assert "write broken-one/broken-twin or broken-two/broken-twin" in twin.stderr


def test_a_broken_one_alone_is_an_error_and_costs_no_time(installed, tmp_path):
    with pytest.raises(UsageError, match="write broken-one/broken-twin or broken-two/broken-twin"):
        oodbench.run("digits", ["broken-twin"], out=tmp_path / "never")
    assert not (tmp_path / "never").exists()


def test_a_plugin_that_changes_the_process_changes_nobody_elses(installed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = torch.get_default_dtype(), torch.get_num_threads(), torch.is_grad_enabled(), Path.cwd()
    state = torch.random.get_rng_state()
    untidy, after = oodbench.run("digits", ["untidy", "mcd"], ["known"], [0], limit=40, out="with")
    (alone,) = oodbench.run("digits", ["mcd"], ["known"], [0], limit=40, out="without")
    assert (untidy.status, after.status, after.scores) == ("ok", "ok", alone.scores)
    assert (torch.get_default_dtype(), torch.get_num_threads(), torch.is_grad_enabled(), Path.cwd()) == before
    assert torch.equal(torch.random.get_rng_state(), state)
    assert (tmp_path / "with" / "records").is_dir()


def test_a_broken_input_fails_the_meta_classifier_that_wants_it(installed, tmp_path):
    wanted = ["meta:inputs=entropy+broken-nan", "meta:inputs=entropy+broken-import", "entropy"]
    nan, missing, fine = oodbench.run("digits", wanted, ["known"], [0], limit=60, out=tmp_path)
    assert nan.status == "failed"
    assert "its input broken-nan failed: " in nan.error
    assert "its input broken-import cannot be loaded" in missing.error
    assert fine.status == "ok"


@pytest.mark.parametrize("timeout", [0, -1, float("nan")])
def test_a_time_limit_is_above_zero(tmp_path, timeout):
    with pytest.raises(UsageError, match="the time limit is"):
        oodbench.run("digits", ["entropy"], timeout=timeout, out=tmp_path)


def test_edited_code_of_the_same_version_is_another_version(installed, site, tmp_path):
    """Two runs of it never share a row of a board."""
    from oodbench.leaderboard.assembly import boards
    from oodbench.records.verification import read_verified

    def run(seed):
        registry.refresh()
        sys.modules.pop("broken_two", None)
        (record,) = oodbench.run("digits", ["broken-two/broken-twin"], ["known"], [seed], out=tmp_path)
        return record.detector.version

    code = (site / "broken_two.py").read_text()
    before = run(0)
    (site / "broken_two.py").write_text(code.replace("return logits.amax(dim=1)", "return -logits.amax(dim=1)"))
    after = run(0)
    (site / "broken_two.py").write_text(code)
    assert before.startswith("1.0+")
    assert after.startswith("1.0+")
    assert before != after
    (board,) = boards(read_verified([tmp_path])[0], "")
    assert {row.detector for row in board.tables[0].rows} == {
        f"broken-two/broken-twin@{version}" for version in (before, after)
    }
