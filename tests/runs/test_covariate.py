"""Covariate shift: accuracy and failure detection on shifted known sets, and unknown sets against both."""

import json
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score

import oodbench
from oodbench.datasets.adapter import Request, load_dataset
from oodbench.errors import LeakError, UsageError
from oodbench.leaderboard.tables import tables
from oodbench.records.verification import read_verified

SUITE = """
name = "shifted"
version = 1
known = "digits"
seeds = [0]
{classes}
[input]
size = 8
[sizes]
train = 300
meta = 80
test = 200
[training]
epochs = 4
[unknown]
patches = {{ group = "far" }}
faint = {{ adapter = "npz:{npz}", group = "covariate" }}
"""


def write(folder, *, classes="", images=None, labels=None):
    digits = load_digits()
    faint = (digits.images / 16 * 255 * 0.4).astype(np.uint8)[-150:]
    faint[:, 0, 0] = 255
    np.savez(
        folder / "faint.npz",
        images=faint if images is None else images,
        labels=digits.target[-150:] if labels is None else labels,
    )
    file = folder / "shifted.toml"
    file.write_text(SUITE.format(npz="faint.npz", classes=classes))
    return file


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("covariate")


@pytest.fixture(scope="module")
def records(folder):
    found = oodbench.run(write(folder), ["entropy", "max-logit"], out=folder / "out")
    return {(record.protocol, record.detector.name): record for record in found if not record.exposed}


@pytest.fixture(scope="module")
def scores(folder, records):
    table = pq.read_table(folder / "out" / records["covariate", "entropy"].scores.path).to_pandas()
    return table.assign(wrong=(table.prediction != table.label) | (table.label < 0))


def test_each_known_set_has_its_accuracy_and_its_failures_told(records, scores):
    first, second = records["covariate", "entropy"].results
    assert [(one.dataset, one.role, one.group) for one in (first, second)] == [
        ("digits", "known", "-"),
        ("faint", "known", "covariate"),
    ]
    for result in (first, second):
        of_set = scores[scores.dataset == result.dataset]
        assert (result.n_known, result.n_wrong) == (len(of_set), of_set.wrong.sum())
        assert result.metrics["failure_auroc"].value == pytest.approx(roc_auc_score(of_set.wrong, of_set.score))
    assert second.n_wrong / second.n_known > first.n_wrong / first.n_known
    assert first.metrics == records["known", "entropy"].results[0].metrics


def test_the_full_spectrum_is_unknown_against_all_known_samples(records, scores):
    (result,) = records["full-spectrum", "entropy"].results
    assert (result.dataset, result.role, result.n_known) == ("patches", "unknown", 350)
    novel = scores.dataset == "patches"
    assert result.metrics["auroc"].value == pytest.approx(roc_auc_score(novel, scores.score))
    assert result.metrics["failure_auroc"].value == pytest.approx(roc_auc_score(scores.wrong, scores.score))
    (usual,) = records["unknown-unknowns", "entropy"].results
    assert usual.n_known == 200
    assert "joint_aurc" in result.metrics
    assert "joint_aurc" not in usual.metrics


def test_other_protocols_know_nothing_of_shifted_sets(records, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = write(tmp_path)
    file.write_text("\n".join(line for line in file.read_text().splitlines() if not line.startswith("faint")))
    without = oodbench.run(file, ["entropy"], out=tmp_path / "out")
    assert {record.protocol for record in without}.isdisjoint({"covariate", "full-spectrum"})
    for record in without:
        if not record.exposed:
            assert record.cell_id == records[record.protocol, "entropy"].cell_id


def test_tables_of_both_are_drawn_and_follow_from_the_records(folder, records):
    cells, rejected = read_verified([folder / "out"])
    assert not rejected
    by_protocol = {table.protocol: table for table in tables(cells)}
    covariate, full = by_protocol["covariate"], by_protocol["full-spectrum"]
    assert [column.name for column in covariate.columns] == ["digits", "faint", "mean failure AUROC", "mean AURC"]
    assert "accuracy: 0." in covariate.caption
    assert " on digits, 0." in covariate.caption
    row = next(row for row in covariate.rows if row.detector == "entropy")
    first, second = records["covariate", "entropy"].results
    assert row.figures[1].value == pytest.approx(second.metrics["failure_auroc"].value)
    # The interval of a set alone is that of its own samples.
    assert row.figures[1].low == pytest.approx(second.metrics["failure_auroc"].ci_low, abs=1e-6)
    assert row.figures[0].low == pytest.approx(first.metrics["failure_auroc"].ci_low, abs=1e-6)
    of_full = next(row for row in full.rows if row.detector == "entropy")
    assert of_full.figures[0].value == pytest.approx(
        records["full-spectrum", "entropy"].results[0].metrics["auroc"].value
    )
    assert full.columns[-1].metric == "joint_aurc"
    assert of_full.figures[-1].value is not None


def test_a_record_whose_set_changes_its_role_is_refused(folder, records, tmp_path):
    record = records["full-spectrum", "max-logit"]
    (tmp_path / "out" / "records").mkdir(parents=True)
    shutil.copytree(folder / "out" / "scores", tmp_path / "out" / "scores")
    table = json.loads((folder / "out" / "records" / f"{record.cell_id}.json").read_text())
    table["results"][0]["role"] = "known"
    (tmp_path / "out" / "records" / f"{record.cell_id}.json").write_text(json.dumps(table))
    _, (rejected,) = read_verified([tmp_path / "out"])
    assert "its result on patches is of known samples, and their labels are not" in rejected.reason


# Labels


def test_classes_are_told_by_their_names_where_they_have_some(tmp_path):
    """Folders in another order of labels than the known set's, and of some classes only."""
    digits = load_digits()
    for index in range(40):
        name = "three" if digits.target[index] == 3 else "seven" if digits.target[index] == 7 else "zero"
        (tmp_path / "shifted" / name).mkdir(parents=True, exist_ok=True)
        pixels = (255 - digits.images[index] / 16 * 255).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / "shifted" / name / f"{index}.png")
    names = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
    file = write(tmp_path, classes=f"classes = {names}")
    file.write_text(file.read_text().replace("npz:faint.npz", "imagefolder:shifted"))
    found = oodbench.run(file, ["entropy"], protocols=["covariate"], out=tmp_path / "out")
    table = pq.read_table(tmp_path / "out" / found[0].scores.path).to_pandas()
    assert set(table[table.dataset == "faint"].label) == {0, 3, 7}


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (
            np.full(150, 12),
            "the covariate set faint has samples of the label 12; expected labels of the known set, from 0",
        ),
        (np.full(150, -1), "the covariate set faint has samples of the label -1"),
    ],
)
def test_labels_that_are_none_of_the_known_sets_are_refused(tmp_path, labels, message):
    with pytest.raises(UsageError, match=message):
        oodbench.run(write(tmp_path, labels=labels), ["entropy"], out=tmp_path / "out")


def test_an_unshifted_image_is_refused_or_taken_from_the_shifted_ones(tmp_path):
    pool = load_dataset("digits").read(Request(tmp_path, "test", channels=1, resolution=8), {})
    file = write(tmp_path, images=np.stack([np.asarray(pool.images[i]) for i in range(150)]), labels=pool.labels[:150])
    with pytest.raises(LeakError, match=r"are also among the \d+ of faint \(covariate\)"):
        oodbench.run(file, ["entropy"], protocols=["covariate"], out=tmp_path / "out")
    # Those that the sizes leave out of the known splits stay.
    (record,) = oodbench.run(file, ["entropy"], protocols=["covariate"], drop_shared=True, out=tmp_path / "out")
    left_out = record.datasets["faint"].left_out["images that are in digits, too"]
    assert left_out > 0
    assert record.datasets["faint"].n == 150 - left_out
