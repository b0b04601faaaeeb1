"""Parts of the evidence that plugins add: collected in the same pass, kept, and failing for themselves alone."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from small import small_suite
from torch.nn import functional as F

import oodbench
from oodbench import registry
from oodbench.errors import UsageError
from oodbench.evidence.parts import evidence_part, load_part
from oodbench.registry import declared

PLUGIN = """
import torch
import oodbench


@oodbench.evidence_part("flipped", per_sample="float32 (classes,)")
def flipped(run):
    with open("calls.txt", "a") as calls:
        calls.write(f"{len(run.inputs)}\\n")
    return run.network(run.inputs.flip(3))


@oodbench.evidence_part("uniform", needs="backward")
def uniform(run):
    return {"l1": run.metrics("uniform")["l1"]}


@oodbench.detector("disagreement", needs=("logits", "flipped"))
def disagreement(logits, flipped):
    return (logits.softmax(1) - flipped.softmax(1)).abs().sum(1)


@oodbench.detector("gradnorm-like", needs=("uniform",))
def gradnorm_like(uniform):
    return -uniform["l1"]
"""


@pytest.fixture(autouse=True)
def own_folders(tmp_path, monkeypatch):
    monkeypatch.setenv("OODBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    small_suite(tmp_path)


def run(code, detectors, out="out", **options):
    with open("mine.py", "w", encoding="utf-8") as file:
        file.write(code)
    with registry.scoped():
        records = oodbench.run("small.toml", detectors, "unknown-unknowns", plugins=["mine.py"], out=out, **options)
    return {record.detector.name: record for record in records}


def test_a_plugin_adds_parts_and_they_are_computed_once(tmp_path):
    records = run(PLUGIN, ["disagreement", "gradnorm-like", "grad-norm"])
    assert {record.status for record in records.values()} == {"ok"}, [record.error for record in records.values()]
    results = oodbench.read_results("out")
    mine, theirs = (results.scores(records[name])["score"].to_numpy() for name in ("gradnorm-like", "grad-norm"))
    np.testing.assert_allclose(mine, theirs, rtol=1e-4)  # pytorch-ood's, by a backward pass for each sample
    # Of the 30 unknown samples, as the cost is measured on the known ones in each run.
    assert unknown_batches(tmp_path) == 1
    run(PLUGIN, ["disagreement"], out="again")
    assert unknown_batches(tmp_path) == 0, "they are kept"
    changed = run(PLUGIN.replace("flip(3)", "flip(2)"), ["disagreement"], out="other")
    assert changed["disagreement"].cell_id != records["disagreement"].cell_id
    assert unknown_batches(tmp_path) == 1, "of other code"


def unknown_batches(folder):
    """How often the part was computed for the unknown samples since the last call."""
    file = folder / "calls.txt"
    calls = file.read_text().split()
    file.unlink()
    return calls.count("30")


@pytest.mark.parametrize(
    ("made", "status", "said"),
    [
        ("return run.logits[:1]", "failed", "it returned a tensor (1, 10); expected a tensor ("),
        ("return run.logits > 0", "failed", "its values are of torch.bool; expected one of: float32, float64, int64"),
        ("return 5", "failed", "it returned a int; expected a tensor ("),
        ("return {'a': run.logits}", "failed", "its values 'a' are a tensor ("),
        ("raise ValueError('no such thing')", "failed", "it raised ValueError: no such thing"),
        ("raise oodbench.CellSkippedError('it has no tail')", "skipped", "it has no tail"),
        ("return run.metrics('predicted')['l1']", "failed", "needs a backward pass, which its decorator does not say"),
    ],
)
def test_a_part_that_fails_costs_only_the_detectors_that_need_it(made, status, said):
    code = PLUGIN.replace("return run.network(run.inputs.flip(3))", made)
    records = run(code, ["disagreement", "entropy", "grad-l2", "knn"])
    assert (records["disagreement"].status, records["disagreement"].phase) == (status, "evidence")
    assert said in records["disagreement"].error
    assert {records[name].status for name in ("entropy", "grad-l2", "knn")} == {"ok"}
    if "ValueError" in made:
        assert "mine.py" in records["disagreement"].traceback


def test_wrong_declarations_are_refused():
    with pytest.raises(UsageError, match=r"cannot be read as `evidence\.my-part`"):
        evidence_part("my-part")(lambda run: run.logits)
    with pytest.raises(UsageError, match=r"cannot be read as `evidence\.classifier`"):
        evidence_part("classifier")(lambda run: run.logits)
    with pytest.raises(UsageError, match="needs 'both'; expected forward or backward"):
        evidence_part("mine", needs="both")(lambda run: run.logits)
    with pytest.raises(UsageError, match="cannot be called with a pass"):
        evidence_part("mine")(lambda: 1)
    with pytest.raises(UsageError, match=r"'logits' of .* is taken by oodbench"), registry.scoped():

        @evidence_part("logits")
        def other(run):
            return run.logits

    with pytest.raises(UsageError, match=r"needs 'tail'; expected some of: .*feature_maps.*inputs"):
        oodbench.detector("mine", needs="tail")(lambda tail: tail)


def test_parts_are_listed_and_loaded():
    listed = subprocess.run(
        [sys.executable, "-m", "oodbench", "list", "evidence"], capture_output=True, text=True, check=True
    ).stdout
    names = [line.split()[0] for line in listed.splitlines()]
    assert {"confounding", "feature_maps", "features", "gradients", "logits"} <= set(names)
    assert {load_part(name).needs for name in names} == {"forward", "backward"}


def test_an_unknown_attribute_of_evidence_is_told():
    evidence = oodbench.Evidence(logits=F.one_hot(torch.arange(3)).float())
    with pytest.raises(AttributeError, match=r"no part 'logit'; expected one of: .*confounding, feature"):
        _ = evidence.logit
    with pytest.raises(AttributeError, match="add it to `needs`"):
        _ = evidence.features


def test_a_part_whose_package_is_broken_costs_only_the_detectors_that_need_it(monkeypatch):
    def load():
        raise ImportError("no module named gone")

    broken = registry.PluginEntry("evidence", "gone", "gone:gone", "gone", "1.0", "", load)
    monkeypatch.setitem(declared._declared, ("evidence", "gone"), broken)
    code = PLUGIN + '\n\n@oodbench.detector("lost", needs=("gone",))\ndef lost(gone):\n    return gone\n'
    records = run(code, ["lost", "entropy"])
    assert (records["lost"].status, records["lost"].phase) == ("failed", "load")
    assert "the evidence part 'gone' of gone 1.0 could not be loaded" in records["lost"].error
    assert records["entropy"].status == "ok"


TRACED = """
import threading
import torch
from torch import nn


class Traced(nn.Sequential):
    def forward(self, x):
        if isinstance(x, torch.fx.Proxy):
            assert threading.current_thread() is threading.main_thread(), "torch.fx meddles with other threads' calls"
        return super().forward(x)


def build(channels, size, classes):
    layers = nn.Conv2d(channels, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, classes)
    return Traced(*layers)
"""


def test_no_network_is_traced_while_threads_compute():
    with open("traced.py", "w", encoding="utf-8") as file:
        file.write(TRACED)
    (record,) = oodbench.run("small.toml", "ash", "known", classifier="traced.py:build", out="out")
    assert record.status == "ok", record.error


PART = """
import torch
import oodbench

CALLS = [0]


@oodbench.evidence_part("mine")
def mine(run):
    CALLS[0] += 1
    n, logits = len(run.inputs), run.logits
    pair = {"a": logits[:, 0], "b": logits[:, 1]}
    return BODY


@oodbench.detector("by-mine", needs=("mine",))
def by_mine(mine):
    values = mine["a"] if isinstance(mine, dict) else mine
    return values.reshape(len(values), -1).double().mean(1)
"""


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("logits.new_zeros(n, 1 + CALLS[0] % 2)", "its values have one type and shape in one batch"),
        ("logits[:, 0].double() if CALLS[0] % 2 else logits[:, 0]", "its values have one type and shape"),
        ("{'a': logits[:, 0], 'bc'[CALLS[0] % 2]: logits[:, 1]}", "its values have one type and shape"),
        ("logits.sum(1).to_sparse()", "its values are a sparse, quantized or meta tensor; expected a dense one"),
        ("logits.log().sqrt()", "it returned NaN for"),
    ],
)
def test_values_that_differ_from_batch_to_batch_cost_only_the_detectors_that_need_them(body, said):
    records = run(PART.replace("BODY", body), ["by-mine", "entropy"], batch=8)
    assert records["entropy"].status == "ok", records["entropy"].error
    assert records["by-mine"].status == "failed"
    assert said in records["by-mine"].error


def test_values_by_name_may_come_in_any_order():
    either = "pair if CALLS[0] % 2 else dict(reversed(pair.items()))"
    mixed = run(PART.replace("BODY", either), ["by-mine"], batch=8)
    plain = run(PART.replace("BODY", "{'a': logits[:, 0]}"), ["by-mine"], out="plain", batch=8)
    assert [of.metrics for of in mixed["by-mine"].results] == [of.metrics for of in plain["by-mine"].results]
