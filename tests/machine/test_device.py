"""Devices: named, found, given to networks and detectors, and never mixed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from small import small_suite
from torch import nn
from torch.utils import backend_registration

import oodbench
from oodbench.errors import MissingPrerequisiteError, UsageError
from oodbench.gradients import gradient_metrics
from oodbench.machine.device import Computing, find_device, forked_random, full_precision, seed_random

# Its own network is fitted by many iterations, in which last bits grow.
AMPLIFIES = "purview "
SIZES = {"train": 300, "meta": 120, "test": 80, "exposed": 20, "unknown": 40, "epochs": 3}
# All detectors on the processor and on another device: what they have scored, by cell.
BOTH = """
import json, sys
import apart
kept = apart.set_up()
import pyarrow.parquet as pq
import oodbench

found = {}
for device, out in (("cpu", "one"), ("apart:0", "other")):
    for record in oodbench.run("small.toml", "*", "*", device=device, out=out):
        scores = pq.read_table(f"{out}/{record.scores.path}")["score"].to_pylist() if record.scores else None
        cell = f"{record.detector.name} {record.protocol} {record.exposed} {[r.dataset for r in record.results]}"
        cell += json.dumps(record.detector.params, sort_keys=True)
        said = record.status, record.error, record.cell_id, record.classifier.device, scores
        found.setdefault(cell, []).append(said)
print(json.dumps([found, sorted(apart.used)]))
"""


@pytest.mark.skipif(
    not hasattr(backend_registration, "_setup_privateuseone_for_python_backend"),
    reason="this torch has no backends that are written in Python",
)
def test_everything_runs_on_another_device_with_the_same_scores(tmp_path):
    small_suite(tmp_path, **SIZES)
    done = subprocess.run(
        [sys.executable, "-c", BOTH],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "OODBENCH_CACHE": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found, used = json.loads(done.stdout.splitlines()[-1])
    assert {"aten::convolution_backward", "aten::native_dropout", "aten::_foreach_addcdiv_"} & set(used)
    assert "aten::baddbmm" in used, "the statistics of gradients, too"
    assert len(found) > 100
    for cell, ((status, _, cell_id, device, scores), (there, error, other_id, other_device, others)) in found.items():
        assert status == there, f"{cell}: {error}"
        assert (device, other_device) == (None, "apart")
        assert cell_id != other_id
        if scores is not None and cell.startswith(AMPLIFIES):
            assert spearmanr(scores, others).statistic > 0.99, cell
        elif scores is not None:
            np.testing.assert_allclose(others, scores, rtol=1e-4, atol=1e-5 * np.abs(scores).max(), err_msg=cell)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU of CUDA is here")
def test_a_gpu_gives_the_same_scores_to_float32_accuracy(tmp_path, monkeypatch):
    monkeypatch.setenv("OODBENCH_CACHE", str(tmp_path / "cache"))
    suite = small_suite(tmp_path, **SIZES)
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 10)).eval()
    scores = {}
    for device in ("cpu", "cuda"):
        records = oodbench.run(
            str(suite), ["entropy", "grad-*", "knn", "odin"], ["known"], classifier=network, trust_model=True,
            device=device, out=tmp_path / device,
        )  # fmt: skip
        table = oodbench.read_results(tmp_path / device)
        scores[device] = {r.detector.name: table.scores(r)["score"].to_numpy() for r in records if r.status == "ok"}
    for name, expected in scores["cpu"].items():
        np.testing.assert_allclose(scores["cuda"][name], expected, rtol=1e-3, atol=1e-5 * np.abs(expected).max())


def test_devices_are_found_or_refused_in_one_sentence():
    assert find_device("cpu") == torch.device("cpu")
    assert find_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(UsageError, match="the device is 'gpu'; expected auto, cpu, cuda, cuda:N or mps"):
        find_device("gpu")
    with pytest.raises(MissingPrerequisiteError, match="the device cuda:77 is not there; torch finds here: cpu"):
        find_device("cuda:77")
    for number in (256, 99_999):  # which torch takes for others
        with pytest.raises(MissingPrerequisiteError, match=f"the device cuda:{number} is not there"):
            find_device(f"cuda:{number}")
    for name in ("cuda:-1", "cuda:", "cuda:x", "cpu:3", ":0", ""):
        with pytest.raises(UsageError, match="the device is"):
            find_device(name)


def test_processes_side_by_side_take_gpus_in_turn(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [find_device("cuda", slot).index for slot in range(4)] == [0, 1, 0, 1]
    assert [find_device("cuda:1", slot).index for slot in range(2)] == [1, 1]
    with pytest.raises(MissingPrerequisiteError, match="torch finds here: cpu, cuda:0, cuda:1"):
        find_device("cuda:2")


def test_settings_and_random_numbers_are_as_before():
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32, torch.get_rng_state()
    torch.set_float32_matmul_precision("medium")
    try:
        with full_precision():
            assert torch.get_float32_matmul_precision() == "highest"
            assert not torch.backends.cudnn.allow_tf32
            assert not torch.backends.cuda.matmul.allow_tf32
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before[0])
    with forked_random():
        seed_random(5)
        drawn = torch.rand(3)
    assert torch.equal(drawn, torch.rand(3, generator=torch.Generator().manual_seed(5)))
    assert torch.backends.cudnn.allow_tf32 == before[1]
    assert torch.equal(torch.get_rng_state(), before[2])


def test_mixed_precision_is_near_and_takes_no_pass_for_each_sample(caplog):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 5)).eval()
    inputs = torch.rand(7, 1, 8, 8)
    expected = gradient_metrics(network, inputs)
    with caplog.at_level("INFO", logger="oodbench.gradients"), Computing(precision="amp").autocast():
        found = gradient_metrics(network, inputs)
    assert not [text for text in caplog.messages if "one backward pass for each sample" in text]
    for name in ("l1", "l2", "std", "l2@0"):
        assert not torch.equal(found[name], expected[name])
        torch.testing.assert_close(found[name], expected[name], rtol=0.05, atol=1e-4)


def test_records_say_how_they_were_computed(tmp_path, monkeypatch):
    monkeypatch.setenv("OODBENCH_CACHE", str(tmp_path / "cache"))
    suite = small_suite(tmp_path, **SIZES)
    out = tmp_path / "out"
    plain = oodbench.run(str(suite), ["entropy"], ["known"], batch=7, out=out)
    mixed = oodbench.run(str(suite), ["entropy"], ["known"], precision="amp", out=tmp_path / "mixed")
    assert {record.evidence_batch for record in plain} == {7}
    assert {record.classifier.precision for record in plain} == {None}
    assert {record.classifier.precision for record in mixed} == {"amp"}
    assert not {record.cell_id for record in plain} & {record.cell_id for record in mixed}
    assert plain[0].classifier.weights_sha256 != mixed[0].classifier.weights_sha256, "training, too"
