"""Where memory is short: batches are halved, the record says so, and the scores are those of whole batches."""

import json
import logging
import runpy
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from collecting import split_of

import oodbench
from oodbench.classifiers.classifier import Classifier
from oodbench.cli import run_command_line
from oodbench.datasets.preparation import Preprocessing
from oodbench.errors import OodbenchError, UsageError, is_exhausted
from oodbench.evidence.batches import BATCH, halving
from oodbench.evidence.timing import evidence_ms
from oodbench.files.bounded_io import read_limited
from oodbench.machine.memory import forget_peak, peak_mib
from oodbench.runs.status import status
from oodbench.suites.schema import Input

# Asks the system for memory that no machine has, as soon as it is given too much at once.
HUNGRY = (Path(__file__).parent / "plugins" / "hungry.py").read_text()


def hungry(tmp_path, most):
    file = tmp_path / "hungry.py"
    file.write_text(HUNGRY.replace("MOST = 10_000", f"MOST = {most}"))
    return f"{file}:hungry"


def run(tmp_path, most, detectors=("entropy", "grad-l2", "ash", "odin")):
    file = tmp_path / "small.toml"
    file.write_text(
        'name = "small"\nversion = 1\nclassifier = "cnn"\nknown = "digits"\nseeds = [0]\n[input]\nsize = 8\n'
        "[unknown]\nnoise = { n = 60, group = 'far' }\n[training]\nepochs = 3\n"
    )
    out = tmp_path / f"out-{most}"
    records = oodbench.run(str(file), detectors, ["known"], classifier=hungry(tmp_path, most), out=out)
    scores = {}
    for record in records:
        assert record.status == "ok", record.error
        scores[record.detector.name] = pq.read_table(out / record.scores.path)["score"].to_numpy()
    return records, scores


def test_out_of_memory_halves_the_batch_and_says_so(tmp_path, caplog):
    whole, expected = run(tmp_path, 10_000)
    assert {record.evidence_batch for record in whole} == {None}
    assert not [text for text in caplog.messages if text.startswith("out of memory")]
    halved, found = run(tmp_path, 40)
    assert {record.evidence_batch for record in halved} == {32}
    for name in expected:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-4, atol=1e-6)
    told = [text for text in caplog.messages if text.startswith("out of memory")]
    for batch in (128, 64, 32):
        assert any(f"{batch} images at a time are tried for the evidence of digits (test)" in text for text in told)
    assert any("for the cost of evidence" in text for text in told)
    assert any("for the scores of ODIN" in text for text in told)
    assert not any("at a time are tried for the evidence of digits (test)" in text and " 16 " in text for text in told)


def test_memory_that_does_not_suffice_for_one_image_is_one_sentence():
    with pytest.raises(OodbenchError, match="memory does not suffice for the evidence of digits of a single image"):
        halving(BATCH, "evidence of digits", lambda batch: torch.empty(batch << 50))


def test_a_seed_whose_evidence_cannot_be_collected_costs_its_own_cells_only(tmp_path):
    file = tmp_path / "hungry.py"
    begins = "    torch.manual_seed(0)\n"
    assert begins in HUNGRY
    # After it was built and tried out.
    for_seed_1_alone = (
        "    global MOST, PATIENCE\n"
        "    MOST, PATIENCE = (0, len(CALLS) + 76) if torch.initial_seed() == 1 else (10_000, 0)\n"
    )
    file.write_text(HUNGRY.replace(begins, for_seed_1_alone))
    suite = tmp_path / "tiny.toml"
    suite.write_text(
        f'name = "tiny"\nversion = 1\nclassifier = "{file}:hungry"\nknown = "digits"\nseeds = [0, 1, 2]\n'
        "[input]\nsize = 8\n[unknown]\nnoise = { n = 40 }\n[sizes]\ntrain = 120\nmeta = 30\ntest = 30\n"
        "[training]\nepochs = 1\n"
    )
    log = tmp_path / "events.jsonl"
    with pytest.raises(
        OodbenchError, match=r"^seed 1 has no evidence: .*memory does not suffice for the evidence of digits"
    ):
        oodbench.run(str(suite), "entropy", "known", out=tmp_path / "out", log_file=log)
    kept = [json.loads(record.read_text()) for record in (tmp_path / "out" / "records").iterdir()]
    assert sorted((record["seed"], record["status"]) for record in kept) == [(0, "ok"), (2, "ok")]
    told = [json.loads(line) for line in log.read_text().splitlines()]
    events = [one["event"] for one in told if one.get("seed") == 1]
    assert events == ["seed started", "seed prepared", "evidence started", "seed failed"]
    shown = {seed.seed: (seed.lacks, seed.error) for seed in status(tmp_path / "out", datetime.now(UTC)).seeds}
    assert shown[0] == shown[2] == ("classifier", None)
    assert shown[1][0] == "evidence"
    assert "does not suffice" in shown[1][1]


def test_only_a_lack_of_memory_is_tried_again(caplog):
    tried = []

    def take(batch):
        tried.append(batch)
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="mat1"):
        halving(BATCH, "evidence", take)
    assert tried == [BATCH]


def test_what_says_that_memory_is_exhausted():
    with pytest.raises(RuntimeError) as of_torch:
        torch.empty(1 << 50)
    with pytest.raises(MemoryError) as of_numpy:
        np.empty(1 << 55, np.uint8)
    assert is_exhausted(of_torch.value)
    assert is_exhausted(of_numpy.value)
    assert is_exhausted(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"))
    assert is_exhausted(RuntimeError("could not create a primitive")), "which is what oneDNN says"
    assert not is_exhausted(ValueError("out of memory"))


def test_the_peak_is_that_since_it_was_forgotten():
    if not forget_peak():
        pytest.skip("this system does not tell the peak of a process's memory")
    before = peak_mib()
    block = np.ones(200 << 20, np.uint8)
    assert peak_mib() - before >= 190
    del block
    forget_peak()
    assert peak_mib() - before < 100


def test_a_record_says_what_each_phase_took(tmp_path, caplog):
    caplog.set_level(logging.ERROR)

    @oodbench.detector("glutton", needs="features", fitted_on="training")
    class Glutton:
        def fit(self, evidence, labels):
            self.block = np.ones(300 << 20, np.uint8)
            self.block = None

        def score(self, evidence):
            return evidence.features.norm(dim=1)

    @oodbench.detector("faulty", needs="logits")
    def faulty(logits):
        raise ValueError("no luck")

    records = oodbench.run(detectors=["glutton", "faulty"], protocols="known", seeds=[0], limit=40, out=tmp_path)
    glutton, failed = sorted(records, key=lambda record: record.status, reverse=True)
    assert list(glutton.phases) == ["evidence", "fit", "score", "evaluate"]
    assert glutton.phases["fit"].seconds >= glutton.timing.fit_s
    assert list(failed.phases) == ["evidence", "fit", "score", "evaluate"]
    if forget_peak():
        assert glutton.phases["fit"].peak_mib > glutton.phases["evidence"].peak_mib + 250


def test_a_training_without_enough_memory_is_not_the_classifiers_fault(tmp_path):
    file = tmp_path / "greedy.py"
    file.write_text("import torch\ndef greedy(channels, size, classes):\n    return torch.empty(1 << 50)\n")
    with pytest.raises(OodbenchError, match="the memory does not suffice; use a machine with more") as raised:
        oodbench.run(detectors="entropy", seeds=[0], limit=40, classifier=f"{file}:greedy", out=tmp_path / "out")
    assert not isinstance(raised.value, UsageError)


def test_a_lack_of_memory_of_our_own_is_one_sentence_too(capsys):
    with pytest.raises(SystemExit) as end:
        run_command_line(["bench", "--model", "cnn", "--batch", str(1 << 40)])
    assert end.value.code == 1
    assert capsys.readouterr().err.startswith("oodbench: the memory does not suffice; use a machine with more")


def test_the_cost_of_evidence_that_cannot_be_measured_costs_no_result(tmp_path, caplog):
    build = runpy.run_path(hungry(tmp_path, 0).rpartition(":")[0])["hungry"]
    classifier = Classifier("hungry", build(1, 8, 10).eval(), "0" * 64, Preprocessing(Input(size=8)))
    images = np.zeros((4, 1, 8, 8), dtype=np.uint8)
    assert evidence_ms(classifier, split_of(images, "test"))(("logits",)) is None
    assert "what evidence costs is not known: the memory does not suffice" in caplog.text


def test_a_small_file_is_read_with_little_memory_however_large_it_may_be(tmp_path):
    file = tmp_path / "small.json"
    file.write_text("{}")
    forget_peak()
    before = peak_mib()
    assert read_limited(file, 1 << 34) == b"{}"
    assert peak_mib() < before + 100
