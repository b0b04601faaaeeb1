"""Plugins that do what nobody expects of one: each costs its own cells, says why, and changes no one else's scores."""

import asyncio
import builtins
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from drawing import draw

import oodbench
from oodbench import registry
from oodbench.conformance.problem import UNKNOWN, problem
from oodbench.detectors.selection import select
from oodbench.errors import LONGEST, UsageError, described, one_line
from oodbench.protocols.case import Case
from oodbench.protocols.cases import cases_of, load_protocols
from oodbench.records.store import Store
from oodbench.registry.isolation import TRACEBACK, Failure, TimeLimit, attempt, failed, isolated
from oodbench.registry.plain_values import plain
from oodbench.runs.cells import Job, JobRunner
from oodbench.suites.reading import read_suite


def run(detectors, out, timeout=None):
    """The records of detectors on a small problem, without protocols' help."""
    store = Store.open(out)
    suite = replace(problem().suite, plugins={"protocols/unknown-unknowns": "oodbench 0"})
    limit = TimeLimit(timeout)
    runner = JobRunner(replace(problem(), suite=suite, time_limit=limit))
    case = Case(exposed=(), tested=(UNKNOWN,))
    selected = select(detectors if isinstance(detectors, list) else [detectors], limit)
    jobs = [Job(0, one, (), (("unknown-unknowns", case),)) for one in selected]
    return [record for job in jobs for record in runner.run(job, runner.pending(job), store)]


def run_digits(detectors, out, protocols=("known",), **options):
    return oodbench.run("digits", detectors, protocols, [0], limit=40, out=out, **options)


def function(body):
    """A detector of the logits."""
    return oodbench.detector("mine", needs="logits")(body)


def with_learnt(value):
    class Mine:
        """Reports something as learnt."""

        def fit(self, evidence, labels):
            self.learnt = value

        def score(self, evidence):
            return -evidence.logits.amax(dim=1)

    return oodbench.detector("mine", needs="logits")(Mine)


@pytest.fixture(scope="module")
def entropy(tmp_path_factory):
    (record,) = run("entropy", tmp_path_factory.mktemp("alone"))
    return record


# Memory


class _Buffered:
    """Returns the same memory again and again."""

    def __init__(self):
        self.memory = torch.zeros(10_000)

    def fit(self, evidence, labels):
        """Nothing to learn."""

    def score(self, evidence):
        self.memory[: len(evidence)] = -evidence.logits.amax(dim=1)
        return self.memory[: len(evidence)]


def test_a_detector_that_reuses_its_memory_has_the_scores_that_it_returned(tmp_path):
    buffered = oodbench.detector("mine", needs="logits")(_Buffered)
    reused, fresh = run([buffered, "max-logit"], tmp_path)
    assert reused.status == "ok"
    assert [result.metrics["auroc"].value for result in reused.results] == [
        result.metrics["auroc"].value for result in fresh.results
    ]


def test_labels_that_are_changed_are_reported(tmp_path):
    class Mine:
        """Writes to the labels."""

        def fit(self, evidence, labels):
            labels.fill_(3)

        def score(self, evidence):
            return -evidence.logits.amax(dim=1)

    (record,) = run(oodbench.detector("mine", needs="logits")(Mine), tmp_path)
    assert record.error == "it changed the labels in place; expected it to work on a copy"


def _hook(classifier):
    classifier.register_forward_hook(lambda *_: None)


def _replace(classifier):
    classifier.forward = lambda inputs: torch.zeros(len(inputs), 4)


@pytest.mark.parametrize(("change", "what"), [(_hook, "hooks"), (_replace, "forward")])
def test_hooks_and_methods_left_on_the_classifier_are_reported(tmp_path, change, what):
    @oodbench.detector("mine", needs=("classifier", "logits"))
    def mine(classifier, logits):
        change(classifier)
        return -logits.amax(dim=1)

    (record,) = run(mine, tmp_path)
    assert f"it changed {what} of the classifier" in record.error


# What it learnt


def _cycle():
    value = {}
    value["self"] = value
    return value


def _deep():
    value = {}
    for _ in range(2000):
        value = {"a": value}
    return value


@pytest.mark.parametrize(
    "value",
    [
        [1],
        {"a": object()},
        _cycle(),
        _deep(),
        {"a": b"\xff"},
        {"a": "\udce9"},
        {"a": 10**5000},
        {"a": {object(): 1}},
        {"a": list(range(10**6))},
    ],
    ids=["list", "object", "cycle", "deep", "bytes", "surrogate", "huge", "key", "long"],
)
def test_what_cannot_be_recorded_as_learnt_costs_its_own_cell(tmp_path, entropy, value):
    broken, fine = run([with_learnt(value), "entropy"], tmp_path)
    assert broken.status == "failed"
    assert "`learnt`" in broken.error
    assert fine.scores == entropy.scores


def test_what_was_learnt_is_recorded_as_plain_numbers(tmp_path):
    value = {
        "weight": torch.tensor([0.5, 2.0]),
        "bias": np.float32(0.25),
        "counts": np.arange(3),
        "odd": float("nan"),
        "open": (float("inf"), -float("inf")),
    }
    (record,) = run(with_learnt(value), tmp_path)
    expected = {
        "weight": [0.5, 2.0],
        "bias": 0.25,
        "counts": [0, 1, 2],
        "odd": "NaN",
        "open": ["Infinity", "-Infinity"],
    }
    assert record.detector.learnt == expected
    (file,) = (tmp_path / "records").iterdir()
    assert json.loads(file.read_text())["detector"]["learnt"] == expected


def test_plain_values_are_detached():
    given = {"a": [1, 2]}
    found = plain(given, "it")
    given["a"].append(3)
    assert found == {"a": [1, 2]}


# Exceptions


class _MuteError(Exception):
    def __str__(self):
        raise RuntimeError("no text")


class _NothingError(Exception):
    def __str__(self):
        return None  # noqa: PLE0307


class _Foreign(BaseException):
    pass


class _LiarError(Exception):
    @property
    def __class__(self):
        raise RuntimeError("no class")


RAISED = {
    "mute": (_MuteError(), "it raised _MuteError: (it cannot be printed)"),
    "nothing": (_NothingError(), "it raised _NothingError: (it cannot be printed)"),
    "liar": (_LiarError("who"), "it raised _LiarError: who"),
    "cancelled": (asyncio.CancelledError("over"), "it raised CancelledError: over"),
    "generator": (GeneratorExit(), "it raised GeneratorExit ("),
    "foreign": (_Foreign("panic"), "it raised _Foreign: panic"),
    "exit": (SystemExit(0), "it raised SystemExit: 0"),
    "empty": (ValueError(), "it raised ValueError ("),
    "surrogate": (FileNotFoundError(2, "none", "caf\udce9.npy"), "it raised FileNotFoundError: [Errno 2] none: 'caf"),
    "bell": (ValueError("\x1b[31mred\x07"), "it raised ValueError: \N{REPLACEMENT CHARACTER}[31mred"),
    "long": (ValueError("x" * 3_000_000), "it raised ValueError: xxx"),
    "group": (ExceptionGroup("both", [ValueError("a"), KeyError("b")]), "it raised ExceptionGroup: both (2 sub-exc"),
}


@pytest.mark.parametrize(("error", "sentence"), RAISED.values(), ids=RAISED)
def test_whatever_is_raised_is_a_sentence_of_its_own_cell(tmp_path, entropy, error, sentence):
    @function
    def mine(logits):
        raise error

    broken, fine = run([mine, "entropy"], tmp_path)
    assert broken.status == "failed"
    assert sentence in broken.error
    assert len(broken.error) < LONGEST + 200
    assert len(broken.traceback) <= TRACEBACK
    assert fine.scores == entropy.scores
    assert len(list((tmp_path / "records").iterdir())) == 2


def test_an_interrupt_by_the_user_is_not_the_plugins():
    def interrupted():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        attempt("fit", interrupted)


def test_messages_can_be_printed_anywhere():
    assert one_line(ValueError("a\n\tb  c\r\n")) == "a b c"
    assert one_line(ValueError("\udce9\x00")) == "\N{REPLACEMENT CHARACTER}" * 2
    assert described(ValueError()) == "ValueError"
    assert isinstance(failed("fit", _MuteError()), Failure)


# Making one


class _Init:
    """Cannot be made."""

    error: BaseException = ValueError("not today")

    def __init__(self):
        raise self.error

    def fit(self, evidence, labels):
        """Never called."""

    def score(self, evidence):
        return evidence.logits[:, 0]


class _Exits(_Init):
    """Would end the process."""

    error = SystemExit(0)


@pytest.mark.parametrize(("kind", "sentence"), [(_Init, "ValueError: not today"), (_Exits, "SystemExit: 0")])
def test_one_that_cannot_be_made_costs_its_own_cells(tmp_path, entropy, kind, sentence):
    plugin = oodbench.detector("mine", needs="logits")(type(kind.__name__, (kind,), {"__module__": __name__}))
    broken, fine = run([plugin, "entropy"], tmp_path)
    assert broken.status == "failed"
    assert f"the detector mine cannot be made: it raised {sentence}" in broken.error
    assert fine.scores == entropy.scores
    with pytest.raises(UsageError, match="cannot be made"):
        run([plugin], tmp_path / "alone")


def test_making_one_is_limited_in_time(tmp_path):
    @oodbench.detector("mine", needs="logits")
    class Mine:
        """Sleeps."""

        def __init__(self):
            import time

            time.sleep(60)

        def fit(self, evidence, labels):
            """Never called."""

        def score(self, evidence):
            return evidence.logits[:, 0]

    broken, fine = run([Mine, "entropy"], tmp_path, timeout=1)
    assert "longer than 1 seconds" in broken.error
    assert fine.status == "ok"


def test_a_default_that_no_record_can_hold_costs_its_own_cells(tmp_path):
    @oodbench.detector("mine", needs="logits")
    def mine(logits, *, reduce=max):
        return logits[:, 0]

    broken, fine = run([mine, "entropy"], tmp_path)
    assert broken.error.startswith("a parameter of mine cannot be recorded: TypeError: there is a builtin_function")
    assert fine.status == "ok"


def test_a_seed_of_another_type_costs_its_own_cells(tmp_path):
    @oodbench.detector("mine", needs="logits")
    def mine(logits, *, seed: list[str]):
        return logits[:, 0]

    broken, fine = run([mine, "entropy"], tmp_path)
    assert "'seed'" in broken.error
    assert fine.status == "ok"


# The process


def _enter(context):
    builtins._kept = context  # as a library's global state keeps it
    context.__enter__()


def _deleted_folder():
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)


LEFT = {
    "inference": lambda: _enter(torch.inference_mode()),
    "gradients": lambda: torch.set_grad_enabled(False),
    "device": lambda: torch.set_default_device("meta"),
    "type": lambda: torch.set_default_dtype(torch.float64),
    "autocast": lambda: _enter(torch.autocast("cpu", torch.bfloat16)),
    "mkldnn": lambda: torch._C._set_mkldnn_enabled(False),
    "deterministic": lambda: torch.use_deterministic_algorithms(True),
    "precision": lambda: torch.set_float32_matmul_precision("medium"),
    "path": sys.path.clear,
    "errors": lambda: np.seterr(all="raise"),
    "recursion": lambda: sys.setrecursionlimit(5000),
    "folder": _deleted_folder,
}


@pytest.mark.parametrize("leave", LEFT.values(), ids=LEFT)
def test_nothing_is_left_of_what_it_set(tmp_path, entropy, leave):
    def state():
        return (
            torch.is_inference_mode_enabled(), torch.is_grad_enabled(), torch.get_default_device(),
            torch.get_default_dtype(), torch.is_autocast_enabled("cpu"), torch._C._get_mkldnn_enabled(),
            torch.are_deterministic_algorithms_enabled(), torch.get_float32_matmul_precision(), list(sys.path),
            np.geterr(), sys.getrecursionlimit(), Path.cwd(),
        )  # fmt: skip

    @function
    def mine(logits):
        leave()
        return -logits.amax(dim=1)

    problem()  # whose training sets what it needs
    before = state()
    first, *others = run([mine, "entropy", "mahalanobis"], tmp_path)
    assert first.status == "ok", first.error
    assert state() == before
    assert others[0].scores == entropy.scores
    assert others[1].status == "ok"
    with isolated(0):
        leave()
    assert state() == before


def test_a_long_time_limit_is_none(tmp_path):
    (record,) = run_digits(["entropy"], tmp_path, timeout=float("inf"))
    assert record.status == "ok"


def test_what_is_left_behind_neither_prints_results_nor_keeps_the_process(tmp_path):
    (tmp_path / "mine.py").write_text(
        "import atexit, os, threading, time, oodbench\n"
        "atexit.register(lambda: print('LATE', flush=True))\n"
        "atexit.register(lambda: os.write(1, b'LATER'))\n"
        "@oodbench.detector('mine', needs='logits')\n"
        "def mine(logits):\n"
        "    threading.Thread(target=lambda: time.sleep(1000)).start()\n"
        "    return -logits.amax(dim=1)\n"
    )
    arguments = ["run", "--plugin", "mine.py", "-d", "mine", "-p", "known", "--seed", "0", "--limit", "40", "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "oodbench", *arguments],
        capture_output=True, text=True, cwd=tmp_path, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["records"]) == 1
    assert "LATE" in done.stderr
    assert "LATER" in done.stderr


# Names and installed packages


@pytest.mark.parametrize("name", [None, 3, "", "a/b", "a:b", "a*", "a b", "a\nb", "-a", "\x1b[31m", "ä"])
def test_what_is_no_name_is_refused(name):
    with pytest.raises(UsageError, match="is no name; expected letters"):
        oodbench.detector(name, needs="logits")(lambda logits: logits)


INSTALLED = {
    "line": (b"[oodbench.detectors]\nno equals sign\n", "cannot be read"),
    "latin": ("[oodbench.detectors]\ncafé = here:there\n".encode("latin-1"), "cannot be read"),
    "slash": (b"[oodbench.detectors]\noodbench/entropy = nowhere:nothing\n", "'oodbench/entropy' of odd is no name"),
    "glob": (b"[oodbench.detectors]\nent* = nowhere:nothing\n", "'ent*' of odd is no name"),
    "twice": (b"[oodbench.detectors]\nx = a:b\nx = c:d\n", "odd gives the name 'x' to a:b and c:d"),
    "empty": (b"[oodbench.detectors]\nx =\n", "could not be loaded"),
    "suite": (b"[oodbench.suites]\nx = math:pi\n", "the suite x is a float; expected the path"),
    "protocol": (b"[oodbench.protocols]\nx = math:pi\n", "the protocol x is a float; expected a function"),
    "classifier": (b"[oodbench.classifiers]\nx = math:pi\n", "the classifier x is a float; expected a function"),
    "data set": (b"[oodbench.datasets]\nx = math:pi\n", "is not decorated"),
}


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Installs a distribution with some entry points in this process."""

    def install(points, metadata=b"Metadata-Version: 2.1\nName: odd\nVersion: 1.0\n", name="odd"):
        folder = tmp_path / "site" / f"{name}-1.0.dist-info"
        folder.mkdir(parents=True)
        (folder / "entry_points.txt").write_bytes(points)
        if metadata is not None:
            (folder / "METADATA").write_bytes(metadata)
        monkeypatch.syspath_prepend(tmp_path / "site")
        registry.refresh()

    yield install
    monkeypatch.undo()
    registry.refresh()


def listed(*arguments):
    from click.testing import CliRunner

    from oodbench.cli.list import command

    done = CliRunner().invoke(command, [*arguments, "--json"])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


@pytest.mark.parametrize(("points", "problem"), INSTALLED.values(), ids=INSTALLED)
def test_a_package_of_broken_entry_points_hurts_nobody(installed, points, problem):
    installed(points)
    (odd,) = [row for row in listed("plugins") if row["name"].startswith("odd")]
    assert problem in odd["problems"]
    assert {"entropy", "pytorch-ood/knn"} & {row["name"] for row in listed("detectors")} == {"entropy"}
    assert registry.get("detectors", "oodbench/entropy").distribution == "oodbench"
    assert load_protocols(["*"]).keys() >= {"known", "leave-one-out"}


@pytest.mark.parametrize("metadata", [None, b"", b"Name: odd\n", b"Version: 1\n", b"\xff\xfe"])
def test_a_package_of_broken_metadata_hurts_nobody(installed, metadata):
    installed(b"[oodbench.detectors]\nx = nowhere:nothing\n", metadata)
    assert [row for row in listed("plugins") if row["name"].startswith("odd")]
    assert "entropy" in registry.entries("detectors")


def test_a_package_that_calls_itself_oodbench_hurts_nobody(installed):
    installed(b"[oodbench.detectors]\nnobody/good = nowhere:nothing\n", b"Name: oodbench\nVersion: 9\n")
    assert "entropy" in registry.entries("detectors")


# Protocols and classifiers

PROTOCOLS = {
    "unhashable": "return [Case(exposed=[['noise']], tested=[])]",
    "exit": "sys.exit(0)",
    "twice": "return [Case((), (unknown[0], unknown[0]))]",
    "exposed twice": "return [Case((unknown[0], unknown[0]), (unknown[0],))]",
    "same": "return [Case((), (unknown[0],)), Case((), (unknown[0],))]",
    "late": "yield Case((), (unknown[0],))\n    raise ValueError('late')",
    "none": "return None",
    "text": "return 'abc'",
    "strange": "return [Case((), ('nowhere',))]",
}


@pytest.fixture(scope="module")
def splits():
    suite = read_suite("digits")
    return draw(suite, Path())


@pytest.fixture
def protocol(tmp_path, installed, monkeypatch):
    def install(body):
        installed(b"[oodbench.protocols]\nodd = odd_protocol:odd\n[oodbench.classifiers]\nodd = odd_protocol:build\n")
        (tmp_path / "site" / "odd_protocol.py").write_text(
            f"import sys\nfrom oodbench import Case\ndef odd(unknown):\n    {body}\n"
            "def build(channels, size, classes):\n    sys.exit(0)\n"
        )

    yield install
    sys.modules.pop("odd_protocol", None)


@pytest.mark.parametrize("body", PROTOCOLS.values(), ids=PROTOCOLS)
def test_a_broken_protocol_is_an_error_by_name_and_left_out_of_all(splits, protocol, caplog, body):
    protocol(body)
    with pytest.raises(UsageError, match="the protocol odd"):
        cases_of(load_protocols(["odd"]), ["odd"], splits)
    found = cases_of(load_protocols(["*"]), ["*"], splits)
    assert found.keys() == {"known", "unknown-unknowns", "known-unknowns", "leave-one-out"}
    assert "the protocol odd is left out: the protocol odd" in caplog.text


def test_a_classifier_that_would_end_the_process_is_an_error(tmp_path, protocol):
    protocol("return []")
    with pytest.raises(UsageError, match="the classifier odd raised SystemExit: 0"):
        run_digits(["entropy"], tmp_path / "out", classifier="odd")
